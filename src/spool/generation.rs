//! The directories of the spool: lock, generations, and what must be fsynced when.
//!
//! ```text
//! spool/lock               held with flock(2) while the spool is open; holds the pid
//! spool/CURRENT            name of the generation in force; replaced by rename
//! spool/manifest.json      see `manifest`
//! spool/0000000001/        one generation: a sled store (conf, db, blobs/, snap.*)
//! spool/0000000002.new/    a generation being made: never in force, removed at the next open
//! ```
//! A generation is complete and fsynced before it gets its name, and has its name before `CURRENT` points to
//! it. So a crash at any point leaves the old one in force, or the new one whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::OpenError;
use crate::{file, kill_point};

const CURRENT: &str = "CURRENT";
pub(super) const LOCK: &str = "lock";
const UNFINISHED: &str = "new";
/// Length of a generation's name: ten digits.
const NAME_BYTES: usize = 10;

/// Holds the spool's lock until dropped.
#[derive(Debug)]
pub(super) struct Lock(
    #[expect(dead_code, reason = "the lock lives as long as the file is open")] File,
);

/// Takes the lock of the spool in `directory`, which exists.
///
/// # Errors
/// [`OpenError::Locked`] names the process that holds it.
pub(super) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let path = directory.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open the lock file", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(locked(directory));
        }
        Err(errno) => return Err(failed("lock", &path)(errno.into())),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(failed("write", &path))?;
    Ok(Lock(file))
}

/// Says who holds the lock.
pub(super) fn locked(directory: &Path) -> OpenError {
    let text = fs::read_to_string(directory.join(LOCK)).ok();
    let pid = text.and_then(|text| text.trim().parse::<u32>().ok());
    let holder = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    OpenError::Locked { path: directory.to_owned(), holder }
}

/// The directory of the generation in force, or `None` when the spool is new.
///
/// Removes unfinished generations. Adopts a finished one that `CURRENT` does not name yet.
///
/// # Errors
/// [`OpenError::Damaged`] when `CURRENT` names what does not exist, or names are missing for what does.
pub(super) fn current(directory: &Path) -> Result<Option<PathBuf>, OpenError> {
    let (finished, unfinished) = generations(directory)?;
    for path in unfinished {
        fs::remove_dir_all(&path).map_err(failed("remove the unfinished", &path))?;
    }
    chosen(directory, &finished)
}

/// As [`current`], but removes nothing.
///
/// # Errors
/// As [`current`].
pub(super) fn look(directory: &Path) -> Result<Option<PathBuf>, OpenError> {
    chosen(directory, &generations(directory)?.0)
}

/// The one of the `finished` generations that is in force.
fn chosen(directory: &Path, finished: &[PathBuf]) -> Result<Option<PathBuf>, OpenError> {
    let pointer = directory.join(CURRENT);
    let name = match fs::read(&pointer) {
        Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match finished {
            [] => return Ok(None),
            [only] => return Ok(Some(only.clone())),
            _ => {
                return Err(damaged(&pointer, "is missing, and there is more than one generation"));
            }
        },
        Err(error) => return Err(failed("read", &pointer)(error)),
    };
    let path = directory.join(&name);
    if !finished.contains(&path) {
        return Err(damaged(
            &pointer,
            &format!("names the generation {name:?}, which does not exist"),
        ));
    }
    Ok(Some(path))
}

/// The generations that have their name, and the unfinished ones.
fn generations(directory: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), OpenError> {
    let (mut finished, mut unfinished) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
        let path = entry.map_err(failed("list", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.split('.').next().unwrap_or_default();
        if digits.len() != NAME_BYTES || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            unfinished.push(path);
        } else if digits == name {
            finished.push(path);
        }
    }
    Ok((finished, unfinished))
}

/// Makes generation `number`: `fill` creates and closes the store in the directory that it is given.
///
/// # Errors
/// What `fill` returns, or an I/O error: the generation is then not in force.
pub(super) fn create(
    directory: &Path,
    number: u64,
    fill: impl FnOnce(&Path) -> Result<(), OpenError>,
) -> Result<PathBuf, OpenError> {
    let path = directory.join(format!("{number:0NAME_BYTES$}"));
    let unfinished = path.with_extension(UNFINISHED);
    fs::create_dir(&unfinished).map_err(failed("create", &unfinished))?;
    fill(&unfinished)?;
    sync_tree(&unfinished).map_err(failed("fsync", &unfinished))?;
    kill_point::pass("generation-filled");
    fs::rename(&unfinished, &path).map_err(failed("name", &path))?;
    kill_point::pass("generation-named");
    sync_directory(directory).map_err(failed("fsync", directory))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    replace(&directory.join(CURRENT), name.as_bytes())?;
    kill_point::pass("generation-current");
    Ok(path)
}

