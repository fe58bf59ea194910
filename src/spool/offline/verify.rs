//! Checks everything that a spool holds, and tells each fault with its file and place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::copy::Copy;
use super::{Offline, Progress};
use crate::spool::chunk::{Chunk, parse_key};
use crate::spool::entry::{Delivery, LaneId};
use crate::spool::error::OpenError;
use crate::spool::generation::{failed, is_half_snapshot};
use crate::spool::identity::Identity;
use crate::spool::log::frame::{Part, SegmentHead, Tree};
use crate::spool::log::recovery::{self, Tail};
use crate::spool::log::segment::{self, Segment};
use crate::spool::manifest::{Floor, Manifest};
use crate::spool::opening::LOG;
use crate::spool::quarantine;
use crate::spool::sealed::unseal;
use crate::spool::store::{Store, Tallies};
use crate::spool::values::Values;

/// What was checked, and what is at fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// By lane, in the order of ids.
    pub lanes: Vec<LaneVerified>,
    /// Entries of the quarantine.
    pub quarantined: u64,
    /// Stored identities.
    pub identities: u64,
    /// Entries of pushes that settled records.
    pub deliveries: u64,
    /// Empty: the spool is healthy.
    pub faults: Vec<Fault>,
}

/// One lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneVerified {
    /// Its id.
    pub lane: u32,
    /// The integration's name.
    pub integration: String,
    /// Which of the integration's lanes.
    pub number: u32,
    /// Records that lie in it, settled ones that are kept included.
    pub records: u64,
    /// The oldest seq that lies in it; 0 when none does.
    pub first: u64,
    /// The newest seq that lies in it; 0 when none does.
    pub newest: u64,
    /// The first seq that is not settled.
    pub cursor: u64,
    /// Records that wait for delivery and can be read.
    pub queued: u64,
    /// Records that have gone between kept ones: (first, last).
    #[serde(skip)]
    gap: Option<(u64, u64)>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file at fault.
    pub file: PathBuf,
    /// Where in it: a lane and seq, an entry; empty: the file as a whole.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl Verified {
    fn fault(&mut self, file: &Path, place: String, what: impl Into<String>) {
        self.faults.push(Fault { file: file.to_owned(), place, what: what.into() });
    }

    fn refused(&mut self, directory: &Path, error: OpenError) {
        match error {
            OpenError::Damaged { path, what } => self.fault(&path, String::new(), what),
            error => self.fault(directory, String::new(), crate::spool::error::chain(&error)),
        }
    }
}

/// Checks the spool: its files and its log in place, its store in a copy below `temporary`.
///
/// # Errors
/// Only what is no fault of the spool's: no room for the copy, a folder that cannot be made.
pub fn verify(
    offline: &Offline,
    temporary: &Path,
    progress: Progress<'_>,
) -> Result<Verified, OpenError> {
    let mut verified = Verified::default();
    let directory = offline.directory();
    let manifest = Manifest::read(directory).unwrap_or_else(|error| {
        verified.refused(directory, error);
        None
    });
    let generation = match offline.generation() {
        Ok(generation) => generation,
        Err(error) => {
            verified.refused(directory, error);
            return Ok(verified);
        }
    };
    files(directory, &generation, manifest.as_ref(), &mut verified);
    let copy = Copy::make(offline, temporary, progress)?;
    let file = Store::file(copy.original());
    let store = match copy.open() {
        Ok(store) => store,
        Err(error @ (OpenError::NotDurable | OpenError::NoRoom { .. })) => return Err(error),
        Err(error) => {
            verified.refused(directory, error);
            return Ok(verified);
        }
    };
    let mut lanes = names(&store, &file, &mut verified);
    let log = directory.join(LOG);
    let last = records(&log, &store, &mut lanes, &mut verified)?;
    if let Some(Err(error)) = manifest.as_ref().map(|manifest| manifest.check_log(&log, last)) {
        verified.refused(directory, error);
    }
    cursors(&store, &file, &mut lanes, &mut verified);
    verified.lanes = lanes.into_values().collect();
    values(&store, &file, &mut verified);
    let floors: Vec<Floor> = verified.lanes.iter().map(LaneVerified::floor).collect();
    if let Some(Err(error)) = manifest.map(|manifest| manifest.check_lanes(&log, &floors)) {
        verified.refused(directory, error);
    }
    Ok(verified)
}

