//! PURE. What a disk may hold after a power cut: files and folders with what is durable and what is pending.
//!
//! - A write is pending from the moment its call is entered, and may reach the disk at any time from then on.
//! - A sync makes durable what had returned before it was entered, once it has returned itself. fsync and fdatasync are
//!   one here: both flush the data and the length. `sync_file_range` promises neither, and so does nothing.
//! - Each sector (512 or 4096 bytes) of a file goes through its own history: at the cut it holds what the page cache held
//!   at some moment since the last sync. So a write may be torn anywhere, and a later one may be there without it.
//! - The length goes through its own history too: longer than the data (then zeros), or shorter (then the data is lost).
//! - Only a sync of the folder makes an entry durable; one of the file does not. POSIX orders no two entries, so each
//!   name goes through its own history; a rename is one step of both of its names, and never half done.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// An inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Node {
    File(usize),
    Folder(usize),
}

/// The folder that holds everything, and that was durable before.
pub(crate) const ROOT: Node = Node::Folder(0);

/// A call that changes the disk, from the line at which it was entered to the one at which it had returned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) entered: usize,
    pub(crate) returned: usize,
    pub(crate) effect: Effect,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Effect {
    Write {
        file: Node,
        offset: usize,
        bytes: Vec<u8>,
    },
    Resize {
        file: Node,
        length: usize,
    },
    /// Names that change together: a rename takes one away and sets the other.
    Names(Vec<Name>),
    Sync {
        node: Node,
        data_only: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) folder: Node,
    pub(crate) text: String,
    pub(crate) to: Option<Node>,
}

impl Step {
    /// The line from which a cut must reckon with it: a sync counts when it has returned.
    pub(crate) fn due(&self) -> usize {
        if matches!(self.effect, Effect::Sync { .. }) { self.returned } else { self.entered }
    }
}

/// Folders (`None`) and files by their paths.
pub(crate) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// The disk while steps go by.
#[derive(Debug, Default)]
pub(crate) struct Disk<'a> {
    names: BTreeMap<(Node, &'a str), Node>,
    names_pending: Vec<&'a Step>,
    files: BTreeMap<Node, File<'a>>,
}

#[derive(Debug, Default)]
struct File<'a> {
    durable: Vec<u8>,
    pending: Vec<&'a Step>,
}

impl<'a> Disk<'a> {
    /// Takes the next step, in the order of [`Step::due`].
    pub(crate) fn apply(&mut self, step: &'a Step) {
        match &step.effect {
            Effect::Write { file, .. } | Effect::Resize { file, .. } => {
                self.files.entry(*file).or_default().pending.push(step);
            }
            Effect::Names(_) => self.names_pending.push(step),
            Effect::Sync { node: Node::Folder(_), .. } => self.sync_folder(step),
            Effect::Sync { node, .. } => self.files.entry(*node).or_default().sync(step),
        }
    }

    fn sync_folder(&mut self, sync: &Step) {
        let Effect::Sync { node, .. } = sync.effect else { return };
        // Backwards: with a step goes every earlier one of the same names.
        let mut wanted = HashSet::new();
        let mut durable = Vec::new();
        for step in std::mem::take(&mut self.names_pending).into_iter().rev() {
            let keys: Vec<_> = names(step).map(key).collect();
            let covered =
                step.returned < sync.entered && keys.iter().any(|(folder, _)| *folder == node);
            if covered || keys.iter().any(|key| wanted.contains(key)) {
                wanted.extend(keys);
                durable.push(step);
            } else {
                self.names_pending.push(step);
            }
        }
        self.names_pending.reverse();
        durable.into_iter().rev().flat_map(names).for_each(|name| set(&mut self.names, name));
    }

    /// What may be there after a cut now, as `rng` decides.
    pub(crate) fn cut(&self, rng: &mut Rng) -> Image {
        self.image(&mut Luck::draw(rng), rng)
    }

    /// What is there without a cut.
    pub(crate) fn uncut(&self) -> Image {
        self.image(&mut Luck::good(), &mut Rng::with_seed(0))
    }

