//! The Debian package in a clean Debian: installed, upgraded, removed, purged. The queue survives everything but the purge.
//!
//! The package is built by dpkg-deb from the list in Cargo.toml that cargo-deb reads, with the program of the test build, so
//! that nothing is compiled for it. The Debian is made by debootstrap (half a minute) and kept in `target/tmp`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Daemon, Host, Producer, Upstream, event, wait_until};
use tempfile::TempDir;

/// Set to any value, it lets this test pass where there can be no such Debian, without having tested anything.
const SKIP: &str = "PILLARBOX_SKIP_PACKAGE";
const SUITE: &str = "bookworm";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// A folder with a Debian as debootstrap leaves it.
fn debian() -> Result<TempDir, String> {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("debian-{SUITE}"));
    if !made.exists() {
        let partial = made.with_extension("partial");
        drop(fs::remove_dir_all(&partial)); // what an interrupted run has left
        let output = Command::new("debootstrap")
            .args(["--variant=minbase", SUITE])
            .arg(&partial)
            .output()
            .map_err(|error| format!("debootstrap (a package of this name): {error}"))?;
        if !output.status.success() {
            return Err(format!("debootstrap: {}", String::from_utf8_lossy(&output.stdout)));
        }
        fs::rename(&partial, &made).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    run(Command::new("cp")
        .args(["-a", "--reflink=auto", "--"])
        .arg(made.join("."))
        .arg(copy.path()));
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Ok(copy)
}

