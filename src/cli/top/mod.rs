//! `pillarbox top`: the status, live.
//!
//! ```text
//! keys ──thread──▶ ┐                    ┌──▶ screen
//!                  ├─▶ model (PURE) ────┤
//! statuses ──task──▶ ┘                  └──▶ asks ──task──▶ the daemon
//! ```
//! Whatever ends it, the terminal is as it was: a key, a signal, a panic.

mod model;
mod screen;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::model::{Ask, Key, Top};
use self::screen::Palette;
use super::client::Client;
use super::{Admin, Failure};
use crate::admin::protocol::Status;
use crate::clock;

#[derive(Debug, Args)]
pub(super) struct Live {
    #[command(flatten)]
    admin: Admin,
}

/// Between two statuses.
const EVERY: Duration = Duration::from_secs(1);
/// For an answer: a daemon that takes longer is shown as one that does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a key may be waited for before it is looked whether they are still wanted.
const KEY_MAX: Duration = Duration::from_millis(100);
/// Keys, answers and asks that wait.
const WAITING_MAX: usize = 16;

pub(super) async fn run(top: &Live) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let why = "top needs a terminal: `pillarbox status` shows the same once, and `--json` for machines";
        return Err(anyhow!(why).into());
    }
    let socket = top.admin.configured.admin_socket(top.admin.socket.as_deref())?;
    // Who has mistaken the socket is told so, and not shown an empty screen.
    let client = Client::connect(&socket).await?;
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let ended = watch(&mut terminal, client, socket).await;
    ratatui::try_restore().context("give the terminal back")?;
    Ok(ended?)
}

/// What the daemon says, or what became of an ask.
enum Said {
    Status(Box<Result<Status, String>>),
    Asked(String),
}

/// Shows and asks until the operator has seen enough.
async fn watch(
    terminal: &mut DefaultTerminal,
    client: Client,
    socket: PathBuf,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (ask, asks) = mpsc::channel(WAITING_MAX);
    let (say, mut said) = mpsc::channel(WAITING_MAX);
    // Ends with `ask`.
    let talking = tokio::spawn(talk(client, socket, asks, say));
    let wanted = Arc::new(AtomicBool::new(true));
    let mut pressed = keys(wanted.clone());
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let palette = if plain { Palette::Plain } else { Palette::Colour };
    let mut top = Top::default();
    let ended = loop {
        let drawn = terminal.draw(|frame| screen::draw(frame, &top, palette, clock::now()));
        if let Err(error) = drawn {
            break Err(error).context("draw the screen");
        }
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = hangup.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            said = said.recv() => match said {
                Some(Said::Status(status)) => top.update(*status, clock::now()),
                Some(Said::Asked(note)) => top.note = note,
                None => break Err(anyhow!("the daemon is not asked any more")),
            },
            event = pressed.recv() => match event {
                Some(Ok(Event::Key(key))) if quits(key) => break Ok(()),
                Some(Ok(Event::Key(key))) => {
                    if let Some(asked) = meaning(key).and_then(|key| top.press(key))
                        && ask.try_send(asked).is_err()
                    {
                        "the daemon is still busy with the last key".clone_into(&mut top.note);
                    }
                }
                // Another size: it is drawn anew.
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error).context("read the keyboard"),
                None => break Ok(()),
            },
        }
    };
    wanted.store(false, Ordering::Relaxed);
    drop((ask, said));
    talking.abort();
    ended
}

/// What is typed, read on a thread of its own, as long as it is `wanted`.
fn keys(wanted: Arc<AtomicBool>) -> mpsc::Receiver<std::io::Result<Event>> {
    let (to, pressed) = mpsc::channel(WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        while wanted.load(Ordering::Relaxed) {
            let read = match event::poll(KEY_MAX) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if to.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    pressed
}

fn quits(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q')) || (control && key.code == KeyCode::Char('c'))
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::Char('p') => Some(Key::Pause),
        KeyCode::Char('r') => Some(Key::Resume),
        KeyCode::Char('t') => Some(Key::Retry),
        KeyCode::Char('?' | 'h') => Some(Key::Help),
        KeyCode::Esc => Some(Key::Close),
        _ => None,
    }
}

/// Asks for the status again and again, and for what a key wants in between, over connections that are made anew when the
/// daemon has been away.
async fn talk(
    client: Client,
    socket: PathBuf,
    mut asks: mpsc::Receiver<Ask>,
    say: mpsc::Sender<Said>,
) {
    let mut client = Some(client);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ask = tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => Some(ask),
                None => return,
            },
            _ = tick.tick() => None,
        };
        if let Some(ask) = ask {
            let told = asked(&mut client, &socket, &ask).await;
            if say.send(Said::Asked(told.unwrap_or_else(|why| why))).await.is_err() {
                return;
            }
        }
        let status =
            with(&mut client, &socket, async |client| client.get("/v1/status").await).await;
        if say.send(Said::Status(Box::new(status))).await.is_err() {
            return;
        }
    }
}

/// Asks what a key wants; what became of it.
async fn asked(client: &mut Option<Client>, socket: &Path, ask: &Ask) -> Result<String, String> {
    let (verb, name, done) = match ask {
        Ask::Pause(name) => ("pause", name, "paused; events are taken, nothing is sent"),
        Ask::Resume(name) => ("resume", name, "resumed"),
        Ask::Retry(name) => ("retry-now", name, "tried again now"),
    };
    let (path, body) = (format!("/v1/{verb}"), json!({ "integration": name }));
    let asked = async |client: &mut Client| client.post::<Vec<String>>(&path, &body).await;
    with(client, socket, asked).await.map(|_| format!("{name}: {done}"))
}

/// One request within [`ANSWER_MAX`]. After a failure the connection is made anew.
async fn with<T>(
    client: &mut Option<Client>,
    socket: &Path,
    request: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>,
) -> Result<T, String> {
    let asked = async {
        let mut open = match client.take().filter(Client::is_open) {
            Some(open) => open,
            None => Client::connect(socket).await?,
        };
        let answer = request(&mut open).await?;
        *client = Some(open);
        Ok(answer)
    };
    match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Failure::Failed(error) | Failure::Unreachable(error))) => Err(format!("{error:#}")),
        Ok(Err(_)) => Err("the daemon is not reachable".to_owned()),
        Err(_) => Err(format!("nothing within {} s", ANSWER_MAX.as_secs())),
    }
}
