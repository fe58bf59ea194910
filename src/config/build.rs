//! Raw values → [`Config`]: types, bounds, and the rules between keys.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hyper::Uri;
use secrecy::SecretString;

use super::accounts;
use super::document::{Document, Override};
use super::exposure;
use super::faults::{Collector, Faults};
use super::section::Section;
use super::{Admin, Config, Ingest, Integration, LogFormat, Origin, Source};
use crate::forward::push::is_loopback;
use crate::forward::{RetryPolicy, Settings, SharedPace};
use crate::ingest::{Limits, WriteKeys};
use crate::mapping::Preset;
use crate::spool::{Options, SyncMode};

/// Bytes of a Unix socket's path: `sun_path` of unix(7), less its end.
const SOCKET_PATH_MAX: usize = 107;
/// The largest file that can be an API key.
const KEY_BYTES_MAX: u64 = 4096;
/// Shorter write keys are guessed.
const WRITE_KEY_BYTES_MIN: usize = 8;
/// Nobody can guess so many.
const TOKEN_BYTES_MIN: usize = 32;
/// Letters of an integration's name.
const NAME_BYTES_MAX: usize = 64;

/// Builds the configuration of `text`, the content of the file that `faults` tells of. Integrations named in `elsewhere` are
/// stored, and no matter of this file.
pub(super) fn build(
    text: &str,
    overrides: &[Override],
    elsewhere: &[&str],
    source: &Source,
    mut faults: Collector<'_>,
) -> Result<Config, Faults> {
    let Some(document) = Document::read(text, overrides, elsewhere, &mut faults) else {
        return Err(faults.into_faults());
    };
    let state_dir = path(&document.top, "state_dir", &mut faults);
    let spool = spool(&document.spool, &state_dir, &mut faults);
    let ingest = ingest(&document.ingest, &mut faults);
    let admin = admin(&document.admin, source, &mut faults);
    if ingest.socket == admin.socket {
        let section = if document.admin.has("socket") { &document.admin } else { &document.ingest };
        let message = "`socket` of [admin] and of [ingest] must be two paths";
        faults.add(&section.place_of("socket"), message);
    }
    let mut names = HashSet::new();
    let mut integrations = Vec::new();
    for section in &document.integrations {
        let read = integration(section, source, &mut faults);
        let name = section.given("name").unwrap_or_default();
        if is_name(name) && !names.insert(name.to_owned()) {
            faults.add(&section.place_of("name"), "another integration has this `name`");
        }
        integrations.extend(read);
    }
    faults.finish()?;
    Ok(Config { state_dir, ingest, admin, spool, integrations, set_aside: Vec::new() })
}

/// The two socket paths, whatever else is wrong.
pub(super) fn sockets(
    text: &str,
    overrides: &[Override],
    mut ignored: Collector<'_>,
) -> (PathBuf, PathBuf) {
    let document =
        Document::read(text, overrides, &[], &mut ignored).unwrap_or_else(Document::empty);
    let ingest = document.ingest.text("socket", &mut ignored);
    (ingest.into(), document.admin.text("socket", &mut ignored).into())
}

/// See [`super::state_dir`].
pub(super) fn state_dir(text: &str, overrides: &[Override], mut ignored: Collector<'_>) -> PathBuf {
    let document =
        Document::read(text, overrides, &[], &mut ignored).unwrap_or_else(Document::empty);
    document.top.text("state_dir", &mut ignored).into()
}

fn ingest(section: &Section, faults: &mut Collector<'_>) -> Ingest {
    let mode = section.text("socket_mode", faults);
    let socket_mode = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o777);
    if socket_mode.is_none() {
        faults.add(
            &section.place_of("socket_mode"),
            "`socket_mode` must be permission bits in octal, such as \"0660\"",
        );
    }
    let (listen, write_keys) = network(section, faults);
    let allow_users = section.names("allow_users", faults);
    let allow_groups = section.names("allow_groups", faults);
    Ingest {
        socket: socket(section, faults),
        socket_mode: socket_mode.unwrap_or_default(),
        producers: accounts::producers(&allow_users, &allow_groups, section, faults),
        allow_users,
        allow_groups,
        listen,
        write_keys,
        limits: Limits {
            request_bytes_max: whole(section.size("max_request", faults)),
            connections_max: whole(section.count("max_connections", faults)),
            read_timeout: section.duration("read_timeout", faults).unwrap_or_default(),
        },
    }
}

