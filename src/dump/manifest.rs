// SPDX-License-Identifier: LGPL-2.1-or-later
//! Checksums of a complete dump, kept in a file beside it.
//!
//! A dump's data never changes once written and is checksummed on its way;
//! headers and tables, a small part of the dump, are read back once at the end.

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::facts::Changes;

/// Data that one checksum covers: damage is found to within this many bytes,
/// and a dump of 1 TiB has 16 Ki of them.
const PIECE_BYTES: u64 = 64 << 20;
/// Layout of the manifest; readers refuse others.
pub(super) const VERSION: u32 = 1;

/// What is beside a dump as `DUMP.sums`, in JSON. All checksums are CRC-32 as
/// in gzip (ISO 3309).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub version: u32,
    /// Length of the dump in bytes.
    pub length: u64,
    /// Pages dealt with, zero and unreadable ones included.
    pub pages: u64,
    /// Of `pages`, those of zeroes only.
    pub zero_pages: u64,
    /// Of `pages`, those that could not be read.
    pub unreadable_pages: u64,
    /// Of `pages`, those that there was no room for.
    #[serde(default)]
    pub left_out_pages: u64,
    /// In what the dump is not what the guest's memory is.
    #[serde(default, skip_serializing_if = "Changes::is_none")]
    pub changes: Changes,
    /// Bytes of headers and tables at the dump's start.
    pub tables_bytes: u64,
    /// Checksum of headers and tables.
    pub tables_crc32: u32,
    /// Bytes that each of `pieces_crc32` covers, the last one excepted.
    pub piece_bytes: u64,
    /// Checksums of what follows the tables, in order.
    pub pieces_crc32: Vec<u32>,
}

/// Checksums of consecutive pieces, computed as bytes are appended.
pub(super) struct PieceSums {
    piece_bytes: u64,
    current: Hasher,
    in_current: u64,
    done: Vec<u32>,
}

impl Default for PieceSums {
    fn default() -> Self {
        Self::of_pieces(PIECE_BYTES)
    }
}

impl PieceSums {
    pub(super) fn of_pieces(piece_bytes: u64) -> Self {
        Self {
            piece_bytes,
            current: Hasher::new(),
            in_current: 0,
            done: Vec::new(),
        }
    }

    /// For bytes that come after `offset` others, whose checksums are known to somebody
    /// else: see [`PieceSums::following`].
    pub(super) fn after(offset: u64) -> Self {
        Self {
            in_current: offset % PIECE_BYTES,
            ..Self::default()
        }
    }

    /// The checksums of the bytes that `before` has, and then of these, which were begun
    /// with [`PieceSums::after`] so many.
    pub(super) fn following(mut self, mut before: Self) -> Self {
        if self.done.is_empty() {
            before.current.combine(&self.current);
            self.current = before.current;
        } else {
            let length = self.piece_bytes - before.in_current;
            let rest = Hasher::new_with_initial_len(self.done.remove(0), length);
            before.current.combine(&rest);
            before.end_piece();
        }
        before.done.append(&mut self.done);
        self.done = before.done;
        self
    }

    pub(super) fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.piece_bytes - self.in_current;
            let part = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            self.current.update(&bytes[..part]);
            self.advance(part as u64);
            bytes = &bytes[part..];
        }
    }

    /// Appends bytes whose checksum is known.
    pub(super) fn append_summed(&mut self, bytes: &[u8], sum: &Hasher) {
        let length = bytes.len() as u64;
        if length > self.piece_bytes - self.in_current {
            return self.append(bytes);
        }
        self.current.combine(sum);
        self.advance(length);
    }

    /// Counts bytes that `current` has, at most to the piece's end.
    fn advance(&mut self, length: u64) {
        self.in_current += length;
        if self.in_current == self.piece_bytes {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        self.done.push(std::mem::take(&mut self.current).finalize());
        self.in_current = 0;
    }

    /// The checksums so far; the next byte starts a new piece.
    pub(super) fn take(&mut self) -> Vec<u32> {
        if self.in_current > 0 {
            self.end_piece();
        }
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_depend_on_how_bytes_arrive() {
        let bytes: Vec<u8> = (0..2500u32).map(|i| ((i * i) >> 3) as u8).collect();
        let sums = |part: usize| {
            let mut sums = PieceSums::of_pieces(1000);
            bytes.chunks(part).for_each(|part| sums.append(part));
            sums.take()
        };
        assert_eq!(sums(2500).len(), 3);
        assert_eq!(sums(1), sums(2500));
        assert_eq!(sums(999), sums(2500));
        for part in [7, 500, 999, 1000, 1001, 2500] {
            let mut joined = PieceSums::of_pieces(1000);
            for part in bytes.chunks(part) {
                let mut sum = Hasher::new();
                sum.update(part);
                joined.append_summed(part, &sum);
            }
            assert_eq!(joined.take(), sums(2500), "{part}");
        }
    }

    #[test]
    fn sums_of_two_parts_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES / 2)
            .map(|i| ((i * i) >> 3) as u8)
            .collect();
        let mut whole = PieceSums::default();
        whole.append(&bytes);
        let whole = whole.take();
        for at in [
            0,
            1,
            PIECE_BYTES - 1,
            PIECE_BYTES,
            PIECE_BYTES + 1,
            bytes.len() as u64,
        ] {
            let (first, second) = bytes.split_at(at as usize);
            let mut before = PieceSums::default();
            before.append(first);
            let mut after = PieceSums::after(at);
            after.append(second);
            assert_eq!(after.following(before).take(), whole, "{at}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_gzip() {
        // The check value of CRC-32/ISO-HDLC.
        let mut sums = PieceSums::default();
        sums.append(b"123456789");
        assert_eq!(sums.take(), [0xcbf4_3926]);
    }

    #[test]
    fn where_a_piece_ends_with_the_bytes_there_is_no_empty_one() {
        let of_thousand = |bytes: &[u8]| {
            let mut sums = PieceSums::of_pieces(1000);
            sums.append(bytes);
            sums.take()
        };
        let bytes = [7; 2001];
        assert!(of_thousand(&[]).is_empty());
        let first = crc32fast::hash(&bytes[..1000]);
        assert_eq!(of_thousand(&bytes[..2000]), [first, first]);
        let last = crc32fast::hash(&bytes[..1]);
        assert_eq!(of_thousand(&bytes), [first, first, last]);
    }
}
