//! Parts of pages that are alive: server-sent events (HTML standard, section 9.2).
//!
//! A stream sends a part of its page whenever it has changed, as the server would write it. Bounded (Promise 7): streams, how
//! long each lasts (browsers come again), what is written ahead, and the share of time that is spent on looking.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::StatusCode;
use tokio::time::Instant;

use super::Console;
use super::answer::{self, Answer};

/// Streams at once: a browser has one for each page that it shows.
pub(super) const STREAMS_MAX: usize = 16;
/// A stream ends after so long.
const LASTS: Duration = Duration::from_secs(15 * 60);
/// Between two looks, at least.
const EVERY: Duration = Duration::from_secs(1);
/// Looking takes at most one of so many parts of the time.
const SHARE: u32 = 10;
/// Something is sent at least so often: a reader that has gone away shows only then.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// A reader that takes nothing for so long has gone away.
const STALL_MAX: Duration = Duration::from_secs(20);

/// What a stream has found when it looked.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The part as it is now; `None` when nothing can have changed.
    pub(super) part: Option<String>,
    /// What those are told who cannot see it.
    pub(super) said: Option<String>,
}

/// Answers with a stream of what `look` finds, again and again; 503 when there are too many.
pub(super) fn stream<L, F>(console: &Arc<Console>, look: L) -> Answer
where
    L: FnMut() -> F + Send + 'static,
    F: Future<Output = Seen> + Send,
{
    let Ok(held) = console.streams.clone().try_acquire_owned() else {
        let text = "too many live pages are open: close some";
        return answer::plain(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let (sender, body) = Channel::new(2);
    let mut shutdown = console.shutdown.clone();
    // Ends with its reader, after its time, and at a shutdown.
    tokio::spawn(async move {
        let _held = held;
        tokio::select! {
            () = send(sender, look) => {}
            () = tokio::time::sleep(LASTS) => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    });
    answer::stream(body)
}

async fn send<L, F>(mut sender: Sender<Bytes>, mut look: L)
where
    L: FnMut() -> F,
    F: Future<Output = Seen>,
{
    let mut shown = String::new();
    let mut sent_at = Instant::now();
    loop {
        let begun = Instant::now();
        let Seen { part, said } = look().await;
        let took = begun.elapsed();
        let mut text = String::new();
        if let Some(said) = said {
            text.push_str(&event("say", &said));
        }
        if let Some(part) = part.filter(|part| *part != shown) {
            text.push_str(&event("part", &part));
            shown = part;
        }
        if text.is_empty() && sent_at.elapsed() >= SILENCE_MAX {
            text.push_str(":\n\n");
        }
        if !text.is_empty() {
            let sent = sender.send_data(Bytes::from(text));
            if !matches!(tokio::time::timeout(STALL_MAX, sent).await, Ok(Ok(()))) {
                return;
            }
            sent_at = Instant::now();
        }
        tokio::time::sleep(EVERY.max(took * SHARE)).await;
    }
}

/// One event: each line of its data is a line of its own.
fn event(name: &str, data: &str) -> String {
    let mut text = format!("event: {name}\n");
    // A bare CR would end a line as well.
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_data_becomes_a_field() {
        assert_eq!(
            event("part", "a\nevent: x\r\n\nb"),
            "event: part\ndata: a\ndata: event: x\ndata: \ndata: \ndata: b\n\n"
        );
    }
}
