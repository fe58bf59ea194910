//! One file of the log.
//!
//! ```text
//! spool/log/0000000001.log    a segment; its blocks are written with zeros before they are needed
//! spool/log/0000000002.new    a segment being made: never in force, removed at the next open
//! ```
//! A segment is complete and fsynced before it gets its name. Writing over zeros changes no metadata: an fdatasync then
//! costs the device's flush alone, where a growing file pays for the file system's journal as well.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::super::durable;
use super::super::error::OpenError;
use super::super::generation::{damaged, failed, sync_directory};
use super::frame::{SEGMENT_HEAD_BYTES, SegmentHead};
use crate::kill_point;

/// A segment is closed before it exceeds this; a larger frame fills one alone.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// Blocks are allocated in steps of this size where none were prepared.
pub(crate) const GROW_BYTES: u64 = 1 << 20;
const ZEROS_BYTES: usize = 1 << 20;
const NAME_DIGITS: usize = 10;

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// What its file begins with.
    pub(crate) head: SegmentHead,
    path: PathBuf,
    file: Arc<File>,
    /// Up to here the file has blocks.
    allocated: u64,
}

impl Segment {
    /// Creates segment `number` with `bytes` of zeros after its head, durably.
    ///
    /// # Errors
    /// Any I/O error: there is then no such segment.
    pub(crate) fn create(directory: &Path, number: u64, bytes: u64) -> io::Result<Segment> {
        let path = path(directory, number);
        let unfinished = path.with_extension("new");
        Segment::make(directory, &unfinished, path, number, bytes).inspect_err(|_| {
            // On a full disk it would take the room that settlements need. One that stays is removed at the next open.
            drop(fs::remove_file(&unfinished));
        })
    }

    fn make(
        directory: &Path,
        unfinished: &Path,
        path: PathBuf,
        number: u64,
        bytes: u64,
    ) -> io::Result<Segment> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(unfinished)?;
        let head = SegmentHead { number, salt: fastrand::u64(..) };
        let zeros = vec![0; ZEROS_BYTES.min(usize::try_from(bytes).unwrap_or(ZEROS_BYTES))];
        let mut allocated = 0;
        while allocated < bytes {
            file.write_all_at(&zeros, allocated)?;
            allocated += zeros.len() as u64;
        }
        file.write_all_at(&head.encode(), 0)?;
        file.sync_all()?;
        kill_point::pass("segment-made");
        fs::rename(unfinished, &path)?;
        kill_point::pass("segment-named");
        sync_directory(directory)?;
        let file = Arc::new(file);
        Ok(Segment { head, path, file, allocated: allocated.max(SEGMENT_HEAD_BYTES as u64) })
    }

    /// Opens segment `number` for reading.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when its head is not what it must be.
    pub(crate) fn open(directory: &Path, number: u64) -> Result<Segment, OpenError> {
        let path = path(directory, number);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(&path, "is missing"));
            }
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = [0; SEGMENT_HEAD_BYTES];
        let head = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => SegmentHead::decode(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err("is cut off".to_owned())
            }
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let head = head.map_err(|what| damaged(&path, &format!("the segment's head: {what}")))?;
        if head.number != number {
            return Err(damaged(&path, &format!("is segment {} under another name", head.number)));
        }
        let allocated = file.metadata().map_err(failed("read", &path))?.len();
        Ok(Segment { head, path, file: Arc::new(file), allocated })
    }

    /// Its file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes its file has now.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// All of its bytes.
    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len()?).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Up to `bytes` from `at` on; fewer at the end of the file.
    pub(crate) fn read(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut block = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            let place = block.get_mut(filled..).unwrap_or_default();
            match self.file.read_at(place, at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        block.truncate(filled);
        Ok(block)
    }

    /// Whether the file has blocks up to `end`.
    pub(crate) fn has_blocks(&self, end: u64) -> bool {
        end <= self.allocated
    }

    /// Makes sure that a write up to `end` finds room on the disk.
    ///
    /// # Errors
    /// Most of all a full disk: nothing has been written, and nothing is lost.
    pub(crate) fn allocate(&mut self, end: u64) -> io::Result<()> {
        if end <= self.allocated {
            return Ok(());
        }
        let bytes = (end - self.allocated).next_multiple_of(GROW_BYTES);
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), self.allocated, bytes) {
            Ok(()) => self.allocated += bytes,
            // A file system without it finds out when it writes.
            Err(rustix::io::Errno::OPNOTSUPP) => self.allocated = end,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Writes at `at`.
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        kill_point::tear(bytes, |half| self.file.write_all_at(half, at));
        self.file.write_all_at(bytes, at)
    }

    /// What was written is on stable storage when this returns.
    ///
    /// # Errors
    /// Final for the process: a second fdatasync would return OK with nothing written.
    pub(crate) fn sync(&self) -> io::Result<()> {
        durable::fdatasync(&self.file)
    }

    /// Its file, to be flushed beside the writer's work.
    pub(crate) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Ends the file at `end`.
    pub(crate) fn cut(&self, end: u64) -> io::Result<()> {
        self.file.set_len(end)
    }

    /// Removes the file; readers that have it open go on.
    pub(crate) fn remove(directory: &Path, number: u64) -> io::Result<()> {
        match fs::remove_file(path(directory, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The numbers of the segments in `directory`, in order. Removes unfinished ones.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn numbers(directory: &Path) -> Result<Vec<u64>, OpenError> {
        let unfinished = names(directory, "new")?.into_iter().map(|number| {
            let path = path(directory, number).with_extension("new");
            fs::remove_file(&path).map_err(failed("remove the unfinished", &path))
        });
        unfinished.collect::<Result<(), _>>()?;
        Segment::list(directory)
    }

    /// As [`Segment::numbers`], but removes nothing.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn list(directory: &Path) -> Result<Vec<u64>, OpenError> {
        names(directory, "log")
    }
}

/// The numbers of the files with `extension`, in order.
fn names(directory: &Path, extension: &str) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
        let path = entry.map_err(failed("list", directory))?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|found| found == extension) && name.len() == NAME_DIGITS {
            numbers.extend(name.parse::<u64>());
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The file of segment `number`.
pub(crate) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:0NAME_DIGITS$}.log"))
}
