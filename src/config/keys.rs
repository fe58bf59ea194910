//! PURE. Every key of the configuration: its default, its bounds and its meaning, in one table.
//!
//! The table drives the check for unknown keys, the defaults, the bounds, and the README's list (which a test compares).

use crate::mapping::person::LANES_MAX;

/// What a key's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An absolute path.
    Path,
    /// Permission bits in octal, as text.
    Mode,
    /// Text with a unit of size, from..=to bytes.
    Size(u64, u64),
    /// Text with a unit of time, from..=to milliseconds.
    Time(u64, u64),
    /// `"always"`, or text with a unit of time, from..=to milliseconds.
    Sync(u64, u64),
    /// An integer, from..=to.
    Count(u64, u64),
    /// A number of at least 0.
    Rate,
    /// `true` or `false`.
    Switch,
    /// An array of texts.
    Names,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// Text that is never shown.
    Secret,
    /// A table for each event.
    Tables,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `""`, `ingest`, `admin`, `spool` or `integration`.
    pub section: &'static str,
    /// Its name; `retry.initial` is a key of the inline table `retry`.
    pub name: &'static str,
    /// As it would be written; empty: none, it must be given or may be absent.
    pub default: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// A sentence.
    pub meaning: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Key {
    Key { section, name, default, kind, meaning }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// All keys, in the order of the contract (DESIGN.md section 7).
pub const KEYS: [Key; 44] = [
    key("", "state_dir", "/var/lib/pillarbox", Kind::Path, "Holds the spool; created when absent."),
    key(
        "ingest",
        "socket",
        "/run/pillarbox/ingest.sock",
        Kind::Path,
        "The producers' Unix socket.",
    ),
    key("ingest", "socket_mode", "0660", Kind::Mode, "Its permission bits."),
    key(
        "ingest",
        "allow_users",
        "[]",
        Kind::Names,
        "Users who may use the socket, by name or number, beside root; none and no `allow_groups`: all that its mode admits.",
    ),
    key("ingest", "allow_groups", "[]", Kind::Names, "Groups whose members may as well."),
    key(
        "ingest",
        "listen",
        "[]",
        Kind::Names,
        "TCP addresses to listen on as well, such as `127.0.0.1:8480`; they ask for a write key.",
    ),
    key(
        "ingest",
        "write_keys",
        "[]",
        Kind::Names,
        "What producers on TCP must show, as Basic user or Bearer token.",
    ),
    key(
        "ingest",
        "max_request",
        "1MiB",
        Kind::Size(64 * KIB, 64 * MIB),
        "The largest body of a request.",
    ),
    key(
        "ingest",
        "max_connections",
        "512",
        Kind::Count(1, 65_536),
        "Open connections; further ones wait.",
    ),
    key(
        "ingest",
        "read_timeout",
        "10s",
        Kind::Time(100, HOUR),
        "For a header or a body to arrive.",
    ),
    key(
        "admin",
        "socket",
        "/run/pillarbox/admin.sock",
        Kind::Path,
        "The operators' Unix socket, mode 0600.",
    ),
    key(
        "admin",
        "console",
        "",
        Kind::Text,
        "Loopback address of the web console, such as `127.0.0.1:8481`; empty: none.",
    ),
    key(
        "admin",
        "console_token_file",
        "",
        Kind::Path,
        "File that holds the console's token; else one is made in `state_dir/console.token`.",
    ),
    key(
        "admin",
        "log",
        "text",
        Kind::Choice(&["text", "json", "journald"]),
        "How the daemon logs.",
    ),
    key(
        "spool",
        "sync",
        "always",
        Kind::Sync(10, HOUR),
        "`always`: fdatasync before every answer. A duration: at that interval; a power cut may take what was answered since.",
    ),
    key(
        "spool",
        "max_records",
        "10_000_000",
        Kind::Count(1, u64::MAX),
        "Records queued or quarantined, at most.",
    ),
    key(
        "spool",
        "max_bytes",
        "8GiB",
        Kind::Size(MIB, u64::MAX),
        "Their bytes, at most; the disk use is a little more.",
    ),
    key(
        "spool",
        "min_free_disk",
        "256MiB",
        Kind::Size(0, u64::MAX),
        "Producers get 503 while the disk has less free.",
    ),
    key("spool", "cache", "32MiB", Kind::Size(4 * MIB, 64 * GIB), "Target size of the read cache."),
    key(
        "spool",
        "keep_delivered",
        "10_000",
        Kind::Count(0, u64::MAX),
        "Settled records kept per integration.",
    ),
    key(
        "spool",
        "keep_events",
        "false",
        Kind::Switch,
        "Keeps the event beside each record, for the event debugger; takes the room of the events in the log, once for each record.",
    ),
    key(
        "spool",
        "dedupe_window",
        "100_000",
        Kind::Count(0, 10_000_000),
        "Most recent message ids remembered per integration.",
    ),
    key(
        "spool",
        "max_identities",
        "1_000_000",
        Kind::Count(1, 100_000_000),
        "Identities and denials of consent remembered; the longest unused are forgotten first, denials last.",
    ),
    key("integration", "name", "", Kind::Text, "Unique; lower-case letters, digits, `-` and `_`."),
    key("integration", "api_key", "", Kind::Secret, "The Data API key; better in a file."),
    key(
        "integration",
        "api_key_file",
        "",
        Kind::Path,
        "File that holds the key, readable by the daemon alone.",
    ),
    key(
        "integration",
        "api_key_credential",
        "",
        Kind::Text,
        "Name of a systemd credential that holds the key.",
    ),
    key(
        "integration",
        "endpoint",
        "https://api.ometria.com/v2/push",
        Kind::Text,
        "Where pushes go; `http://` only for loopback.",
    ),
    key(
        "integration",
        "preset",
        "retail",
        Kind::Choice(&["retail", "default"]),
        "Which events become which records.",
    ),
    key("integration", "consent", "[]", Kind::Names, "Categories that must all be granted."),
    key(
        "integration",
        "events",
        "",
        Kind::Tables,
        "Mappings of single events, a table each: `[integration.events.\"Product Viewed\"]`; see Mapping.",
    ),
    key("integration", "batch", "100", Kind::Count(1, 100), "Records in a push, at most."),
    key(
        "integration",
        "linger",
        "200ms",
        Kind::Time(0, 60 * SECOND),
        "How long an incomplete push waits for more records.",
    ),
    key(
        "integration",
        "lanes",
        "1",
        Kind::Count(1, LANES_MAX as u64),
        "Lanes that people are spread over, each in order with a push of its own under way.",
    ),
    key(
        "integration",
        "timeout",
        "30s",
        Kind::Time(100, HOUR),
        "For one push, from connecting to the end of the answer.",
    ),
    key(
        "integration",
        "retry.initial",
        "500ms",
        Kind::Time(1, HOUR),
        "Upper bound of the first delay; doubles with each failure.",
    ),
    key("integration", "retry.max", "5min", Kind::Time(1, 24 * HOUR), "The largest upper bound."),
    key(
        "integration",
        "storm_limit",
        "1000",
        Kind::Count(1, u64::MAX),
        "Records quarantined in a row that hold the integration.",
    ),
    key(
        "integration",
        "max_pushes_per_second",
        "0",
        Kind::Rate,
        "0: no fixed limit, the pace follows 429 answers.",
    ),
    key(
        "integration",
        "poll_errors",
        "0s",
        Kind::Time(0, 24 * HOUR),
        "How often Ometria's list of records that it rejected after its 202 is read; 0s: never.",
    ),
    key(
        "integration",
        "proxy",
        "",
        Kind::Text,
        "`http://[USER:PASSWORD@]HOST:PORT`; empty: that of `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`; `direct`: none.",
    ),
    key(
        "integration",
        "ca_file",
        "",
        Kind::Path,
        "PEM file of authorities to trust beside the host's.",
    ),
    key("integration", "retry", "", Kind::Text, "Inline table of `initial` and `max`."),
    key("", "integration", "", Kind::Text, "One table for each Ometria account."),
];

/// Names of tables, which are no keys of their own.
const TABLES: [(&str, &str); 3] =
    [("integration", "retry"), ("integration", "events"), ("", "integration")];

/// The sections, whose keys are set one by one.
const SECTIONS: [&str; 3] = ["ingest", "admin", "spool"];
/// Letters of the longest name of an unknown key that is shown.
const SHOWN_MAX: usize = 30;

/// The keys that hold values: what the README lists.
pub fn documented() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| match key.kind {
        Kind::Tables => true,
        _ => !TABLES.contains(&(key.section, key.name)),
    })
}