/// What can be told of the files without opening them.
fn files(
    directory: &Path,
    generation: &Path,
    manifest: Option<&Manifest>,
    verified: &mut Verified,
) {
    let file = Store::file(generation);
    let mut fault = |path: &Path, what: &str| verified.fault(path, String::new(), what);
    let current = directory.join("CURRENT");
    if !current.exists() {
        fault(&current, "is missing; a start adopts the only generation");
    }
    match manifest {
        None if !directory.join("manifest.json").exists() => {
            fault(
                &directory.join("manifest.json"),
                "is missing: nothing tells what the spool must hold",
            );
        }
        Some(manifest) if !generation.ends_with(&manifest.generation) => {
            fault(
                &directory.join("manifest.json"),
                &format!(
                    "speaks of the generation {:?}, which is not in force",
                    manifest.generation
                ),
            );
        }
        _ => {}
    }
    let conf = generation.join("conf");
    if fs::metadata(&conf).map_or(0, |metadata| metadata.len()) == 0 {
        fault(&conf, "is missing or empty");
    }
    for entry in fs::read_dir(generation).into_iter().flatten().flatten() {
        if is_half_snapshot(&entry.path()) {
            fault(&entry.path(), "is a half-written snapshot; a start moves it aside");
        }
    }
    let blobs = generation.join("blobs");
    if fs::read_dir(&blobs).is_ok_and(|mut entries| entries.next().is_some()) {
        fault(&blobs, "holds a file: a value was too large for the store's log");
    }
    if let Some(Err(error)) = manifest.map(|manifest| manifest.check_file(generation, &file)) {
        verified.refused(directory, error);
    }
}

impl LaneVerified {
    fn floor(&self) -> Floor {
        Floor { lane: self.lane, newest: self.newest.max(self.cursor - 1), cursor: self.cursor }
    }
}

/// Every frame of the log: its checksums, that it follows the one before, and so for its records. What the store lacks is
/// brought up to the log, as a start would. Returns the last frame.
fn records(
    log: &Path,
    store: &Store,
    lanes: &mut BTreeMap<LaneId, LaneVerified>,
    verified: &mut Verified,
) -> Result<u64, OpenError> {
    let applied = store.applied().unwrap_or_default();
    let noted = store.segments().unwrap_or_default();
    let numbers = Segment::list(log)?;
    for number in noted.keys().filter(|number| !numbers.contains(number)) {
        verified.fault(&segment::path(log, *number), String::new(), "is missing");
    }
    let (mut last, mut next, mut before) = (None, applied.segment, None);
    for number in numbers {
        let path = segment::path(log, number);
        if number > next {
            let what = "is missing, and later segments of the log are there";
            verified.fault(&segment::path(log, next), String::new(), what);
        }
        next = next.max(number + 1);
        if number < applied.segment && !noted.contains_key(&number) {
            continue; // its removal was cut short
        }
        if before.replace(number) != number.checked_sub(1) {
            last = None; // what lay between has gone
        }
        if number == applied.segment {
            last = Some(applied.before);
        }
        let (head, bytes) = match whole(log, number) {
            Ok(read) => read,
            Err(error) => {
                verified.refused(log, error);
                last = None;
                continue;
            }
        };
        let (frames, tail) = recovery::frames(&bytes, head, last.map(|last| last + 1));
        let end = match tail {
            Tail::End(end) => end,
            Tail::Damaged(at, what) => {
                verified.fault(&path, format!("at byte {at}"), what);
                at
            }
        };
        if noted.get(&number).is_some_and(|noted| noted.end > end) {
            verified.fault(&path, format!("at byte {end}"), "its frames end before they should");
        }
        for found in frames {
            last = Some(found.head.number);
            for part in found.parts {
                if let Part::Chunk { lane, first, value } = part {
                    chunk(&path, lane, first.0, value, lanes, verified);
                } else if found.head.number > applied.frame {
                    follow(store, log, &part, lanes, verified);
                }
            }
        }
    }
    if last.unwrap_or(0) < applied.frame {
        let what = format!(
            "ends with frame {}, but frame {} was durable",
            last.unwrap_or(0),
            applied.frame
        );
        verified.fault(log, String::new(), what);
    }
    Ok(last.unwrap_or(0))
}

/// A segment's head and all of its bytes.
fn whole(log: &Path, number: u64) -> Result<(SegmentHead, Vec<u8>), OpenError> {
    let segment = Segment::open(log, number)?;
    let bytes = segment.read_all().map_err(failed("read", segment.path()))?;
    Ok((segment.head, bytes))
}

/// Brings the store's copy up to a part.
fn follow(
    store: &Store,
    log: &Path,
    part: &Part<'_>,
    lanes: &mut BTreeMap<LaneId, LaneVerified>,
    verified: &mut Verified,
) {
    if let Err(error) = store.apply(part) {
        verified.fault(log, String::new(), error.0);
    }
    if matches!(part, Part::Put { tree: Tree::Lanes, .. }) {
        for (id, lane) in names(store, log, verified) {
            lanes.entry(id).or_insert(lane);
        }
    }
}

