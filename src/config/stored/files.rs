//! The files of `state_dir/integrations`: found, read, replaced, removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::config::build::read_file;
use crate::file::{self, UNFINISHED};

/// The folder, in the state directory.
const FOLDER: &str = "integrations";
const EXTENSION: &str = "toml";
/// The largest file of one integration.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 10;
/// They hold keys.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A file as it was found.
pub(crate) struct Found {
    /// The integration's name, which the file is called by; empty when the folder itself cannot be read.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Its content, or why there is none: the end of a sentence that names the file.
    pub(super) text: Result<String, String>,
}

impl Found {
    /// See the field.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The file of the integration `name`.
pub(super) fn path(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(FOLDER).join(format!("{name}.{EXTENSION}"))
}

/// Every stored file, by name. What cannot be read is found as well, with the reason.
pub(crate) fn all(state_dir: &Path) -> Vec<Found> {
    let folder = state_dir.join(FOLDER);
    let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let text = Err(format!("cannot be read: {error}"));
            return vec![Found { name: String::new(), path: folder, text }];
        }
    };
    let paths = entries.into_iter().map(|entry| entry.path());
    let named = paths.filter(|path| path.extension().is_some_and(|known| known == EXTENSION));
    let mut found: Vec<Found> = named.map(|path| one(&path)).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn one(path: &Path) -> Found {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = read_file(path, FILE_BYTES_MAX, "an integration");
    let text = bytes.and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| "holds bytes that are no UTF-8".to_owned())
    });
    Found { name, path: path.to_owned(), text }
}

/// The text of the file of the integration `name`, when there is one that can be read.
pub(super) fn text(state_dir: &Path, name: &str) -> Option<String> {
    one(&path(state_dir, name)).text.ok()
}

/// The bytes of the file at `path`, to be put back when what takes its place will not do; `None` when there is none.
///
/// # Errors
/// In words for an operator: there is one, and what it holds is not known.
pub fn held(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
        Ok(_) => read_file(path, FILE_BYTES_MAX, "an integration").map(Some).map_err(|why| {
            format!("{} {why}: move it away, or remove the integration first", path.display())
        }),
    }
}

/// Brings the file at `path` back to what it held `before`, when a change failed half way or will not do; does nothing where it
/// holds that.
///
/// # Errors
/// In words for an operator: it holds something else.
pub fn put_back(path: &Path, before: Option<&[u8]>) -> Result<(), String> {
    let is_back = || held(path).is_ok_and(|now| now.as_deref() == before);
    if is_back() {
        return Ok(());
    }
    let done = match before {
        Some(before) => replace(path, before),
        None => remove(path),
    };
    // The directory's fsync may fail again, after the rename.
    done.or_else(|error| if is_back() { Ok(()) } else { Err(error) })
}

/// What tells the content of a stored file from any other: 128 bits of its SHA-256, in hexadecimal digits.
#[must_use]
pub fn version(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let bits = digest.as_ref().iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte));
    format!("{bits:032x}")
}

/// How many there are.
pub(super) fn count(state_dir: &Path) -> usize {
    all(state_dir).len()
}

/// Puts `bytes` in the place of the file at `path`, durably, and makes its folder.
///
/// # Errors
/// In words for an operator: the file holds what it held, or the new bytes, which a power cut may undo: see [`put_back`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    make_folder(path).map_err(|error| {
        format!("make the folder of {}: {error}: see to the state directory", path.display())
    })?;
    file::replace(path, bytes, FILE_MODE, "integration-written").map_err(|failed| told(&failed))
}

/// Removes the file at `path`, durably.
///
/// # Errors
/// In words for an operator.
pub fn remove(path: &Path) -> Result<(), String> {
    file::remove(path).map_err(|failed| told(&failed))
}

fn told(failed: &file::Failed) -> String {
    let file::Failed { operation, path, source } = failed;
    format!("{operation} {}: {source}", path.display())
}

fn make_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Ok(()) => File::open(folder.parent().unwrap_or(Path::new("/")))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what a kill has left half written: it may hold a key. Only the daemon that holds the spool may.
pub fn sweep(state_dir: &Path) {
    let entries = fs::read_dir(state_dir.join(FOLDER)).into_iter().flatten().flatten();
    let unfinished = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|known| known == UNFINISHED));
    for path in unfinished {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a half-written file could not be removed: remove it");
        }
    }
}
