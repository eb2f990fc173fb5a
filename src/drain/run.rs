// SPDX-License-Identifier: LGPL-2.1-or-later
//! Draining the crashed domain: chunk by chunk into the dump, and back to the
//! hypervisor.
//!
//! Two threads beside the dump engine's own: a feeder, which maps chunks and
//! hands them to the engine, and a releaser, which takes them back when they
//! are saved. Pages that need no dump are released before that.

use std::cell::Cell;
use std::convert::Infallible;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::addr::{Gfn, GfnRange, Page};
use crate::drain::handover::Handover;
use crate::drain::progress::ProgressLog;
use crate::dump::{Chunk, Completed, Engine, Pages, Reason, Summary, Unreadable};
use crate::error::{joined, panic_text, Error};
use crate::host::contained::contained;
use crate::host::{Access, CrashedDomain, HostError, Mapping};
use crate::job::JobState;
use crate::os::sync::mpsc::{self, Receiver, Sender};
use crate::os::sync::{thread, OnceLock};
use crate::os::thread::{start_in, Signals};
use crate::told::event::{Cause, DumpEvent, Step};
use crate::understand::Understanding;

/// A mapped chunk on its way through the dump engine.
pub(crate) struct MappedChunk {
    /// None where it could not be mapped.
    mapping: Option<Box<dyn Mapping>>,
    /// Why pages that are to be dumped are missing from the mapping.
    failure: Option<HostError>,
    /// Gone when the chunk has been copied, or will not be.
    reading: Cell<Option<Reading>>,
}

/// Nothing is sent: the receiver learns that all of these are gone.
type Reading = Sender<Infallible>;

impl Pages for MappedChunk {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let mapping = self.mapping.as_ref().ok_or(Unreadable)?;
        mapping.copy(index, into).then_some(()).ok_or(Unreadable)
    }

    fn failure(&self) -> Option<Reason> {
        let failure = self.failure.clone();
        failure.map(|error| Box::new(error) as Reason)
    }

    fn finished(&self) {
        self.reading.set(None);
        if let Some(mapping) = &self.mapping {
            mapping.forget();
        }
    }
}

/// A started dump engine and what comes back from it.
pub(crate) type Dump = (Engine<MappedChunk>, Receiver<Completed<MappedChunk>>);

/// What happens to the memory.
#[derive(Clone, Copy)]
pub(crate) enum Work<'a> {
    /// Memory stays as it is. What is given is called once when memory will not be read
    /// any more, which is before the dump is on the disk; unless there is no dump.
    DumpOnly(&'a (dyn Fn() + Sync)),
    /// Memory is given back and passed on.
    HandOver(&'a Handover<'a>),
}

/// Drains `domain`. Pages that need no dump go first, before the dump is even
/// started with `start`, which may find that fewer pages can be dumped. Without a
/// dump (why is `start`'s error), memory is given back all the same.
pub(crate) fn run(
    domain: &dyn CrashedDomain,
    understanding: &mut Understanding,
    work: Work<'_>,
    start: impl FnOnce(&mut Understanding) -> Result<Dump, Error>,
    job: &JobState,
) -> Result<Summary, Error> {
    let _drained = match work {
        Work::HandOver(handover) => {
            handover.wait_detached();
            Some(handover.drained_at_end())
        }
        Work::DumpOnly(_) => None,
    };
    let planned = understanding.bitmaps.clone();
    Drain::new(domain, understanding, work, job).release_unwanted(|_| true);
    let dump = match job.is_cancelled() {
        true => Err(Error::Cancelled),
        false => catch_unwind(AssertUnwindSafe(|| start(understanding)))
            .unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic)))),
    };
    let drain = Drain::new(domain, understanding, work, job);
    match dump {
        Ok((engine, completed)) => {
            // What did not fit into the dump either.
            drain.release_unwanted(|gfn| planned.wanted().get(gfn.as_pfn()));
            let result = drain.through(engine, completed);
            result.inspect_err(|error| tell_incomplete(error, job))
        }
        Err(error) => {
            let error = match job.is_cancelled() {
                true => Error::Cancelled,
                false => error,
            };
            let why = Cause::from(&error);
            job.tell_failure(DumpEvent::NotMade { why });
            drain.without_dump(&understanding.chunks);
            Err(error)
        }
    }
}

/// Gives back all that `domain` still has, when nothing of it is to be dumped.
pub(crate) fn release_all(
    domain: &dyn CrashedDomain,
    understanding: &Understanding,
    work: Work<'_>,
    job: &JobState,
) {
    if let Work::HandOver(handover) = work {
        handover.wait_detached();
    }
    Drain::new(domain, understanding, work, job).without_dump(&understanding.chunks);
}

