//! PURE. From the daemon's calls to what they did to the disk, and what was heard meanwhile.
//!
//! Descriptors and paths become nodes. Requests and answers are told from each other by their first bytes: what a socket
//! took in before an `HTTP/1.1 200` is the request that was answered; what it gave out before an `HTTP/1.1 202` came
//! back is the push that upstream took.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::{Effect, Image, Name, Node, ROOT, Step};
use super::trace::{Call, calls};

/// What some runs of the daemon did, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct History {
    /// In the order of [`Step::due`].
    pub(crate) steps: Vec<Step>,
    pub(crate) heard: Vec<Heard>,
    /// For each run the first of its lines.
    pub(crate) begins: Vec<usize>,
    lines: usize,
    names: BTreeMap<(Node, String), Node>,
    lengths: Vec<usize>,
}

/// An answer that counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// From this line on.
    pub(crate) at: usize,
    pub(crate) what: What,
    /// The events or records that it is about, in order.
    pub(crate) ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A producer got its 200.
    Answered,
    /// Upstream's 202 came.
    Accepted,
}

/// What one process has open.
#[derive(Debug, Default)]
struct Process {
    files: HashMap<i64, Open>,
    sockets: HashMap<i64, Socket>,
}

#[derive(Clone, Debug)]
struct Open {
    node: Node,
    offset: usize,
    append: bool,
}

#[derive(Debug, Default)]
struct Socket {
    taken: Vec<u8>,
    given: Vec<u8>,
}

impl History {
    /// Takes the trace of the next run on the folder `root`. `after` is what the run left there: it says whether a call
    /// was done in which the process was killed.
    pub(crate) fn add_run(&mut self, trace: &str, root: &Path, after: &Image) {
        let mut calls = calls(trace, self.lines);
        self.begins.push(self.lines);
        self.lines += trace.lines().count() + 1;
        // A descriptor is taken when its open returns, and free when its close is entered.
        calls.sort_by_key(
            |call| if call.name.starts_with("open") { call.returned } else { call.entered },
        );
        let mut process = Process::default();
        for call in &calls {
            if call.result.is_some_and(|result| result >= 0)
                || call.result.is_none() && self.was_done(call, &process, root, after)
            {
                self.take(call, &mut process, root);
            }
        }
        self.steps.sort_by_key(Step::due);
    }

    fn take(&mut self, call: &Call, process: &mut Process, root: &Path) {
        let number =
            |index: usize| call.arguments.get(index).and_then(|text| text.parse::<i64>().ok());
        let fd = number(0).unwrap_or(-1);
        let result = call.result.unwrap_or_default();
        match call.name.as_str() {
            "open" | "creat" | "openat" => self.open(call, process, root),
            "close" => {
                process.files.remove(&fd);
                process.sockets.remove(&fd);
            }
            "dup" | "dup2" | "dup3" => process.duplicate(fd, result),
            "fcntl" if call.arguments.get(1).is_some_and(|what| what.starts_with("F_DUPFD")) => {
                process.duplicate(fd, result);
            }
            "lseek" => {
                if let Some(open) = process.files.get_mut(&fd) {
                    open.offset = offset(result);
                }
            }
            "recvfrom" | "recvmsg" => self.hear(call, process.sockets.entry(fd).or_default()),
            "write" | "writev" | "pwrite64" | "pwritev" | "sendto" | "sendmsg" => {
                self.write(call, process, fd);
            }
            "ftruncate" => self.resize(call, process, fd, number(1)),
            "fallocate" => self.allocate(call, process, fd, [number(2), number(3)]),
            "fsync" | "fdatasync" => {
                if let Some(open) = process.files.get(&fd) {
                    let data_only = call.name == "fdatasync";
                    self.step(call, Effect::Sync { node: open.node, data_only });
                }
            }
            "sync_file_range" | "fcntl" => {}
            "mkdir" | "mkdirat" | "unlink" | "unlinkat" | "rmdir" | "rename" | "renameat"
            | "renameat2" => {
                self.rename(call, process, root);
            }
            other => panic!("the model does not know {other}: teach it"),
        }
    }

    fn step(&mut self, call: &Call, effect: Effect) {
        // The process was killed in it: it never returned.
        let returned = if call.result.is_some() { call.returned } else { usize::MAX };
        self.steps.push(Step { entered: call.entered, returned, effect });
    }

    // ── names ──

