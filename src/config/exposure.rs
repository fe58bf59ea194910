//! Who else can read a secret: the modes of the files that hold one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Source;
use super::document::Document;
use super::faults::Collector;

/// Where systemd puts the credentials of its services, each in a folder for the service alone (systemd.exec(5)).
const CREDENTIALS: &str = "/run/credentials";

/// Whether systemd has put `path` there, and sees to who can read it.
pub(super) fn is_credential(path: &Path, source: &Source) -> bool {
    let handed = source.credentials.as_deref();
    path.starts_with(CREDENTIALS) || handed.is_some_and(|folder| path.starts_with(folder))
}

/// What an operator is told when others than its owner can read the configuration file, and secrets stand in it.
pub(super) fn told(source: &Source) -> Option<String> {
    let file = source.file();
    let mode = fs::metadata(file).ok()?.permissions().mode() & 0o777;
    if mode & 0o044 == 0 || is_credential(file, source) {
        return None;
    }
    let held = secrets(&fs::read_to_string(file).ok()?);
    let shown = file.display();
    (!held.is_empty()).then(|| {
        format!(
            "{shown} holds {} and can be read by others than its owner (mode {mode:04o}): give it to the daemon's user, then chmod 600 {shown}",
            held.join(", ")
        )
    })
}

/// Which keys of the file's text are secrets themselves.
fn secrets(text: &str) -> Vec<&'static str> {
    let mut ignored = Collector::new(Path::new(""), text);
    let document = Document::read(text, &[], &[], &mut ignored).unwrap_or_else(Document::empty);
    let any = |holds: fn(&super::section::Section) -> bool| document.integrations.iter().any(holds);
    let held = [
        ("`api_key`", any(|section| section.has("api_key"))),
        ("`write_keys`", !document.ingest.names("write_keys", &mut ignored).is_empty()),
        (
            "the password of `proxy`",
            any(|section| section.given("proxy").is_some_and(|proxy| proxy.contains('@'))),
        ),
    ];
    held.into_iter().filter(|(_, holds)| *holds).map(|(what, _)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as shipped has only what is no secret, and one with a secret is for its owner alone.
    #[test]
    fn a_secret_that_others_can_read_is_told_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        let source = Source { path: Some(file.clone()), ..Source::default() };
        let (named, proxy) = ("[[integration]]\nname = \"uk\"\n", "http://u:canary@proxy:1");
        for (text, held) in [
            (format!("{named}api_key = \"canary\"\n"), "`api_key`"),
            ("[ingest]\nwrite_keys = [\"canary-canary\"]\n".to_owned(), "`write_keys`"),
            (format!("{named}proxy = \"{proxy}\"\n"), "the password of `proxy`"),
            (format!("{named}api_key_file = \"/k\"\nproxy = \"http://proxy:1\"\n"), ""),
            ("[ingest]\nwrite_keys = []\n".to_owned(), ""),
        ] {
            fs::write(&file, &text).unwrap();
            for (mode, is_open) in
                [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o644, true)]
            {
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
                let told = told(&source).unwrap_or_default();
                let expected = is_open && !held.is_empty();
                assert_eq!(!told.is_empty(), expected, "{text} {mode:o}: {told}");
                assert!(told.contains(held) || !expected, "{told}");
                assert!(!told.contains("canary"), "{told}");
            }
        }
    }
}
