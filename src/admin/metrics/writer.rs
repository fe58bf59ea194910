//! PURE. Families as OpenMetrics text.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::Snapshot;
use crate::histogram::Distribution;

/// The text of a snapshot.
///
/// # Panics
/// Never: text can always be written into memory.
pub(super) fn text(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("pillarbox");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry).expect("text is written into memory");
    text
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut Writer { encoder })
    }
}

/// The labels of a sample, in their order.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes family after family. A family without samples is left out.
pub(super) struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

/// What all samples of a family share. `name` is without prefix, unit and `_total`.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
}

/// A family of plain numbers.
pub(super) fn family(name: &'static str, help: &'static str) -> Family {
    Family { name, help, unit: None }
}

impl Family {
    /// The same in seconds.
    pub(super) fn seconds(self) -> Family {
        Family { unit: Some(Unit::Seconds), ..self }
    }

    /// The same in bytes.
    pub(super) fn bytes(self) -> Family {
        Family { unit: Some(Unit::Bytes), ..self }
    }
}

impl Writer<'_> {
    pub(super) fn counters<'l>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let none: Option<&Exemplar<NoLabelSet, u64>> = None;
        self.family(family, MetricType::Counter, samples, |mut sample, count| {
            sample.encode_counter(&count, none)
        })
    }

    pub(super) fn gauges<'l, V: EncodeGaugeValue>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        self.family(family, MetricType::Gauge, samples, |mut sample, value| {
            sample.encode_gauge(&value)
        })
    }

    pub(super) fn histograms<'l>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (Labels<'l>, &'l Distribution)>,
    ) -> fmt::Result {
        self.family(family, MetricType::Histogram, samples, |mut sample, distribution| {
            let bounds = distribution.bounds.iter().map(Duration::as_secs_f64);
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(distribution.counts.iter().copied()).collect();
            let sum = distribution.sum.as_secs_f64();
            sample.encode_histogram::<NoLabelSet>(sum, distribution.count(), &buckets, None)
        })
    }

    /// The one sample of a family whose labels are what it tells.
    pub(super) fn info(&mut self, family: &Family, labels: &Labels<'_>) -> fmt::Result {
        let Family { name, help, unit } = family;
        let mut encoder =
            self.encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Info)?;
        encoder.encode_info(labels)
    }

    fn family<'l, V>(
        &mut self,
        Family { name, help, unit }: &Family,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
        write: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                // Without braces.
                write(encoder, value)?;
                break;
            }
            write(encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}
