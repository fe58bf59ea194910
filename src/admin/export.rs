//! The quarantine as NDJSON, read page by page while it is sent: never more than a page in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::service::{PAGE_ENTRIES, Service};
use crate::spool::{QuarantineId, ReadError};

type Page = Pin<Box<dyn Future<Output = Result<Option<(QuarantineId, Bytes)>, ReadError>> + Send>>;

/// A body of one JSON object a line. A failed read ends it without its last chunk, so that no reader takes what has
/// come so far for the whole.
pub(super) struct Export {
    service: Arc<Service>,
    page: Option<Page>,
}

impl Export {
    /// Every entry that is there when its page is read.
    pub(super) fn new(service: Arc<Service>) -> Export {
        let page = Some(read(service.clone(), QuarantineId(0)));
        Export { service, page }
    }
}

impl Body for Export {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let Some(page) = self.page.as_mut() else { return Poll::Ready(None) };
        let read_page = ready!(page.as_mut().poll(context));
        self.page = None;
        Poll::Ready(match read_page {
            Ok(None) => None,
            Ok(Some((last, lines))) => {
                self.page = Some(read(self.service.clone(), QuarantineId(last.0 + 1)));
                Some(Ok(Frame::data(lines)))
            }
            Err(error) => Some(Err(error)),
        })
    }
}

/// The page from `from` on, with the id of its last entry; `None` at the end.
fn read(service: Arc<Service>, from: QuarantineId) -> Page {
    Box::pin(async move {
        let entries = service.quarantine(from, PAGE_ENTRIES, true).await?;
        let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(None) };
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, &entry).expect("numbers and text always encode");
            lines.push(b'\n');
        }
        Ok(Some((last, Bytes::from(lines))))
    })
}
