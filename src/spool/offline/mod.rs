//! A spool that no daemon runs on: checked, read, and salvaged. Nothing here changes it.
//!
//! ```text
//! verify           the log's frames ─▶ every record; a copy of the store ─▶ every value
//! export, salvage  every file's bytes ─▶ carve ─▶ index ─▶ lines        works on every damage, needs no engine
//! ```
//! The engine writes whenever it opens, and a damaged store all the more: so it gets a copy. The spool's lock is held
//! meanwhile, without writing to it.
//!
//! | file | owns |
//! |---|---|
//! | `carve`, `index`, `ranges`, `line` (PURE) | parts found in bytes, what they add up to, how they are written |
//! | `salvage`, `verify` | the commands' reading |
//! | `copy` | the copy that the engine may open |

mod carve;
mod copy;
mod index;
mod line;
mod ranges;
mod salvage;
mod verify;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

pub use self::salvage::{LaneSalvaged, Salvage, Salvaged};
pub use self::verify::{Fault, LaneVerified, Verified, verify};

use super::error::OpenError;
use super::generation::{self, failed};

/// Told of progress: (bytes done, bytes in all).
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A spool whose lock is held, for reading alone.
#[derive(Debug)]
pub struct Offline {
    directory: PathBuf,
    _lock: Option<File>,
}

impl Offline {
    /// Takes the spool in `directory` (`state_dir/spool`), writing nothing.
    ///
    /// # Errors
    /// [`OpenError::Absent`] when there is none, [`OpenError::Locked`] when a daemon runs on it.
    pub fn open(directory: &Path) -> Result<Offline, OpenError> {
        if !directory.is_dir() {
            return Err(OpenError::Absent { path: directory.to_owned() });
        }
        let path = directory.join(generation::LOCK);
        let lock = match File::open(&path) {
            Ok(file) => file,
            // A copy of a spool needs no lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Offline { directory: directory.to_owned(), _lock: None });
            }
            Err(error) => return Err(failed("open the lock file", &path)(error)),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Offline { directory: directory.to_owned(), _lock: Some(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(generation::locked(directory)),
            Err(errno) => Err(failed("lock", &path)(errno.into())),
        }
    }

    /// The spool's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The generation in force, by name alone: nothing is adopted or removed, as a start would.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when there is none to choose.
    fn generation(&self) -> Result<PathBuf, OpenError> {
        let found = generation::look(&self.directory)?;
        found.ok_or_else(|| OpenError::Absent { path: self.directory.clone() })
    }

    /// Every regular file below the spool, in the order of paths. Links are not followed.
    fn files(&self) -> Result<Vec<PathBuf>, OpenError> {
        let mut files = Vec::new();
        let mut folders = vec![self.directory.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
                let entry = entry.map_err(failed("list", &folder))?;
                let kind = entry.file_type().map_err(failed("look at", &entry.path()))?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    files.push(entry.path());
                }
            }
        }
        files.sort();
        Ok(files)
    }
}