    /// The folder and name of each path in a call, where they lie below `root`.
    fn places(&self, call: &Call, process: &Process, root: &Path) -> Vec<Option<(Node, String)>> {
        let of_text = |(index, text): (usize, &Vec<u8>)| {
            let text = String::from_utf8_lossy(text).into_owned();
            let (mut folder, path) = if let Ok(path) = Path::new(&text).strip_prefix(root) {
                (ROOT, path)
            } else {
                let argument = call
                    .arguments
                    .iter()
                    .enumerate()
                    .filter(|(_, argument)| *argument == "$")
                    .nth(index)?
                    .0;
                let fd = call.arguments.get(argument.checked_sub(1)?)?.parse::<i64>().ok()?;
                (process.files.get(&fd)?.node, Path::new(&text))
            };
            let mut parts: Vec<String> =
                path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let name = parts.pop()?;
            for part in parts {
                folder = *self.names.get(&(folder, part))?;
            }
            Some((folder, name))
        };
        call.texts.iter().enumerate().map(of_text).collect()
    }

    fn node(&mut self) -> usize {
        self.lengths.resize(self.lengths.len().max(1) + 1, 0); // 0 is the root
        self.lengths.len() - 1
    }

    fn rename(&mut self, call: &Call, process: &Process, root: &Path) {
        let mut places = self.places(call, process, root).into_iter();
        // What is not known is a socket, which a power cut does not leave.
        let Some(place) = places.next().flatten() else { return };
        let mut names = Vec::new();
        if call.name.starts_with("mkdir") {
            let node = Node::Folder(self.node());
            names.push((place, Some(node)));
        } else {
            let Some(node) = self.names.get(&place).copied() else { return };
            names.push((place, None));
            if call.name.starts_with("rename") {
                names.push((
                    places.next().flatten().expect("renamed within the folder"),
                    Some(node),
                ));
            }
        }
        self.name(call, names);
    }

    fn name(&mut self, call: &Call, names: Vec<((Node, String), Option<Node>)>) {
        for (place, to) in &names {
            match to {
                Some(node) => self.names.insert(place.clone(), *node),
                None => self.names.remove(place),
            };
        }
        let names =
            names.into_iter().map(|((folder, text), to)| Name { folder, text, to }).collect();
        self.step(call, Effect::Names(names));
    }

    fn open(&mut self, call: &Call, process: &mut Process, root: &Path) {
        let result = call.result.unwrap_or(-1);
        process.files.remove(&result);
        let flags: Vec<&str> =
            call.arguments.iter().flat_map(|argument| argument.split('|')).collect();
        assert!(
            !flags.iter().any(|flag| flag.ends_with("SYNC") || *flag == "O_TMPFILE"),
            "the model does not know {flags:?}"
        );
        let at_root = call.texts.iter().any(|text| text == root.as_os_str().as_encoded_bytes());
        let place = self.places(call, process, root).into_iter().next().flatten();
        let known = if at_root {
            Some(ROOT)
        } else {
            place.as_ref().and_then(|place| self.names.get(place).copied())
        };
        let node = match (known, place) {
            (Some(node), _) => node,
            (None, Some(place)) if flags.contains(&"O_CREAT") || call.name == "creat" => {
                let node = Node::File(self.node());
                self.name(call, vec![(place, Some(node))]);
                node
            }
            _ => return,
        };
        process.files.insert(result, Open { node, offset: 0, append: flags.contains(&"O_APPEND") });
        if (flags.contains(&"O_TRUNC") || call.name == "creat") && *self.length(node) > 0 {
            *self.length(node) = 0;
            self.step(call, Effect::Resize { file: node, length: 0 });
        }
    }

    // ── content ──

    fn length(&mut self, node: Node) -> &mut usize {
        let (Node::File(number) | Node::Folder(number)) = node;
        &mut self.lengths[number]
    }

    fn write(&mut self, call: &Call, process: &mut Process, fd: i64) {
        let mut bytes = call.texts.concat();
        bytes.truncate(call.result.map_or(bytes.len(), offset));
        let Some(open) = process.files.get_mut(&fd) else {
            return self.say(call, process.sockets.entry(fd).or_default(), &bytes);
        };
        let file = open.node;
        let length = self.length(file);
        let given = call.arguments.last().and_then(|text| text.parse().ok());
        let at = given.filter(|_| call.name.starts_with('p'));
        let at = at.unwrap_or(if open.append { *length } else { open.offset });
        if !call.name.starts_with('p') {
            open.offset = at + bytes.len();
        }
        *length = (at + bytes.len()).max(*length);
        self.step(call, Effect::Write { file, offset: at, bytes });
    }

