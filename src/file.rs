//! Small files that are replaced whole: after a power cut there is the old one or the new one, never a mixture.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::kill_point;

/// What a file is called while it is written.
pub(crate) const UNFINISHED: &str = "tmp";

/// A step that failed, and the path that it failed on.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
    move |source| Failed { operation, path: path.to_owned(), source }
}

/// Replaces the file at `path`: written beside it with the permission bits `mode`, fsynced, renamed, directory fsynced.
/// `point`: where the process may be killed in between.
///
/// # Errors
/// The file then holds the old bytes, or the new ones where only the directory's fsync failed.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32, point: &str) -> Result<(), Failed> {
    let beside = path.with_extension(UNFINISHED);
    let mut options = File::options();
    let opened = options.write(true).create(true).truncate(true).mode(mode).open(&beside);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(failed("write", &beside))?;
    kill_point::pass(point);
    fs::rename(&beside, path).map_err(failed("replace", path))?;
    sync_parent(path)
}

/// Removes the file at `path`, durably.
///
/// # Errors
/// It is there, or is gone and may be there again after a power cut.
pub(crate) fn remove(path: &Path) -> Result<(), Failed> {
    fs::remove_file(path).map_err(failed("remove", path))?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> Result<(), Failed> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("fsync", directory))
}
