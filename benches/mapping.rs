//! Workload: the example event of the contract (about 500 bytes), from its text to its record. One thread, no I/O.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::clock::UnixMillis;
use pillarbox::event::{DEPTH_MAX, Kind, batch, repair, single};
use pillarbox::mapping::{Identity, Preset, Rules, map};

const EVENT: &str = r#"{"type":"track","userId":"user-123","event":"Product Viewed","messageId":"abc123","timestamp":"2026-06-06T15:32:52.417Z","properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP","category":"Knitwear"},"context":{"page":{"url":"https://example.com/products/merino-crew"},"consent":{"marketing":true}}}"#;

fn mapping(criterion: &mut Criterion) {
    let rules = Rules::new(Preset::Retail, vec!["marketing".to_owned()]);
    let identity = Identity { user: Some(br#"{"email":"jane.doe@example.com"}"#), anonymous: None };
    let mut group = criterion.benchmark_group("mapping");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one event", |bencher| {
        bencher.iter(|| {
            let body =
                repair(black_box(EVENT.as_bytes()), DEPTH_MAX).expect("the example is UTF-8");
            let event = single(&body, Kind::Track, UnixMillis(0)).expect("the example is an event");
            black_box(map(&event, &identity, &rules, String::new))
        });
    });
    let many = format!("[{}]", vec![EVENT; 100].join(","));
    group.throughput(Throughput::Elements(100));
    group.bench_function("a batch of 100 events", |bencher| {
        bencher.iter(|| {
            let body = repair(black_box(many.as_bytes()), DEPTH_MAX).expect("the example is UTF-8");
            let mut batch = batch(&body, UnixMillis(0)).expect("the example is a batch");
            for item in batch.take() {
                let event = item.event.expect("the example is an event");
                black_box(map(&event, &identity, &rules, String::new));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, mapping);
criterion_main!(benches);
