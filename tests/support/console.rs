//! A daemon with a web console, and who visits it without a browser.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{Answer, Daemon, Host, PATIENCE, Producer, Upstream};

/// A daemon with a console, which delivers to `upstream`.
pub(crate) fn start(upstream: &Upstream) -> (Host, Daemon) {
    let host = Host::new(&upstream.url, "the-key-of-uk-0123456789", "").with_console("");
    let daemon = host.start();
    (host, daemon)
}

/// Hands over an event.
pub(crate) fn send(host: &Host, event: &str) {
    let answer = Producer::connect(&host.ingest()).post("/v1/track", event);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

impl Host {
    /// Adds a console on a free port to the configuration.
    pub(crate) fn with_console(self, more: &str) -> Host {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let console = format!("[admin]\nconsole = \"127.0.0.1:0\"\n{more}");
        std::fs::write(self.config(), text.replace("[admin]\n", &console)).unwrap();
        self
    }

    /// The address that signs in, as `pillarbox console` prints it.
    pub(crate) fn entrance(&self) -> String {
        let output = self.pillarbox(&["console"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The token in it.
    pub(crate) fn token(&self) -> String {
        self.entrance().split_once("#token=").unwrap().1.to_owned()
    }
}

impl Daemon {
    /// Where its console is.
    pub(crate) fn console_address(&self) -> String {
        let rest = self.started.split(" console=").nth(1).expect("a console");
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

/// Somebody at the console.
pub(crate) struct Visitor {
    pub(crate) address: String,
    /// What is sent as `Cookie`, once signed in.
    pub(crate) cookie: String,
}

impl Visitor {
    pub(crate) fn new(daemon: &Daemon) -> Visitor {
        Visitor { address: daemon.console_address(), cookie: String::new() }
    }

    /// One who has shown the token.
    pub(crate) fn signed_in(host: &Host, daemon: &Daemon) -> Visitor {
        let mut visitor = Visitor::new(daemon);
        let answer = visitor.post("/login", &[("token", &host.token())]);
        assert_eq!(answer.status, 303, "{}", answer.body);
        visitor.cookie = answer.cookie().expect("a session");
        visitor
    }

    /// One request over a connection of its own, with headers as they are given.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = self.begin(method, path, headers, body);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head[9..12].parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The same, and the answer is still to be read.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cookie = match self.cookie.as_str() {
            "" => String::new(),
            cookie => format!("Cookie: {cookie}\r\n"),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{cookie}{headers}\r\n{body}",
            body.len()
        );
        // At once: one who is refused by the head alone may find the connection closed before the rest.
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// What a browser asks for when a link is followed.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let headers = format!(
            "Host: {}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
            self.address
        );
        self.ask("GET", path, &headers, "")
    }

    /// What a browser sends with a form of the console.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let headers = format!(
            "Host: {0}\r\nOrigin: http://{0}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            self.address
        );
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        self.ask("POST", path, &headers, &pairs.join("&"))
    }

    /// The page that follows a form, with its notice.
    pub(crate) fn follow(&self, answer: &Answer) -> Answer {
        assert_eq!(answer.status, 303, "{}", answer.body);
        self.get(&answer.header("location").expect("a place to go to"))
    }
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    }

    /// The cookie that it sets, as it is sent back.
    pub(crate) fn cookie(&self) -> Option<String> {
        Some(self.header("set-cookie")?.split(';').next()?.to_owned())
    }
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
        out
    })
}