    fn resize(&mut self, call: &Call, process: &Process, fd: i64, length: Option<i64>) {
        if let (Some(open), Some(length)) = (process.files.get(&fd), length) {
            let (file, length) = (open.node, offset(length));
            *self.length(file) = length;
            self.step(call, Effect::Resize { file, length });
        }
    }

    fn allocate(&mut self, call: &Call, process: &Process, fd: i64, range: [Option<i64>; 2]) {
        let (Some(open), [Some(at), Some(bytes)]) = (process.files.get(&fd), range) else { return };
        let end = offset(at + bytes);
        match call.arguments.get(1).map(String::as_str) {
            Some("0") if end > *self.length(open.node) => {
                *self.length(open.node) = end;
                self.step(call, Effect::Resize { file: open.node, length: end });
            }
            Some("0" | "FALLOC_FL_KEEP_SIZE") => {}
            mode => panic!("the model does not know fallocate with {mode:?}: teach it"),
        }
    }

    /// Whether a call was done in which the process was killed, by what the disk holds `after` it.
    fn was_done(&self, call: &Call, process: &Process, root: &Path, after: &Image) -> bool {
        let number = |text: Option<&String>| -> usize { text.unwrap().parse().unwrap() };
        let on_disk = |of: Node| {
            let path = self.paths().into_iter().find(|(_, node)| *node == of)?.0;
            after.get(Path::new(&path))?.as_ref()
        };
        let written = |file: Node, at: usize| {
            let bytes = call.texts.concat();
            on_disk(file).and_then(|held| held.get(at..at + bytes.len())) == Some(&bytes)
        };
        let length = |of: Node| {
            let (Node::File(number) | Node::Folder(number)) = of;
            self.lengths[number]
        };
        let fd = call.arguments.first().and_then(|fd| fd.parse::<i64>().ok());
        let open = fd.and_then(|fd| process.files.get(&fd));
        let place = || self.places(call, process, root).into_iter().next().flatten();
        match (call.name.as_str(), open) {
            ("open" | "openat" | "creat" | "mkdir" | "mkdirat", _) => {
                place().is_some_and(|place| match self.names.get(&place) {
                    None => self.holds(&place, after),
                    // It may have been emptied.
                    Some(node) => length(*node) > 0 && on_disk(*node).is_some_and(Vec::is_empty),
                })
            }
            ("unlink" | "unlinkat" | "rmdir" | "rename" | "renameat" | "renameat2", _) => place()
                .is_some_and(|place| self.names.contains_key(&place) && !self.holds(&place, after)),
            ("pwrite64", Some(open)) => written(open.node, number(call.arguments.last())),
            ("write" | "writev", Some(open)) => {
                written(open.node, if open.append { length(open.node) } else { open.offset })
            }
            ("ftruncate", Some(open)) => {
                on_disk(open.node).is_some_and(|held| held.len() == number(call.arguments.get(1)))
            }
            ("pwritev" | "fallocate", Some(_)) => {
                panic!("the model does not know what becomes of {call:?}: teach it")
            }
            // On a socket, or it leaves the disk as it is: a sync counts from its return.
            _ => false,
        }
    }

    /// Whether `after` has something at the place.
    fn holds(&self, (folder, name): &(Node, String), after: &Image) -> bool {
        let folder = match folder {
            &ROOT => Some(String::new()),
            _ => self.paths().into_iter().find(|(_, node)| node == folder).map(|(path, _)| path),
        };
        folder.is_some_and(|folder| after.contains_key(&Path::new(&folder).join(name)))
    }

    fn paths(&self) -> Vec<(String, Node)> {
        let mut folders = vec![(String::new(), ROOT)];
        let mut paths = Vec::new();
        while let Some((path, folder)) = folders.pop() {
            for ((_, name), node) in self.names.iter().filter(|((at, _), _)| *at == folder) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if matches!(node, Node::Folder(_)) {
                    folders.push((path.clone(), *node));
                }
                paths.push((path, *node));
            }
        }
        paths
    }

    // ── answers ──

    fn hear(&mut self, call: &Call, socket: &mut Socket) {
        let bytes = call.texts.first().map_or(&[][..], Vec::as_slice);
        if bytes.starts_with(b"HTTP/1.1 ") {
            if bytes.starts_with(b"HTTP/1.1 202") {
                let ids = ids(&socket.given);
                self.heard.push(Heard { at: call.returned, what: What::Accepted, ids });
            }
            socket.given.clear();
        } else {
            socket.taken.extend_from_slice(bytes);
        }
    }

    fn say(&mut self, call: &Call, socket: &mut Socket, bytes: &[u8]) {
        if bytes.starts_with(b"HTTP/1.1 ") {
            if bytes.starts_with(b"HTTP/1.1 200") {
                let ids = ids(&socket.taken);
                self.heard.push(Heard { at: call.entered, what: What::Answered, ids });
            }
            socket.taken.clear();
        } else {
            socket.given.extend_from_slice(bytes);
        }
    }
}

