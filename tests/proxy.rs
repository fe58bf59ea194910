//! The way to the endpoint: TLS by an authority of `ca_file` alone, and through a real proxy, tinyproxy, with the daemon's
//! own binary.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use support::{Daemon, Host, Producer, Upstream, event, wait_until};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// The simulator behind TLS, with a certificate of a CA that nobody knows.
struct Secure {
    upstream: Upstream,
    port: u16,
    ca: String,
    _runtime: tokio::runtime::Runtime,
}

impl Secure {
    fn start() -> Secure {
        let upstream = Upstream::start(Some("key"), &[]);
        let behind = upstream.url.split('/').nth(2).unwrap().to_owned();
        let (ca, config) = certificates();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (config, behind) = (config.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client without trust breaks the handshake off.
                    let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else {
                        return;
                    };
                    let mut upstream = tokio::net::TcpStream::connect(behind).await.unwrap();
                    // It ends with either side, in whatever way.
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut upstream).await);
                });
            }
        });
        Secure { upstream, port, ca, _runtime: runtime }
    }

    /// A host that delivers there; `more` is appended to the integration's table.
    fn host(&self, more: &str) -> Host {
        let host = Host::new("https://localhost/", "key", "");
        self.configure(&host, more);
        host
    }

    fn configure(&self, host: &Host, more: &str) {
        let ca = host.folder.path().join("ca.pem");
        fs::write(&ca, &self.ca).unwrap();
        let endpoint = format!("https://localhost:{}/v2/push", self.port);
        host.configure(&endpoint, "key", &more.replace("CA", &ca.display().to_string()));
    }
}

/// A CA in PEM, and a server's certificate from it for `localhost`.
fn certificates() -> (String, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "of this test");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    (root, Arc::new(config.unwrap()))
}