/// TCP addresses and write keys, which need each other. No message shows anything of a key.
fn network(section: &Section, faults: &mut Collector<'_>) -> (Vec<SocketAddr>, WriteKeys) {
    let mut addresses = Vec::new();
    for text in section.names("listen", faults) {
        match text.parse() {
            Ok(address) if addresses.contains(&address) => {
                faults.add(&section.place_of("listen"), "`listen` names an address twice");
            }
            Ok(address) => addresses.push(address),
            Err(_) => {
                let message = "`listen` must hold addresses with their port, such as \"127.0.0.1:8480\" or \"[::1]:8480\"";
                faults.add(&section.place_of("listen"), message);
            }
        }
    }
    let keys = section.names("write_keys", faults);
    let legal = |key: &String| {
        key.len() >= WRITE_KEY_BYTES_MIN
            && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
    };
    if !keys.iter().all(legal) {
        let message = format!(
            "each of `write_keys` must have at least {WRITE_KEY_BYTES_MIN} visible ASCII characters, without spaces and colons"
        );
        faults.add(&section.place_of("write_keys"), message);
    }
    if !addresses.is_empty() && keys.is_empty() {
        let message = "`listen` asks for `write_keys`: whoever can connect could hand over events";
        faults.add(&section.place_of("listen"), message);
    }
    (addresses, WriteKeys::new(keys))
}

fn admin(section: &Section, source: &Source, faults: &mut Collector<'_>) -> Admin {
    let log = match section.choice("log", faults).as_str() {
        "json" => LogFormat::Json,
        "journald" => LogFormat::Journald,
        _ => LogFormat::Text,
    };
    let (console, console_token_file) = console(section, source, faults);
    Admin { socket: socket(section, faults), console, console_token_file, log }
}

/// The console's address, which nobody else on the network may reach, and the file of its token.
fn console(
    section: &Section,
    source: &Source,
    faults: &mut Collector<'_>,
) -> (Option<SocketAddr>, Option<PathBuf>) {
    let text = section.text("console", faults);
    let address = text.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    if !text.is_empty() && address.is_none() {
        let message = "`console` must be a loopback address with its port, such as \"127.0.0.1:8481\": to reach it from elsewhere, \
             forward the port (ssh -L 8481:127.0.0.1:8481 HOST)";
        faults.add(&section.place_of("console"), message);
    }
    if !section.has("console_token_file") {
        return (address, None);
    }
    let file = path(section, "console_token_file", faults);
    match read_secret(&file, "the token file", "console_token_file", source) {
        Ok(token) if token.trim_end().len() < TOKEN_BYTES_MIN || !is_visible(token.trim_end()) => {
            let message = format!(
                "the console's token must have at least {TOKEN_BYTES_MIN} visible ASCII characters, without spaces: openssl rand -hex 32"
            );
            faults.add(&section.place_of("console_token_file"), message);
        }
        Ok(_) => {}
        Err(message) => faults.add(&section.place_of("console_token_file"), message),
    }
    (address, Some(file))
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn spool(section: &Section, state_dir: &Path, faults: &mut Collector<'_>) -> Options {
    Options {
        directory: state_dir.join("spool"),
        sync: section.duration("sync", faults).map_or(SyncMode::Always, SyncMode::Every),
        cache_bytes: section.size("cache", faults),
        records_max: section.count("max_records", faults),
        bytes_max: section.size("max_bytes", faults),
        free_disk_min_bytes: section.size("min_free_disk", faults),
        keep_delivered: section.count("keep_delivered", faults),
        keep_events: section.switch("keep_events", faults),
        dedupe_window: whole(section.count("dedupe_window", faults)),
        identities_max: section.count("max_identities", faults),
    }
}

/// Whether `name` can be that of an integration.
pub(super) fn is_name(name: &str) -> bool {
    let legal = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal)
}