/// The key `name` of `section`.
#[must_use]
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| {
        key.section == section && key.name == name && !TABLES.contains(&(section, name))
    })
}

/// What to say to one who sets a table as if it were a key; `None` when `name` is no table.
#[must_use]
pub fn whole(section: &str, name: &str) -> Option<String> {
    let message = match (section, name) {
        ("integration", "retry") => "`retry` is a table: set `retry.initial` and `retry.max`",
        ("integration", name) if name == "events" || name.starts_with("events.") => {
            "`events` holds a table for each event, in the file alone: [integration.events.\"Product Viewed\"]"
        }
        ("", "integration") => {
            "`integration` is a table: set one key of one, such as integration.NAME.linger"
        }
        ("", name) if SECTIONS.contains(&name) => {
            return Some(format!("`{name}` is a table: set one of its keys, {}", listed(name)));
        }
        _ => return None,
    };
    Some(message.to_owned())
}

/// Whether `name` may be shown though it names no key. What cannot be one may be a secret in the wrong place, or steer
/// a terminal.
#[must_use]
pub fn is_presentable(name: &str) -> bool {
    let legal = |letter: char| letter.is_ascii_alphabetic() || matches!(letter, '_' | '-' | '.');
    !name.is_empty() && name.len() <= SHOWN_MAX && name.chars().all(legal)
}

