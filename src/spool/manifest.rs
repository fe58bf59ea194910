//! What the spool must at least contain: kept outside the store, so that a store that lost data says so.
//!
//! sled opens a truncated or emptied file as an empty database, without an error. The manifest holds the lowest
//! legal cursor and newest seq of each lane, as some earlier commit left them; what falls below is damage. It is
//! replaced now and then, never in step with the commits: it is a floor, not a copy.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::generation::{damaged, failed, replace};

const FILE: &str = "manifest.json";
const VERSION: u32 = 1;

/// The floor of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Floor {
    /// The lane's id.
    pub(super) lane: u32,
    /// Its newest seq is at least this.
    pub(super) newest: u64,
    /// Its cursor is at least this.
    pub(super) cursor: u64,
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    /// Name of the generation that it speaks of.
    pub(super) generation: String,
    /// The store's file is at least this long, in bytes.
    pub(super) store_bytes_min: u64,
    /// The log has at least this frame.
    pub(super) log_frame_min: u64,
    /// One for each lane.
    pub(super) lanes: Vec<Floor>,
}

impl Manifest {
    /// A manifest in this program's version.
    #[must_use]
    pub(super) fn new(
        generation: &Path,
        store_bytes_min: u64,
        log_frame_min: u64,
        lanes: Vec<Floor>,
    ) -> Manifest {
        let generation = generation
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Manifest { version: VERSION, generation, store_bytes_min, log_frame_min, lanes }
    }

    /// Reads the manifest of the spool in `directory`; `None` when there is none yet.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when it cannot be understood.
    pub(super) fn read(directory: &Path) -> Result<Option<Manifest>, OpenError> {
        let path = directory.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(&path, &format!("does not decode: {error}")))?;
        if manifest.version != VERSION {
            let what = format!("has format {}, this program reads {VERSION}", manifest.version);
            return Err(damaged(&path, &what));
        }
        Ok(Some(manifest))
    }

    /// Replaces the manifest on disk, durably.
    ///
    /// # Errors
    /// Any I/O error; the old manifest then stays.
    pub(super) fn write(&self, directory: &Path) -> Result<(), OpenError> {
        let bytes = serde_json::to_vec_pretty(self).expect("numbers and text always encode");
        replace(&directory.join(FILE), &bytes)
    }

    /// Refuses a store that is too short, before sled may touch it.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] names the file.
    pub(super) fn check_file(&self, generation: &Path, store_file: &Path) -> Result<(), OpenError> {
        if generation.file_name() != Some(self.generation.as_ref()) {
            return Ok(()); // the floor is of the generation before
        }
        let bytes = std::fs::metadata(store_file).map(|metadata| metadata.len());
        match bytes {
            Ok(bytes) if bytes >= self.store_bytes_min => Ok(()),
            Ok(bytes) => {
                let what = format!(
                    "has {bytes} bytes, must have at least {}: it was truncated",
                    self.store_bytes_min
                );
                Err(damaged(store_file, &what))
            }
            Err(error) => Err(damaged(store_file, &format!("cannot be read: {error}"))),
        }
    }

    /// Refuses a log that has lost its end: `last` is the last frame that was found.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] names the directory.
    pub(super) fn check_log(&self, log: &Path, last: u64) -> Result<(), OpenError> {
        if last >= self.log_frame_min {
            return Ok(());
        }
        let what = format!("ends with frame {last}, but frame {} was durable", self.log_frame_min);
        Err(damaged(log, &what))
    }

    /// Refuses a store whose lanes have fallen below their floors. `lanes` are (id, newest, cursor) as opened.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] names the file and the lane.
    pub(super) fn check_lanes(&self, store_file: &Path, lanes: &[Floor]) -> Result<(), OpenError> {
        for floor in &self.lanes {
            let found = lanes.iter().find(|lane| lane.lane == floor.lane);
            let (newest, cursor) = found.map_or((0, 0), |lane| (lane.newest, lane.cursor));
            if newest < floor.newest || cursor < floor.cursor {
                let what = format!(
                    "lane {} ends at seq {newest} with its cursor at {cursor}, but has held seq {} with its cursor at {}: \
                     committed data is missing",
                    floor.lane, floor.newest, floor.cursor
                );
                return Err(damaged(store_file, &what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_below_its_floor_is_damage() {
        let floor = |newest, cursor| Floor { lane: 1, newest, cursor };
        let manifest = Manifest::new(Path::new("/x/0000000001"), 8, 3, vec![floor(10, 5)]);
        let check = |lanes: &[Floor]| manifest.check_lanes(Path::new("/x/db"), lanes).is_ok();
        assert!(check(&[floor(10, 5)]) && check(&[floor(11, 6)]));
        assert!(!check(&[floor(9, 5)]) && !check(&[floor(10, 4)]) && !check(&[]));
    }

    #[test]
    fn it_is_read_back_as_written_and_refused_when_garbled() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(directory.path()).unwrap(), None);
        let manifest = Manifest::new(
            Path::new("0000000001"),
            8,
            3,
            vec![Floor { lane: 1, newest: 2, cursor: 1 }],
        );
        manifest.write(directory.path()).unwrap();
        assert_eq!(Manifest::read(directory.path()).unwrap(), Some(manifest));
        std::fs::write(directory.path().join(FILE), b"{").unwrap();
        assert!(matches!(Manifest::read(directory.path()), Err(OpenError::Damaged { .. })));
    }
}
