// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a dump is to be written.

use super::codec::ZLIB;
use super::format::Format;
use super::notice::Notices;
use super::output::Pacer;
use crate::limits::cancel::Cancel;
use crate::os::processor;
use std::sync::Arc;

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
    pub pacer: Option<Arc<dyn Pacer>>,
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

impl Default for EngineConfig {
    /// kdump with zlib level 1, half the online processors, 64 MiB, unthrottled, and
    /// as large as it gets.
    fn default() -> Self {
        Self {
            format: Format::Kdump(ZLIB.fastest()),
            threads: (processor::usable() / 2).max(1),
            buffer_bytes: 64 << 20,
            pacer: None,
            notices: None,
            limit: None,
            cancel: Cancel::default(),
        }
    }
}