/// Says how a dump ended that was begun and is not complete: with the reason, unless
/// the log had that when it arose.
fn tell_incomplete(error: &Error, job: &JobState) {
    let is_told = matches!(error, Error::Dump(failure) if failure.told);
    let mut why = Cause::from(error);
    if is_told {
        why.text = error.to_string();
    }
    job.tell_failure(DumpEvent::Incomplete { why, is_told });
}

/// Ranges whose failure is told one by one; of the others, how many there are.
const TOLD: u64 = 3;

struct Drain<'a> {
    domain: &'a dyn CrashedDomain,
    understanding: &'a Understanding,
    work: Work<'a>,
    job: &'a JobState,
    /// The domain is losing its memory to somebody else: nothing more comes of it.
    gone: OnceLock<HostError>,
    /// Ranges that could not be mapped or released.
    failures: AtomicU64,
}

impl<'a> Drain<'a> {
    fn new(
        domain: &'a dyn CrashedDomain,
        understanding: &'a Understanding,
        work: Work<'a>,
        job: &'a JobState,
    ) -> Self {
        Self {
            domain,
            understanding,
            work,
            job,
            gone: OnceLock::new(),
            failures: AtomicU64::new(0),
        }
    }

    fn through(
        &self,
        engine: Engine<MappedChunk>,
        completed: Receiver<Completed<MappedChunk>>,
    ) -> Result<Summary, Error> {
        thread::scope(|scope| {
            let take_back = move || {
                for done in completed {
                    self.take_back(done);
                }
            };
            let releaser = match start_in(scope, "vicover-release", Signals::ToOthers, take_back) {
                Ok(releaser) => releaser,
                Err(error) => {
                    drop(engine);
                    self.without_dump(&self.understanding.chunks);
                    return Err(Error::thread(error));
                }
            };
            let (reading, all_read) = mpsc::channel();
            let unsaved = self.feed(&engine, reading);
            if let Work::DumpOnly(done_reading) = self.work {
                // An error says that every chunk has been copied.
                let _ = all_read.recv();
                done_reading();
            }
            // Finishing ends the engine's threads and with them the releaser.
            let result = engine.finish();
            let released = joined(releaser);
            // What came back to a releaser that is no more was not given back, either.
            self.without_dump(match released {
                Ok(()) => unsaved,
                Err(_) => &self.understanding.chunks,
            });
            released?;
            result.map_err(|failure| {
                self.job
                    .counters
                    .dump_bytes
                    .store(failure.summary.length, Relaxed);
                match self.job.is_cancelled() {
                    true => Error::Cancelled,
                    false => Error::Dump(failure),
                }
            })
        })
    }

    /// Hands every chunk to the engine; returns the chunks that were left out
    /// because the caller cancelled, or the domain is gone.
    fn feed(&self, engine: &Engine<MappedChunk>, reading: Reading) -> &[GfnRange] {
        let mut progress = ProgressLog::new(self.job);
        for (index, range) in self.understanding.chunks.iter().enumerate() {
            self.wait_resumed();
            if self.job.is_cancelled() || self.gone.get().is_some() {
                return &self.understanding.chunks[index..];
            }
            // A chunk without any page to dump has been given back already.
            if self.understanding.wanted_in(*range) > 0 {
                self.submit(engine, *range, reading.clone());
            }
            let now = engine.progress();
            self.job.counters.dumped.store(now.pages, Relaxed);
            self.job.counters.dump_bytes.store(now.bytes, Relaxed);
            progress.tell();
        }
        &[]
    }

    fn submit(&self, engine: &Engine<MappedChunk>, range: GfnRange, reading: Reading) {
        let (mapping, failure) = self.map_to_dump(range);
        if let Some(error) = &failure {
            self.warn(range, Step::Read, error);
        }
        let chunk = Chunk {
            first: range.start.as_pfn(),
            count: range.len() as usize,
            pages: MappedChunk {
                mapping,
                failure,
                reading: Cell::new(Some(reading)),
            },
        };
        // Only an engine that was cancelled refuses; the refused chunk is given back
        // all the same.
        if let Err(chunk) = engine.submit(chunk) {
            self.give_back(range, chunk.pages.mapping, |_| true);
        }
    }

    /// Maps a chunk, and says why pages to be dumped are missing, unless it is only
    /// that the guest does not have them.
    fn map_to_dump(&self, range: GfnRange) -> (Option<Box<dyn Mapping>>, Option<HostError>) {
        let (mapping, failure) = match self.domain.map(range, self.access()) {
            Ok(mapping) => {
                let failure = mapping.failure();
                (Some(mapping), failure)
            }
            Err(error) => (None, Some(error)),
        };
        let wanted = self.understanding.bitmaps.wanted();
        let is_present = |index| {
            let mapping = mapping.as_ref();
            mapping.is_some_and(|mapping| mapping.is_present(index))
        };
        let is_missing =
            |(index, gfn): (usize, Gfn)| wanted.get(gfn.as_pfn()) && !is_present(index);
        if !range.iter().enumerate().any(is_missing) {
            return (mapping, None);
        }
        let gone = self.domain.check().err();
        if let Some(why) = &gone {
            let _ = self.gone.set(why.clone());
        }
        (mapping, gone.or(failure))
    }

