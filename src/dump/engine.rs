// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dump as its user sees it: chunks in, completions out.

use super::bitmap::Bitmaps;
use super::buffer::{Pool, Sizes};
use super::chunk::{Chunk, Completed, Pages};
use super::codec::Codec;
use super::elf_writer::ElfWriter;
use super::error::{Error, Notice};
use super::facts::Facts;
use super::forecast::DumpSize;
use super::format::{Format, FormatWriter};
use super::kdump_writer::KdumpWriter;
use super::line::Line;
use super::output::Output;
use super::sink::Sink;
use super::worker::Worker;
use super::writer::Writer;
use crate::limits::cancel::Cancel;
use crate::os::thread::{start, Signals};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Sets the pace of writing from outside.
pub trait Throttle: Send + Sync {
    /// Waits until something may be written, and returns how many of `wanted`
    /// bytes: all of them, or a number of whole pages.
    fn acquire(&self, wanted: u64) -> u64;

    /// What was acquired last has been written.
    fn written(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// How to write.
#[derive(Clone)]
pub struct EngineConfig {
    /// What the dump looks like and how its pages are compressed.
    pub format: Format,
    /// Threads that copy and compress; at least one. One more writes.
    pub threads: usize,
    /// Bound on the memory of all buffers together, in bytes.
    pub buffer_bytes: usize,
    /// Asked before every write, if there; large writes are split as it says.
    pub throttle: Option<Arc<dyn Throttle>>,
    /// Told at once what cannot wait for the end.
    pub notices: Option<Notices>,
    /// Bytes that the dump may have, if there is a limit. The pages that it has no
    /// room for, which are the last to be handed in, are left out.
    pub limit: Option<u64>,
    /// Ends the dump where it is, within a second. A disk that does not answer by
    /// then keeps the thread that writes to it, which does nothing more once it
    /// does: the one case in which a thread outlives its engine.
    pub cancel: Cancel,
}

/// Hears what a dump has to say while it is being written, on the dump's threads.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;

impl Default for EngineConfig {
    /// kdump with zlib level 1, half the online processors, 64 MiB, unthrottled, and
    /// as large as it gets.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            format: Format::Kdump(Codec::Zlib { level: 1 }),
            threads: (processors / 2).max(1),
            buffer_bytes: 64 << 20,
            throttle: None,
            notices: None,
            limit: None,
            cancel: Cancel::default(),
        }
    }
}

/// How far a dump is. Pages are counted once their descriptor is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pages dealt with: stored, zero and unreadable ones.
    pub pages: u64,
    /// Of these, pages of zeroes only.
    pub zero_pages: u64,
    /// Of these, pages that could not be read.
    pub unreadable_pages: u64,
    /// Of these, pages that there was no room for.
    pub left_out_pages: u64,
    /// Bytes that have gone to the sink, headers and tables included.
    pub bytes: u64,
}

/// How a dump ended.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What was written.
    pub progress: Progress,
    /// Pages that should have been.
    pub wanted_pages: u64,
    /// Length of the dump in bytes.
    pub length: u64,
    /// Where it is, under its last name, when it is a file.
    pub path: Option<PathBuf>,
}

impl Summary {
    /// Pages that are in the dump.
    fn read_pages(&self) -> u64 {
        self.progress.pages - self.progress.unreadable_pages
    }
}

/// A dump that ended incomplete. What was written opens in readers and is
/// marked as incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} pages written", .summary.read_pages(), .summary.wanted_pages)]
pub struct Failure {
    /// What was written.
    pub summary: Summary,
    /// Why not all.
    #[source]
    pub cause: Arc<Error>,
    /// Whether the cause was a notice when it arose.
    pub told: bool,
}

/// What the threads of one engine share.
pub(super) struct Shared {
    pub(super) bitmaps: Arc<Bitmaps>,
    pub(super) codec: Codec,
    /// Whether buffers are checksummed.
    pub(super) summed: bool,
    /// Bytes that pages may take, if that is limited.
    pub(super) room: Option<u64>,
    pub(super) pool: Arc<Pool>,
    pub(super) counters: Counters,
    /// Why nothing more is written, once that is so.
    pub(super) dead: OnceLock<Arc<Error>>,
    /// The first thing that spoilt a single chunk.
    pub(super) fault: OnceLock<Arc<Error>>,
    /// The engine was dropped, not finished.
    pub(super) abandoned: AtomicBool,
    pub(super) cancel: Cancel,
}