/// Builds the package as `version` from the list in Cargo.toml.
fn package(version: &str, folder: &Path) -> PathBuf {
    let manifest: toml::Table =
        fs::read_to_string(repository("Cargo.toml")).unwrap().parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let text = |key: &str| deb[key].as_str().unwrap();
    let program = env!("CARGO_BIN_EXE_pillarbox");
    let generated = folder.join("generated");
    run(Command::new(program).args(["man", "--dir"]).arg(generated.join("man")));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(Command::new(program).args(["completions", shell])).stdout;
        fs::write(generated.join(format!("pillarbox.{shell}")), script).unwrap();
    }
    let tree = folder.join(version);
    for asset in deb["assets"].as_array().unwrap() {
        let [source, target, mode] = [0, 1, 2].map(|part| asset[part].as_str().unwrap());
        let sources = match source.strip_prefix("target/") {
            Some("release/pillarbox") => vec![program.into()],
            Some(path) => matching(&generated.join(path.strip_prefix("package/").unwrap())),
            None => vec![repository(source)],
        };
        assert!(!sources.is_empty(), "{source} matches nothing");
        for source in sources {
            let mut target = tree.join(target);
            if asset[1].as_str().unwrap().ends_with('/') {
                target = target.join(source.file_name().unwrap());
            }
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(&source, &target).unwrap();
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control).unwrap();
    for script in ["postinst", "prerm", "postrm"] {
        fs::copy(repository(text("maintainer-scripts")).join(script), control.join(script))
            .unwrap();
    }
    let conffiles = deb["conf-files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
    fs::write(control.join("conffiles"), conffiles.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let about = manifest["package"]["description"].as_str().unwrap();
    let control_file = format!(
        "Package: pillarbox\nVersion: {version}\nArchitecture: amd64\nMaintainer: {}\nDepends: {}\nRecommends: {}\nSection: {}\n\
         Priority: {}\nDescription: {about}\n",
        text("maintainer"),
        text("depends"),
        text("recommends"),
        text("section"),
        text("priority")
    );
    fs::write(control.join("control"), control_file).unwrap();
    let built = folder.join(format!("pillarbox_{version}.deb"));
    run(Command::new("dpkg-deb")
        .args(["--build", "--root-owner-group", "-Znone"])
        .arg(&tree)
        .arg(&built));
    built
}

/// The files that a path with a `*` in its last part names.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap().to_str().unwrap();
    let (start, end) = name.split_once('*').unwrap_or((name, ""));
    let entries =
        fs::read_dir(pattern.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(start) && name.ends_with(end)
    };
    entries.filter(fits).collect()
}

/// A Debian in which packages come and go.
struct Debian(TempDir);

impl Debian {
    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn chroot(&self, user: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={user}")).arg(self.0.path());
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn dpkg(&self, arguments: &[&str]) -> String {
        let output = run(self.chroot("root:root").arg("dpkg").args(arguments));
        String::from_utf8(output.stdout).unwrap()
    }

    fn install(&self, package: &Path) -> String {
        let name = package.file_name().unwrap();
        fs::copy(package, self.at("tmp").join(name)).unwrap();
        self.dpkg(&["--install", &format!("/tmp/{}", name.to_str().unwrap())])
    }

    /// Runs the daemon as the service would.
    fn start(&self) -> Daemon {
        let run = self.at("run/pillarbox");
        fs::create_dir_all(&run).unwrap();
        fs::create_dir_all(self.at("var/lib/pillarbox")).unwrap();
        for folder in ["/run/pillarbox", "/var/lib/pillarbox"] {
            own(self, folder);
        }
        let mut command = self.chroot("pillarbox:pillarbox");
        command.args(["/usr/bin/pillarbox", "run"]);
        Host::start_as(command)
    }

    fn status(&self) -> serde_json::Value {
        let output = run(self.chroot("root:root").args(["pillarbox", "status", "--json"]));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Mode and owner.
    fn stat(&self, path: &str) -> String {
        let output = run(self.chroot("root:root").args(["stat", "-c", "%a %U:%G", path]));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn queued(&self) -> u64 {
        self.status()["integrations"][0]["lane"]["queued_records"].as_u64().unwrap()
    }
}

/// What `StateDirectory=` and `RuntimeDirectory=` of the unit do.
fn own(debian: &Debian, folder: &str) {
    run(debian.chroot("root:root").args(["chown", "pillarbox:pillarbox", folder]));
}

#[test]
fn the_queue_survives_everything_but_a_purge() {
    let debian = match debian() {
        Ok(folder) => Debian(folder),
        Err(reason) if std::env::var_os(SKIP).is_some() => {
            eprintln!("NOT TESTED in a Debian, as {SKIP} allows: {reason}");
            return;
        }
        Err(reason) => panic!(
            "a clean Debian could not be made: {reason}\nThis test needs root, debootstrap and a Debian mirror. Without them, {SKIP}=1 \
             leaves it out."
        ),
    };
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (package("0.1.0", folder.path()), package("0.2.0", folder.path()));
    let said = debian.install(&first);
    assert!(said.contains("systemctl enable --now pillarbox"), "{said}");
    check_installed(&debian);

    let away = Upstream::start(Some("another-key"), &[]);
    let config = debian.at("etc/pillarbox/pillarbox.toml");
    let shipped = fs::read_to_string(&config).unwrap();
    let configure = |upstream: &Upstream| {
        let integration =
            "[[integration]]\nname = \"shop\"\napi_key = \"key\"\npreset = \"retail\"\n";
        let retry = "retry = { initial = \"10ms\", max = \"50ms\" }";
        let text = format!("{shipped}\n{integration}{retry}\nendpoint = \"{}\"\n", upstream.url);
        fs::write(&config, text).unwrap();
    };
    configure(&away);
    let daemon = debian.start();
    let mut producer = Producer::connect(&debian.at("run/pillarbox/ingest.sock"));
    for id in ["1", "2", "3"] {
        assert_eq!(producer.post("/v1/track", &event(id)).status, 200);
    }
    assert_eq!(daemon.stop().0, Some(0));

    // What an operator wrote is neither replaced nor asked about, nor is a mode that is stricter loosened.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o400)).unwrap();
    let said = debian.install(&second);
    assert!(!said.contains("enable --now") && said.contains("0.2.0"), "{said}");
    assert!(fs::read_to_string(&config).unwrap().contains("[[integration]]\nname = \"shop\""));
    assert_eq!(debian.stat("/etc/pillarbox/pillarbox.toml"), "400 pillarbox:root");
    let daemon = debian.start();
    assert_eq!(debian.queued(), 3);
    assert_eq!(daemon.stop().0, Some(0));

    debian.dpkg(&["--remove", "pillarbox"]);
    assert!(!debian.at("usr/bin/pillarbox").exists() && config.exists());
    assert!(debian.at("var/lib/pillarbox/spool/CURRENT").exists());
    let back = Upstream::start(Some("key"), &[]);
    debian.install(&second);
    configure(&back);
    let daemon = debian.start();
    wait_until("an empty queue", || debian.queued() == 0);
    assert_eq!(back.ids(), ["1", "2", "3"]);
    assert_eq!(daemon.stop().0, Some(0));

    // An upgrade of a host that keeps its configuration elsewhere.
    fs::remove_file(&config).unwrap();
    debian.install(&second);
    debian.dpkg(&["--purge", "pillarbox"]);
    let left = run(Command::new("find").arg(debian.0.path()).args([
        "-name",
        "*pillarbox*",
        "-not",
        "-path",
        "*/tmp/*",
    ]));
    assert_eq!(String::from_utf8(left.stdout).unwrap(), "", "left after a purge");
}

/// Files, owners and modes; and that the package knows what it has installed.
fn check_installed(debian: &Debian) {
    assert_eq!(debian.dpkg(&["--verify", "pillarbox"]), "");
    for file in [
        "usr/bin/pillarbox",
        "usr/lib/systemd/system/pillarbox-admin.socket",
        "usr/share/man/man1/pillarbox.1",
        "usr/share/man/man1/pillarbox-status.1",
        "usr/share/bash-completion/completions/pillarbox",
    ] {
        assert!(debian.at(file).is_file(), "{file}");
    }
    let stat = |path: &str| debian.stat(path);
    assert_eq!(stat("/etc/pillarbox/pillarbox.toml"), "600 pillarbox:root");
    assert_eq!(stat("/etc/pillarbox/keys"), "700 root:root");
    // A producer, who is in the daemon's group.
    let mut read = debian.chroot("nobody:pillarbox");
    let read = read.args(["cat", "/etc/pillarbox/pillarbox.toml"]).output().unwrap();
    assert!(!read.status.success() && read.stdout.is_empty(), "{read:?}");
    let version = run(debian.chroot("pillarbox:pillarbox").args(["pillarbox", "--version"]));
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("pillarbox "));
}
