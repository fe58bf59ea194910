//! Client libraries that shops already have, unchanged, against the real daemon: Segment's and `RudderStack`'s for Python and
//! Node, over TCP and the Unix socket, while the spool is full, and through a kill between commit and answer; and Ometria's
//! own. `tests/clients/install` brings them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Host, Producer, Upstream, event, wait_until};

const KEY: &str = "a-write-key";
/// Tracks that each client sends; more than one request's worth.
const TRACKS: usize = 30;

/// A client library's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// A script and its first arguments.
    Python(&'static str, &'static [&'static str]),
    Node(&'static str),
}

const SEGMENT_PYTHON: Driver = Driver::Python("drive_segment_shaped.py", &["segment"]);
const RUDDER_PYTHON: Driver = Driver::Python("drive_segment_shaped.py", &["rudderstack"]);
const SEGMENT_NODE: Driver = Driver::Node("drive_segment.mjs");
const RUDDER_NODE: Driver = Driver::Node("drive_rudder.mjs");

impl Driver {
    fn start(self, arguments: &[&str]) -> Child {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = root.join("target/clients");
        assert!(
            installed.join("pins").exists(),
            "the client libraries are not installed: run tests/clients/install (tests/run does)"
        );
        let mut command = match self {
            Driver::Python(script, first) => {
                let mut command = Command::new("python3");
                command.arg(root.join("tests/clients").join(script));
                command.args(first).env("PYTHONPATH", installed.join("python"));
                command
            }
            Driver::Node(script) => {
                // Node finds libraries beside the script: the install has copied it there.
                let mut command = Command::new("node");
                command.arg(installed.join("node").join(script));
                command
            }
        };
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

fn ends_well(client: Child) {
    let output = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
}

/// A host whose daemon listens on `address` too.
fn host(upstream: &Upstream, address: &str, spool: &str) -> Host {
    let host = Host::new(&upstream.url, "key", "preset = \"default\"");
    configure(&host, address, spool);
    host
}

fn configure(host: &Host, address: &str, spool: &str) {
    let text = std::fs::read_to_string(host.config()).unwrap();
    let text =
        text.lines().filter(|line| !line.starts_with("listen") && !line.starts_with("write_keys"));
    let text = text.collect::<Vec<_>>().join("\n");
    let network = format!("[ingest]\nlisten = [\"{address}\"]\nwrite_keys = [\"{KEY}\"]");
    let text = text.replace("[ingest]", &network).replace("[spool]", &format!("[spool]\n{spool}"));
    std::fs::write(host.config(), text).unwrap();
}

/// The `n` of the tracks that arrived, in the order of their arrival.
fn tracks(upstream: &Upstream) -> Vec<u64> {
    let records = upstream.handle.records();
    let parsed =
        records.iter().map(|record| serde_json::from_slice::<Value>(&record.body).unwrap());
    let tracks = parsed.filter(|record| record["event_type"] == "product_viewed");
    tracks.filter_map(|record| record["properties"]["n"].as_u64()).collect()
}

/// Every track and the page arrived, each id once, with the address that the identify before them brought.
fn all_arrived(upstream: &Upstream, driver: Driver) {
    let records = upstream.handle.records();
    let ids: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids.len(), records.len(), "{driver:?}: a record came twice");
    let found: BTreeSet<u64> = tracks(upstream).into_iter().collect();
    assert_eq!(found, (0..TRACKS as u64).collect(), "{driver:?}");
    let pages = records.iter().filter(|record| record.event_type.as_deref() == Some("page_view"));
    assert_eq!(pages.count(), 1, "{driver:?}");
}

/// Goal: a journey arrives whole; from clients that send one request after the other, in order.
fn a_journey_arrives(driver: Driver) {
    let upstream = Upstream::start(Some("key"), &[]);
    let host = host(&upstream, "127.0.0.1:0", "");
    let daemon = host.start();
    let url = format!("http://{}", daemon.tcp_address());
    ends_well(driver.start(&[&url, KEY, &TRACKS.to_string()]));
    wait_until("the journey", || upstream.ids().len() == TRACKS + 1);
    all_arrived(&upstream, driver);
    if let Driver::Python(..) = driver {
        let text = String::from_utf8(upstream.handle.records()[0].body.to_vec()).unwrap();
        assert!(text.contains(r#""identity_email":"jane@example.com""#), "{text}");
        assert!(text.contains(r#""nan":null"#) && text.contains(r#""price":79.0"#), "{text}");
        assert!(tracks(&upstream).is_sorted());
    }
    if let RUDDER_PYTHON | RUDDER_NODE = driver {
        // Segment's own clients refuse events over 32 KB.
        let longest = upstream.handle.records().iter().map(|record| record.body.len()).max();
        assert!(longest > Some(40_000), "{longest:?}");
    }
    upstream.handle.clear_records();
    let socket = host.ingest().display().to_string();
    let url = match driver {
        Driver::Python(..) => format!("http+unix://{}", socket.replace('/', "%2F")),
        Driver::Node(_) => "http://pillarbox".to_owned(),
    };
    ends_well(driver.start(&[&url, KEY, &TRACKS.to_string(), &socket]));
    wait_until("the journey over the socket", || upstream.ids().len() == TRACKS + 1);
    all_arrived(&upstream, driver);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: what is refused with 503 while the spool is full is sent again by the client, and arrives once.
fn a_full_spool_is_waited_for(driver: Driver) {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = host(&upstream, "127.0.0.1:0", "max_records = 100");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    for n in 0..100 {
        assert_eq!(producer.post("/v1/track", &event(&format!("filler-{n}"))).status, 200);
    }
    let url = format!("http://{}", daemon.tcp_address());
    let client = driver.start(&[&url, KEY, &TRACKS.to_string()]);
    let refused = || host.status()["ingest"]["requests_refused"]["spool_full"].as_u64();
    wait_until("a refusal", || refused() >= Some(1));
    upstream.handle.clear_faults();
    ends_well(client);
    wait_until("everything", || upstream.ids().len() == 100 + TRACKS + 1);
    all_arrived(&upstream, driver);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: a daemon killed after its commit and before its answer costs no event and doubles none.
/// Method: the first append is the second group that is made durable, after that of the lane. One client sends its identify
/// alone, which is no event to be doubled: there it is the append after that.
fn a_kill_before_the_answer_doubles_nothing(driver: Driver) {
    let upstream = Upstream::start(None, &[]);
    let host = host(&upstream, "127.0.0.1:0", "");
    let mut command = host.command(&[]);
    let identify_alone = matches!(driver, Driver::Node(script) if script.contains("rudder"));
    command.env("PILLARBOX_KILL_AT", if identify_alone { "flushed:3" } else { "flushed:2" });
    let daemon = Host::start_as(command);
    let address = daemon.tcp_address();
    let client = driver.start(&[&format!("http://{address}"), KEY, &TRACKS.to_string()]);
    assert_eq!(daemon.wait().0, None, "the daemon was not killed");
    configure(&host, &address, "");
    let daemon = host.start();
    ends_well(client);
    wait_until("everything", || upstream.ids().len() > TRACKS);
    host.wait_until_settled();
    all_arrived(&upstream, driver);
    let duplicates = host.status()["ingest"]["events_duplicate"].as_u64();
    assert!(duplicates >= Some(1), "the killed request was not sent again: {duplicates:?}");
    assert_eq!(daemon.stop().0, Some(0));
}

macro_rules! clients {
    ($($name:ident: $driver:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn journey() {
                a_journey_arrives($driver);
            }

            #[test]
            fn full_spool() {
                a_full_spool_is_waited_for($driver);
            }

            #[test]
            fn kill() {
                a_kill_before_the_answer_doubles_nothing($driver);
            }
        }
    )*};
}

clients! {
    segment_python: SEGMENT_PYTHON;
    rudder_python: RUDDER_PYTHON;
    segment_node: SEGMENT_NODE;
    rudder_node: RUDDER_NODE;
}

/// Ometria's own client pushes orders with only its base URL changed; they arrive byte for byte, apart from the events
/// between them.
#[test]
fn a_client_of_ometria_needs_only_another_url() {
    let upstream = Upstream::start(Some("key"), &[]);
    let host = host(&upstream, "127.0.0.1:0", "");
    let daemon = host.start();
    let url = format!("http://{}", daemon.tcp_address());
    ends_well(Driver::Python("drive_ometria.py", &[]).start(&[&url, KEY]));
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/track", &event("e")).status, 200);
    wait_until("the deliveries", || upstream.ids().len() == 101);
    let records = upstream.handle.records();
    let first = String::from_utf8(records[0].body.to_vec()).unwrap();
    assert_eq!(
        first,
        r#"{"@type": "order", "id": "o-0", "total": 79.5, "customer": {"email": "jane@example.com"}}"#
    );
    let expected: Vec<String> = (0..100).map(|n| format!("o-{n}")).chain(["e".into()]).collect();
    assert_eq!(upstream.ids(), expected);
    assert_eq!(daemon.stop().0, Some(0));
}
