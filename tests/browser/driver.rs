//! A real browser, driven by the `WebDriver` protocol (W3C) that chromedriver speaks: JSON over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, wait_until};

/// The key of an element's reference (`WebDriver`, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A browser of its own each time, that asks nobody on the network for anything.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
];

/// A browser with one page.
pub(crate) struct Browser {
    driver: Child,
    address: String,
    session: String,
    /// Where pictures of pages go, when they are asked for.
    pictures: Option<PathBuf>,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver: tests/run installs chromium and chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("chromedriver says its port").unwrap();
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // The rest must be read, or it would wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([data.as_str()]).collect();
        let address = format!("127.0.0.1:{port}");
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = ask(&address, "POST", "/session", &capabilities);
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let pictures = std::env::var_os("PILLARBOX_SCREENSHOTS").map(PathBuf::from);
        Browser { driver, address, session, pictures, _profile: profile }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        ask(&self.address, "POST", &format!("/session/{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// What a script of the page gives back.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn element(&self, css: &str) -> String {
        wait_until(css, || {
            self.run(&format!("return document.querySelectorAll({css:?}).length")) != 0
        });
        let found = self.post("/element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("{css}: {found}")).to_owned()
    }

    pub(crate) fn click(&self, css: &str) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Types into a field, after what is there.
    pub(crate) fn write(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses a key wherever the focus is.
    pub(crate) fn press(&self, key: char) {
        let press = ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keys", "actions": press }] }),
        );
    }

    /// The text of the page as it is shown.
    pub(crate) fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows `part`, by itself.
    pub(crate) fn wait_for(&self, part: &str) {
        let begun = tokio::time::Instant::now();
        while !self.text().contains(part) {
            assert!(begun.elapsed() < PATIENCE, "{part:?} did not come:\n{}", self.text());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What the page complained of since it was last asked: errors, and what its policy has kept from happening.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().unwrap().iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Pictures of the page in light and dark, wide and narrow, where they are asked for. It must fit both widths.
    pub(crate) fn picture(&self, name: &str) {
        for (size, width, height) in [("wide", 1280, 900), ("narrow", 390, 844)] {
            self.resize(width, height);
            let over = self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert!(over.as_i64().unwrap() <= 0, "{name} is {over} wider than {width}");
            let Some(folder) = &self.pictures else { continue };
            std::fs::create_dir_all(folder).unwrap();
            let whole = self.run("return document.documentElement.scrollHeight").as_u64().unwrap();
            self.resize(width, height.max(u32::try_from(whole.min(6000)).unwrap()));
            for theme in ["light", "dark"] {
                let scheme = json!([{ "name": "prefers-color-scheme", "value": theme }]);
                self.devtools("Emulation.setEmulatedMedia", &json!({ "features": scheme }));
                let png = self.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
                let png =
                    base64::engine::general_purpose::STANDARD.decode(png["data"].as_str().unwrap());
                std::fs::write(folder.join(format!("{name}-{theme}-{size}.png")), png.unwrap())
                    .unwrap();
            }
        }
        self.resize(1280, 900);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is of the driver's group, and must not outlive a test that fails either.
        let group = Pid::from_child(&self.driver);
        // It may have ended already.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        drop(self.driver.wait());
    }
}

/// One command; its value.
fn ask(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).unwrap();
    // The driver keeps its connections, whatever it is told.
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(answer.read_line(&mut head).unwrap() > 0, "the driver has ended");
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.expect("a length").trim().parse().unwrap()];
    answer.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {}", answer["value"]["message"]);
    answer["value"].clone()
}