/// The name of an unknown key as it is shown.
#[must_use]
pub fn shown(name: &str) -> String {
    if is_presentable(name) { format!("`{name}`") } else { "(not shown)".to_owned() }
}

/// What to say of a key that does not exist: the nearest one, or all there are.
#[must_use]
pub fn suggest(section: &str, name: &str) -> String {
    let names = || names(section);
    let sections = || SECTIONS.into_iter().filter(|_| section.is_empty());
    if let Some(known) = nearest(names().chain(sections()), name) {
        return format!("did you mean `{known}`?");
    }
    let elsewhere =
        KEYS.iter().find(|key| strsim::damerau_levenshtein(key.name, name) <= tolerance(key.name));
    match elsewhere {
        Some(key) if key.section.is_empty() => {
            format!("did you mean `{}`, at the top of the file?", key.name)
        }
        Some(key) => format!("did you mean `{}` of [{}]?", key.name, key.section),
        None => format!("known are {}", listed(section)),
    }
}

/// The one of `names` that `name` may have been meant to be.
pub fn nearest<'n>(names: impl Iterator<Item = &'n str>, name: &str) -> Option<&'n str> {
    let near = names.map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    near.filter(|(distance, known)| *distance <= tolerance(known)).map(|(_, known)| known)
}

fn names(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| key.section == section).map(|key| key.name)
}

/// The keys of `section`, and at the top its tables.
fn listed(section: &str) -> String {
    let sections = SECTIONS.into_iter().filter(|_| section.is_empty());
    names(section).chain(sections).collect::<Vec<_>>().join(", ")
}

/// How many slips of the pen still make `known` the key that was meant.
fn tolerance(known: &str) -> usize {
    known.len() / 4 + usize::from(known.len() > 3)
}
