// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the writing thread writes to, at the pace that it is given.

use super::engine_state::EngineState;
use super::error::Error;
use super::sink::Sink;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Sets the pace of writing from outside.
pub trait Pacer: Send + Sync {
    /// Waits until something may be written, and returns how many of `wanted`
    /// bytes: all of them, or a number of whole pages.
    fn acquire(&self, wanted: u64) -> u64;

    /// What was acquired last has been written.
    fn written(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// A sink, its pace and its byte count.
pub(super) struct Output {
    sink: Box<dyn Sink>,
    pacer: Option<Arc<dyn Pacer>>,
    shared: Arc<EngineState>,
    /// A cancel is not heeded any more.
    takes_back: bool,
}

impl Output {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        pacer: Option<Arc<dyn Pacer>>,
        shared: Arc<EngineState>,
    ) -> Self {
        Self {
            sink,
            pacer,
            shared,
            takes_back: false,
        }
    }

    /// From now on what was said is taken back, also when the caller has cancelled, as
    /// long as somebody waits for it: what is not so must not stay in the dump.
    pub(super) fn take_back(&mut self) {
        self.takes_back = true;
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

    /// Does something else with the sink.
    pub(super) fn step<T>(
        &mut self,
        what: &'static str,
        step: impl FnOnce(&mut dyn Sink) -> io::Result<T>,
    ) -> Result<T, Error> {
        self.check()
            .and_then(|()| step(&mut *self.sink))
            .map_err(|source| self.failed(what, source))
    }

    /// The only place where an error of writing arises: it has the path.
    pub(super) fn failed(&self, what: &'static str, source: io::Error) -> Error {
        Error::Write {
            path: self.sink.path(),
            what,
            source,
        }
    }

    /// Nothing is done to a sink once the caller has cancelled: nobody may be there
    /// any more to see what becomes of it.
    fn check(&self) -> io::Result<()> {
        let heeds_cancel = !self.takes_back || self.shared.unwatched.load(Ordering::SeqCst);
        match heeds_cancel && self.shared.cancel.is_asked() {
            true => Err(io::Error::other(Error::Cancelled)),
            false => Ok(()),
        }
    }

    /// Writes in the parts that the pacer grants; without one, at once.
    fn paced(
        &mut self,
        mut offset: u64,
        mut bytes: &[u8],
        write: impl Fn(&mut dyn Sink, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let granted = match &self.pacer {
                Some(pacer) => pacer.acquire(bytes.len() as u64) as usize,
                None => bytes.len(),
            };
            self.check()?;
            let (part, rest) = bytes.split_at(granted.min(bytes.len()));
            write(&mut *self.sink, offset, part)?;
            let length = part.len() as u64;
            if let Some(pacer) = &self.pacer {
                pacer.written(length);
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

    /// Why a dump that was published may not outlast a power cut, if that is so.
    pub(super) fn doubt(&mut self) -> Option<Error> {
        let doubt = self.sink.doubt()?;
        Some(self.failed("name of the dump to the disk", doubt))
    }

    /// Where the sink leads to, if that has a name.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.sink.path()
    }

    /// What the pages' places have to be multiples of.
    pub(super) fn block(&self) -> usize {
        self.sink.block()
    }

    /// Whether the sink can be written to at any place.
    pub(super) fn is_seekable(&self) -> bool {
        self.sink.is_seekable()
    }
}
