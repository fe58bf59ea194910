//! Where the console's token comes from: a file for the daemon's user alone, made at the first start.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::session::hex;

/// The file beneath `state_dir`.
pub(super) const NAME: &str = "console.token";
const TOKEN_BYTES: usize = 32;
/// No token is longer.
const READ_BYTES_MAX: u64 = 4096;

/// The token in `given`, else that in `state_dir`, which is made when there is none.
///
/// # Errors
/// When it cannot be read or made; in words that name the file.
pub(super) fn open(state_dir: &Path, given: Option<&Path>) -> anyhow::Result<String> {
    let made = state_dir.join(NAME);
    let path = given.unwrap_or(&made);
    if given.is_none() && !path.exists() {
        make(path).with_context(|| format!("make the console's token {}", path.display()))?;
    }
    let mut text = String::new();
    let file = fs::File::open(path);
    let read = file.and_then(|file| file.take(READ_BYTES_MAX).read_to_string(&mut text));
    read.with_context(|| format!("read the console's token {}", path.display()))?;
    let token = text.trim_end();
    ensure!(
        token.len() >= TOKEN_BYTES,
        "the console's token in {} is too short to be one: remove the file, and the next start makes another",
        path.display()
    );
    Ok(token.to_owned())
}

/// Whole or not at all: written beside it, and renamed once it is on the disk.
fn make(path: &Path) -> anyhow::Result<()> {
    let token = random_hex::<TOKEN_BYTES>()?;
    let beside = path.with_extension("token.new");
    // A start that was killed may have left it.
    drop(fs::remove_file(&beside));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().context("it lies in a folder")?;
    fs::File::open(directory)?.sync_all()?;
    tracing::info!(file = %path.display(), "made a token for the web console; `pillarbox console` prints its address");
    Ok(())
}

/// `N` random bytes as hexadecimal digits.
///
/// # Errors
/// When the system gives none.
pub(super) fn random_hex<const N: usize>() -> anyhow::Result<String> {
    let mut bytes = [0_u8; N];
    SystemRandom::new().fill(&mut bytes).ok().context("the system gives no random bytes")?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_the_daemon_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("console.token.new"), "half").unwrap();
        let token = open(folder.path(), None).unwrap();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_eq!(open(folder.path(), None).unwrap(), token);
        let mode = fs::metadata(folder.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path(), None).unwrap(), token);
    }

    #[test]
    fn a_given_token_is_taken_and_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine");
        assert!(open(folder.path(), Some(&file)).is_err());
        fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(open(folder.path(), Some(&file)).unwrap(), "0123456789abcdef0123456789abcdef");
        fs::write(&file, "short").unwrap();
        assert!(open(folder.path(), Some(&file)).unwrap_err().to_string().contains("too short"));
    }
}