/// [`Progress`], to be read at any time by any thread.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) pages: AtomicU64,
    pub(super) zero_pages: AtomicU64,
    pub(super) unreadable_pages: AtomicU64,
    pub(super) left_out_pages: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Progress {
        Progress {
            pages: self.pages.load(Ordering::Relaxed),
            zero_pages: self.zero_pages.load(Ordering::Relaxed),
            unreadable_pages: self.unreadable_pages.load(Ordering::Relaxed),
            left_out_pages: self.left_out_pages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A dump being written. Dropping it without [`Engine::finish`] leaves the
/// dump incomplete; either way its threads end first, but for one that
/// [`EngineConfig::cancel`] tells of.
pub struct Engine<P: Pages + 'static> {
    line: Arc<Line<P>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<WriterThread>,
    shared: Arc<Shared>,
    /// Where the dump is before it is complete.
    path: Option<PathBuf>,
}

/// The thread that writes. What it sends last is that everything it had is gone.
struct WriterThread {
    thread: JoinHandle<()>,
    ended: Receiver<Result<Summary, Failure>>,
}

impl<P: Pages + 'static> Engine<P> {
    /// Writes headers, notes and bitmaps, then starts the threads. Completed
    /// chunks come through the receiver, in any order; it disconnects when all
    /// are through and the engine has been finished.
    ///
    /// # Errors
    /// When the configuration makes no sense, a thread cannot be started, or the
    /// sink refuses the headers.
    pub fn start(
        mut sink: Box<dyn Sink>,
        facts: &Facts,
        bitmaps: Arc<Bitmaps>,
        config: EngineConfig,
    ) -> Result<(Self, Receiver<Completed<P>>), Error> {
        let threads = config.threads.max(1);
        let codec = config.format.codec();
        let sizes = Sizes::new(config.buffer_bytes, threads)?;
        let compressors = (0..threads)
            .map(|_| codec.compressor())
            .collect::<Result<Vec<_>, _>>()?;
        let room = room_for_data(&config, facts, &bitmaps)?;
        let shared = Arc::new(Shared {
            bitmaps,
            codec,
            summed: config.format.has_manifest(),
            room,
            pool: Pool::new(sizes)?,
            counters: Counters::default(),
            dead: OnceLock::new(),
            fault: OnceLock::new(),
            abandoned: AtomicBool::new(false),
            cancel: config.cancel.clone(),
        });
        let (line, completed) = Line::new(Arc::clone(&shared), threads, sizes.count);
        let worker = |compressor| Worker::new(Arc::clone(&shared), compressor, &line);
        let workers: Vec<_> = compressors.into_iter().map(worker).collect();
        sink.heed(&config.cancel);
        let mut engine = Self {
            path: sink.path(),
            line,
            workers: Vec::new(),
            writer: None,
            shared,
        };
        engine.heed(&config.cancel);
        engine.start_writer(sink, facts, &config, sizes)?;
        for worker in workers {
            let thread = start("vicover-pack", Signals::ToOthers, move || worker.run());
            engine.workers.push(thread.map_err(Error::Thread)?);
        }
        Ok((engine, completed))
    }

    /// Lets everybody go when the caller cancels.
    fn heed(&self, cancel: &Cancel) {
        let line = Arc::downgrade(&self.line);
        cancel.when_asked(move || {
            if let Some(line) = line.upgrade() {
                line.stop(Error::Cancelled);
            }
        });
    }

    /// Headers are written by the writing thread, too: there a pipe whose reader has
    /// gone raises no signal.
    fn start_writer(
        &mut self,
        sink: Box<dyn Sink>,
        facts: &Facts,
        config: &EngineConfig,
        sizes: Sizes,
    ) -> Result<(), Error> {
        let (begun, begun_in) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (line, shared, facts) = (self.line.clone(), self.shared.clone(), facts.clone());
        let (format, throttle) = (config.format, config.throttle.clone());
        let notices = config.notices.clone();
        let write = move || {
            let _writer = line.writer();
            let mut output = Output::new(sink, throttle, Arc::clone(&shared));
            let begin = || begin(format, &mut output, &facts, &shared, sizes);
            let format = catch_unwind(AssertUnwindSafe(begin))
                .unwrap_or_else(|panic| Err(Error::panicked("writing headers", panic)));
            match format {
                Ok(format) => {
                    let _ = begun.send(Ok(()));
                    let writer = Writer::new(format, output, shared, line, notices);
                    let _ = end.send(writer.run());
                }
                Err(error) => {
                    drop(output);
                    let _ = begun.send(Err(error));
                }
            }
        };
        let thread = start("vicover-write", Signals::ToOthers, write).map_err(Error::Thread)?;
        self.writer = Some(WriterThread { thread, ended });
        match answer(&begun_in, &config.cancel) {
            Ok(begun) => begun,
            Err(NoAnswer::Ended) => Err(Error::Closed),
            Err(NoAnswer::Cancelled) => {
                self.writer = None;
                Err(Error::Cancelled)
            }
        }
    }

    /// Hands a chunk in; waits while the engine has enough to do. After a write
    /// error chunks are still taken, and come back as lost.
    ///
    /// # Errors
    /// The chunk itself, when the dump was cancelled.
    pub fn submit(&self, chunk: Chunk<P>) -> Result<(), Chunk<P>> {
        self.line.chunks.push(chunk)
    }

    /// How far the dump is.
    pub fn progress(&self) -> Progress {
        self.shared.counters.snapshot()
    }

    /// Waits until every chunk has been written and completed, then marks the
    /// dump as complete and publishes it.
    ///
    /// # Errors
    /// When not every wanted page was handed in and written; the dump then
    /// stays as it is, marked incomplete.
    pub fn finish(mut self) -> Result<Summary, Failure> {
        self.join()
    }

    fn join(&mut self) -> Result<Summary, Failure> {
        self.line.chunks.close();
        for worker in self.workers.drain(..) {
            // Its panics were caught; were one not, the writer sees the page missing.
            let _ = worker.join();
        }
        self.line.messages.close();
        let Some(writer) = self.writer.take() else {
            return Err(self.unwritten(Error::Closed));
        };
        match answer(&writer.ended, &self.shared.cancel) {
            Ok(result) => {
                let _ = writer.thread.join();
                result
            }
            Err(NoAnswer::Ended) => {
                let why = match writer.thread.join() {
                    Err(panic) => Error::panicked("writing", panic),
                    Ok(()) => Error::Closed,
                };
                Err(self.unwritten(why))
            }
            Err(NoAnswer::Cancelled) => {
                self.line.abandon();
                Err(self.unwritten(Error::Cancelled))
            }
        }
    }

    /// Why the dump is incomplete, where the writing thread cannot say.
    fn unwritten(&self, why: Error) -> Failure {
        let progress = self.progress();
        let summary = Summary {
            progress,
            wanted_pages: self.shared.bitmaps.wanted_total(),
            length: progress.bytes,
            path: self.path.clone(),
        };
        Failure {
            summary,
            cause: Arc::new(why),
            told: false,
        }
    }
}