    fn image(&self, luck: &mut Luck, rng: &mut Rng) -> Image {
        let mut entries = self.names.clone();
        let mut lost = BTreeSet::new();
        for step in &self.names_pending {
            if names(step).any(|name| lost.contains(&key(name))) || !luck.names.keeps(rng) {
                lost.extend(names(step).map(key));
            } else {
                names(step).for_each(|name| set(&mut entries, name));
            }
        }
        let mut image = Image::new();
        let mut folders = vec![(ROOT, PathBuf::new())];
        while let Some((folder, path)) = folders.pop() {
            for ((_, name), node) in
                entries.range((folder, "")..).take_while(|(at, _)| at.0 == folder)
            {
                let path = path.join(name);
                let content = match node {
                    Node::Folder(_) => {
                        folders.push((*node, path.clone()));
                        None
                    }
                    Node::File(_) => {
                        luck.redraw(rng);
                        Some(
                            self.files
                                .get(node)
                                .map_or_else(Vec::new, |file| file.content(luck, rng)),
                        )
                    }
                };
                image.insert(path, content);
            }
        }
        image
    }
}

fn names(step: &Step) -> impl Iterator<Item = &Name> {
    let names = if let Effect::Names(names) = &step.effect { names.as_slice() } else { &[] };
    names.iter()
}

fn key(name: &Name) -> (Node, &str) {
    (name.folder, &name.text)
}

fn set<'a>(entries: &mut BTreeMap<(Node, &'a str), Node>, name: &'a Name) {
    match name.to {
        Some(node) => entries.insert(key(name), node),
        None => entries.remove(&key(name)),
    };
}

impl File<'_> {
    fn sync(&mut self, sync: &Step) {
        for step in self.pending.extract_if(.., |step| step.returned < sync.entered) {
            change(&mut self.durable, step, |_| true);
            if let Effect::Resize { length, .. } = step.effect {
                self.durable.resize(length, 0);
            }
        }
    }

    fn content(&self, luck: &Luck, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let (mut live, mut length, mut length_stuck) = (bytes.len(), bytes.len(), false);
        let mut stuck = HashSet::new();
        for step in &self.pending {
            live = match &step.effect {
                Effect::Write { offset, bytes, .. } => live.max(offset + bytes.len()),
                Effect::Resize { length, .. } => *length,
                _ => live,
            };
            length_stuck = length_stuck || !luck.length.keeps(rng);
            if !length_stuck {
                length = live;
            }
            let whole = luck.whole_writes.then(|| luck.data.keeps(rng));
            change(&mut bytes, step, |at| {
                let sector = at / luck.sector;
                let keeps =
                    !stuck.contains(&sector) && whole.unwrap_or_else(|| luck.data.keeps(rng));
                if !keeps {
                    stuck.insert(sector);
                }
                keeps
            });
        }
        bytes.resize(length, 0);
        bytes
    }
}

/// Applies a write or a resize to those pieces of 512 bytes that `keeps` names by their offset. A resize leaves zeros
/// behind the new length, which is the caller's to set.
fn change(bytes: &mut Vec<u8>, step: &Step, mut keeps: impl FnMut(usize) -> bool) {
    match &step.effect {
        Effect::Write { offset, bytes: new, .. } => {
            let end = offset + new.len();
            bytes.resize(bytes.len().max(end), 0);
            for piece in pieces(*offset..end) {
                if keeps(piece.start) {
                    bytes[piece.clone()]
                        .copy_from_slice(&new[piece.start - offset..piece.end - offset]);
                }
            }
        }
        Effect::Resize { length, .. } => {
            for piece in pieces(*length..bytes.len()) {
                if keeps(piece.start) {
                    bytes[piece].fill(0);
                }
            }
        }
        Effect::Names(_) | Effect::Sync { .. } => {}
    }
}

