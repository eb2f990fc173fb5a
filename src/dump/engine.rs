//! The dump as its user sees it: chunks in, completions out.

use super::bitmap::Bitmaps;
use super::buffer::{Pool, Sizes};
use super::codec::Codec;
use super::elf_writer::ElfWriter;
use super::error::{Error, Notice};
use super::facts::Facts;
use super::forecast::DumpSize;
use super::format::{Format, FormatWriter};
use super::kdump_writer::KdumpWriter;
use super::sink::Sink;
use super::worker::{self, Message, Worker};
use super::writer::{Output, Writer};
use crate::addr::{Page, Pfn};
use crate::os::signal::block_all_in_this_thread;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

/// A page could not be read; the dump goes on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// One mapped chunk of guest memory, to be copied out page by page.
pub trait Pages: Send {
    /// Copies the page number `index` of the chunk, counted from 0.
    ///
    /// # Errors
    /// When that page cannot be read; the dump counts it and goes on.
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable>;

    /// All of the chunk that was to be copied has been. It is kept until what
    /// was copied is written; meanwhile it need not occupy memory.
    fn finished(&self) {}
}

impl<T: Pages + ?Sized> Pages for Box<T> {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        (**self).copy(index, into)
    }

    fn finished(&self) {
        (**self).finished();
    }
}

/// Consecutive page frames and where to copy them from. Those that the bitmap
/// of wanted pages names are dumped. No frame may be handed in twice.
pub struct Chunk<P> {
    /// The first frame.
    pub first: Pfn,
    /// Number of frames.
    pub count: usize,
    /// Their contents.
    pub pages: P,
}

impl<P> std::fmt::Debug for Chunk<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.first.0.saturating_add(self.count as u64);
        write!(f, "Chunk({:#x}..{end:#x})", self.first.0)
    }
}

/// What became of a chunk.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Data and descriptors of its wanted pages have been written.
    Saved {
        /// Number of wanted pages in it.
        pages: u64,
    },
    /// Not all of it could be written; it will not be.
    Lost(Arc<Error>),
}

/// A chunk comes back: its memory is no longer looked at.
#[derive(Debug)]
pub struct Completed<P> {
    /// What was handed in.
    pub chunk: Chunk<P>,
    /// What became of it.
    pub outcome: Outcome,
}

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

/// A dump that ended incomplete. What was written opens in readers and is
/// marked as incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} pages written", .summary.progress.pages, .summary.wanted_pages)]
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
/// dump incomplete; either way its threads end first.
pub struct Engine<P: Pages + 'static> {
    chunks: Option<SyncSender<Chunk<P>>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<Option<Result<Summary, Failure>>>>,
    shared: Arc<Shared>,
}

impl<P: Pages + 'static> Engine<P> {
    /// Writes headers, notes and bitmaps, then starts the threads. Completed
    /// chunks come through the receiver, in any order; it disconnects when all
    /// are through and the engine has been finished.
    ///
    /// # Errors
    /// When the configuration makes no sense or the sink refuses the headers.
    pub fn start(
        sink: Box<dyn Sink>,
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
        });
        let (chunks, chunks_in) = mpsc::sync_channel(threads);
        let chunks_in = Arc::new(Mutex::new(chunks_in));
        let (messages, messages_in) = mpsc::sync_channel::<Message<P>>(sizes.count);
        let (completed, completed_in) = mpsc::channel();
        let mut engine = Self {
            chunks: Some(chunks),
            workers: Vec::new(),
            writer: None,
            shared: Arc::clone(&shared),
        };
        // Headers are written by the writing thread, too: there a pipe whose
        // reader has gone raises no signal.
        let (begun, begun_in) = mpsc::sync_channel(1);
        let facts = facts.clone();
        let write = move || {
            let mut output = Output::new(sink, config.throttle, Arc::clone(&shared));
            match begin(config.format, &mut output, &facts, &shared, sizes) {
                Ok(format) => {
                    drop(begun);
                    let notices = config.notices;
                    let writer = Writer::new(format, output, shared, completed, notices);
                    Some(writer.run(&messages_in))
                }
                Err(error) => {
                    let _ = begun.send(error);
                    None
                }
            }
        };
        engine.writer = Some(spawn("vicover-write", write)?);
        if let Ok(error) = begun_in.recv() {
            return Err(error);
        }
        for compressor in compressors {
            let worker = Worker::new(Arc::clone(&engine.shared), compressor, messages.clone());
            let chunks_in = Arc::clone(&chunks_in);
            let work = move || worker.run(|| worker::next(&chunks_in));
            engine.workers.push(spawn("vicover-pack", work)?);
        }
        Ok((engine, completed_in))
    }

    /// Hands a chunk in; waits while the engine has enough to do. After a write
    /// error chunks are still taken, and come back as lost.
    ///
    /// # Errors
    /// The chunk itself, when the engine is closed.
    pub fn submit(&self, chunk: Chunk<P>) -> Result<(), Chunk<P>> {
        match &self.chunks {
            Some(chunks) => chunks.send(chunk).map_err(|refused| refused.0),
            None => Err(chunk),
        }
    }

    /// How far the dump is.
    pub fn progress(&self) -> Progress {
        self.shared.counters.snapshot()
    }

    /// Why nothing more is written, when that is so.
    pub fn error(&self) -> Option<Arc<Error>> {
        self.shared.dead.get().cloned()
    }

    /// Waits until every chunk has been written and completed, then marks the
    /// dump as complete and publishes it.
    ///
    /// # Errors
    /// When not every wanted page was handed in and written; the dump then
    /// stays as it is, marked incomplete.
    pub fn finish(mut self) -> Result<Summary, Failure> {
        self.join()
            .expect("the writer is there until finish or drop")
    }

    fn join(&mut self) -> Option<Result<Summary, Failure>> {
        self.chunks = None;
        for worker in self.workers.drain(..) {
            // Its panics were caught; were one not, the writer sees the page missing.
            let _ = worker.join();
        }
        self.writer.take()?.join().ok()?
    }
}

impl<P: Pages + 'static> Drop for Engine<P> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
        self.join();
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
    Ok(match format {
        Format::Kdump(_) => Box::new(KdumpWriter::begin(output, facts, shared, sizes.size)?),
        Format::Elf => Box::new(ElfWriter::begin(output, facts, shared)?),
    })
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            block_all_in_this_thread();
            work()
        })
        .map_err(Error::Thread)
}