/// The number in a generation's name.
#[must_use]
pub(super) fn number(path: &Path) -> u64 {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or_default()
}

/// Removes every finished generation but `current`, which `CURRENT` names.
///
/// # Errors
/// Any I/O error.
pub(super) fn remove_others(directory: &Path, current: &Path) -> Result<(), OpenError> {
    for path in generations(directory)?.0 {
        if path != current {
            kill_point::pass("generation-removed");
            fs::remove_dir_all(&path).map_err(failed("remove the old", &path))?;
        }
    }
    Ok(())
}

/// Replaces the file at `path`: written beside it, fsynced, renamed, directory fsynced.
///
/// # Errors
/// The file then holds the old bytes or the new ones, never a mixture.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    file::replace(path, bytes, 0o666, "spool-file-written").map_err(|failed| OpenError::Io {
        doing: failed.operation,
        path: failed.path,
        source: failed.source,
    })
}

/// Creates `directory` and its missing parents, mode 0700, and fsyncs each parent that gained an entry.
///
/// # Errors
/// Any I/O error.
pub(super) fn create_directory(directory: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;

    let mut missing = Vec::new();
    let mut at = Some(directory);
    while let Some(path) = at.filter(|path| !path.exists()) {
        missing.push(path);
        at = path.parent();
    }
    for path in missing.into_iter().rev() {
        fs::DirBuilder::new().mode(0o700).create(path).map_err(failed("create", path))?;
        let parent =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_directory(parent).map_err(failed("fsync", parent))?;
    }
    Ok(())
}

/// Fsyncs every file and directory under `path`, and `path` itself: sled syncs no directory, nor its `conf`.
///
/// # Errors
/// The first failed fsync.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(path)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Moves snapshots aside that a kill during open has left half written: sled would fail on them for ever.
///
/// # Errors
/// Any I/O error.
pub(super) fn move_leftovers_aside(generation: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(generation).map_err(failed("list", generation))? {
        let path = entry.map_err(failed("list", generation))?.path();
        if is_half_snapshot(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let aside = generation.join(format!("aside.{name}"));
            fs::rename(&path, &aside).map_err(failed("move aside", &path))?;
            tracing::warn!(file = %aside.display(), "a half-written snapshot was moved aside");
        }
    }
    Ok(())
}

/// Whether this is a snapshot that a kill has left half written.
pub(super) fn is_half_snapshot(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("snap.") && name.ends_with(".generating")
}

/// Wraps an I/O error with what was tried on which path.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { doing, path, source }
}

/// A file that is not what it must be.
pub(super) fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(directory: &Path, number: u64) -> PathBuf {
        create(directory, number, |path| {
            fs::write(path.join("db"), b"x").map_err(failed("write", path))
        })
        .unwrap()
    }

    #[test]
    fn the_generation_in_force_is_the_one_that_current_names() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(current(directory.path()).unwrap(), None);
        let first = made(directory.path(), 1);
        assert_eq!(current(directory.path()).unwrap(), Some(first));
        let second = made(directory.path(), 2);
        assert_eq!(current(directory.path()).unwrap(), Some(second));
    }

    #[test]
    fn an_unfinished_generation_is_removed_and_a_finished_one_adopted() {
        let directory = tempfile::tempdir().unwrap();
        let unfinished = directory.path().join("0000000007.new");
        fs::create_dir(&unfinished).unwrap();
        assert_eq!(current(directory.path()).unwrap(), None);
        assert!(!unfinished.exists());
        let made = made(directory.path(), 1);
        fs::remove_file(directory.path().join(CURRENT)).unwrap();
        assert_eq!(current(directory.path()).unwrap(), Some(made));
    }

    #[test]
    fn a_pointer_to_nothing_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = made(directory.path(), 1);
        fs::remove_dir_all(path).unwrap();
        assert!(matches!(current(directory.path()), Err(OpenError::Damaged { .. })));
        made(directory.path(), 2);
        made(directory.path(), 3);
        fs::remove_file(directory.path().join(CURRENT)).unwrap();
        assert!(matches!(current(directory.path()), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn a_second_lock_is_refused_with_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        let error = lock(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(held);
        lock(directory.path()).unwrap();
    }
}
