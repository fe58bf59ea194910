//! What goes on beside the commits: the next segment is prepared, the store flushed, settled segments removed.
//!
//! A checkpoint makes the store's copy of the log's changes durable. Only then do the segments go that it no longer
//! needs, and only then may the manifest's floor rise.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::JoinHandle;

use super::super::generation::sync_directory;
use super::super::log::Prepared;
use super::super::log::segment::Segment;
use super::super::manifest::Manifest;
use super::super::shared::Shared;
use super::super::store::StoreError;
use super::failed;
use crate::kill_point;

/// What a checkpoint does once the store is flushed.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// The new floor.
    pub(super) manifest: Manifest,
    /// Segments to remove.
    pub(super) remove: Vec<u64>,
}

#[derive(Debug)]
enum Task {
    /// (number, bytes of zeros)
    Prepare(u64, u64),
    Checkpoint(Checkpoint),
}

/// The thread that keeps the log and the store in step.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    busy: Arc<AtomicBool>,
    prepared_to: u64,
    /// Segments that the store has been told of.
    noted: HashSet<u64>,
}

impl Keeper {
    /// Starts the thread. `noted` are the segments that the store knows.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(in super::super) fn start(
        shared: Arc<Shared>,
        prepared: Prepared,
        noted: HashSet<u64>,
    ) -> std::io::Result<Keeper> {
        let (tasks, waiting) = mpsc::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let done = busy.clone();
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || {
            for task in waiting {
                match task {
                    Task::Prepare(number, zeros) => prepare(&shared, &prepared, number, zeros),
                    Task::Checkpoint(checkpoint) => {
                        // A failure is told to everyone by itself.
                        drop(shared.guarded(|| checkpoint.make(&shared)));
                        done.store(false, Ordering::Release);
                    }
                }
            }
        })?;
        Ok(Keeper { tasks: Some(tasks), thread: Some(thread), busy, prepared_to: 0, noted })
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether the store was not told of segment `number` yet: it is to be told now.
    pub(super) fn note(&mut self, number: u64) -> bool {
        self.noted.insert(number)
    }

    /// Has segment `number` prepared, once, with `zeros` bytes.
    pub(super) fn prepare(&mut self, number: u64, zeros: u64) {
        if self.prepared_to < number {
            self.prepared_to = number;
            self.send(Task::Prepare(number, zeros));
        }
    }

    /// Has a checkpoint made.
    pub(super) fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.noted.retain(|number| !checkpoint.remove.contains(number));
        self.busy.store(true, Ordering::Release);
        self.send(Task::Checkpoint(checkpoint));
    }

    fn send(&self, task: Task) {
        // The thread ends only when it is stopped.
        if let Some(tasks) = &self.tasks {
            drop(tasks.send(task));
        }
    }

    /// Waits until all that was asked for is done.
    pub(super) fn stop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is printed, and there is nothing left to do for it.
            drop(thread.join());
        }
    }
}

/// Makes the next segment ready; a writer that comes to need it meanwhile waits, one that came before made its own.
fn prepare(shared: &Shared, prepared: &Prepared, number: u64, zeros: u64) {
    let mut prepared = prepared.lock().unwrap_or_else(PoisonError::into_inner);
    // On a disk that is short of room the writer grows the next segment step by step.
    if shared.log.meta(number).is_some() || !shared.has_room(zeros) {
        return;
    }
    match Segment::create(&shared.log.directory, number, zeros) {
        Ok(segment) => *prepared = Some(segment),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the log's next segment could not be prepared"
            );
        }
    }
}

impl Checkpoint {
    fn make(self, shared: &Shared) -> Result<(), StoreError> {
        kill_point::pass("checkpoint");
        shared.health.flush(|| shared.store.flush())?;
        kill_point::pass("checkpoint-flushed");
        if let Err(error) = self.manifest.write(&shared.options.directory) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the spool's manifest was not replaced"
            );
        }
        kill_point::pass("checkpoint-floor");
        for number in &self.remove {
            let removed = Segment::remove(&shared.log.directory, *number);
            let what = format!("remove segment {number} of");
            removed.map_err(|error| failed(&what, &error))?;
            kill_point::pass("segment-removed");
        }
        if !self.remove.is_empty() {
            let synced = sync_directory(&shared.log.directory);
            synced.map_err(|error| failed("fsync the directory of", &error))?;
        }
        Ok(())
    }
}
