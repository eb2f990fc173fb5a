// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which pages there are and which are to be dumped, one bit each, and where
//! a page's descriptor is.

use super::error::Error;
use crate::addr::Pfn;
use crate::limits::bounded::{within, zeroes, MOST_FRAMES};

/// Bits covered by one entry of the table of cumulative counts.
const BLOCK_BITS: u64 = 64 * 1024;
const BLOCK_WORDS: usize = (BLOCK_BITS / 64) as usize;
/// Words of a bitmap that are written at once: 64 KiB.
const PART_WORDS: usize = 8 * BLOCK_WORDS;

/// One bit per page frame from 0 up to, not including, a limit.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    limit: u64,
}

impl Bitmap {
    /// All clear, for the frames `0..limit`.
    ///
    /// # Errors
    /// When no guest has so many frames, or there is no memory for so many bits.
    pub fn new(limit: Pfn) -> Result<Self, Error> {
        let limit = within("page frames", limit.0, MOST_FRAMES)?;
        Ok(Self {
            words: zeroes("page frames", limit, limit.div_ceil(64))?,
            limit,
        })
    }

    /// One past the last frame that has a bit (`max_mapnr`).
    pub fn limit(&self) -> Pfn {
        Pfn(self.limit)
    }

    /// Whether the frame's bit is set; frames beyond the limit have none.
    pub fn get(&self, pfn: Pfn) -> bool {
        pfn.0 < self.limit && self.words[(pfn.0 / 64) as usize] >> (pfn.0 % 64) & 1 == 1
    }

    /// Sets the frame's bit. Panics beyond the limit.
    pub fn set(&mut self, pfn: Pfn) {
        assert!(pfn.0 < self.limit, "{pfn:?} is beyond {:#x}", self.limit);
        self.words[(pfn.0 / 64) as usize] |= 1 << (pfn.0 % 64);
    }

    /// Sets the bits of `start..end`. Panics beyond the limit.
    pub fn set_range(&mut self, start: Pfn, end: Pfn) {
        assert!(end.0 <= self.limit, "{end:?} is beyond {:#x}", self.limit);
        for (word, mask) in masks(start.0, end.0) {
            self.words[word] |= mask;
        }
    }

    /// Clears the bits of `start..end`. Panics beyond the limit.
    pub fn clear_range(&mut self, start: Pfn, end: Pfn) {
        assert!(end.0 <= self.limit, "{end:?} is beyond {:#x}", self.limit);
        for (word, mask) in masks(start.0, end.0) {
            self.words[word] &= !mask;
        }
    }

    /// Sets the bits of `start..end` that `from` has set. Panics beyond the limits.
    pub fn copy_range(&mut self, from: &Self, start: Pfn, end: Pfn) {
        let limit = self.limit.min(from.limit);
        assert!(end.0 <= limit, "{end:?} is beyond {limit:#x}");
        for (word, mask) in masks(start.0, end.0) {
            self.words[word] |= from.words[word] & mask;
        }
    }

    /// Number of bits set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// Number of bits set in `start..end`; what is beyond the limit counts as clear.
    pub fn count_range(&self, start: Pfn, end: Pfn) -> u64 {
        masks(start.0, end.0.min(self.limit))
            .map(|(word, mask)| u64::from((self.words[word] & mask).count_ones()))
            .sum()
    }

