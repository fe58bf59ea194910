//! Every fault with its place, all of them at once, and the key in none of them.

use std::path::Path;

use proptest::prelude::*;

use super::document::Override;
use super::*;

const CANARY: &str = "canary-key-0123456789";

const WHOLE: &str = r#"state_dir = "/var/lib/pillarbox"

[ingest]
socket = "/run/pillarbox/ingest.sock"
socket_mode = "0660"
listen = []
write_keys = []
max_request = "1MiB"
max_connections = 512
read_timeout = "10s"

[admin]
socket = "/run/pillarbox/admin.sock"
console = ""
log = "text"

[spool]
sync = "always"
max_records = 10_000_000
max_bytes = "8GiB"
min_free_disk = "256MiB"
cache = "32MiB"
keep_delivered = 10_000
dedupe_window = 100_000

[[integration]]
name = "uk"
api_key = "canary-key-0123456789"
endpoint = "https://api.ometria.com/v2/push"
preset = "retail"
consent = ["marketing"]
batch = 100
linger = "200ms"
lanes = 1
timeout = "30s"
retry = { initial = "500ms", max = "5min" }
storm_limit = 1000
max_pushes_per_second = 0
"#;

fn built(text: &str) -> Result<Config, Faults> {
    build::build(Path::new("p.toml"), text, &[], None)
}

