//! The copy of a generation that the engine may open, and so may change.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Offline, Progress};
use crate::spool::error::OpenError;
use crate::spool::generation::{failed, is_half_snapshot};
use crate::spool::store::Store;

/// Bytes copied at once.
const STEP_BYTES: usize = 4 << 20;
/// Left free beside the copy: the engine writes a little when it opens.
const SPARE_BYTES: u64 = 16 << 20;
/// The engine's read cache: each value is read once.
const CACHE_BYTES: u64 = 16 << 20;

/// A copy, removed when dropped.
#[derive(Debug)]
pub(super) struct Copy {
    folder: TempDir,
    /// The generation that it is a copy of.
    original: PathBuf,
}

impl Copy {
    /// Copies the generation in force to a folder below `temporary`: sharing its blocks where the file system can.
    ///
    /// # Errors
    /// [`OpenError::NoRoom`] before anything is written; [`OpenError::Damaged`] when there is no generation to choose.
    pub(super) fn make(
        offline: &Offline,
        temporary: &Path,
        progress: Progress<'_>,
    ) -> Result<Copy, OpenError> {
        let original = offline.generation()?;
        let files: Vec<PathBuf> = offline
            .files()?
            .into_iter()
            .filter(|path| path.starts_with(&original) && !is_half_snapshot(path))
            .collect();
        let mut bytes = 0;
        for path in &files {
            bytes += fs::metadata(path).map_err(failed("look at", path))?.len();
        }
        let folder = tempfile::Builder::new().prefix("pillarbox-").tempdir_in(temporary);
        let folder = folder.map_err(failed("make a folder in", temporary))?;
        let mut done = 0;
        for from in &files {
            let to = folder.path().join(from.strip_prefix(&original).unwrap_or(from));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(failed("create", parent))?;
            }
            let mut source = File::open(from).map_err(failed("open", from))?;
            let mut target = File::create(&to).map_err(failed("create", &to))?;
            if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
                done += source.metadata().map_err(failed("look at", from))?.len();
                progress(done, bytes);
                continue;
            }
            room(temporary, bytes - done.min(bytes) + SPARE_BYTES)?;
            let mut step = vec![0; STEP_BYTES];
            loop {
                let read = source.read(&mut step).map_err(failed("read", from))?;
                if read == 0 {
                    break;
                }
                let written = target.write_all(step.get(..read).unwrap_or_default());
                written.map_err(failed("write", &to))?;
                done += read as u64;
                progress(done, bytes);
            }
        }
        Ok(Copy { folder, original })
    }

    /// Lets the engine open the copy.
    ///
    /// # Errors
    /// As [`Store::open`], naming the original's files.
    pub(super) fn open(&self) -> Result<Store, OpenError> {
        Store::open(self.folder.path(), CACHE_BYTES).map_err(|error| match error {
            OpenError::Damaged { path, what } => OpenError::Damaged {
                path: self.original.join(path.strip_prefix(self.folder.path()).unwrap_or(&path)),
                what,
            },
            other => other,
        })
    }

    /// The generation that it is a copy of.
    pub(super) fn original(&self) -> &Path {
        &self.original
    }
}

fn room(temporary: &Path, needed: u64) -> Result<(), OpenError> {
    let disk = rustix::fs::statvfs(temporary)
        .map_err(|errno| failed("look at", temporary)(errno.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        return Err(OpenError::NoRoom { path: temporary.to_owned(), needed, free });
    }
    Ok(())
}