    /// The frames of `start..end` whose bit is set, in order.
    pub fn iter_range(&self, start: Pfn, end: Pfn) -> impl Iterator<Item = Pfn> + '_ {
        masks(start.0, end.0.min(self.limit)).flat_map(|(word, mask)| {
            let mut left = self.words[word] & mask;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = u64::from(left.trailing_zeros());
                left &= left - 1;
                Some(Pfn(word as u64 * 64 + bit))
            })
        })
    }

    /// The frame of `start..end` whose bit is set after `before` others there.
    pub fn nth_in_range(&self, start: Pfn, end: Pfn, before: u64) -> Option<Pfn> {
        let mut left = before;
        masks(start.0, end.0.min(self.limit)).find_map(|(word, mask)| {
            let mut bits = self.words[word] & mask;
            let count = u64::from(bits.count_ones());
            if left >= count {
                left -= count;
                return None;
            }
            for _ in 0..left {
                bits &= bits - 1;
            }
            Some(Pfn(word as u64 * 64 + u64::from(bits.trailing_zeros())))
        })
    }

    /// The runs of consecutive set bits as `(first, one past the last)`, in order.
    pub fn runs(&self) -> impl Iterator<Item = (Pfn, Pfn)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, true)?;
            let end = self.next(start, false).unwrap_or(self.limit);
            at = end;
            Some((Pfn(start), Pfn(end)))
        })
    }

    /// The first frame at or after `from` whose bit is `value`.
    fn next(&self, from: u64, value: bool) -> Option<u64> {
        masks(from, self.limit).find_map(|(word, mask)| {
            let bits = if value {
                self.words[word]
            } else {
                !self.words[word]
            } & mask;
            (bits != 0).then(|| word as u64 * 64 + u64::from(bits.trailing_zeros()))
        })
    }

    /// The bitmap as dumps hold it, in parts: bit 0 of byte 0 is frame 0.
    pub(super) fn parts(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.words
            .chunks(PART_WORDS)
            .map(|words| words.iter().flat_map(|w| w.to_le_bytes()).collect())
    }
}

/// The words that hold the bits `start..end`, each with a mask of those bits.
fn masks(start: u64, end: u64) -> impl Iterator<Item = (usize, u64)> {
    let words = if start < end {
        start / 64..end.div_ceil(64)
    } else {
        0..0
    };
    words.map(move |word| {
        let (first, last) = (word * 64, word * 64 + 63);
        let low = u64::MAX << start.saturating_sub(first);
        let high = u64::MAX >> (last + 1).saturating_sub(end);
        (word as usize, low & high)
    })
}

/// The two bitmaps of a dump, fixed for its whole life.
///
/// Costs two bits per frame and eight bytes per 64 Ki frames.
pub struct Bitmaps {
    present: Bitmap,
    wanted: Bitmap,
    /// Bits set in `wanted` before each block of [`BLOCK_BITS`].
    before: Vec<u64>,
    total: u64,
}

impl Bitmaps {
    /// `present`: the frames that are RAM. `wanted`: those of them that are to
    /// be dumped.
    ///
    /// # Errors
    /// When the two differ in length, or a wanted frame is not present.
    pub fn new(present: Bitmap, wanted: Bitmap) -> Result<Self, Error> {
        if present.limit != wanted.limit {
            return Err(Error::BitmapLengths {
                present: present.limit,
                wanted: wanted.limit,
            });
        }
        let stray = |(&w, &p): (&u64, &u64)| w & !p != 0;
        if let Some(word) = wanted.words.iter().zip(&present.words).position(stray) {
            let bits = wanted.words[word] & !present.words[word];
            let pfn = Pfn(word as u64 * 64 + u64::from(bits.trailing_zeros()));
            return Err(Error::WantedButAbsent { pfn });
        }
        let mut total = 0;
        let before = wanted
            .words
            .chunks(BLOCK_WORDS)
            .map(|block| {
                let so_far = total;
                total += block.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
                so_far
            })
            .collect();
        Ok(Self {
            present,
            wanted,
            before,
            total,
        })
    }

    /// The frames that are RAM.
    pub fn present(&self) -> &Bitmap {
        &self.present
    }

    /// The frames to be dumped.
    pub fn wanted(&self) -> &Bitmap {
        &self.wanted
    }

    /// Number of frames to be dumped.
    pub fn wanted_total(&self) -> u64 {
        self.total
    }