/// A range in pieces that end where a piece of the file ends.
fn pieces(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let piece = at..range.end.min((at / PIECE + 1) * PIECE);
        at = piece.end;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The smallest sector.
const PIECE: usize = 512;

/// How much of what was pending reaches the disk.
#[derive(Clone, Copy, Debug)]
enum Chance {
    Never,
    Always,
    /// In percent.
    Some(u8),
}

impl Chance {
    fn draw(rng: &mut Rng) -> Chance {
        let chances =
            [Chance::Never, Chance::Always, Chance::Some(10), Chance::Some(50), Chance::Some(90)];
        chances[rng.usize(..chances.len())]
    }

    fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Chance::Never => false,
            Chance::Always => true,
            Chance::Some(percent) => rng.u8(..100) < percent,
        }
    }
}

/// What one cut does: drawn once for the names, and anew for each file.
#[derive(Clone, Copy, Debug)]
struct Luck {
    names: Chance,
    data: Chance,
    length: Chance,
    /// Each write is lost or kept as a whole.
    whole_writes: bool,
    sector: usize,
    fixed: bool,
}

impl Luck {
    fn good() -> Luck {
        let (names, data, length) = (Chance::Always, Chance::Always, Chance::Always);
        Luck { names, data, length, whole_writes: false, sector: PIECE, fixed: true }
    }

    fn draw(rng: &mut Rng) -> Luck {
        let mut luck = Luck { names: Chance::draw(rng), fixed: false, ..Luck::good() };
        luck.redraw(rng);
        luck
    }

    fn redraw(&mut self, rng: &mut Rng) {
        if !self.fixed {
            (self.data, self.length) = (Chance::draw(rng), Chance::draw(rng));
            (self.whole_writes, self.sector) = (rng.bool(), if rng.bool() { PIECE } else { 4096 });
        }
    }
}

/// The image as a folder. Zeros become holes.
pub(crate) fn write(image: &Image, folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;

    static ZEROS: [u8; 65_536] = [0; 65_536];
    for (path, content) in image {
        let path = folder.join(path);
        let Some(bytes) = content else {
            std::fs::create_dir(path)?;
            continue;
        };
        let file = std::fs::File::create(path)?;
        file.set_len(bytes.len() as u64)?;
        for (piece, at) in bytes.chunks(ZEROS.len()).zip((0..).step_by(ZEROS.len())) {
            if *piece != ZEROS[..piece.len()] {
                file.write_all_at(piece, at)?;
            }
        }
    }
    Ok(())
}

