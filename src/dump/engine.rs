// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dump as its user sees it: chunks in, completions out.

use super::bitmap::{Bitmap, Bitmaps};
use super::buffer::{Pool, Sizes};
use super::chunk::{Chunk, Completed, Pages};
use super::config::EngineConfig;
use super::elf_writer::ElfWriter;
use super::ending::{Failure, Summary};
use super::engine_state::EngineState;
use super::error::Error;
use super::facts::{Changes, Facts};
use super::forecast::{room_after, DumpSize};
use super::format::Format;
use super::format_writer::FormatWriter;
use super::kdump::BegunKdump;
use super::kdump_writer::KdumpWriter;
use super::line::Line;
use super::output::Output;
use super::progress::{EngineCounters, Progress};
use super::sink::Sink;
use super::unfinished::Unfinished;
use super::worker::Worker;
use super::writer::Writer;
use crate::limits::cancel::Cancel;
use crate::os::sync::atomic::{AtomicBool, Ordering};
use crate::os::sync::mpsc::{self, Receiver, RecvTimeoutError};
use crate::os::sync::thread::JoinHandle;
use crate::os::sync::{Instant, OnceLock};
use crate::os::thread::{start, Signals};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A dump being written. Dropping it without [`Engine::finish`] leaves the
/// dump incomplete; either way its threads end first, but for one that
/// [`EngineConfig::cancel`] tells of.
pub struct Engine<P: Pages + 'static> {
    line: Arc<Line<P>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<WriterThread>,
    shared: Arc<EngineState>,
    /// Where the dump is before it is complete.
    path: Option<PathBuf>,
}

/// The headers and tables of a dump.
enum Tables {
    /// They are still to be written.
    New(Box<Facts>),
    /// Another process has written them.
    There(Box<BegunKdump>),
}

/// What a dump begins with.
struct Basis {
    bitmaps: Arc<Bitmaps>,
    /// Pages that are in the dump already, if another process began it.
    stored: Option<Bitmap>,
    /// In what more pages are not stored as they are.
    changes: Changes,
    counters: EngineCounters,
    /// Bytes that more pages may take, if that is limited.
    room: Option<u64>,
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
        sink: Box<dyn Sink>,
        facts: &Facts,
        bitmaps: Arc<Bitmaps>,
        config: EngineConfig,
    ) -> Result<(Self, Receiver<Completed<P>>), Error> {
        let basis = Basis {
            room: room_for_data(&config, facts, &bitmaps)?,
            bitmaps,
            stored: None,
            changes: facts.changes.clone(),
            counters: EngineCounters::default(),
        };
        Self::launch(sink, Tables::New(Box::new(facts.clone())), basis, config)
    }

    /// Goes on with a dump that another process has begun, otherwise as
    /// [`Engine::start`]. Pages that are in the dump already are not read again.
    ///
    /// # Errors
    /// When the configuration makes no sense, a thread cannot be started, or the file
    /// cannot be written to.
    pub fn resume(
        unfinished: Unfinished,
        config: EngineConfig,
    ) -> Result<(Self, Receiver<Completed<P>>), Error> {
        let Unfinished {
            sink,
            begun,
            bitmaps,
            stored,
            changes,
            zero_pages,
        } = unfinished;
        let basis = Basis {
            room: config.limit.map(|most| room_after(begun.data_end, most)),
            counters: EngineCounters {
                pages: stored.count().into(),
                zero_pages: zero_pages.into(),
                bytes: begun.data_end.into(),
                ..EngineCounters::default()
            },
            bitmaps,
            stored: Some(stored),
            changes,
        };
        Self::launch(
            Box::new(sink),
            Tables::There(Box::new(begun)),
            basis,
            config,
        )
    }

    fn launch(
        mut sink: Box<dyn Sink>,
        tables: Tables,
        basis: Basis,
        config: EngineConfig,
    ) -> Result<(Self, Receiver<Completed<P>>), Error> {
        let threads = config.threads.max(1);
        let codec = config.format.codec();
        let sizes = Sizes::new(config.buffer_bytes, threads)?;
        let compressors = (0..threads)
            .map(|_| codec.compressor())
            .collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(EngineState {
            bitmaps: basis.bitmaps,
            stored: basis.stored,
            changes: basis.changes,
            codec,
            summed: config.format.has_manifest(),
            room: basis.room,
            pool: Pool::new(sizes)?,
            counters: basis.counters,
            dead: OnceLock::new(),
            fault: OnceLock::new(),
            abandoned: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
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
        engine.start_writer(sink, tables, &config, sizes)?;
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
        tables: Tables,
        config: &EngineConfig,
        sizes: Sizes,
    ) -> Result<(), Error> {
        let (begun, begun_in) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (line, shared) = (self.line.clone(), self.shared.clone());
        let (format, pacer) = (config.format, config.pacer.clone());
        let notices = config.notices.clone();
        let write = move || {
            let _writer = line.writer();
            let mut output = Output::new(sink, pacer, Arc::clone(&shared));
            let begin = || begin(format, &mut output, tables, &shared, sizes);
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
                self.shared.unwatched.store(true, Ordering::SeqCst);
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
                self.shared.unwatched.store(true, Ordering::SeqCst);
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
    /// The thread has ended.
    Ended,
    /// The caller cancelled, and the thread hangs in the operating system.
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
    tables: Tables,
    shared: &Arc<EngineState>,
    sizes: Sizes,
) -> Result<Box<dyn FormatWriter>, Error> {
    if shared.cancel.is_asked() {
        return Err(Error::Cancelled);
    }
    let facts = match tables {
        Tables::New(facts) => facts,
        Tables::There(begun) => {
            let writer = KdumpWriter::resume(*begun, output, shared, sizes.size)?;
            return Ok(Box::new(writer));
        }
    };
    Ok(match format {
        Format::Kdump(_) => Box::new(KdumpWriter::begin(output, &facts, shared, sizes.size)?),
        Format::Elf => Box::new(ElfWriter::begin(output, &facts, shared)?),
    })
}