    fn access(&self) -> Access {
        match self.work {
            Work::DumpOnly(_) => Access::Read,
            Work::HandOver(_) => Access::Scrub,
        }
    }

    /// The engine is done with a chunk: saved, or lost to an error that the
    /// end of the dump will report.
    fn take_back(&self, done: Completed<MappedChunk>) {
        let start = Gfn(done.chunk.first.0);
        let range = GfnRange::new(start, Gfn(start.0 + done.chunk.count as u64));
        let wanted = |gfn: Gfn| self.understanding.bitmaps.wanted().get(gfn.as_pfn());
        self.give_back(range, done.chunk.pages.mapping, wanted);
    }

    /// Rests while recovery is being built and boots.
    fn wait_resumed(&self) {
        if let Work::HandOver(handover) = self.work {
            handover.wait_resumed();
        }
    }

    /// Gives back, of the pages that are not to be dumped, those that `which`
    /// names: no disk is involved. Chunks of which nothing is dumped are the last ones,
    /// and come first: one mapping gives back all of such a chunk, and where Xen has 2 MiB
    /// in one piece a guest that populates on demand gets them with one fault, not 512.
    fn release_unwanted(&self, which: impl Fn(Gfn) -> bool) {
        if let Work::DumpOnly(_) = self.work {
            return;
        }
        let wanted = self.understanding.bitmaps.wanted();
        let which = |gfn: Gfn| !wanted.get(gfn.as_pfn()) && which(gfn);
        // A successor that sees only what it has is short of memory until it has this.
        let may_rest = !self.domain.is_paravirtual();
        for range in self.understanding.chunks.iter().rev() {
            if may_rest {
                self.wait_resumed();
            }
            if range.iter().any(which) {
                self.map_and_give_back(*range, which);
            }
        }
    }

    /// Gives chunks back that will not be dumped.
    fn without_dump(&self, chunks: &[GfnRange]) {
        if let Work::DumpOnly(_) = self.work {
            return;
        }
        for range in chunks {
            if self.gone.get().is_some() {
                return;
            }
            self.map_and_give_back(*range, |_| true);
        }
    }

    fn map_and_give_back(&self, range: GfnRange, which: impl Fn(Gfn) -> bool) {
        match self.domain.map(range, Access::Scrub) {
            Ok(mapping) => self.give_back(range, Some(mapping), which),
            Err(error) => self.warn(range, Step::Release, &error),
        }
    }

    /// Says that a step could not be done with pages.
    fn warn(&self, range: GfnRange, step: Step, error: &HostError) {
        let GfnRange { start, end } = range;
        if self.failures.fetch_add(1, Relaxed) < TOLD {
            self.job.log.tell(DumpEvent::Missed {
                step,
                start,
                end,
                error: error.clone(),
            });
        }
    }

    /// Scrubs the pages of a mapping, if there is one, that `which` names, unmaps it,
    /// and releases them: in this order, because Xen frees a page when its last mapping
    /// goes and does not clear it.
    fn give_back(
        &self,
        range: GfnRange,
        mapping: Option<Box<dyn Mapping>>,
        which: impl Fn(Gfn) -> bool,
    ) {
        let (Work::HandOver(handover), Some(mapping)) = (self.work, mapping) else {
            return;
        };
        let released = contained("scrub", || {
            let mut frames = Vec::with_capacity(mapping.len());
            for (index, gfn) in range.iter().enumerate() {
                if mapping.is_present(index) && which(gfn) && self.understanding.may_touch(gfn) {
                    mapping.scrub(index);
                    frames.push(gfn);
                }
            }
            drop(mapping);
            self.domain.release(&frames)
        });
        match released {
            Ok(accepted) => {
                self.job.counters.released.fetch_add(accepted, Relaxed);
                if accepted > 0 {
                    let first = &self.job.milestones.first_release;
                    first.get_or_init(|| self.job.elapsed());
                }
                handover.add_released(accepted);
            }
            Err(error) => self.warn(range, Step::Release, &error),
        }
    }
}

impl Drop for Drain<'_> {
    /// Says how much was not told one by one.
    fn drop(&mut self) {
        let untold = self.failures.load(Relaxed).saturating_sub(TOLD);
        if untold > 0 {
            let ranges = untold;
            self.job.log.tell(DumpEvent::MoreMissed { ranges });
        }
    }
}

#[cfg(test)]
mod tests;