/// A folder as an image.
pub(crate) fn read(folder: &Path) -> std::io::Result<Image> {
    let mut image = Image::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&at))? {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path.clone());
                image.insert(path, None);
            } else if entry.file_type()?.is_file() {
                image.insert(path, Some(std::fs::read(entry.path())?));
            }
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Node = Node::File(1);

    fn step(entered: usize, effect: Effect) -> Step {
        Step { entered, returned: entered, effect }
    }

    fn link(folder: Node, name: &str, to: Option<Node>) -> Name {
        Name { folder, text: name.to_owned(), to }
    }

    fn create(at: usize, name: &str, node: Node) -> Step {
        step(at, Effect::Names(vec![link(ROOT, name, Some(node))]))
    }

    fn put(at: usize, offset: usize, bytes: &[u8]) -> Step {
        step(at, Effect::Write { file: FILE, offset, bytes: bytes.to_vec() })
    }

    fn sync(at: usize, node: Node) -> Step {
        step(at, Effect::Sync { node, data_only: false })
    }

    /// All that a cut after `steps` may leave, as far as 500 tries find it.
    fn cuts(steps: &[Step]) -> BTreeSet<Vec<(String, Vec<u8>)>> {
        let mut disk = Disk::default();
        for step in steps {
            disk.apply(step);
        }
        let cut = |seed| {
            let image = disk.cut(&mut Rng::with_seed(seed)).into_iter();
            let text = |path: PathBuf| path.to_str().unwrap().to_owned();
            image.map(|(path, bytes)| (text(path), bytes.unwrap_or_default())).collect()
        };
        (0..500).map(cut).collect()
    }

    /// The contents of the file `f`, which is durable in its folder, after a cut.
    fn contents(steps: &[Step]) -> BTreeSet<Vec<u8>> {
        let steps = [&[create(0, "f", FILE), sync(1, ROOT)], steps].concat();
        let contents = cuts(&steps).into_iter();
        contents.map(|files| files.into_iter().next().unwrap().1).collect()
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_may_go() {
        let steps = [put(2, 0, b"ab"), sync(3, FILE), put(4, 1, b"c")];
        assert_eq!(contents(&steps), BTreeSet::from([b"ab".to_vec(), b"ac".to_vec()]));
    }

    #[test]
    fn a_sync_covers_only_what_had_returned_before_it() {
        let mut late = put(2, 0, b"ab");
        late.returned = 5;
        let sync = Step { entered: 4, returned: 6, effect: sync(4, FILE).effect };
        assert!(contents(&[late, sync]).contains(&Vec::new()));
    }

    #[test]
    fn length_and_data_go_apart() {
        let found = contents(&[put(2, 0, b"ab")]);
        assert_eq!(found, BTreeSet::from([Vec::new(), vec![0, 0], b"ab".to_vec()]));
    }

    #[test]
    fn a_sector_holds_what_it_held_at_some_moment() {
        let steps = [put(2, 0, b"aa"), sync(3, FILE), put(4, 0, b"b"), put(5, 1, b"c")];
        let found = contents(&steps);
        assert_eq!(found, [b"aa", b"ba", b"bc"].iter().map(|bytes| bytes.to_vec()).collect());
    }

    #[test]
    fn a_write_may_be_torn_between_sectors_in_any_order() {
        let steps = [put(2, 0, &[1; 1024]), sync(3, FILE), put(4, 0, &[2; 1024])];
        let firsts: BTreeSet<(u8, u8)> =
            contents(&steps).into_iter().map(|bytes| (bytes[0], bytes[600])).collect();
        assert_eq!(firsts, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    }

    #[test]
    fn what_is_cut_off_comes_back_or_not() {
        let found = contents(&[
            put(2, 0, b"ab"),
            sync(3, FILE),
            step(4, Effect::Resize { file: FILE, length: 1 }),
        ]);
        assert_eq!(found, [&b"ab"[..], b"a\0", b"a"].iter().map(|bytes| bytes.to_vec()).collect());
    }

    #[test]
    fn an_entry_needs_a_sync_of_its_folder() {
        let steps = [create(1, "f", FILE), put(2, 0, b"a"), sync(3, FILE)];
        assert!(cuts(&steps).contains(&Vec::new()), "the file's own sync does not keep its name");
        let steps = [&steps[..], &[sync(4, ROOT)]].concat();
        assert_eq!(
            cuts(&steps).into_iter().collect::<Vec<_>>(),
            [[("f".to_owned(), b"a".to_vec())]]
        );
    }

    #[test]
    fn a_rename_is_never_half_done_and_comes_after_what_made_its_names() {
        let rename =
            Effect::Names(vec![link(ROOT, "new", None), link(ROOT, "f", Some(Node::File(2)))]);
        let steps =
            [create(1, "f", FILE), sync(2, ROOT), create(3, "new", Node::File(2)), step(4, rename)];
        let names: BTreeSet<Vec<String>> = cuts(&steps)
            .into_iter()
            .map(|files| files.into_iter().map(|(name, _)| name).collect())
            .collect();
        let expected = [vec!["f".to_owned()], vec!["f".to_owned(), "new".to_owned()]];
        assert_eq!(names, BTreeSet::from(expected));
    }

    #[test]
    fn names_go_apart() {
        let steps = [create(1, "a", FILE), create(2, "b", FILE)];
        assert_eq!(cuts(&steps).len(), 4);
    }

    #[test]
    fn an_image_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 200_000];
        bytes[131_072] = 1;
        let image = Image::from([("d".into(), None), ("d/f".into(), Some(bytes))]);
        write(&image, folder.path()).unwrap();
        assert!(read(folder.path()).unwrap() == image);
    }
}