fn with(set: &[&str], environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let source = Source {
        set: set.iter().map(|set| (*set).to_owned()).collect(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Source::default()
    };
    let overrides: Vec<Override> = overrides(&source)?;
    build::build(Path::new("p.toml"), WHOLE, &overrides, None)
}

#[test]
fn the_contracts_file_is_read_whole_and_equals_the_defaults() {
    let whole = built(WHOLE).unwrap();
    let minimal =
        built("[[integration]]\nname = \"uk\"\napi_key = \"k\"\nconsent = [\"marketing\"]\n")
            .unwrap();
    assert_eq!(whole.effective(), minimal.effective());
    assert!(!whole.effective().contains(CANARY) && whole.effective().contains("***"));
    assert!(!format!("{whole:?}").contains(CANARY));
    let again = built(&whole.effective()).unwrap();
    assert_eq!(again.effective(), whole.effective());
}

#[test]
fn each_fault_has_its_place_and_says_what_would_be_right() {
    let integration = "[[integration]]\nname = \"uk\"\napi_key = \"k\"\n";
    for (text, expected) in [
        ("lingr = 1\n", "p.toml:1:1: unknown key `lingr`: did you mean `linger` of [integration]?"),
        ("[spool]\nsinc = \"always\"\n", "p.toml:2:1: unknown key `sinc`: did you mean `sync`?"),
        ("[spol]\n", "p.toml:1:2: unknown key `spol`: did you mean `spool`?"),
        (
            "linger = \"1s\"\n",
            "p.toml:1:1: unknown key `linger`: did you mean `linger` of [integration]?",
        ),
        ("[spool]\nwhatever_this_is = 1\n", "known are sync, max_records, max_bytes"),
        (
            "[spool]\nmax_bytes = \"8G\"\n",
            "p.toml:2:1: `max_bytes`: a size has one of the units B, KiB",
        ),
        ("[spool]\nmax_bytes = 8\n", "p.toml:2:1: `max_bytes` must be a text in quotes"),
        ("[spool]\nmax_bytes = \"1B\"\n", "p.toml:2:1: `max_bytes` must be from 1MiB to"),
        ("[spool]\nsync = \"never\"\n", "p.toml:2:1: `sync`: \"always\", or a duration has"),
        ("[spool]\nsync = \"1ms\"\n", "p.toml:2:1: `sync` must be from 10ms to 1h"),
        (
            "[spool]\nmax_records = 0\n",
            "p.toml:2:1: `max_records` must be a whole number of at least 1",
        ),
        ("[spool]\nmax_records = 1.5\n", "`max_records` must be a whole number"),
        (
            "[ingest]\nsocket_mode = \"999\"\n",
            "p.toml:2:1: `socket_mode` must be permission bits in octal",
        ),
        ("[ingest]\nsocket = \"x.sock\"\n", "p.toml:2:1: `socket` must be an absolute path"),
        (
            "[ingest]\nlisten = [\"127.0.0.1:8480\"]\n",
            "p.toml:2:1: `listen` is not supported by this version yet",
        ),
        (
            "[admin]\nconsole = \"127.0.0.1:1\"\n",
            "p.toml:2:1: `console` is not supported by this version yet",
        ),
        (
            "[admin]\nlog = \"xml\"\n",
            "p.toml:2:1: `log` must be one of \"text\", \"json\", \"journald\"",
        ),
        (
            "[admin]\nsocket = \"/run/pillarbox/ingest.sock\"\n",
            "p.toml:2:1: `socket` of [admin] and of [ingest] must be two paths",
        ),
        ("ingest = 1\n", "p.toml:1:1: `ingest` must be a table"),
        ("x = \n", "p.toml:1:5: not valid TOML"),
    ] {
        let faults = built(&format!("{text}{integration}")).unwrap_err().to_string();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
    for (line, expected) in [
        (
            "endpoint = \"http://api.ometria.com/v2/push\"",
            "p.toml:4:1: `endpoint` must be https://",
        ),
        (
            "endpoint = \"https://u:p@x/\"",
            "p.toml:4:1: `endpoint` must not hold a user or password",
        ),
        ("endpoint = \"https://x/?key=1\"", "p.toml:4:1: `endpoint` must not hold a query"),
        ("endpoint = \"nowhere\"", "p.toml:4:1: `endpoint` must be"),
        ("batch = 101", "p.toml:4:1: `batch` must be a whole number from 1 to 100"),
        ("consent = \"marketing\"", "p.toml:4:1: `consent` must be an array of texts"),
        ("lanes = 4", "p.toml:4:1: `lanes` is not supported by this version yet"),
        (
            "retry = { initial = \"10s\", max = \"1s\" }",
            "p.toml:4:11: `retry.initial` must not be longer than `retry.max`",
        ),
        (
            "retry = { initial = \"10s\", mx = \"1s\" }",
            "p.toml:4:28: unknown key `retry.mx`: did you mean `retry.max`?",
        ),
        ("preset = \"shop\"", "p.toml:4:1: `preset` must be one of \"retail\", \"default\""),
        (
            "max_pushes_per_second = -1",
            "p.toml:4:1: `max_pushes_per_second` must be a number of at least 0",
        ),
        ("api_key_file = \"/x\"", "p.toml:1:1: only one of api_key, api_key_file may be given"),
    ] {
        let faults = built(&format!("{integration}{line}\n")).unwrap_err().to_string();
        assert!(faults.contains(expected), "{line}\n{faults}");
    }
    for (text, expected) in [
        ("", "p.toml: no integration is configured"),
        ("[integration]\nname = \"uk\"\n", "p.toml:1:2: integrations are written [[integration]]"),
        (
            "[[integration]]\nname = \"UK\"\napi_key = \"k\"\n",
            "p.toml:2:1: `name` must be given: lower-case",
        ),
        ("[[integration]]\nname = \"uk\"\n", "p.toml:1:1: the API key must be given"),
        (
            "[[integration]]\nname = \"uk\"\napi_key = \"\"\n",
            "p.toml:3:1: the API key must be visible",
        ),
        (
            "[[integration]]\nname = \"uk\"\napi_key_credential = \"k\"\n",
            "p.toml:3:1: systemd has passed no credentials",
        ),
        (
            "[[integration]]\nname = \"a\"\napi_key = \"k\"\n[[integration]]\nname = \"a\"\napi_key = \"k\"\n",
            "p.toml:5:1: another integration has this `name`",
        ),
    ] {
        let faults = built(text).unwrap_err().to_string();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
}

#[test]
fn all_faults_come_at_once() {
    let text = "[spool]\nsinc = 1\nmax_bytes = \"x\"\n[ingest]\nsocket_mode = \"9\"\n[[integration]]\nname = \"UK\"\nlinger = \"1 hour\"\n";
    let faults = built(text).unwrap_err();
    assert_eq!(faults.0.len(), 6, "{faults}");
}

#[test]
fn overrides_win_in_their_order() {
    let sync = |config: Result<Config, Faults>| config.unwrap().spool.sync;
    let every = |millis| crate::spool::SyncMode::Every(std::time::Duration::from_millis(millis));
    assert_eq!(sync(with(&[], &[("PILLARBOX__SPOOL__SYNC", "500ms")])), every(500));
    assert_eq!(sync(with(&["spool.sync=1s"], &[("PILLARBOX__SPOOL__SYNC", "500ms")])), every(1000));
    assert_eq!(sync(with(&["spool.sync=1s", "spool.sync=2s"], &[])), every(2000));
    let config = with(
        &["integration.uk.linger=1s", "integration.uk.batch=7"],
        &[("PILLARBOX__INTEGRATION__UK__CONSENT", "a, b")],
    )
    .unwrap();
    let integration = &config.integrations[0];
    assert_eq!(
        (integration.forward.linger.as_secs(), integration.forward.batch_records_max),
        (1, 7)
    );
    assert_eq!(integration.consent, ["a", "b"]);
    for (set, expected) in [
        (
            "integration.de.linger=1s",
            "--set integration.de.linger: no integration is called \"de\"",
        ),
        ("spool.sinc=1s", "--set spool.sinc: unknown key `sinc`: did you mean `sync`?"),
        ("spool.max_records=many", "--set spool.max_records: `max_records` must be"),
        ("nonsense", "--set: must be KEY=VALUE"),
    ] {
        let faults = with(&[set], &[]).unwrap_err().to_string();
        assert!(faults.contains(expected), "{set}: {faults}");
    }
}

#[test]
fn a_key_file_is_read_and_must_be_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uk.key");
    let text = format!("[[integration]]\nname = \"uk\"\napi_key_file = {path:?}\n");
    assert!(built(&text).unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, format!("{CANARY}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let fault = built(&text).unwrap_err().to_string();
    assert!(fault.contains("chmod 600") && !fault.contains(CANARY), "{fault}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    built(&text).unwrap();
    let credential = "[[integration]]\nname = \"uk\"\napi_key_credential = \"uk.key\"\n";
    build::build(Path::new("p.toml"), credential, &[], Some(directory.path())).unwrap();
}

#[test]
fn no_fault_shows_the_key() {
    let lines = [
        "api_key = \"canary-key-0123456789",
        "api_key = canary-key-0123456789",
        "api_key = \"canary-key-0123456789\" x",
        "api_key = \"canary-key-0123456789\"\napi_key = \"canary-key-0123456789\"",
        "api_key = \"canary-key-0123456789\\q\"",
        "api_key = 'canary-key-0123456789",
        "api_key = [\"canary-key-0123456789\"]",
        "api_key = { x = \"canary-key-0123456789\" }",
        "api_kye = \"canary-key-0123456789\"",
        "api_key = \"canary-key-0123456789 \"",
        "api_key = \"canary-key-0123456789\"\napi_key_file = \"/x\"",
        "name = \"canary-key-0123456789!\"",
        "endpoint = \"https://canary-key-0123456789@x/\"",
        "endpoint = \"https://x/?key=canary-key-0123456789\"",
        "linger = \"canary-key-0123456789\"",
        "preset = \"canary-key-0123456789\"",
    ];
    for line in lines {
        for text in [
            format!("[[integration]]\n{line}\n"),
            format!("{line}\n"),
            format!("[spool]\n{line}\n"),
        ] {
            let faults = built(&text).unwrap_err();
            assert!(!faults.to_string().contains(CANARY), "{text}\n{faults}");
            assert!(!format!("{faults:?}").contains(CANARY), "{text}");
        }
    }
    let faults = with(&["integration.uk.api_key=canary-key-0123456789 x"], &[]).unwrap_err();
    assert!(!faults.to_string().contains(CANARY), "{faults}");
}

proptest! {
    #[test]
    fn a_garbled_file_neither_panics_nor_tells_the_key(at: prop::sample::Index, byte in 0x20_u8..0x7f, cut: bool) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let text = String::from_utf8(bytes).unwrap();
        if let Err(faults) = built(&text) {
            prop_assert!(!faults.to_string().contains(CANARY) && !faults.0.is_empty());
        }
    }
}
