//! The thread that writes: pages first, then their descriptors, then the
//! chunks they came from are completed.

use super::buffer::Lease;
use super::engine::{Chunk, Completed, Failure, Notices, Outcome, Shared, Summary, Throttle};
use super::error::{Error, Notice};
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
            .map_err(|source| self.failed(what, source))
    }

    /// Writes bulk data; whole [`Sink::block`]s from aligned memory go past
    /// the page cache where possible.
    pub(super) fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.paced(offset, bytes, |sink, at, part| sink.write_pages(at, part))
            .map_err(|source| self.failed("pages", source))
    }

    /// Does anything else to the sink; `what` of the dump is meant by it.
    pub(super) fn with_sink<T>(
        &mut self,
        what: &'static str,
        act: impl FnOnce(&mut dyn Sink) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        act(&mut *self.sink).map_err(|source| self.failed(what, source))
    }

    /// The only place where an error of writing arises: it has the path.
    pub(super) fn failed(&self, what: &'static str, source: std::io::Error) -> Error {
        Error::Write {
            path: self.sink.path(),
            what,
            source,
        }
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

    /// What the pages' places have to be multiples of.
    pub(super) fn block(&self) -> usize {
        self.sink.block()
    }

    /// Whether it can be written to at any place.
    pub(super) fn is_seekable(&self) -> bool {
        self.sink.is_seekable()
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
    notices: Option<Notices>,
    /// Bytes that more pages may take, if that is limited.
    room: Option<u64>,
}

impl<P> Writer<P> {
    pub(super) fn new(
        format: Box<dyn FormatWriter>,
        output: Output,
        shared: Arc<Shared>,
        completed: Sender<Completed<P>>,
        notices: Option<Notices>,
    ) -> Self {
        Self {
            format,
            output,
            room: shared.room,
            shared,
            waiting: Vec::new(),
            completed,
            notices,
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
            path: self.output.sink.path(),
        };
        match closed {
            Ok(()) => Ok(summary),
            Err(cause) => Err(Failure {
                summary,
                told: self.was_told(&cause),
                cause,
            }),
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
                Message::Pages(lease) => self.add(lease),
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
                        self.add(lease);
                    }
                }
            }
            if self.format.is_full() {
                self.flush();
            }
        }
        self.flush();
    }

    fn add(&mut self, mut buffer: Lease) {
        if let Some(room) = &mut self.room {
            buffer.keep_within(room);
        }
        if self.shared.dead.get().is_none() {
            if let Err(error) = self.format.add(&mut self.output, &buffer) {
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
        // The first error stands; what follows from it is told by nobody.
        let error = Arc::new(error);
        if self.shared.dead.set(Arc::clone(&error)).is_ok() {
            self.tell(Notice::Stopped(error));
        }
        self.complete_waiting();
    }

    fn tell(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices(notice);
        }
    }

    fn was_told(&self, error: &Arc<Error>) -> bool {
        let dead = self.shared.dead.get();
        self.notices.is_some() && dead.is_some_and(|dead| Arc::ptr_eq(dead, error))
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
        let why_not = match why_not {
            Some(error) => error,
            None => match self.format.complete(&mut self.output) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    // It may be marked already. A dump that could not be finished is
                    // never found to be complete; a stream's end is missing anyway.
                    if self.output.is_seekable() {
                        let _ = self.format.mark_incomplete(&mut self.output);
                    }
                    Arc::new(error)
                }
            },
        };
        if let Err(error) = self.output.with_sink("dump", |sink| sink.sync()) {
            self.tell(Notice::NotSynced(error));
        }
        Err(why_not)
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