impl<P: Pages + 'static> Drop for Engine<P> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.shared.abandoned.store(true, Ordering::Relaxed);
            let _ = self.join();
        }
    }
}

/// How often somebody who waits for the writing thread looks whether he still must.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a write may still take once the caller has cancelled.
const GRACE: Duration = Duration::from_millis(500);

/// Why the writing thread does not say anything.
enum NoAnswer {
    /// It is no more.
    Ended,
    /// The caller cancelled, and it hangs in the operating system.
    Cancelled,
}

/// Waits for a word of the writing thread.
fn answer<T>(from: &Receiver<T>, cancel: &Cancel) -> Result<T, NoAnswer> {
    let mut cancelled: Option<Instant> = None;
    loop {
        match from.recv_timeout(LOOK_AGAIN) {
            Ok(word) => return Ok(word),
            Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer::Ended),
            Err(RecvTimeoutError::Timeout) if cancel.is_asked() => {
                if cancelled.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                    return Err(NoAnswer::Cancelled);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Bytes that the pages of a dump may take, if that is limited.
fn room_for_data(
    config: &EngineConfig,
    facts: &Facts,
    bitmaps: &Bitmaps,
) -> Result<Option<u64>, Error> {
    let Some(limit) = config.limit else {
        return Ok(None);
    };
    let size = DumpSize::new(config.format, facts, bitmaps)?;
    Ok(Some(size.data_within(bitmaps.wanted_total(), limit)))
}

fn begin(
    format: Format,
    output: &mut Output,
    facts: &Facts,
    shared: &Arc<Shared>,
    sizes: Sizes,
) -> Result<Box<dyn FormatWriter>, Error> {
    if shared.cancel.is_asked() {
        return Err(Error::Cancelled);
    }
    Ok(match format {
        Format::Kdump(_) => Box::new(KdumpWriter::begin(output, facts, shared, sizes.size)?),
        Format::Elf => Box::new(ElfWriter::begin(output, facts, shared)?),
    })
}
