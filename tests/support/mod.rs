//! A daemon in a temporary folder, its upstream, and a producer: the real binary, a real socket, the real disk.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod console;
pub(crate) mod victim;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pillarbox::simulator::{Handle, Options, Simulator};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Conditions that should hold at once are waited for so long: a slow machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come true in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The stand-in for Ometria, on a thread of its own.
pub(crate) struct Upstream {
    pub(crate) handle: Handle,
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    pub(crate) fn start(key: Option<&str>, faults: &[&str]) -> Upstream {
        let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
        let listen = "127.0.0.1:0".parse().unwrap();
        let api_key = key.map(Into::into);
        let options = Options { listen, api_key, faults, ..Options::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let simulator = Simulator::bind(options).await.unwrap();
                ready.send((simulator.handle(), simulator.url())).unwrap();
                simulator.run(async { drop(stopped.await) }).await;
            });
        });
        let (handle, url) = bound.recv().unwrap();
        Upstream { handle, url, stop: Some(stop), thread: Some(thread) }
    }

    /// Ids of the accepted records, in the order of their arrival.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.handle.records().into_iter().map(|record| record.id).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A folder with a configuration, in which daemons come and go.
pub(crate) struct Host {
    pub(crate) folder: TempDir,
}

impl Host {
    /// `more` is appended to the integration's table.
    pub(crate) fn new(endpoint: &str, key: &str, more: &str) -> Host {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        host.configure(endpoint, key, more);
        host
    }

    pub(crate) fn configure(&self, endpoint: &str, key: &str, more: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "state_dir = \"{at}/state\"\n[ingest]\nsocket = \"{at}/ingest.sock\"\n[admin]\nsocket = \"{at}/admin.sock\"\n\
             [spool]\nmin_free_disk = \"0B\"\n[[integration]]\nname = \"uk\"\napi_key = \"{key}\"\nendpoint = \"{endpoint}\"\n\
             retry = {{ initial = \"10ms\", max = \"50ms\" }}\nlinger = \"20ms\"\n{more}\n"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("pillarbox.toml")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.folder.path().join("ingest.sock")
    }

    /// Runs a command to its end.
    pub(crate) fn pillarbox(&self, arguments: &[&str]) -> Output {
        let mut command = pillarbox();
        command.args(arguments).arg("--config").arg(self.config());
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Starts a daemon and waits until it answers.
    pub(crate) fn start(&self) -> Daemon {
        Host::start_as(self.command(&[]))
    }

    /// What starts a daemon, with more arguments.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = pillarbox();
        command.arg("run").arg("--config").arg(self.config()).args(more);
        command
    }

    /// Starts a daemon by a command of its own, a tracer for example.
    pub(crate) fn start_as(command: Command) -> Daemon {
        let started = Host::try_start_as(command);
        started.unwrap_or_else(|(_, log)| panic!("the daemon did not start:\n{log}"))
    }

    /// The same; its exit code and log when it ends before it is ready.
    pub(crate) fn try_start_as(mut command: Command) -> Result<Daemon, (Option<i32>, String)> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains(" ready ") {
            if lines.read_line(&mut log).unwrap() == 0 {
                return Err((child.wait().unwrap().code(), log));
            }
        }
        // The rest of the log must be read, or the daemon would wait for a reader.
        let started = log.clone();
        let reader = std::thread::spawn(move || {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            log + &rest
        });
        Ok(Daemon { child, started, log: Some(reader) })
    }

    /// The status as JSON.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.pillarbox(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A number of the integration's lane.
    pub(crate) fn lane(&self, key: &str) -> u64 {
        self.status()["integrations"][0]["lane"][key].as_u64().unwrap()
    }

    /// Waits until everything is settled.
    pub(crate) fn wait_until_settled(&self) {
        wait_until("an empty queue", || self.lane("queued_records") == 0);
    }
}

/// Names another build of the program, to be tested in the place of the test build's own.
pub(crate) const PROGRAM: &str = "PILLARBOX_PROGRAM";

/// The program, with what is to be told to it.
pub(crate) fn pillarbox() -> Command {
    let own = || env!("CARGO_BIN_EXE_pillarbox").into();
    let mut command = Command::new(std::env::var_os(PROGRAM).unwrap_or_else(own));
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
    command
}

/// A running daemon. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    started: String,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Daemon {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The first TCP address that it listens on.
    pub(crate) fn tcp_address(&self) -> String {
        let rest = self.started.split("listening on TCP address=").nth(1).expect("a TCP address");
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// SIGKILL, and nothing else.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// SIGTERM, without waiting for the end.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// SIGTERM; returns the exit code, how long it took, and the log.
    pub(crate) fn stop(mut self) -> (Option<i32>, Duration, String) {
        let begun = Instant::now();
        self.terminate();
        let status = self.child.wait().unwrap();
        (status.code(), begun.elapsed(), self.log.take().unwrap().join().unwrap())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A producer with one connection.
pub(crate) struct Producer {
    stream: BufReader<UnixStream>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Producer {
    pub(crate) fn connect(socket: &Path) -> Producer {
        Producer::try_connect(socket).unwrap()
    }

    /// Connects, when a daemon listens.
    pub(crate) fn try_connect(socket: &Path) -> std::io::Result<Producer> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Producer::over(stream))
    }

    /// A producer on a connection that is there.
    pub(crate) fn over(stream: UnixStream) -> Producer {
        Producer { stream: BufReader::new(stream) }
    }

    /// Posts a body; an error when the connection ends before the answer.
    pub(crate) fn try_post(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        self.raw(head.as_bytes(), body)
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.try_post(path, body.as_bytes()).unwrap()
    }

    /// Writes a request as it is given and reads one answer.
    pub(crate) fn raw(&mut self, head: &[u8], body: &[u8]) -> std::io::Result<Answer> {
        let mut stream = self.stream.get_ref();
        // A refusal may come, and the connection end, before all is written: the answer is there all the same.
        let _ = stream.write_all(head).and_then(|()| stream.write_all(body));
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> std::io::Result<Answer> {
        let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(ended());
            }
        }
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(ended)?;
        let lower = head.to_ascii_lowercase();
        let length = lower
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }
}

/// A track that the retail preset delivers.
pub(crate) fn event(id: &str) -> String {
    format!(
        r#"{{"type":"track","event":"Product Viewed","messageId":"{id}","properties":{{"price":79.00}}}}"#
    )
}
