//! The figures are right to the last record, in a form that Prometheus takes; the dashboard and the alerts ask for figures that
//! there are.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test fails by panicking; counts are whole numbers"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Host, Producer, Upstream, event, wait_until};

/// Samples of a scrape, by name with labels as written.
type Scrape = BTreeMap<String, f64>;

fn text(host: &Host, format: &str) -> String {
    let output = host.pillarbox(&["metrics", "--format", format]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn scrape(host: &Host) -> Scrape {
    samples(&text(host, "text"))
}

fn samples(text: &str) -> Scrape {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.strip_prefix("pillarbox_").unwrap().to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// Promise 6: what was accepted is the sum of its ends and the queue.
fn conserved(scrape: &Scrape, integration: &str) {
    let of = |name: &str| scrape[&format!("{name}{{integration=\"{integration}\"}}")];
    let ended: f64 = ["delivered", "quarantined", "withheld", "erased"]
        .iter()
        .map(|end| of(&format!("records_{end}_total")))
        .sum();
    assert_eq!(of("records_accepted_total"), ended + of("queue_records"), "{scrape:#?}");
    assert_eq!(of("queue_missing_records"), 0.0);
}

fn are(scrape: &Scrape, expected: &[(&str, u32)]) {
    for (name, value) in expected {
        assert_eq!(scrape.get(*name), Some(&f64::from(*value)), "{name}\n{scrape:#?}");
    }
}

/// Two integrations: `uk` delivers to `endpoint`, `de` has the same events and is to be paused.
fn configure(endpoint: &str, linger: &str) -> String {
    format!(
        "timeout = \"{linger}\"\npoll_errors = \"1h\"\n[[integration]]\nname = \"de\"\napi_key = \"key\"\nendpoint = \"{endpoint}\""
    )
}

/// Hands in 100 events, one of them poison, a repeat, an event that nothing maps, one that is not valid beside one that is,
/// two finished orders, and a request that is no JSON: 103 records.
fn hand_in(host: &Host) {
    let mut producer = Producer::connect(&host.ingest());
    let id = |n| if n == 37 { "poison-37".to_owned() } else { format!("e-{n}") };
    let events: Vec<String> = (0..100).map(|n| event(&id(n))).collect();
    let orders = r#"[{"@type":"order","id":"o-1"},{"@type":"order","id":"o-2"}]"#;
    for (path, body, status) in [
        ("/v1/batch", format!("[{}]", events.join(",")), 200),
        ("/v1/track", event("e-0"), 200),
        ("/v1/track", r#"{"event":"Nap Taken"}"#.to_owned(), 200),
        ("/v1/batch", format!(r#"[{{"type":"track"}},{}]"#, event("e-100")), 200),
        ("/v2/push", orders.to_owned(), 202),
        ("/v1/track", "{".to_owned(), 400),
    ] {
        let answer = producer.post(path, &body);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
}

/// What was handed in and how `uk` delivered it, to the last event.
fn figures(scrape: &Scrape, upstream: &Upstream) {
    are(
        scrape,
        &[
            ("up", 1),
            ("ingest_requests_total{code=\"ok\"}", 5),
            ("ingest_requests_total{code=\"invalid_json\"}", 1),
            ("ingest_events_total{outcome=\"accepted\"}", 103),
            ("ingest_events_total{outcome=\"dropped\"}", 1),
            ("ingest_events_total{outcome=\"duplicate\"}", 1),
            ("ingest_events_total{outcome=\"quarantined\"}", 1),
            ("events_accepted_total{integration=\"uk\"}", 103),
            ("events_duplicate_total{integration=\"uk\"}", 1),
            ("events_dropped_total{integration=\"uk\",reason=\"no_mapping\"}", 1),
            ("events_dropped_total{integration=\"uk\",reason=\"consent\"}", 0),
            ("events_accepted_total{integration=\"de\"}", 103),
            ("quarantine_entries", 2),
            ("erasure_waits", 0),
            ("records_accepted_total{integration=\"uk\"}", 103),
            ("records_delivered_total{integration=\"uk\"}", 102),
            ("records_quarantined_total{integration=\"uk\"}", 1),
            ("queue_records{integration=\"uk\"}", 0),
            ("queue_bytes{integration=\"uk\"}", 0),
            ("queue_oldest_age_seconds{integration=\"uk\"}", 0),
            ("integration_state{integration=\"uk\",state=\"idle\"}", 1),
            ("integration_state{integration=\"uk\",state=\"paused\"}", 0),
            ("queue_records{integration=\"de\"}", 103),
            ("integration_state{integration=\"de\",state=\"paused\"}", 1),
            ("push_retries_total{integration=\"uk\"}", 2),
            ("push_duration_seconds_count{integration=\"de\"}", 0),
            ("refusing{reason=\"disk_low\"}", 0),
        ],
    );
    let pushes = upstream.handle.pushes();
    for status in [202, 400, 503] {
        let seen = pushes.iter().filter(|push| push.status == Some(status)).count();
        assert!(seen > 0, "{status}");
        let name = format!("pushes_total{{integration=\"uk\",status=\"{status}\"}}");
        are(scrape, &[(&name, u32::try_from(seen).unwrap())]);
    }
    let unanswered = "pushes_unanswered_total{integration=\"uk\",reason=\"closed\"}";
    let all = u32::try_from(pushes.len()).unwrap();
    are(scrape, &[(unanswered, 1), ("push_duration_seconds_count{integration=\"uk\"}", all)]);
    let bucket = "push_duration_seconds_bucket{le=\"+Inf\",integration=\"uk\"}";
    assert_eq!(scrape[bucket], f64::from(all));
    assert!(scrape["commit_duration_seconds_count"] >= 5.0);
    assert!(scrape["queue_oldest_age_seconds{integration=\"de\"}"] > 0.0);
    assert!(scrape["disk_free_bytes"] > 0.0);
}

/// Goal: every number is right after known traffic, over a reload, and over a restart as far as its help promises that.
#[test]
fn the_figures_are_right_and_the_sums_agree() {
    let upstream =
        Upstream::start(None, &["reset,count=1", "status=503,count=1", "poison=poison-"]);
    let host = Host::new(&upstream.url, "key", &configure(&upstream.url, "30s"));
    let daemon = host.start();
    assert!(host.pillarbox(&["pause", "de"]).status.success());
    hand_in(&host);
    let settled = |scrape: &Scrape| {
        scrape["records_accepted_total{integration=\"uk\"}"] == 103.0
            && scrape["integration_state{integration=\"uk\",state=\"idle\"}"] == 1.0
    };
    wait_until("the deliveries", || settled(&scrape(&host)));
    let before = scrape(&host);
    figures(&before, &upstream);
    for integration in ["uk", "de"] {
        conserved(&before, integration);
    }
    let open_metrics = text(&host, "openmetrics");
    assert!(open_metrics.ends_with("# EOF\n"));
    let names: Vec<String> = samples(&open_metrics).into_keys().collect();
    assert_eq!(names, before.keys().cloned().collect::<Vec<_>>());

    // Connections are counted as they come and go.
    let connections = || scrape(&host)["ingest_connections"];
    let open: Vec<Producer> = (0..3).map(|_| Producer::connect(&host.ingest())).collect();
    wait_until("three connections", || connections() == 3.0);
    drop(open);
    wait_until("no connection", || connections() == 0.0);

    // A reload begins the forwarder anew, and no count.
    host.configure(&upstream.url, "key", &configure(&upstream.url, "29s"));
    let reloaded = host.pillarbox(&["reload"]);
    assert!(String::from_utf8_lossy(&reloaded.stdout).contains("uk"), "{reloaded:?}");
    figures(&scrape(&host), &upstream);

    // A kill resets what counts since the start, and keeps what the spool tallies.
    daemon.kill();
    let daemon = host.start();
    let after = scrape(&host);
    for (name, value) in &before {
        let lasts = [
            "records_accepted",
            "records_delivered",
            "records_quarantined",
            "records_withheld",
            "records_erased",
            "quarantine_",
            "queue_records",
            "queue_bytes",
        ];
        if lasts.iter().any(|lasting| name.starts_with(lasting)) {
            assert_eq!(after.get(name), Some(value), "{name}");
        }
    }
    are(
        &after,
        &[
            ("quarantine_added_total", 2),
            ("ingest_requests_total{code=\"ok\"}", 0),
            ("events_accepted_total{integration=\"uk\"}", 0),
            ("push_retries_total{integration=\"uk\"}", 0),
        ],
    );
    conserved(&after, "de");
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: the file of the textfile collector is replaced whole, is readable by all, and never tells old figures.
#[test]
fn the_file_for_the_node_exporter_is_whole_and_never_old() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let folder = host.folder.path().join("collected");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("pillarbox.prom");
    let write = || host.pillarbox(&["metrics", "--output", file.to_str().unwrap()]).status.code();
    let inode = || fs::metadata(&file).unwrap().ino();
    let up = || samples(&fs::read_to_string(&file).unwrap())["up"];

    assert_eq!((write(), up()), (Some(69), 0.0));
    let daemon = host.start();
    let (first, kept) = (inode(), fs::File::open(&file).unwrap());
    assert_eq!((write(), up()), (Some(0), 1.0));
    assert_ne!(inode(), first, "written over, instead of replaced");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!((write(), up()), (Some(69), 0.0));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    drop(kept);
}

fn monitoring(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/monitoring").join(name)
}

/// Runs promtool, which must be content.
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().expect("promtool is needed by this test: tests/run installs it");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}\n{input}");
    // What it only warns of is on stderr as well, such as a metric without help.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!arguments.contains(&"metrics") || said.is_empty(), "{said}");
}

/// The names of our metrics in `text`.
fn named(text: &str) -> BTreeSet<String> {
    let rest = text.split("pillarbox_").skip(1);
    let word = |rest: &str| {
        let end = rest.find(|letter: char| letter != '_' && !letter.is_ascii_lowercase());
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    rest.map(word).collect()
}

/// The expressions of the dashboard's panels and annotations.
fn dashboard() -> Vec<String> {
    fn gather(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (key, value) in members {
                    match value.as_str() {
                        Some(text) if key == "expr" => found.push(text.to_owned()),
                        _ => gather(value, found),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
            _ => {}
        }
    }
    let text = fs::read_to_string(monitoring("pillarbox-dashboard.json")).unwrap();
    let mut found = Vec::new();
    gather(&serde_json::from_str(&text).unwrap(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    found
}

/// Goal: Prometheus takes both formats, the rules and every expression; each alert fires when it should; dashboard and alerts
/// name only metrics that a scrape holds.
#[test]
fn prometheus_is_content_with_all_of_it() {
    let upstream = Upstream::start(None, &["poison=poison-"]);
    let host = Host::new(&upstream.url, "key", &configure(&upstream.url, "30s"));
    let daemon = host.start();
    hand_in(&host);
    host.wait_until_settled();
    let plain = text(&host, "text");
    promtool(&["check", "metrics"], &plain);

    // It reads OpenMetrics only with times, to make blocks of it.
    let timed = |line: &str| {
        if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1795766150\n") }
    };
    let open_metrics: String = text(&host, "openmetrics").lines().map(timed).collect();
    let file = host.folder.path().join("open-metrics.txt");
    fs::write(&file, open_metrics).unwrap();
    let blocks = host.folder.path().join("blocks");
    let (file, blocks) = (file.to_str().unwrap(), blocks.to_str().unwrap());
    promtool(&["tsdb", "create-blocks-from", "openmetrics", file, blocks], "");

    let (alerts, test) =
        (monitoring("pillarbox-alerts.yml"), monitoring("pillarbox-alerts.test.yml"));
    promtool(&["check", "rules", alerts.to_str().unwrap()], "");
    promtool(&["test", "rules", test.to_str().unwrap()], "");

    let expressions = dashboard();
    let rules = expressions.iter().enumerate().map(|(index, expression)| {
        let expression = expression.replace("$__rate_interval", "5m");
        format!(
            "  - record: panel:{index}\n    expr: {}\n",
            serde_json::to_string(&expression).unwrap()
        )
    });
    let rules = format!("groups:\n- name: dashboard\n  rules:\n{}", rules.collect::<String>());
    let file = host.folder.path().join("dashboard.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");

    let scraped: BTreeSet<String> =
        samples(&plain).keys().map(|name| name.split('{').next().unwrap().to_owned()).collect();
    let rules = fs::read_to_string(&alerts).unwrap();
    let rules = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let asked = named(&expressions.join("\n")).into_iter().chain(named(&rules.collect::<String>()));
    let unknown: BTreeSet<String> = asked.filter(|name| !scraped.contains(name)).collect();
    assert!(unknown.is_empty(), "no scrape holds {unknown:?}, only {scraped:?}");
    assert_eq!(daemon.stop().0, Some(0));
}