/// The name of an integration.
fn name(section: &Section, faults: &mut Collector<'_>) -> Option<String> {
    let name = section.text("name", faults);
    if is_name(&name) {
        return Some(name);
    }
    let message = format!(
        "`name` must be given: lower-case letters, digits, `-` and `_`, at most {NAME_BYTES_MAX}, such as \"shop\""
    );
    faults.add(&section.place_of("name"), message);
    None
}

/// Builds one integration; `None` when its faults leave nothing to build.
pub(super) fn integration(
    section: &Section,
    source: &Source,
    faults: &mut Collector<'_>,
) -> Option<Integration> {
    let name = name(section, faults);
    let preset = if section.choice("preset", faults) == "default" {
        Preset::Default
    } else {
        Preset::Retail
    };
    let events = section.events.clone();
    let consent = section.names("consent", faults);
    let api_key = api_key(section, source, faults);
    let endpoint = endpoint(section, faults);
    let way = super::way::way(section, endpoint.as_ref(), &source.environment, faults);
    let retry = retry(section, faults);
    let batch_records_max = whole(section.count("batch", faults));
    let linger = section.duration("linger", faults).unwrap_or_default();
    let timeout = section.duration("timeout", faults).unwrap_or_default();
    let poll_errors = section.duration("poll_errors", faults).unwrap_or_default();
    let storm_limit = section.count("storm_limit", faults);
    let pace = SharedPace::new(section.rate("max_pushes_per_second", faults));
    let lanes = u32::try_from(section.count("lanes", faults)).unwrap_or_default();
    let name = name?;
    let forward = Settings {
        integration: name.clone(),
        endpoint: endpoint?,
        api_key: api_key?,
        batch_records_max,
        linger,
        timeout,
        retry,
        storm_limit,
        pace,
        way,
        consent,
        poll_errors,
    };
    let origin = Origin::File;
    Some(Integration { name, origin, preset, events, lanes, forward })
}

fn retry(section: &Section, faults: &mut Collector<'_>) -> RetryPolicy {
    let faults_before = faults.count();
    let policy = RetryPolicy {
        initial: section.duration("retry.initial", faults).unwrap_or_default(),
        max: section.duration("retry.max", faults).unwrap_or_default(),
    };
    if faults.count() == faults_before && policy.initial > policy.max {
        let name = if section.has("retry.initial") { "retry.initial" } else { "retry.max" };
        let message = "`retry.initial` must not be longer than `retry.max`";
        faults.add(&section.place_of(name), message);
    }
    policy
}

/// The API key, from exactly one of its three places. No message shows anything of it.
fn api_key(section: &Section, source: &Source, faults: &mut Collector<'_>) -> Option<SecretString> {
    let places = ["api_key", "api_key_file", "api_key_credential"];
    let given: Vec<&str> = places.into_iter().filter(|name| section.has(name)).collect();
    let [name] = given.as_slice() else {
        let message = if given.is_empty() {
            "the API key must be given: api_key_file = \"/etc/pillarbox/shop.key\" (generate a Data API key with push access in Ometria, \
             Settings > API keys)"
                .to_owned()
        } else {
            format!("only one of {} may be given", given.join(", "))
        };
        faults.add(&section.place, message);
        return None;
    };
    let place = section.place_of(name);
    let value = section.text(name, faults);
    let read = match *name {
        "api_key" => Ok(value),
        "api_key_file" => read_secret(Path::new(&value), "the key file", "api_key_file", source),
        _ => read_credential(&value, source.credentials.as_deref()),
    };
    let key = match read {
        Ok(key) => key,
        Err(message) => {
            faults.add(&place, message);
            return None;
        }
    };
    let key = key.trim_end_matches(['\n', '\r']);
    if key.is_empty() || !is_visible(key) {
        faults.add(
            &place,
            "the API key must be visible ASCII characters without spaces, and not empty",
        );
        return None;
    }
    Some(SecretString::from(key.to_owned()))
}

