// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writing crash dumps: formats, compression, ordered and parallel writing,
//! integrity. Knows nothing of Linux (VMCOREINFO is an opaque text) and
//! nothing of Xen.
//!
//! An [`Engine`] is started on a [`Sink`] with the [`Facts`] about the guest
//! and its [`Bitmaps`]; it takes [`Chunk`]s of mapped memory and hands each
//! back as [`Completed`] when its pages and their descriptors have been
//! written. Only then may the memory be given away.
//!
//! Promises:
//! - *Saved before released*: a chunk comes back as [`ChunkOutcome::Saved`] after
//!   the write calls for its data, then for its descriptors, have returned.
//! - *A usable file at every moment*: the header is written once all it points
//!   at is there, says "incomplete" until the end, and a page's descriptor is
//!   written after its data. A page that is not there yet reads as lost.
//! - *Never in the way*: after a write error every chunk comes back as
//!   [`ChunkOutcome::Lost`] without delay; a panic becomes an error, and so does a
//!   thread that cannot be started; no thread outlives the engine, but for the one
//!   that [`EngineConfig::cancel`] tells of.
//! - *Bounded memory*: buffers within [`EngineConfig::buffer_bytes`], and two
//!   bits per page frame; nothing else grows with the guest.

#![forbid(unsafe_code)]

mod bitmap;
mod buffer;
mod chunk;
mod codec;
mod config;
mod elf;
mod elf_writer;
mod ending;
mod engine;
mod engine_state;
mod error;
mod facts;
mod file_sink;
mod flat;
mod flat_reader;
mod forecast;
mod format;
mod format_writer;
mod kdump;
mod kdump_writer;
mod line;
mod manifest;
mod mend;
mod message;
mod naming;
mod notes;
mod notice;
mod open_sink;
mod output;
mod pack;
mod place;
mod progress;
mod queue;
mod reader;
mod room;
mod seekable;
mod sink;
mod unfinished;
mod verify;
mod worker;
mod writer;

#[cfg(test)]
mod tests;

pub use bitmap::{Bitmap, Bitmaps};
pub use chunk::{Chunk, ChunkOutcome, Completed, Pages, Unreadable};
pub use codec::{Codec, CodecSpec, CODECS, ZLIB, ZSTD};
pub use config::EngineConfig;
pub use ending::{Failure, Summary};
pub use engine::Engine;
pub use error::{Error, Reason};
pub use facts::{Changes, Facts, Utsname, VcpuRegisters, Zeroed};
pub use file_sink::FileSink;
pub use flat::{FlatSink, PatientStream};
pub use forecast::{DumpSize, Sizer};
pub use format::Format;
pub use manifest::Manifest;
pub use mend::mend;
pub(crate) use naming::manifest_path;
pub use naming::stem;
pub use notice::{Notice, Notices};
pub use open_sink::OpenSink;
pub use output::Pacer;
pub use place::DumpPlace;
pub use progress::Progress;
pub use room::{make_directory, room_in, room_on};
pub use sink::Sink;
pub use unfinished::Unfinished;
pub use verify::{verify, Finding, Report};