impl Process {
    fn duplicate(&mut self, from: i64, to: i64) {
        match self.files.get(&from).cloned() {
            Some(open) => self.files.insert(to, open),
            None => self.files.remove(&to),
        };
    }
}

/// The ids of the workload in a request, a push or a record: quoted, `kind-producer-number`.
pub(crate) fn ids(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let is_id = |word: &&str| {
        word.len() == 9 && ["e-", "i-", "x-"].iter().any(|kind| word.starts_with(kind))
    };
    text.split('"').filter(is_id).map(str::to_owned).collect()
}

fn offset(number: i64) -> usize {
    usize::try_from(number).expect("no negative offset")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Goal: a process that is killed in a call leaves a history that agrees with what it left on the disk.
    /// Method: each call is cut short, and the disk shows it done, or not.
    #[test]
    fn a_call_cut_short_counts_when_the_disk_shows_it() {
        // /r/a, which holds "x", is open as 5.
        let before = r#"7 openat(AT_FDCWD, "\x2f\x72\x2f\x61", O_RDWR|O_CREAT, 0600) = 5
7 pwrite64(5, "\x78", 1, 0) = 1
"#;
        let a = || (PathBuf::from("a"), Some(b"x".to_vec()));
        let b = || (PathBuf::from("b"), Some(Vec::new()));
        let folder = || (PathBuf::from("b"), None);
        let grown = || (PathBuf::from("a"), Some(b"xy".to_vec()));
        let emptied = || (PathBuf::from("a"), Some(Vec::new()));
        let moved = || (PathBuf::from("b"), Some(b"x".to_vec()));
        let table = [
            (r"close(5", vec![a()], 0),
            (r"lseek(5, 0, SEEK_END", vec![a()], 0),
            (r"fdatasync(5", vec![a()], 0),
            (r#"pwrite64(5, "\x79", 1, 1"#, vec![a()], 0),
            (r#"pwrite64(5, "\x79", 1, 1"#, vec![grown()], 1),
            (r"ftruncate(5, 0", vec![a()], 0),
            (r"ftruncate(5, 0", vec![emptied()], 1),
            (r#"openat(AT_FDCWD, "\x2f\x72\x2f\x62", O_RDWR|O_CREAT, 0600"#, vec![a()], 0),
            (r#"openat(AT_FDCWD, "\x2f\x72\x2f\x62", O_RDWR|O_CREAT, 0600"#, vec![a(), b()], 1),
            (r#"openat(AT_FDCWD, "\x2f\x72\x2f\x61", O_RDWR"#, vec![a()], 0),
            (r#"openat(AT_FDCWD, "\x2f\x72\x2f\x61", O_RDWR|O_TRUNC"#, vec![a()], 0),
            (r#"openat(AT_FDCWD, "\x2f\x72\x2f\x61", O_RDWR|O_TRUNC"#, vec![emptied()], 1),
            (r#"write(5, "\x79", 1"#, vec![a()], 0),
            (r#"write(5, "\x79", 1"#, vec![(PathBuf::from("a"), Some(b"y".to_vec()))], 1),
            (r#"mkdir("\x2f\x72\x2f\x62", 0700"#, vec![a()], 0),
            (r#"mkdir("\x2f\x72\x2f\x62", 0700"#, vec![a(), folder()], 1),
            (r#"unlink("\x2f\x72\x2f\x61""#, vec![a()], 0),
            (r#"unlink("\x2f\x72\x2f\x61""#, vec![], 1),
            (r#"rename("\x2f\x72\x2f\x61", "\x2f\x72\x2f\x62""#, vec![a()], 0),
            (r#"rename("\x2f\x72\x2f\x61", "\x2f\x72\x2f\x62""#, vec![moved()], 1),
        ];
        for (call, left, steps) in table {
            let mut history = History::default();
            let trace = format!("{before}7 {call} <unfinished ...>\n7 +++ killed by SIGKILL +++\n");
            let after: Image = left.into_iter().collect();
            history.add_run(&trace, Path::new("/r"), &after);
            assert_eq!(history.steps.len(), 2 + steps, "{call}, then {after:?}");
            let mut disk = crate::disk::Disk::default();
            history.steps.iter().for_each(|step| disk.apply(step));
            assert_eq!(disk.uncut(), after, "{call}");
        }
    }
}