/// Reads the file of a secret, which must be for its owner alone: `what` it is, and the key that names it. The daemon's group is
/// that of the producers, who must not read it either.
fn read_secret(path: &Path, what: &str, key: &str, source: &Source) -> Result<String, String> {
    // A path that leads nowhere may be the secret itself, in the wrong place: it is not shown.
    let parent = path.parent().filter(|parent| parent.parent().is_some() && parent.is_dir());
    let shown = match parent {
        Some(_) => format!("{what} {}", path.display()),
        None => format!("{what} (`{key}` must be its path, not what it holds)"),
    };
    let metadata =
        fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    // Where the bits of a credential's group are set, they stand for an access list, in a folder for the service alone.
    let open_to = if exposure::is_credential(path, source) { 0o007 } else { 0o077 };
    if metadata.permissions().mode() & open_to != 0 {
        let path = path.display();
        return Err(format!(
            "others than its owner may use {what} {path}: give it to the daemon's user, then chmod 600 {path}"
        ));
    }
    read_bounded(path).map_err(|error| format!("{shown} {error}"))
}

/// Reads a credential, whose permissions are systemd's matter.
fn read_credential(name: &str, directory: Option<&Path>) -> Result<String, String> {
    let Some(directory) = directory else {
        let cure = "set LoadCredential= in the unit, or use api_key_file";
        return Err(format!("systemd has passed no credentials: {cure}"));
    };
    if name.is_empty() || name.contains('/') {
        return Err("a credential's name holds no `/`".to_owned());
    }
    let path = directory.join(name);
    if !path.exists() {
        let cure = "name one of LoadCredential= in the unit";
        return Err(format!("systemd has passed no credential of this name: {cure}"));
    }
    read_bounded(&path).map_err(|error| format!("the credential {error}"))
}

/// Reads the file of a key.
fn read_bounded(path: &Path) -> Result<String, String> {
    let bytes = read_file(path, KEY_BYTES_MAX, "a key")?;
    // What is no UTF-8 is no key either, and is told as that.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a regular file of at most `bytes_max`, which is to be `what`; an error ends the sentence that names the file.
pub(super) fn read_file(path: &Path, bytes_max: u64, what: &str) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is too large to be {what}"));
    }
    Ok(bytes)
}

fn endpoint(section: &Section, faults: &mut Collector<'_>) -> Option<Uri> {
    let text = section.text("endpoint", faults);
    let uri =
        text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let wrong = match &uri {
        None => "`endpoint` must be a URL, such as \"https://api.ometria.com/v2/push\"",
        Some(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            "`endpoint` must not hold a user or password"
        }
        // `Uri` drops a fragment without a word.
        Some(uri) if uri.query().is_some() || text.contains('#') => {
            "`endpoint` must not hold a query or a fragment: the key travels in a header"
        }
        Some(uri) if uri.scheme_str() == Some("https") => return Some(uri.clone()),
        Some(uri) if uri.scheme_str() == Some("http") && is_loopback(uri) => {
            return Some(uri.clone());
        }
        Some(_) => {
            "`endpoint` must be https://, or http:// on a loopback address: the key would travel in the clear"
        }
    };
    faults.add(&section.place_of("endpoint"), wrong);
    None
}

/// An absolute path, without control characters.
pub(super) fn path(section: &Section, name: &str, faults: &mut Collector<'_>) -> PathBuf {
    let text = section.text(name, faults);
    if text.contains(char::is_control) {
        faults.add(&section.place_of(name), format!("`{name}` must hold no control characters"));
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        faults.add(&section.place_of(name), format!("`{name}` must be an absolute path"));
    }
    path
}

fn socket(section: &Section, faults: &mut Collector<'_>) -> PathBuf {
    let path = path(section, "socket", faults);
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let message = format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes");
        faults.add(&section.place_of("socket"), message);
    }
    path
}

/// A bounded count as the machine's own integer.
fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