/// tinyproxy. Killed when dropped.
struct Proxy {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Proxy {
    /// Starts one that connects to `port_allowed` alone.
    fn start(port_allowed: u16, more: &str) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        // It takes no port 0. Another process may take the free one first: then there are others.
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let text = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\nLogFile \"{}\"\n\
                 ConnectPort {port_allowed}\n{more}\n",
                folder.path().join("log").display()
            );
            fs::write(folder.path().join("conf"), text).unwrap();
            if let Some(child) = Proxy::spawn(folder.path(), port) {
                return Proxy { folder, port, child };
            }
        }
        panic!("tinyproxy does not start: {}", log(folder.path()));
    }

    /// `None` when it ends before it listens.
    fn spawn(folder: &Path, port: u16) -> Option<Child> {
        let mut child = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(folder.join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy is needed by this test: sudo apt-get install tinyproxy-bin");
        let mut ended = false;
        wait_until("a proxy that listens", || {
            ended = child.try_wait().unwrap().is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        (!ended).then_some(child)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        let (folder, port) = (self.folder.path().to_owned(), self.port);
        wait_until("the proxy's port", || {
            Proxy::spawn(&folder, port).map(|child| self.child = child).is_some()
        });
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Connections that it was asked for.
    fn asked(&self) -> usize {
        log(self.folder.path()).matches(": CONNECT localhost:").count()
    }
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a daemon with these variables, and none of this process's that name proxies or roots.
fn start(host: &Host, environment: &[(&str, &str)]) -> Daemon {
    let mut command = host.command(&[]);
    for name in ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(environment.iter().copied());
    Host::start_as(command)
}

fn hand_over(host: &Host, id: &str) {
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/track", &event(id)).status, 200);
}

/// Waits until the status tells a cause with these words, and returns it.
fn cause(host: &Host, words: &str) -> String {
    let mut cause = String::new();
    wait_until(words, || {
        let status = host.status();
        status["integrations"][0]["report"]["cause"].as_str().unwrap().clone_into(&mut cause);
        cause.contains(words)
    });
    assert_eq!(host.status()["integrations"][0]["report"]["state"], "retrying");
    cause
}

#[test]
fn an_authority_of_ca_file_is_trusted_and_without_it_the_cause_says_so() {
    let secure = Secure::start();
    let host = secure.host("proxy = \"direct\"");
    let daemon = start(&host, &[]);
    hand_over(&host, "a");
    assert!(cause(&host, "certificate not trusted").contains("`ca_file`"));
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(secure.upstream.handle.counters().pushes, 0, "nothing was sent without trust");

    secure.configure(&host, "proxy = \"direct\"\nca_file = \"CA\"");
    let daemon = start(&host, &[]);
    host.wait_until_settled();
    assert_eq!(secure.upstream.ids(), ["a"]);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn records_go_through_the_proxy_and_wait_while_it_is_away() {
    let secure = Secure::start();
    let mut proxy = Proxy::start(secure.port, "");
    let host = secure.host(&format!("ca_file = \"CA\"\nproxy = \"http://{}\"", proxy.address()));
    // The key goes before the environment.
    let daemon = start(&host, &[("NO_PROXY", "*"), ("HTTPS_PROXY", "http://proxy.invalid:1")]);
    hand_over(&host, "a");
    host.wait_until_settled();
    assert_eq!((secure.upstream.ids(), proxy.asked()), (vec!["a".to_owned()], 1));

    proxy.kill();
    for id in ["b", "c"] {
        hand_over(&host, id);
    }
    let told = cause(&host, "cannot be reached");
    assert!(told.starts_with(&format!("the proxy http://{} ", proxy.address())), "{told}");
    assert_eq!(host.lane("queued_records"), 2);
    proxy.restart();
    host.wait_until_settled();
    assert_eq!(secure.upstream.ids(), ["a", "b", "c"]);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn the_proxy_of_the_environment_is_used_with_its_password_which_nobody_is_shown() {
    let secure = Secure::start();
    let proxy = Proxy::start(secure.port, "BasicAuth shop top-secret");
    let host = secure.host("ca_file = \"CA\"");
    let of = |user: &str| format!("http://{user}{}", proxy.address());
    for (user, told) in
        [("", "(407): check the user and"), ("shop:not-this-secret@", "(401): check the user and")]
    {
        let daemon = start(&host, &[("HTTPS_PROXY", &of(user))]);
        hand_over(&host, "a");
        let told = cause(&host, told);
        assert!(told.contains(&proxy.address()), "{told}");
        let (code, _, log) = daemon.stop();
        assert_eq!(code, Some(0));
        assert!(!told.contains("secret") && !log.contains("secret"), "{told}\n{log}");
    }
    assert_eq!(secure.upstream.handle.counters().pushes, 0);

    let daemon = start(&host, &[("https_proxy", &of("shop:top-secret@"))]);
    host.wait_until_settled();
    assert_eq!(secure.upstream.ids(), ["a"]);
    let status = host.status().to_string();
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(!status.contains("secret") && !log.contains("secret"), "{status}\n{log}");

    // Exempt: not even asked.
    let asked = proxy.asked();
    let exempt = [("ALL_PROXY", of("")), ("NO_PROXY", "example.com,localhost".to_owned())];
    let exempt = exempt.each_ref().map(|(name, value)| (*name, value.as_str()));
    let daemon = start(&host, &exempt);
    hand_over(&host, "b");
    host.wait_until_settled();
    assert_eq!((secure.upstream.ids().len(), proxy.asked()), (2, asked));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_proxy_that_may_not_connect_is_named() {
    let secure = Secure::start();
    let proxy = Proxy::start(1, "");
    let host = secure.host(&format!("ca_file = \"CA\"\nproxy = \"http://{}\"", proxy.address()));
    let daemon = start(&host, &[]);
    hand_over(&host, "a");
    let told = cause(&host, "may not connect to the endpoint (403)");
    assert!(told.contains(&proxy.address()), "{told}");
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(secure.upstream.handle.counters().pushes, 0);
}

/// An endpoint by http is on this host: no proxy sees its key.
#[test]
fn the_way_to_this_host_is_straight() {
    let upstream = Upstream::start(Some("key"), &[]);
    let host = Host::new(&upstream.url, "key", "");
    let nowhere = "http://127.0.0.1:1";
    let environment = ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"];
    let daemon = start(&host, &environment.map(|name| (name, nowhere)));
    hand_over(&host, "a");
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ["a"]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// The daemon does not go straight where its environment names a proxy that it cannot use.
#[test]
fn an_environment_that_names_no_proxy_is_told() {
    let host = Host::new("https://localhost/", "key", "");
    let mut command = host.command(&[]);
    command
        .env("HTTPS_PROXY", "socks5://user:top-secret@127.0.0.1:1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    let Err((code, log)) = Host::try_start_as(command) else { panic!() };
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("environment HTTPS_PROXY: it must be http://HOST:PORT"), "{log}");
    assert!(!log.contains("top-secret"), "{log}");
}
