//! Every fault with its place, and all of them at once.

use std::path::Path;

use super::*;

pub(super) const CANARY: &str = "canary-key-0123456789";

pub(super) const INTEGRATION: &str = "[[integration]]\nname = \"uk\"\napi_key = \"k\"\n";

pub(super) const WHOLE: &str = r#"state_dir = "/var/lib/pillarbox"

[ingest]
socket = "/run/pillarbox/ingest.sock"
socket_mode = "0660"
allow_users = []
allow_groups = []
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
keep_events = false
dedupe_window = 100_000
max_identities = 1_000_000

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
poll_errors = "0s"
"#;

pub(super) fn built(text: &str) -> Result<Config, Faults> {
    parse(Path::new("p.toml"), text, &Source::default())
}

pub(super) fn with(set: &[&str], environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let source = Source {
        set: set.iter().map(|set| (*set).to_owned()).collect(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Source::default()
    };
    parse(Path::new("p.toml"), WHOLE, &source)
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

/// Found by garbling files: what is shown of it was no TOML.
#[test]
fn an_endpoint_with_a_backslash_is_shown_as_it_was_written() {
    let odd = built(&WHOLE.replace("com/v2", r"com/\\v2")).unwrap();
    assert_eq!(built(&odd.effective()).unwrap().effective(), odd.effective());
}

#[test]
fn each_fault_has_its_place_and_says_what_would_be_right() {
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
        ("[spool]\nmax_bytes = \"1B\"\n", "p.toml:2:1: `max_bytes` must be at least 1MiB"),
        ("[spool]\nsync = \"never\"\n", "p.toml:2:1: `sync`: \"always\", or a duration has"),
        ("[spool]\nsync = \"1ms\"\n", "p.toml:2:1: `sync` must be from 10ms to 1h"),
        (
            "[spool]\nmax_records = 0\n",
            "p.toml:2:1: `max_records` must be a whole number of at least 1",
        ),
        ("[spool]\nmax_records = 1.5\n", "`max_records` must be a whole number"),
        ("[spool]\nkeep_events = \"yes\"\n", "p.toml:2:1: `keep_events` must be true or false"),
        ("[spool]\nkeep_events = 1\n", "p.toml:2:1: `keep_events` must be true or false"),
        (
            "[ingest]\nsocket_mode = \"999\"\n",
            "p.toml:2:1: `socket_mode` must be permission bits in octal",
        ),
        (
            "[ingest]\nallow_users = [\"root\", \"no such user\"]\n",
            "p.toml:2:1: `allow_users` names a user that this host does not know",
        ),
        (
            "[ingest]\nallow_groups = [\"no such group\"]\n",
            "p.toml:2:1: `allow_groups` names a group that this host does not know",
        ),
        ("[ingest]\nsocket = \"x.sock\"\n", "p.toml:2:1: `socket` must be an absolute path"),
        ("[ingest]\nlisten = [\"127.0.0.1:8480\"]\n", "p.toml:2:1: `listen` asks for `write_keys`"),
        (
            "[ingest]\nlisten = [\"localhost:8480\"]\nwrite_keys = [\"long-enough\"]\n",
            "p.toml:2:1: `listen` must hold addresses with their port",
        ),
        (
            "[ingest]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\nwrite_keys = [\"long-enough\"]\n",
            "p.toml:2:1: `listen` names an address twice",
        ),
        (
            "[ingest]\nwrite_keys = [\"long-enough\", \"short\"]\n",
            "p.toml:2:1: each of `write_keys` must have at least 8 visible ASCII characters",
        ),
        (
            "[admin]\nconsole_token_file = \"/nowhere/token\"\n",
            "p.toml:2:1: the token file (`console_token_file` must be its path",
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
        let faults = built(&format!("{text}{INTEGRATION}")).unwrap_err().to_string();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
}

#[test]
fn the_console_is_for_this_host_alone() {
    for address in ["0.0.0.0:8481", "localhost:8481", "192.168.1.2:8481", "127.0.0.1"] {
        let text = format!("[admin]\nconsole = \"{address}\"\n{INTEGRATION}");
        let faults = built(&text).unwrap_err().to_string();
        let expected = "p.toml:2:1: `console` must be a loopback address with its port, such as \"127.0.0.1:8481\"";
        assert!(faults.contains(expected), "{address}\n{faults}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_would_be_right() {
    for (text, expected) in [
        ("[spool\n", "p.toml:1:7: not valid TOML: unclosed table, expected `]`"),
        (
            "[spool]\nsync = true\n",
            "p.toml:2:1: `sync` must be \"always\", or a text in quotes with its unit",
        ),
        (
            "[ingest]\nread_timeout = 10\n",
            "p.toml:2:1: `read_timeout` must be a text in quotes with its unit, such as \"10s\"",
        ),
        (
            "[ingest]\nsocket_mode = 0o660\n",
            "p.toml:2:1: `socket_mode` must be a text in quotes, such as \"0660\"",
        ),
        (
            "[ingest]\nmax_connections = 0x1_0001\n",
            "p.toml:2:1: `max_connections` must be a whole number from 1 to 65536",
        ),
        ("state_dir = \"/a\\u0000b\"\n", "p.toml:1:1: `state_dir` must hold no control characters"),
        (
            "[ingest]\nsocket = \"/run/pillarbox/admin.sock\"\n",
            "p.toml:2:1: `socket` of [admin] and of [ingest] must be two paths",
        ),
        ("\"é\" = 1\n", "p.toml:1:1: unknown key (not shown): known are state_dir"),
        (
            "retry = { \"é\" = 1, lingr = 1 }\n",
            "p.toml:1:1: unknown key `retry`: did you mean `retry` of [integration]?",
        ),
    ] {
        let faults = built(&format!("{text}{INTEGRATION}")).unwrap_err().to_string();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
}

#[test]
fn each_fault_of_an_integration_has_its_place() {
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
        ("lanes = 65", "p.toml:4:1: `lanes` must be a whole number from 1 to 64"),
        ("lanes = 0", "p.toml:4:1: `lanes` must be a whole number from 1 to 64"),
        (
            "retry = { initial = \"10s\", max = \"1s\" }",
            "p.toml:4:11: `retry.initial` must not be longer than `retry.max`",
        ),
        (
            "retry = { initial = \"10s\", mx = \"1s\" }",
            "p.toml:4:28: unknown key `retry.mx`: did you mean `retry.max`?",
        ),
        ("retry = \"5s\"", "p.toml:4:1: `retry` is a table: set `retry.initial` and `retry.max`"),
        ("retry = { max = \"1ms\" }", "p.toml:4:11: `retry.initial` must not be longer than"),
        ("retry = { \"é\" = 1, mx = \"1s\" }", "p.toml:4:20: unknown key `retry.mx`"),
        ("consent = [\"\"]", "p.toml:4:1: `consent` must be an array of texts, none of them empty"),
        ("consent = [1]", "p.toml:4:1: `consent` must be an array of texts"),
        (
            "endpoint = \"https://x/#part\"",
            "p.toml:4:1: `endpoint` must not hold a query or a fragment",
        ),
        ("endpoint = \"http://127.0.0.1.example.com/\"", "p.toml:4:1: `endpoint` must be https://"),
        ("preset = \"shop\"", "p.toml:4:1: `preset` must be one of \"retail\", \"default\""),
        (
            "max_pushes_per_second = -1",
            "p.toml:4:1: `max_pushes_per_second` must be a number of at least 0",
        ),
        ("api_key_file = \"/x\"", "p.toml:1:1: only one of api_key, api_key_file may be given"),
    ] {
        let faults = built(&format!("{INTEGRATION}{line}\n")).unwrap_err().to_string();
        assert!(faults.contains(expected), "{line}\n{faults}");
    }
}

#[test]
fn a_missing_integration_name_or_key_is_told() {
    for (text, expected) in [
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
fn a_file_needs_no_integration() {
    let config = built("").unwrap();
    assert_eq!((config.integrations.len(), config.set_aside.len()), (0, 0));
}

#[test]
fn all_faults_come_at_once() {
    let text = "[spool]\nsinc = 1\nmax_bytes = \"x\"\n[ingest]\nsocket_mode = \"9\"\n[[integration]]\nname = \"UK\"\nlinger = \"1 hour\"\n";
    let faults = built(text).unwrap_err();
    assert_eq!(faults.0.len(), 6, "{faults}");
}

#[test]
fn a_key_file_is_read_and_must_be_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uk.key");
    let text = format!("[[integration]]\nname = \"uk\"\napi_key_file = {path:?}\n");
    assert!(built(&text).unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, format!("{CANARY}\n")).unwrap();
    let token = CANARY.repeat(2);
    let token_path = directory.path().join("token");
    std::fs::write(&token_path, &token).unwrap();
    let token_text = format!("[admin]\nconsole_token_file = {token_path:?}\n");
    let set = |mode| {
        for path in [&path, &token_path] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    for mode in [0o644, 0o640, 0o660, 0o604] {
        set(mode);
        for text in [&text, &token_text] {
            let fault = built(text).unwrap_err().to_string();
            assert!(fault.contains("chmod 600") && !fault.contains(CANARY), "{mode:o}: {fault}");
        }
    }
    // systemd's credentials are 0440 with an access list, and may be named as files as well.
    let handed = Source { credentials: Some(directory.path().to_owned()), ..Source::default() };
    set(0o440);
    for text in [&text, &token_text] {
        parse(Path::new("p.toml"), text, &handed).unwrap();
    }
    set(0o600);
    for text in [&text, &token_text] {
        built(text).unwrap();
    }
    let credential = "[[integration]]\nname = \"uk\"\napi_key_credential = \"uk.key\"\n";
    let source = Source { credentials: Some(directory.path().to_owned()), ..Source::default() };
    parse(Path::new("p.toml"), credential, &source).unwrap();
}

#[test]
fn a_fault_brings_no_others_with_it() {
    let two = "[[integration]]\nname = \"a\"\napi_key = \"k\"\nendpoint = \"x\"\n[[integration]]\nname = \"b\"\napi_key = \"k\"\nbatch = 0\n";
    for (text, places) in [
        ("x = \n".to_owned(), &["p.toml:1:5"][..]),
        ("[[integration]]\nname = uk\n".to_owned(), &["p.toml:2:8"]),
        (two.to_owned(), &["p.toml:4:1", "p.toml:8:1"]),
        (format!("{INTEGRATION}retry = {{ max = \"soon\" }}\n"), &["p.toml:4:11"]),
        (format!("[spool]\nmax_bytes = 8\n{INTEGRATION}"), &["p.toml:2:1"]),
    ] {
        let faults = built(&text).unwrap_err();
        let found: Vec<&str> = faults.0.iter().map(|fault| fault.place.as_str()).collect();
        assert_eq!(found, places, "{text}\n{faults}");
    }
}

#[test]
fn faults_come_in_the_order_of_the_file() {
    let text = "[[integration]]\nname = \"UK\"\napi_key = \"k\"\n[spool]\ncache = 1\n[ingest]\nsocket = \"x\"\nmax_request = 1\n";
    let faults = built(text).unwrap_err();
    let found: Vec<&str> = faults.0.iter().map(|fault| fault.place.as_str()).collect();
    assert_eq!(found, ["p.toml:2:1", "p.toml:5:1", "p.toml:7:1", "p.toml:8:1"]);
}

#[test]
fn what_is_in_force_is_toml_whatever_it_holds() {
    let text = format!(
        "state_dir = '/a \"b\" \\c'\n[ingest]\nmax_connections = 0x10\n{INTEGRATION}consent = [\"a \\\"b\\\"\", \"\\u200b\"]\n"
    );
    let config = built(&text).unwrap();
    assert_eq!(config.ingest.limits.connections_max, 16);
    let again = built(&config.effective()).unwrap();
    assert_eq!(again.state_dir, config.state_dir);
    assert_eq!(again.integrations[0].forward.consent, config.integrations[0].forward.consent);
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    let source = Source { path: Some(path.clone()), ..Source::default() };
    let faults = load(&source, None).unwrap_err();
    assert_eq!(faults.0[0].place, path.display().to_string());
    assert!(
        faults
            .to_string()
            .ends_with("Name a configuration with -c FILE; `pillarbox demo` needs none")
    );
    std::fs::write(&path, b"# \xc3\xa9\nx = \"\xff\"\n").unwrap();
    let faults = load(&source, None).unwrap_err().to_string();
    assert_eq!(faults, format!("{}:2:6: not UTF-8", path.display()));
    std::fs::write(&path, INTEGRATION).unwrap();
    load(&source, None).unwrap();
}
