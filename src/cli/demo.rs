//! `pillarbox demo`: the whole way of a shopper's journey, on this machine alone.
//!
//! Starts the stand-in for Ometria and the daemon in a temporary folder, hands over the retail journey (an identify and
//! the eight events of the `retail` preset) and one event that the stand-in always rejects, and shows where each ended.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{Admin, Config, Ingest, Integration, LogFormat, Origin, Source};
use crate::daemon::Daemon;
use crate::forward::{RetryPolicy, Settings, SharedPace, Way};
use crate::ingest::{Limits, Producers, WriteKeys};
use crate::mapping::Preset;
use crate::simulator::{Handle, Options as SimulatorOptions, PushSeen, Simulator};
use crate::spool::{LaneStats, Options, QuarantineId, SyncMode};

/// A push that holds this is answered 400: what an event that Ometria refuses looks like.
const POISON: &str = "poisoned-product";
/// The demo gives up after this long: something is wrong then.
const PATIENCE: Duration = Duration::from_secs(20);

/// Route and body of each event, in the order of the journey.
const JOURNEY: [(&str, &str, &str); 10] = [
    (
        "/v1/identify",
        "identify",
        r#"{"userId":"user-123","traits":{"email":"jane.doe@example.com"}}"#,
    ),
    (
        "/v1/page",
        "page",
        r#"{"messageId":"demo-1","userId":"user-123","name":"Home","context":{"page":{"url":"https://shop.example/"}}}"#,
    ),
    (
        "/v1/track",
        "Products Searched",
        r#"{"messageId":"demo-2","userId":"user-123","event":"Products Searched","properties":{"query":"merino"}}"#,
    ),
    (
        "/v1/track",
        "Product Viewed",
        r#"{"messageId":"demo-3","userId":"user-123","event":"Product Viewed","properties":{"product_id":"SKU-A","name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP"}}"#,
    ),
    (
        "/v1/track",
        "Product Viewed (bad)",
        r#"{"messageId":"demo-4","userId":"user-123","event":"Product Viewed","properties":{"product_id":"poisoned-product"}}"#,
    ),
    (
        "/v1/track",
        "Product Added to Wishlist",
        r#"{"messageId":"demo-5","userId":"user-123","event":"Product Added to Wishlist","properties":{"product_id":"SKU-B","price":45.50}}"#,
    ),
    (
        "/v1/track",
        "Product Added",
        r#"{"messageId":"demo-6","userId":"user-123","event":"Product Added","properties":{"product_id":"SKU-A","price":79.00,"quantity":2}}"#,
    ),
    (
        "/v1/track",
        "Product Removed",
        r#"{"messageId":"demo-7","userId":"user-123","event":"Product Removed","properties":{"product_id":"SKU-A","quantity":1}}"#,
    ),
    (
        "/v1/track",
        "Checkout Started",
        r#"{"messageId":"demo-8","userId":"user-123","event":"Checkout Started","properties":{"value":79.00,"products":[{"product_id":"SKU-A","name":"Merino Crew Jumper","price":79.00}]}}"#,
    ),
    (
        "/v1/track",
        "Order Completed",
        r#"{"messageId":"demo-9","userId":"user-123","event":"Order Completed","properties":{"order_id":"10001","total":79.00,"currency":"GBP","products":[{"product_id":"SKU-A","name":"Merino Crew Jumper","price":79.00}]}}"#,
    ),
];

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Yellow.on_default();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Records that the journey becomes: all but the identify.
const RECORDS: u64 = 9;

