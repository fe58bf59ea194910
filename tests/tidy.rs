//! Keeps the map honest: what the source's own rules say, checked on its text.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The code of a file: what comes before its tests, without comments.
fn code(text: &str) -> String {
    let before = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    before
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn pure_files_name_nothing_that_does() {
    let mut pure = 0;
    for (path, text) in sources("src") {
        let is_test = path.to_string_lossy().contains("test");
        if !text.lines().take(4).any(|line| line.starts_with("//! PURE")) || is_test {
            continue;
        }
        pure += 1;
        let code = code(&text);
        for word in [
            "tokio",
            "async fn",
            "std::fs",
            "std::net",
            "std::io::",
            "Instant::now",
            "clock::now",
            "fastrand",
            "tracing::",
            "sled",
        ] {
            assert!(!code.contains(word), "{} is PURE and names {word}", path.display());
        }
    }
    assert!(pure >= 15, "only {pure} files say that they are PURE");
}

#[test]
fn sled_is_named_in_the_spool_alone() {
    for (path, text) in sources("src") {
        let inside = path.to_string_lossy().contains("/src/spool/");
        assert!(inside || !code(&text).contains("sled::"), "{} names sled", path.display());
    }
}

#[test]
fn imports_point_one_way() {
    for (folder, foreign) in [
        (
            "/src/event/",
            &["mapping", "spool", "ingest", "forward", "admin", "config", "daemon", "cli"][..],
        ),
        ("/src/spool/", &["mapping", "ingest", "forward", "admin", "config", "daemon", "cli"]),
        ("/src/mapping/", &["ingest", "forward", "admin", "config", "daemon", "cli"]),
        ("/src/ingest/", &["forward", "admin", "config", "daemon", "cli"]),
        ("/src/forward/", &["event", "mapping", "ingest", "admin", "config", "daemon", "cli"]),
        (
            "/src/simulator/",
            &["event", "mapping", "spool", "ingest", "forward", "admin", "config", "daemon", "cli"],
        ),
        ("/src/admin/", &["config", "daemon", "cli"]),
        ("/src/config/", &["admin", "daemon", "cli"]),
    ] {
        for (path, text) in sources("src") {
            if !path.to_string_lossy().contains(folder) {
                continue;
            }
            for module in foreign {
                let import = format!("crate::{module}::");
                assert!(!code(&text).contains(&import), "{} imports {module}", path.display());
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_500_lines() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 500, "{} has {lines} lines: split it by noun", path.display());
        }
    }
}

/// The README's table of keys is the one of the program.
#[test]
fn the_readme_lists_every_key_with_its_default() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for key in pillarbox::config::keys::documented() {
        let name = if key.section.is_empty() {
            key.name.to_owned()
        } else {
            format!("{}.{}", key.section, key.name)
        };
        let default =
            if key.default.is_empty() { "-".to_owned() } else { format!("`{}`", key.default) };
        let row = format!("| `{name}` | {default} | {} |", key.meaning);
        assert!(readme.contains(&row), "README.md lacks this row of its table of keys:\n{row}");
    }
}

/// The configuration that is shipped names every key of the daemon, and is sound with all its comments taken away.
#[test]
fn the_shipped_configuration_is_whole_and_sound() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/pillarbox.toml");
    let shipped = fs::read_to_string(shipped).unwrap();
    let is_key = |line: &str| {
        line.starts_with("[[")
            || line
                .split(" = ")
                .next()
                .is_some_and(|name| !name.contains(' ') && line.contains(" = "))
    };
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    // A user that every host knows.
    let text = shipped.lines().map(bare).collect::<Vec<_>>().join("\n").replace("www-data", "root");
    for key in pillarbox::config::keys::documented().filter(|key| key.section != "integration") {
        let line = format!("\n{} = ", key.name);
        assert!(text.contains(&line), "systemd/pillarbox.toml lacks `{}`", key.name);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pillarbox.toml");
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let text = text.replace("/etc/pillarbox/console.token", &token.to_string_lossy());
    fs::write(&path, text).unwrap();
    fs::write(folder.path().join("key_shop"), "key").unwrap();
    let credentials = Some(folder.path().to_owned());
    let source = pillarbox::config::Source { path: Some(path), credentials, ..Default::default() };
    pillarbox::config::load(&source, None).unwrap();
}