/// A chunk against those before it.
fn chunk(
    path: &Path,
    id: LaneId,
    first: u64,
    value: &[u8],
    lanes: &mut BTreeMap<LaneId, LaneVerified>,
    verified: &mut Verified,
) {
    let place = format!("lane {} seq {first}", id.0);
    let Some(lane) = lanes.get_mut(&id) else {
        verified.fault(path, place, "belongs to no lane");
        return;
    };
    let chunk = match Chunk::decode(value) {
        Ok(chunk) => chunk,
        Err(error) => {
            verified.fault(path, place, error.to_string());
            return;
        }
    };
    if lane.records == 0 {
        lane.first = first;
    } else if first != lane.newest + 1 {
        // Segments between kept ones may have gone, once their records were settled.
        lane.gap = Some((lane.newest + 1, first - 1));
    }
    lane.records += chunk.len() as u64;
    lane.newest = first + chunk.len() as u64 - 1;
}

/// Cursors against records.
fn cursors(
    store: &Store,
    file: &Path,
    lanes: &mut BTreeMap<LaneId, LaneVerified>,
    verified: &mut Verified,
) {
    for (id, lane) in lanes {
        let key = id.0.to_be_bytes();
        let place = format!("lane {}", id.0);
        match store
            .cursors
            .get(&key)
            .map(|value| value.map(|value| unseal::<Tallies>(&key, &value)))
        {
            Ok(Some(Ok(tallies))) => lane.cursor = tallies.cursor().0,
            Ok(None) => lane.cursor = 1,
            Ok(Some(Err(error))) => verified.fault(file, place.clone(), error.to_string()),
            Err(error) => verified.fault(file, place.clone(), error.0),
        }
        if let Some((from, to)) = lane.gap.filter(|(_, to)| *to >= lane.cursor) {
            verified.fault(file, place.clone(), format!("records {from} to {to} are missing"));
        }
        if lane.records == 0 {
            continue;
        }
        if lane.first > lane.cursor {
            let what = format!("records {} to {} are missing", lane.cursor, lane.first - 1);
            verified.fault(file, place.clone(), what);
        }
        if lane.newest < lane.cursor - 1 {
            let what =
                format!("its cursor {} lies behind its newest seq {}", lane.cursor, lane.newest);
            verified.fault(file, place, what);
        }
        lane.queued = (lane.newest + 1).saturating_sub(lane.cursor.max(lane.first));
    }
}

/// Every value of the store that has no lane.
fn values(store: &Store, file: &Path, verified: &mut Verified) {
    let sealed = |key: &[u8], value: &[u8]| {
        quarantine::decode(key, value).map(drop).map_err(|error| error.to_string())
    };
    verified.quarantined = each(&store.quarantine, file, "quarantine entry", verified, sealed);
    let sealed = |key: &[u8], value: &[u8]| {
        unseal::<Delivery>(key, value).map(drop).map_err(|error| error.to_string())
    };
    verified.deliveries = each(&store.deliveries, file, "delivery", verified, sealed);
    verified.identities = each(&store.identities, file, "identity", verified, |_, value| {
        let identity = Identity::decode(value).map_err(|error| error.0)?;
        let json = serde_json::from_slice::<serde_json::Map<_, _>>(&identity.json);
        json.map(drop).map_err(|error| format!("is no JSON object: {error}"))
    });
    each(&store.dedupe, file, "message ids", verified, |_, _| Ok(()));
    each(&store.segments, file, "segment", verified, |_, _| Ok(()));
    each(&store.ages, file, "age of an identity", verified, |_, _| Ok(()));
}

/// Checks every value of a tree; returns how many there are.
fn each(
    values: &Values,
    file: &Path,
    name: &str,
    verified: &mut Verified,
    check: impl Fn(&[u8], &[u8]) -> Result<(), String>,
) -> u64 {
    let mut count = 0;
    for item in &values.tree {
        let (key, stored) = match item {
            Ok(stored) => stored,
            Err(error) => {
                let what = format!("cannot be read on: {error}");
                verified.fault(file, name.to_owned(), what);
                break;
            }
        };
        count += 1;
        let sound = match values.read(&key, stored) {
            Ok(Some(value)) => check(&key, &value),
            Ok(None) => Ok(()),
            Err(error) => Err(error.0),
        };
        if let Err(what) = sound {
            verified.fault(file, format!("{name} {}", shown(&key)), what);
        }
    }
    count
}

fn names(store: &Store, file: &Path, verified: &mut Verified) -> BTreeMap<LaneId, LaneVerified> {
    let mut lanes = BTreeMap::new();
    each(&store.lanes, file, "lane", verified, |_, _| Ok(()));
    for lane in store.lanes().unwrap_or_default() {
        let told = LaneVerified {
            lane: lane.lane.0,
            integration: lane.integration,
            number: lane.number,
            cursor: 1,
            ..LaneVerified::default()
        };
        lanes.insert(lane.lane, told);
    }
    lanes
}

/// A key of numbers: an id, or a lane and a seq.
fn shown(key: &[u8]) -> String {
    match (parse_key(key), <[u8; 8]>::try_from(key)) {
        (Ok((lane, seq)), _) => format!("of lane {} seq {}", lane.0, seq.0),
        (_, Ok(id)) => u64::from_be_bytes(id).to_string(),
        // Another key may be a person's.
        _ => String::new(),
    }
}
