// SPDX-License-Identifier: LGPL-2.1-or-later
//! From the threads that compress to the one that writes.

use super::buffer::Lease;
use super::chunk::Chunk;
use super::error::Error;
use std::sync::Arc;

/// From a worker to the writer. Everything of a chunk comes before its end.
pub(super) enum Message<P> {
    /// A buffer full of pages.
    Pages(Lease),
    /// Nothing more of this chunk follows.
    End {
        chunk: Chunk<P>,
        /// The chunk's last pages.
        last: Option<Lease>,
        /// Wanted pages in the chunk.
        pages: u64,
        /// Why not all wanted pages were sent.
        failure: Option<Arc<Error>>,
    },
}
