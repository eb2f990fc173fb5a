// SPDX-License-Identifier: LGPL-2.1-or-later
//! What lies between the threads of an engine: chunks on their way to those that
//! compress, pages on their way to the one that writes, and chunks on their way back.
//! It outlives none of them by itself: whoever ends, however, lets the others go.

use super::chunk::{Chunk, ChunkOutcome, Completed};
use super::engine_state::EngineState;
use super::error::Error;
use super::message::Message;
use super::queue::Queue;
use crate::os::sync::atomic::{AtomicUsize, Ordering};
use crate::os::sync::mpsc::{self, Receiver, Sender};
use crate::os::sync::{Mutex, MutexGuard};
use std::sync::{Arc, PoisonError};

/// A chunk whose pages have all been taken, not all written.
pub(super) struct Waiting<P> {
    pub(super) chunk: Chunk<P>,
    /// Wanted pages in it.
    pub(super) pages: u64,
    /// Why not all wanted pages were sent.
    pub(super) failure: Option<Arc<Error>>,
}

struct Returning<P> {
    waiting: Vec<Waiting<P>>,
    /// None once nothing comes back any more.
    completed: Option<Sender<Completed<P>>>,
}

pub(super) struct Line<P> {
    shared: Arc<EngineState>,
    pub(super) chunks: Queue<Chunk<P>>,
    pub(super) messages: Queue<Message<P>>,
    returning: Mutex<Returning<P>>,
    /// Threads that take chunks, or will.
    takers: AtomicUsize,
}

impl<P> Line<P> {
    /// For so many `takers` of chunks and so many messages on their way.
    pub(super) fn new(
        shared: Arc<EngineState>,
        takers: usize,
        messages: usize,
    ) -> (Arc<Self>, Receiver<Completed<P>>) {
        let (completed, completed_in) = mpsc::channel();
        let line = Self {
            shared,
            chunks: Queue::new(takers),
            messages: Queue::new(messages),
            returning: Mutex::new(Returning {
                waiting: Vec::new(),
                completed: Some(completed),
            }),
            takers: AtomicUsize::new(takers),
        };
        (Arc::new(line), completed_in)
    }

    fn returning(&self) -> MutexGuard<'_, Returning<P>> {
        let returning = self.returning.lock();
        returning.unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk comes back when all that was taken so far is written.
    pub(super) fn wait(&self, chunk: Waiting<P>) {
        self.returning().waiting.push(chunk);
    }

    /// All that wait come back: saved, unless the dump has ended before.
    pub(super) fn complete_waiting(&self) {
        let mut returning = self.returning();
        for waiting in std::mem::take(&mut returning.waiting) {
            let dead = self.shared.dead.get();
            let outcome = match waiting.failure.as_ref().or(dead) {
                Some(error) => ChunkOutcome::Lost(Arc::clone(error)),
                None => ChunkOutcome::Saved {
                    pages: waiting.pages,
                },
            };
            returning.send(waiting.chunk, outcome);
        }
    }

    /// A chunk comes back that nobody writes any more.
    pub(super) fn lose(&self, chunk: Chunk<P>) {
        let why = self.shared.dead.get().cloned();
        let why = why.unwrap_or_else(|| Arc::new(Error::Closed));
        self.returning().send(chunk, ChunkOutcome::Lost(why));
    }

    /// Nothing is taken in any more and nobody waits for anything here. What is
    /// under way comes back as lost.
    pub(super) fn stop(&self, why: Error) {
        let _ = self.shared.dead.set(Arc::new(why));
        self.chunks.close();
        self.messages.close();
        self.shared.pool.close();
    }

    /// Stops the line when nobody writes: what is on its way comes back.
    fn stop_without_writer(&self, why: Error) {
        self.stop(why);
        while let Some(message) = self.messages.try_pop() {
            if let Message::End { chunk, .. } = message {
                self.lose(chunk);
            }
        }
        self.complete_waiting();
    }

    /// The writing thread does not answer: what it has not completed comes back, and
    /// nothing after that, whatever it still does.
    pub(super) fn abandon(&self) {
        self.stop_without_writer(Error::Cancelled);
        self.returning().completed = None;
    }

    /// Says when it is dropped that a thread takes chunks no more. With the last one
    /// goes what nobody has taken.
    pub(super) fn taker(self: &Arc<Self>) -> Taker<P> {
        Taker(Arc::clone(self))
    }

    /// Says when it is dropped that nobody writes any more.
    pub(super) fn writer(self: &Arc<Self>) -> WriterOf<P> {
        WriterOf(Arc::clone(self))
    }
}

impl<P> Returning<P> {
    fn send(&mut self, chunk: Chunk<P>, outcome: ChunkOutcome) {
        if let Some(completed) = &self.completed {
            // Nobody listens any more: dropping the chunk is all there is to do.
            let _ = completed.send(Completed { chunk, outcome });
        }
    }
}

/// A thread that takes chunks, as long as this is not dropped.
pub(super) struct Taker<P>(Arc<Line<P>>);

impl<P> Drop for Taker<P> {
    fn drop(&mut self) {
        let line = &self.0;
        if line.takers.fetch_sub(1, Ordering::SeqCst) == 1 {
            line.chunks.close();
            while let Some(chunk) = line.chunks.try_pop() {
                line.lose(chunk);
            }
        }
    }
}

/// The thread that writes, as long as this is not dropped.
pub(super) struct WriterOf<P>(Arc<Line<P>>);

impl<P> Drop for WriterOf<P> {
    fn drop(&mut self) {
        self.0.stop_without_writer(Error::Closed);
    }
}
