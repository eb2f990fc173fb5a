// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where dumps go.

use super::place::DumpPlace;
use crate::limits::cancel::Cancel;
use std::io;
use std::path::PathBuf;

/// Takes the bytes of a dump, from one thread. Parts arrive in any order and
/// may be written again; what was never written must read as zero.
pub trait Sink: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes all of `bytes`, which is page data, at `offset`. It is page-aligned in
    /// memory; `offset` and length are multiples of [`Sink::block`].
    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)
    }

    /// What page data is aligned to; 1 when it need not be.
    fn block(&self) -> usize {
        1
    }

    /// Called once before anything is written. The dump starts with `tables`
    /// bytes that must read as zero until they are written; so must all of its
    /// `whole` bytes, which are no fewer. Whatever is there of an older dump
    /// must not be taken for a part of this one.
    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()>;

    /// The dump will not grow any more and has this many bytes.
    fn set_length(&mut self, length: u64) -> io::Result<()>;

    /// Returns when all that was written is on disk, and the length that it has.
    fn sync(&mut self) -> io::Result<()>;

    /// Fills `into` with what was written at `offset`, or says `false`: the
    /// sink cannot, and the dump gets no manifest.
    fn read_back(&mut self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        let _ = (offset, into);
        Ok(false)
    }

    /// Called once, last, when the dump is complete; `manifest` is to be kept
    /// beside it.
    fn publish(&mut self, manifest: Option<&str>) -> io::Result<()>;

    /// Where the dump is at this moment, if it has a name.
    fn path(&self) -> Option<PathBuf>;

    /// Where the dump is, for whoever asks later.
    fn place(&self) -> DumpPlace {
        DumpPlace::new(self.path())
    }

    /// Why a dump that was published may not outlast a power cut, if that is so. Asked
    /// once, last.
    fn doubt(&mut self) -> Option<io::Error> {
        None
    }

    /// Whether what was written stays where it can be written again in place.
    /// Formats that need that refuse a sink that cannot.
    fn is_seekable(&self) -> bool {
        true
    }

    /// Called before anything else. Whoever waits longer than an instant for
    /// somebody else than the disk gives up when the caller cancels.
    fn heed(&mut self, cancel: &Cancel) {
        let _ = cancel;
    }

    /// Bytes that a dump may have, where that is known, if `reserve` bytes of the
    /// file system it is on are to stay free.
    fn room(&self, reserve: u64) -> Option<u64> {
        let _ = reserve;
        None
    }
}
