// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the threads of one engine have in common.

use super::bitmap::{Bitmap, Bitmaps};
use super::buffer::Pool;
use super::codec::Codec;
use super::error::Error;
use super::facts::Changes;
use super::progress::EngineCounters;
use crate::limits::cancel::Cancel;
use crate::os::sync::atomic::AtomicBool;
use crate::os::sync::OnceLock;
use std::sync::Arc;

/// What the threads of one engine share.
pub(super) struct EngineState {
    pub(super) bitmaps: Arc<Bitmaps>,
    /// Wanted pages that are in the dump already, if another process began it.
    pub(super) stored: Option<Bitmap>,
    pub(super) codec: Codec,
    /// In what pages are not stored as they are.
    pub(super) changes: Changes,
    /// Whether buffers are checksummed.
    pub(super) summed: bool,
    /// Bytes that pages may take, if that is limited.
    pub(super) room: Option<u64>,
    pub(super) pool: Arc<Pool>,
    pub(super) counters: EngineCounters,
    /// Why nothing more is written, once that is so.
    pub(super) dead: OnceLock<Arc<Error>>,
    /// The first thing that spoilt a single chunk.
    pub(super) fault: OnceLock<Arc<Error>>,
    /// The engine was dropped, not finished.
    pub(super) abandoned: AtomicBool,
    /// Nobody waits any more for what becomes of the sink.
    pub(super) unwatched: AtomicBool,
    pub(super) cancel: Cancel,
}
