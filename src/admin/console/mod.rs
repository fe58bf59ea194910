//! The web console: pages for the person on call and for the marketer who asks whether an event arrived. Served by the daemon
//! itself, on a loopback address, only when `admin.console` names one.
//!
//! ```text
//!  browser ──▶ server: Host and Origin (access) ─▶ session or login (session, tries) ─▶ pages ─▶ admin::Service
//!     ▲                                                                                   │
//!     └── page, or a stream of its live part (live) ◀── templates, every value escaped ◀──┘
//! ```
//!
//! | file | kind | owns |
//! |---|---|---|
//! | `access` | pure | who may talk to it at all: `Host`, `Origin`, `Sec-Fetch-Site` |
//! | `session`, `tries`, `token_file` | pure, pure, shell | the token, who has shown it, wrong ones |
//! | `server` | shell | routes, bodies and their limits, signing in |
//! | `answer` | | headers of every answer |
//! | `live` | shell | server-sent events |
//! | `history`, `chart` | pure | the last hour and day, in memory |
//! | `overview`, `events`, `quarantine`, `integrations` | | a page each |
//! | `fields`, `examples` (pure), `tried` | | an integration as a form, and what an example event becomes by it |
//! | `words`, `json`, `form`, `notices`, `shell` | pure | what pages are made of |
//!
//! - Everything works without the script but what is live; nothing is loaded from elsewhere; nothing is inline.
//! - The token is in no URL that is sent, no log and no page. Whoever may use the admin socket may read it.
//! - Cookies know no ports: another server on a loopback port that the same browser visits is sent the session too. It cannot
//!   use it from a page (its `Origin` is another), but its own program can. Sessions last hours, not for ever, and no longer
//!   than the daemon runs.
//! - Bounded (Promise 7): connections, bodies, times, streams, wrong tokens, history, notices.

mod access;
mod answer;
mod chart;
mod events;
mod examples;
mod fields;
mod form;
mod history;
mod integrations;
mod json;
mod live;
mod notices;
mod overview;
mod quarantine;
mod server;
mod session;
mod shell;
mod token_file;
mod tried;
mod tries;
mod words;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use self::history::History;
use self::notices::Notices;
use self::session::{Session, Token};
use self::tries::Tries;
use super::Service;
use crate::clock;
use crate::socket;

/// Browsers' connections; further ones wait. Streams keep one each.
const CONNECTIONS_MAX: usize = 64;
/// Sessions that were ended by their owners and would still last.
const ENDED_MAX: usize = 256;

/// The console of a daemon.
#[derive(Debug)]
pub struct Console {
    service: Arc<Service>,
    token: Token,
    history: Mutex<History>,
    tries: Mutex<Tries>,
    ended: Mutex<VecDeque<Session>>,
    notices: Mutex<Notices>,
    streams: Arc<Semaphore>,
    begun: Instant,
    shutdown: watch::Receiver<bool>,
}

impl Console {
    /// A console at `address` over `service`, which learns how it is entered. Its token is in `token_file`, else in
    /// `state_dir`, where it is made at the first start. Its streams end with `shutdown`.
    ///
    /// # Errors
    /// The token can neither be read nor made.
    pub fn open(
        service: Arc<Service>,
        address: SocketAddr,
        state_dir: &Path,
        token_file: Option<&Path>,
        shutdown: watch::Receiver<bool>,
    ) -> anyhow::Result<Console> {
        let text = token_file::open(state_dir, token_file)?;
        let secret = token_file::random_hex::<32>()?;
        service.entered_by(format!("http://{address}/login#token={}", form::encoded(&text)).into());
        Ok(Console {
            service,
            token: Token::new(&text, &secret),
            history: Mutex::default(),
            tries: Mutex::default(),
            ended: Mutex::default(),
            notices: Mutex::default(),
            streams: Arc::new(Semaphore::new(live::STREAMS_MAX)),
            begun: Instant::now(),
            shutdown,
        })
    }

    /// Takes note of how things stand, again and again.
    async fn sample(&self) {
        let mut ticks = tokio::time::interval(history::EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // What cannot be read now leaves a gap in the chart; the page itself says why.
            if let Ok(status) = self.service.status().await {
                locked(&self.history).note(status.now, &status.integrations);
            }
        }
    }

    /// Whether the owner of `session` has ended it.
    fn is_ended(&self, session: &Session) -> bool {
        locked(&self.ended).iter().any(|ended| ended.nonce == session.nonce)
    }

    /// `session` is in force no longer.
    fn end(&self, session: Session) {
        let now = clock::now().0 / 1000;
        // It may have been renewed meanwhile, by another page.
        let session = Session { end: now + session::SECONDS, ..session };
        let mut ended = locked(&self.ended);
        ended.retain(|ended| ended.end > now);
        if ended.len() >= ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(session);
    }
}

/// Serves browsers until `shutdown`.
pub async fn serve(listener: TcpListener, console: Arc<Console>, shutdown: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let limits = socket::Limits { connections, header_timeout: server::READ_TIMEOUT };
    let served = console.clone();
    let respond = move |request| {
        let console = served.clone();
        async move { server::answer(&console, request).await }
    };
    tokio::select! {
        () = socket::serve(listener, limits, shutdown, respond) => {}
        () = console.sample() => {}
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
