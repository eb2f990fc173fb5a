// SPDX-License-Identifier: LGPL-2.1-or-later
//! The thread that writes: pages first, then their descriptors, then the
//! chunks they came from are completed.

use super::buffer::Lease;
use super::ending::{Failure, Summary};
use super::engine_state::EngineState;
use super::error::Error;
use super::format_writer::FormatWriter;
use super::line::{Line, Waiting};
use super::message::Message;
use super::notice::{Notice, Notices};
use super::output::Output;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;

pub(super) struct Writer<P> {
    format: Box<dyn FormatWriter>,
    output: Output,
    shared: Arc<EngineState>,
    line: Arc<Line<P>>,
    notices: Option<Notices>,
    /// Bytes that more pages may take, if that is limited.
    room: Option<u64>,
}

impl<P> Writer<P> {
    pub(super) fn new(
        format: Box<dyn FormatWriter>,
        output: Output,
        shared: Arc<EngineState>,
        line: Arc<Line<P>>,
        notices: Option<Notices>,
    ) -> Self {
        Self {
            format,
            output,
            room: shared.room,
            shared,
            line,
            notices,
        }
    }

    /// Works until no more messages come.
    pub(super) fn run(mut self) -> Result<Summary, Failure> {
        // A panic ends the writing, not the completing: the loop goes on and,
        // the dump being dead, completes every chunk as lost.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write_all())) {
            self.die(Error::panicked("writing", panic));
        }
        let closing = catch_unwind(AssertUnwindSafe(|| self.close()));
        let closed = closing.unwrap_or_else(|panic| {
            let unmark = AssertUnwindSafe(|| self.take_mark_back());
            // Whatever panicked may do so again: then the dump's name tells.
            let _ = catch_unwind(unmark);
            Err(Arc::new(Error::panicked("closing the dump", panic)))
        });
        let summary = Summary {
            progress: self.shared.counters.snapshot(),
            wanted_pages: self.shared.bitmaps.wanted_total(),
            length: self.format.length(),
            path: self.output.path(),
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

    fn write_all(&mut self) {
        loop {
            let message = match self.line.messages.try_pop() {
                Some(message) => message,
                None => {
                    // Nothing to gather: whoever waits for a chunk gets it now.
                    self.flush();
                    match self.line.messages.pop() {
                        Some(message) => message,
                        None => break,
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
                    self.line.wait(Waiting {
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
        self.line.complete_waiting();
    }

    /// Notes why nothing more is written.
    fn die(&mut self, error: Error) {
        // The first error stands; what follows from it is told by nobody.
        let error = Arc::new(error);
        if self.shared.dead.set(Arc::clone(&error)).is_ok() {
            self.tell(Notice::Stopped(error));
        }
        self.line.complete_waiting();
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

    /// Marks the dump complete if it is, and makes sure of what was written.
    fn close(&mut self) -> Result<(), Arc<Error>> {
        let why_not = self.why_incomplete();
        let why_not = match why_not {
            Some(error) => error,
            None => match self.format.complete(&mut self.output) {
                Ok(()) => {
                    if let Some(error) = self.output.doubt() {
                        self.tell(Notice::NotLasting(error));
                    }
                    return Ok(());
                }
                Err(error) => {
                    self.take_mark_back();
                    Arc::new(error)
                }
            },
        };
        // Who cancels does not wait for a disk any more.
        if !self.shared.cancel.is_asked() {
            if let Err(error) = self.output.step("dump", |sink| sink.sync()) {
                self.tell(Notice::NotSynced(error));
            }
        }
        Err(why_not)
    }

    /// It may be marked already. A dump that could not be finished is never found to be
    /// complete; a stream's end is missing anyway.
    fn take_mark_back(&mut self) {
        if self.output.is_seekable() {
            self.output.take_back();
            let _ = self.format.mark_incomplete(&mut self.output);
        }
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
        if missing > 0 {
            return Some(Arc::new(Error::Unsubmitted { missing, wanted }));
        }
        let unreadable = shared.counters.unreadable_pages.load(Ordering::Relaxed);
        let nothing = wanted > 0 && unreadable == wanted;
        nothing.then(|| Arc::new(Error::Nothing { wanted }))
    }
}
