//! The live view on a terminal of its own: it shows, obeys keys, and gives the terminal back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use support::{Host, Upstream, wait_until};

/// Leaves the alternate screen.
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// Goal: what is shown comes from the daemon, a key pauses, a restart is survived, and `q` and SIGTERM give the terminal back.
/// Method: `script` makes the terminal.
#[test]
fn the_live_view_shows_asks_and_leaves_the_terminal_as_it_was() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let program = env!("CARGO_BIN_EXE_pillarbox");
    let top =
        format!("stty rows 24 cols 80; exec {program} top --config {}", host.config().display());
    let state = || host.status()["integrations"][0]["report"]["state"].clone();
    let mut view = View::open(&top);
    view.shows("accepting");
    assert!(!view.text().contains("\u{1b}[32m"), "colour in spite of NO_COLOR: {}", view.text());
    view.press("p");
    wait_until("the pause", || state() == "paused");
    view.shows("operator:");
    daemon.kill();
    view.shows("ANSWER");
    view.forget();
    let daemon = host.start();
    view.shows("accepting");
    view.press("r");
    wait_until("the resumption", || state() == "idle");
    view.press("q");
    assert!(view.ended().contains(GIVEN_BACK));

    let file = host.folder.path().join("pid");
    let top = top.replace("exec", &format!("echo $$ > {}; exec", file.display()));
    let mut view = View::open(&top);
    view.shows("accepting");
    let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(view.ended().contains(GIVEN_BACK));
    assert_eq!(daemon.stop().0, Some(0));
    let piped = host.pillarbox(&["top"]);
    assert_eq!(piped.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("needs a terminal"), "{piped:?}");
}

/// A program on a terminal.
struct View {
    child: std::process::Child,
    shown: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl View {
    fn open(shell: &str) -> View {
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", shell, "/dev/null"]);
        command.env("NO_COLOR", "1").env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let to = shown.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(bytes @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..bytes).unwrap()).into_owned();
                to.lock().unwrap().push_str(&text);
            }
        });
        View { child, shown, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Only what changes is drawn, and a space may stay: what is looked for is a word.
    fn shows(&self, text: &str) {
        wait_until(text, || self.text().contains(text));
    }

    fn forget(&self) {
        self.shown.lock().unwrap().clear();
    }

    fn press(&mut self, key: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(key.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    /// Everything that it has shown, once it has ended.
    fn ended(&mut self) -> String {
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.text()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Its terminal goes with it, and so does what runs there. It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
