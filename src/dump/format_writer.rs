// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the writing thread needs from an output format.

use super::buffer::Buffer;
use super::error::Error;
use super::output::Output;
use super::progress::Written;

/// Puts pages into a dump. Used by one thread.
pub(super) trait FormatWriter: Send {
    /// Takes the pages of one buffer; they are in the dump after the next flush.
    fn add(&mut self, output: &mut Output, buffer: &Buffer) -> Result<(), Error>;

    /// Whether a flush is due even though more pages are waiting.
    fn is_full(&self) -> bool;

    /// Writes everything taken so far; returns what that was.
    fn flush(&mut self, output: &mut Output) -> Result<Written, Error>;

    /// Length of the dump as far as written, in bytes.
    fn length(&self) -> u64;

    /// Makes sure everything is on disk, marks the dump as complete, makes sure
    /// of that, and lets the sink publish it.
    fn complete(&mut self, output: &mut Output) -> Result<(), Error>;

    /// Takes the mark back, if it was made.
    fn mark_incomplete(&mut self, output: &mut Output) -> Result<(), Error>;
}
