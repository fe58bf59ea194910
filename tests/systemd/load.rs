//! Producers that never stop while daemons come and go.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Producer, event};

/// Requests that one connection makes before another is opened: both kinds, old and new, meet every restart.
const REQUESTS_EACH: u64 = 20;
/// Between two requests, so that the disk of a busy machine is not the subject.
const PAUSE: Duration = Duration::from_millis(1);

/// What a producer saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Ids of the events that were answered 200, in their order.
    pub(crate) acknowledged: Vec<String>,
    /// Connections that were refused.
    pub(crate) refused: Vec<String>,
    /// Answers that were no 200.
    pub(crate) answers: Vec<String>,
    /// New connections that ended before their first answer.
    pub(crate) ended_new: u64,
    /// Connections that ended later, in the middle of a request or before it. HTTP clients ask again.
    pub(crate) ended_old: u64,
    /// The longest time from a request to its answer, repetitions included.
    pub(crate) waited: Duration,
}

/// Starts a producer that hands over one event after another until `ended`, each until it is answered.
pub(crate) fn produce<'scope>(
    scope: &'scope Scope<'scope, '_>,
    socket: &'scope Path,
    name: usize,
    ended: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, Seen> {
    scope.spawn(move || {
        let mut seen = Seen::default();
        let mut connection: Option<(Producer, u64)> = None;
        let mut number = 0;
        while !ended.load(Ordering::Acquire) {
            let id = format!("{name}-{number}");
            let begun = Instant::now();
            while !hand_over(&mut connection, socket, &id, &mut seen) {
                assert!(
                    begun.elapsed() < crate::support::PATIENCE,
                    "{id} was never taken: {seen:?}"
                );
            }
            seen.waited = seen.waited.max(begun.elapsed());
            seen.acknowledged.push(id);
            number += 1;
            std::thread::sleep(PAUSE);
        }
        seen
    })
}

/// Makes one attempt; `true` when the event was taken.
fn hand_over(
    connection: &mut Option<(Producer, u64)>,
    socket: &Path,
    id: &str,
    seen: &mut Seen,
) -> bool {
    let (mut producer, requests) = match connection.take() {
        Some((producer, requests)) if requests < REQUESTS_EACH => (producer, requests),
        _ => match Producer::try_connect(socket) {
            Ok(producer) => (producer, 0),
            Err(error) => {
                seen.refused.push(error.to_string());
                return false;
            }
        },
    };
    match producer.try_post("/v1/track", event(id).as_bytes()) {
        Ok(answer) if answer.status == 200 => {
            if !answer.head.to_ascii_lowercase().contains("connection: close") {
                *connection = Some((producer, requests + 1));
            }
            true
        }
        Ok(answer) => {
            seen.answers.push(format!("{} {}", answer.status, answer.body));
            false
        }
        Err(_) => {
            *if requests == 0 { &mut seen.ended_new } else { &mut seen.ended_old } += 1;
            false
        }
    }
}
