//! The thread that writes: pages first, then their descriptors, then the
//! chunks they came from are completed.

use super::buffer::Buffer;
use super::engine::{Chunk, Completed, Failure, Outcome, Shared, Summary, Throttle};
use super::error::Error;
use super::format::FormatWriter;
use super::sink::Sink;
use super::worker::Message;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::Arc;

/// A sink, its pace and its byte count.
pub(super) struct Output {
    sink: Box<dyn Sink>,
    throttle: Option<Arc<dyn Throttle>>,
    shared: Arc<Shared>,
}

impl Output {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        throttle: Option<Arc<dyn Throttle>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            sink,
            throttle,
            shared,
        }
    }

    /// Writes a part of a table or header, of any size at any place.
    pub(super) fn write(
        &mut self,
        what: &'static str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.paced(offset, bytes, |sink, at, part| sink.write_at(at, part))
            .map_err(Error::write(what))
    }

    /// Writes bulk data; whole [`Sink::block`]s from aligned memory go past
    /// the page cache where possible.
    pub(super) fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.paced(offset, bytes, |sink, at, part| sink.write_pages(at, part))
            .map_err(Error::write("pages"))
    }

    /// Writes in the parts that the throttle grants; without one, at once.
    fn paced(
        &mut self,
        mut offset: u64,
        mut bytes: &[u8],
        write: impl Fn(&mut dyn Sink, u64, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let granted = match &self.throttle {
                Some(throttle) => throttle.acquire(bytes.len() as u64) as usize,
                None => bytes.len(),
            };
            let (part, rest) = bytes.split_at(granted.min(bytes.len()));
            write(&mut *self.sink, offset, part)?;
            let length = part.len() as u64;
            if let Some(throttle) = &self.throttle {
                throttle.written(length);
            }
            self.shared
                .counters
                .bytes
                .fetch_add(length, Ordering::Relaxed);
            offset += length;
            bytes = rest;
        }
        Ok(())
    }

    pub(super) fn sink(&mut self) -> &mut dyn Sink {
        &mut *self.sink
    }
}

/// A chunk whose pages have all been taken, not all written.
struct Waiting<P> {
    chunk: Chunk<P>,
    pages: u64,
    failure: Option<Arc<Error>>,
}

pub(super) struct Writer<P> {
    format: Box<dyn FormatWriter>,
    output: Output,
    shared: Arc<Shared>,
    waiting: Vec<Waiting<P>>,
    completed: Sender<Completed<P>>,
}

impl<P> Writer<P> {
    pub(super) fn new(
        format: Box<dyn FormatWriter>,
        output: Output,
        shared: Arc<Shared>,
        completed: Sender<Completed<P>>,
    ) -> Self {
        Self {
            format,
            output,
            shared,
            waiting: Vec::new(),
            completed,
        }
    }

    /// Works until all workers are gone.
    pub(super) fn run(mut self, messages: &Receiver<Message<P>>) -> Result<Summary, Failure> {
        // A panic ends the writing, not the completing: the loop goes on and,
        // the dump being dead, completes every chunk as lost.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write_all(messages))) {
            self.die(Error::panicked("writing", panic));
        }
        let closing = catch_unwind(AssertUnwindSafe(|| self.close()));
        let closed = closing
            .unwrap_or_else(|panic| Err(Arc::new(Error::panicked("closing the dump", panic))));
        let summary = Summary {
            progress: self.shared.counters.snapshot(),
            wanted_pages: self.shared.bitmaps.wanted_total(),
            length: self.format.length(),
            path: self.output.sink().path(),
        };
        match closed {
            Ok(()) => Ok(summary),
            Err(cause) => Err(Failure { summary, cause }),
        }
    }

    fn write_all(&mut self, messages: &Receiver<Message<P>>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Nothing to gather: whoever waits for a chunk gets it now.
                    self.flush();
                    match messages.recv() {
                        Ok(message) => message,
                        Err(_) => break,
                    }
                }
            };
            match message {
                Message::Pages(lease) => self.add(&lease),
                Message::End {
                    chunk,
                    last,
                    pages,
                    failure,
                } => {
                    // First it waits, so that it comes back whatever happens.
                    self.waiting.push(Waiting {
                        chunk,
                        pages,
                        failure,
                    });
                    if let Some(lease) = last {
                        self.add(&lease);
                    }
                }
            }
            if self.format.is_full() {
                self.flush();
            }
        }
        self.flush();
    }

    fn add(&mut self, buffer: &Buffer) {
        if self.shared.dead.get().is_none() {
            if let Err(error) = self.format.add(&mut self.output, buffer) {
                self.die(error);
            }
        }
    }

    /// Writes what was gathered and completes the chunks it came from.
    fn flush(&mut self) {
        if self.shared.dead.get().is_none() {
            match self.format.flush(&mut self.output) {
                Ok(written) => written.count_into(&self.shared.counters),
                Err(error) => self.die(error),
            }
        }
        self.complete_waiting();
    }

    /// Notes why nothing more is written.
    fn die(&mut self, error: Error) {
        log::error!("dump stopped: {}", error.with_causes());
        let _ = self.shared.dead.set(Arc::new(error));
        self.complete_waiting();
    }

    fn complete_waiting(&mut self) {
        let dead = self.shared.dead.get();
        for waiting in self.waiting.drain(..) {
            let outcome = match waiting.failure.as_ref().or(dead) {
                Some(error) => Outcome::Lost(Arc::clone(error)),
                None => Outcome::Saved {
                    pages: waiting.pages,
                },
            };
            let chunk = waiting.chunk;
            // Nobody listens any more: dropping the chunk is all there is to do.
            let _ = self.completed.send(Completed { chunk, outcome });
        }
    }

    /// Marks the dump complete if it is, and makes sure of what was written.
    fn close(&mut self) -> Result<(), Arc<Error>> {
        let why_not = self.why_incomplete();
        if why_not.is_none() {
            return self.format.complete(&mut self.output).map_err(Arc::new);
        }
        if let Err(error) = self.output.sink().sync() {
            log::warn!("incomplete dump may not be on disk: {error}");
        }
        why_not.map_or(Ok(()), Err)
    }

    fn why_incomplete(&self) -> Option<Arc<Error>> {
        let shared = &self.shared;
        let known = shared.dead.get().or(shared.fault.get());
        if let Some(error) = known {
            return Some(Arc::clone(error));
        }
        if shared.abandoned.load(Ordering::Relaxed) {
            return Some(Arc::new(Error::Closed));
        }
        let wanted = shared.bitmaps.wanted_total();
        let missing = wanted - shared.counters.pages.load(Ordering::Relaxed);
        (missing > 0).then(|| Arc::new(Error::Unsubmitted { missing, wanted }))
    }
}
