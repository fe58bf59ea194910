//! PURE. The two formats that scrapers read. OpenMetrics is the daemon's own; the older Prometheus text says the same and is
//! all that the node exporter's textfile collector and many other tools read.

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Plain,
}

impl Format {
    /// What a scraper gets whose `Accept` is this: OpenMetrics, unless it asks for plain text and does not name that. Prometheus
    /// names both (2.5 and newer), a browser and curl neither.
    #[must_use]
    pub fn asked(accept: Option<&str>) -> Format {
        let accept = accept.unwrap_or_default().to_ascii_lowercase();
        let names = |media| accept.split(',').any(|range| range.trim_start().starts_with(media));
        let plain = names("text/plain") && !names("application/openmetrics-text");
        if plain { Format::Plain } else { Format::OpenMetrics }
    }

    /// As the answer's `Content-Type` names it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics text as Prometheus text: a family is called as its samples are, there is no unit and no end.
#[must_use]
pub fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut push = |line: &[&str]| {
        text.extend(line.iter().copied().chain(["\n"]));
    };
    // The help of a family comes before its type, which decides the name.
    let mut help = "";
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            push(&[line]);
            continue;
        };
        if let Some(told) = comment.strip_prefix("HELP ") {
            help = told.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            comment.strip_prefix("TYPE ").and_then(|told| told.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            push(&["# HELP ", name, suffix, " ", help]);
            push(&["# TYPE ", name, suffix, " ", kind]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_reads() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (None, Format::OpenMetrics),
            (Some("*/*"), Format::OpenMetrics),
            (Some(prometheus), Format::OpenMetrics),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Format::OpenMetrics),
            (Some("text/plain"), Format::Plain),
            (Some("application/json;q=0.9, Text/Plain;version=0.0.4"), Format::Plain),
        ] {
            assert_eq!(Format::asked(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_older_text_names_families_after_their_samples() {
        let text = "# HELP a_b Help, with words.\n# TYPE a_b counter\na_b_total{x=\"# y\"} 1\n\
                    # HELP c_seconds How long.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_sum 0.5\n\
                    # HELP build Who.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
                    # HELP u What.\n# TYPE u unknown\nu 1\n# EOF\n";
        let expected = "# HELP a_b_total Help, with words.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n\
                        # HELP c_seconds How long.\n# TYPE c_seconds histogram\nc_seconds_sum 0.5\n\
                        # HELP build_info Who.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
                        # HELP u What.\n# TYPE u untyped\nu 1\n";
        assert_eq!(plain(text), expected);
    }
}