/// Runs the demo.
///
/// # Errors
/// When a part does not start, or an event does not end as it must.
pub(super) async fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("create a temporary folder")?;
    let faults = vec![format!("poison={POISON}").parse().context("set up the poison")?];
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator =
        Simulator::bind(SimulatorOptions { listen, faults, ..SimulatorOptions::default() });
    let simulator = simulator.await.context("start the stand-in for Ometria")?;
    let (ometria, endpoint) = (simulator.handle(), simulator.url());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(simulator.run(async {
        // A dropped sender stops it as well.
        drop(stopped.await);
    }));

    say(&format!(
        "{BOLD}Pillarbox demo{BOLD:#}: everything happens in {}, nothing leaves this machine.\n",
        folder.path().display()
    ));
    let mut pushes = ometria.subscribe();
    let config = config(folder.path(), &endpoint)?;
    let daemon = Daemon::start(config, Source::default()).await?;
    say(&format!(
        "{BOLD}1. Events go in{BOLD:#}   POST to {} (each 200 comes after an fdatasync)",
        socket(folder.path()).display()
    ));
    hand_over(&socket(folder.path())).await?;

    say(&format!("\n{BOLD}2. Pushes go out{BOLD:#}  to {endpoint} (the stand-in for Ometria)"));
    let spool = daemon.spool().clone();
    let lane = spool.lane("demo", 0).await?;
    let mut cursors = spool.cursors(lane);
    let delivered = async {
        loop {
            tokio::select! {
                biased;
                push = pushes.recv() => say(&describe(&push?)),
                ended = cursors.wait_for(|cursor| *cursor > RECORDS) => return ended.map(drop).context("the spool is closed"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, delivered)
        .await
        .context("the events were not delivered in time")??;
    let stats = spool.stats(lane).await?;
    let verdict = show_ends(&ometria, &daemon, &stats).await;
    daemon.stop().await?;
    drop(stop);
    serving.await.context("stop the stand-in for Ometria")?;
    verdict
}

/// Posts the journey, one event after the other, over one connection.
async fn hand_over(socket: &Path) -> anyhow::Result<()> {
    let stream = UnixStream::connect(socket).await.context("connect to the ingest socket")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    for (path, name, body) in JOURNEY {
        let begun = Instant::now();
        let request = Request::post(path)
            .header("host", "pillarbox")
            .body(Full::new(Bytes::from_static(body.as_bytes())))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == 200, "{path} was answered {status}: {}", String::from_utf8_lossy(&body));
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        say(&format!("   {GOOD}200{GOOD:#}  {name:<26} {DIM}durable after {took:.1} ms{DIM:#}"));
    }
    drop(sender);
    connection.await??;
    Ok(())
}

fn describe(push: &PushSeen) -> String {
    let status = push.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let records = if push.records == 1 {
        "1 record ".to_owned()
    } else {
        format!("{} records", push.records)
    };
    let (style, meaning) = match push.status {
        Some(202) => (GOOD, "acknowledged"),
        Some(400) if push.records > 1 => (BAD, "a record is at fault: split in halves, in order"),
        Some(400) => (BAD, "the one at fault: to the quarantine"),
        _ => (BAD, "tried again"),
    };
    format!(
        "   {style}{status}{style:#}  push {:<2} {records:<11} {DIM}{meaning}{DIM:#}",
        push.number
    )
}

/// Prints where each record ended, and checks that all is as promised.
async fn show_ends(ometria: &Handle, daemon: &Daemon, stats: &LaneStats) -> anyhow::Result<()> {
    say(&format!("\n{BOLD}3. Where each ended{BOLD:#}"));
    let records = ometria.records();
    for record in &records {
        let event_type = record.event_type.as_deref().unwrap_or("?");
        say(&format!(
            "   {GOOD}delivered  {GOOD:#}  {:<8} {event_type:<18} {DIM}push {}{DIM:#}",
            record.id, record.push
        ));
    }
    let quarantined = daemon.spool().quarantine(QuarantineId(0), 100).await?;
    for (id, entry) in &quarantined {
        let answer = entry.status.unwrap_or_default();
        say(&format!(
            "   {BAD}quarantined{BAD:#}  entry {}  {:<18} {DIM}Ometria answered {answer}{DIM:#}",
            id.0, entry.reason
        ));
    }
    if let Some(last) = records.last() {
        say(&format!(
            "\n   The last record, byte for byte as it was sent:\n   {DIM}{}{DIM:#}",
            String::from_utf8_lossy(&last.body)
        ));
    }
    let expected: Vec<String> = (1..=9).filter(|n| *n != 4).map(|n| format!("demo-{n}")).collect();
    let delivered: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    ensure!(delivered == expected, "delivered {delivered:?} instead of {expected:?}");
    ensure!(quarantined.len() == 1, "{} records in the quarantine instead of 1", quarantined.len());
    ensure!(
        stats.delivered == 8 && stats.quarantined == 1,
        "the spool's counts disagree: {stats:?}"
    );
    say(&format!(
        "\n{GOOD}All as promised{GOOD:#}: 10 events taken, 1 identity applied, 8 records delivered in order, 1 isolated in the quarantine.\n\
         Next: write a configuration (README.md), then `pillarbox check` and `pillarbox run`."
    ));
    Ok(())
}

fn socket(folder: &Path) -> std::path::PathBuf {
    folder.join("ingest.sock")
}

/// What the demo runs with; the limits are the defaults' order of size.
fn config(folder: &Path, endpoint: &str) -> anyhow::Result<Config> {
    let forward = Settings {
        integration: "demo".to_owned(),
        endpoint: endpoint.parse().context("the endpoint")?,
        api_key: "demo-key".into(),
        batch_records_max: 100,
        linger: Duration::from_millis(200),
        timeout: Duration::from_secs(5),
        retry: RetryPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(1) },
        storm_limit: 1000,
        pace: SharedPace::new(0.0),
        way: Way::default(),
        consent: Vec::new(),
        poll_errors: Duration::ZERO,
    };
    Ok(Config {
        state_dir: folder.to_owned(),
        ingest: Ingest {
            socket: socket(folder),
            producers: Producers::default(),
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            socket_mode: 0o600,
            listen: Vec::new(),
            write_keys: WriteKeys::default(),
            limits: Limits {
                request_bytes_max: 1 << 20,
                connections_max: 16,
                read_timeout: Duration::from_secs(10),
            },
        },
        admin: Admin {
            socket: folder.join("admin.sock"),
            console: None,
            console_token_file: None,
            log: LogFormat::Text,
        },
        spool: Options {
            directory: folder.join("spool"),
            sync: SyncMode::Always,
            cache_bytes: 8 << 20,
            records_max: 100_000,
            bytes_max: 1 << 30,
            free_disk_min_bytes: 0,
            keep_delivered: 1000,
            keep_events: false,
            dedupe_window: 1000,
            identities_max: 1000,
        },
        integrations: vec![Integration {
            name: "demo".to_owned(),
            origin: Origin::File,
            preset: Preset::Retail,
            events: Vec::new(),
            lanes: 1,
            forward,
        }],
        set_aside: Vec::new(),
    })
}

/// A line on stdout, without colour when that is no terminal. A reader that has gone away ends nothing.
fn say(line: &str) {
    let mut out = anstream::stdout();
    drop(writeln!(out, "{line}"));
}