    /// Number of wanted frames below `pfn`: the index of the descriptor of
    /// `pfn` when that is wanted itself.
    pub fn rank(&self, pfn: Pfn) -> u64 {
        let block = pfn.0 / BLOCK_BITS;
        match self.before.get(block as usize) {
            Some(before) => before + self.wanted.count_range(Pfn(block * BLOCK_BITS), pfn),
            None => self.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bitmap(limit: u64, set: &[u64]) -> Bitmap {
        let mut bitmap = Bitmap::new(Pfn(limit)).unwrap();
        set.iter().for_each(|&pfn| bitmap.set(Pfn(pfn)));
        bitmap
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(
            mut set in proptest::collection::vec(0u64..200_000, 0..300),
            start in 0u64..200_100,
            length in 0u64..200_100,
        ) {
            set.sort_unstable();
            set.dedup();
            let bits = bitmap(200_000, &set);
            let end = start + length;
            let inside: Vec<_> = set.iter().filter(|&&p| start <= p && p < end).map(|&p| Pfn(p)).collect();
            prop_assert_eq!(bits.count(), set.len() as u64);
            prop_assert_eq!(bits.count_range(Pfn(start), Pfn(end)), inside.len() as u64);
            for before in 0..=inside.len() {
                let nth = bits.nth_in_range(Pfn(start), Pfn(end), before as u64);
                prop_assert_eq!(nth, inside.get(before).copied());
            }
            let mut copy = Bitmap::new(Pfn(200_000)).unwrap();
            copy.copy_range(&bits, Pfn(start), Pfn(end.min(200_000)));
            prop_assert_eq!(copy.iter_range(Pfn(0), Pfn(200_000)).collect::<Vec<_>>(), inside.clone());
            prop_assert_eq!(bits.iter_range(Pfn(start), Pfn(end)).collect::<Vec<_>>(), inside);
            let from_runs: Vec<_> = bits.runs().flat_map(|(a, b)| a.0..b.0).collect();
            prop_assert_eq!(&from_runs, &set);
            let both = Bitmaps::new(bits.clone(), bits).unwrap();
            prop_assert_eq!(both.rank(Pfn(start)), set.iter().filter(|&&p| p < start).count() as u64);
        }

        #[test]
        fn a_range_is_its_bits(start in 0u64..300, length in 0u64..300) {
            let mut range = Bitmap::new(Pfn(600)).unwrap();
            range.set_range(Pfn(start), Pfn(start + length));
            let set: Vec<_> = (start..start + length).collect();
            prop_assert!(range == bitmap(600, &set));
        }
    }

    #[test]
    fn bytes_hold_the_lowest_frame_in_their_lowest_bit() {
        let bytes: Vec<u8> = bitmap(72, &[0, 9, 71]).parts().flatten().collect();
        assert_eq!(bytes[..9], [1, 2, 0, 0, 0, 0, 0, 0, 0x80]);
    }

    #[test]
    fn no_bitmap_is_larger_than_any_guest() {
        let limit = Pfn(1 << 51);
        let error = Bitmap::new(limit).err().unwrap().to_string();
        assert_eq!(
            error,
            "2251799813685248 page frames cannot be: 4294967296 are allowed"
        );
    }

    #[test]
    fn a_wanted_page_must_be_present() {
        let error = Bitmaps::new(bitmap(100, &[1]), bitmap(100, &[1, 70])).err();
        assert!(matches!(
            error,
            Some(Error::WantedButAbsent { pfn: Pfn(70) })
        ));
        let error = Bitmaps::new(bitmap(100, &[]), bitmap(101, &[])).err();
        assert!(matches!(error, Some(Error::BitmapLengths { .. })));
    }

    #[test]
    #[should_panic(expected = "is beyond 0x46")]
    fn no_bit_beyond_the_last_frame_is_set() {
        bitmap(70, &[70]);
    }

    #[test]
    #[should_panic(expected = "is beyond 0x46")]
    fn no_bits_beyond_the_last_frame_are_copied() {
        let longer = bitmap(90, &[]);
        bitmap(70, &[]).copy_range(&longer, Pfn(0), Pfn(71));
    }

    #[test]
    fn frames_beyond_the_last_one_have_no_bit() {
        let all = bitmap(64, &[63]);
        let found = [62, 63, 64, u64::MAX].map(|pfn| all.get(Pfn(pfn)));
        assert_eq!(found, [false, true, false, false]);
        assert_eq!(all.count_range(Pfn(0), Pfn(u64::MAX)), 1);
    }
}
