// SPDX-License-Identifier: LGPL-2.1-or-later
//! A flattened stream that was kept in a file, read as the dump it stands for.

use super::flat::{StreamHeader, StreamRecord, END, HEADER_SIZE, SIGNATURE, TYPE_AND_VERSION};
use super::reader::{fill, parse, Flaw, Source};
use crate::limits::bounded::within;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// Records of a stream that are still remembered: those of a dump of more than 1 TiB.
const MOST_RECORDS: u64 = 16 << 20;

/// Where in the stream a part of the dump is.
struct Part {
    at: u64,
    size: u64,
}

/// Random access to the dump inside a stream. Memory grows with the number of
/// records, which are about a megabyte each.
pub(super) struct FlatSource<S> {
    stream: S,
    /// By offset in the dump; parts do not overlap.
    parts: BTreeMap<u64, Part>,
    /// What the stream promises of its last record and ends before: offsets in
    /// the dump. Zeroes in their place would be read as something written.
    cut_off: Range<u64>,
    /// Whether the end of the stream is there.
    pub(super) ended: bool,
}

/// Whether this is a flattened stream.
pub(super) fn is_stream(first_bytes: &[u8]) -> bool {
    first_bytes.starts_with(&SIGNATURE)
}

impl<S: Source> FlatSource<S> {
    pub(super) fn open(stream: S) -> Result<Self, Flaw> {
        let mut header = [0; size_of::<StreamHeader>()];
        fill(&stream, "the stream's header", 0, &mut header)?;
        let header: StreamHeader = parse(&header);
        if (header.kind.get(), header.version.get()) != TYPE_AND_VERSION {
            return Err(Flaw::Damaged("unknown kind of stream".into()));
        }
        let mut source = Self {
            stream,
            parts: BTreeMap::new(),
            cut_off: 0..0,
            ended: false,
        };
        match source.read_records() {
            // What is before the cut can be used.
            Ok(()) | Err(Flaw::Cut(_)) => Ok(source),
            Err(flaw) => Err(flaw),
        }
    }

    fn read_records(&mut self) -> Result<(), Flaw> {
        let mut at = HEADER_SIZE as u64;
        loop {
            let mut record = [0; size_of::<StreamRecord>()];
            fill(&self.stream, "the stream's end", at, &mut record)?;
            let record: StreamRecord = parse(&record);
            at += size_of::<StreamRecord>() as u64;
            let (offset, size) = (record.offset.get(), record.size.get());
            if (offset, size) == (END, END) {
                self.ended = true;
                return Ok(());
            }
            let (Ok(offset), Ok(size)) = (u64::try_from(offset), u64::try_from(size)) else {
                return Err(Flaw::Damaged(format!(
                    "a record of {size} bytes at {offset}"
                )));
            };
            let available = size.min(self.stream.length().saturating_sub(at));
            if available < size && self.parts.contains_key(&offset) {
                // What it was to replace is there in full.
                return Err(Flaw::Cut("the stream's end"));
            }
            self.insert(
                offset,
                Part {
                    at,
                    size: available,
                },
            )?;
            if available < size {
                self.cut_off = offset + available..offset.saturating_add(size);
            }
            at = at.saturating_add(size);
        }
    }

    /// A part replaces an earlier one of the same place; writers of streams
    /// replace nothing but the header.
    fn insert(&mut self, offset: u64, part: Part) -> Result<(), Flaw> {
        let before = self.parts.range(..offset).next_back();
        let after = self.parts.range(offset + 1..).next();
        let overlaps_before = before.is_some_and(|(at, part)| at + part.size > offset);
        let overlaps_after = after.is_some_and(|(&at, _)| offset.saturating_add(part.size) > at);
        if overlaps_before || overlaps_after {
            return Err(Flaw::Damaged(format!("records overlap at {offset:#x}")));
        }
        self.parts.insert(offset, part);
        let parts = self.parts.len() as u64;
        let allowed = within("records", parts, MOST_RECORDS).map(drop);
        allowed.map_err(|error| Flaw::Damaged(error.to_string()))
    }
}

impl<S: Source> Source for FlatSource<S> {
    fn length(&self) -> u64 {
        self.parts
            .last_key_value()
            .map_or(0, |(offset, part)| offset + part.size)
    }

    fn is_cut(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        offset < self.cut_off.end && self.cut_off.start < end
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        let end = offset + into.len() as u64;
        let first = self
            .parts
            .range(..=offset)
            .next_back()
            .map_or(0, |(&at, _)| at);
        for (&at, part) in self.parts.range(first..end) {
            let (from, to) = (offset.max(at), end.min(at + part.size));
            if from < to {
                let target = &mut into[(from - offset) as usize..(to - offset) as usize];
                self.stream.read_at(part.at + (from - at), target)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::tests::recorder::Image;

    /// A stream of these records, as `makedumpfile.h` has them, up to the mark of its end.
    fn stream(records: &[(i64, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..12].copy_from_slice(b"makedumpfile");
        (bytes[23], bytes[31]) = (1, 1);
        for (offset, data) in records {
            bytes.extend(offset.to_be_bytes());
            bytes.extend((data.len() as u64).to_be_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    fn open(bytes: Vec<u8>) -> FlatSource<Image> {
        FlatSource::open(Image(bytes))
            .map_err(|flaw| flaw.to_string())
            .unwrap()
    }

    fn flaw(bytes: Vec<u8>) -> String {
        FlatSource::open(Image(bytes))
            .err()
            .expect("a flaw")
            .to_string()
    }

    fn read(source: &FlatSource<Image>, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![b'?'; length as usize];
        source.read_at(offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_dump_is_read_from_the_parts_that_a_stream_has_of_it() {
        let mut bytes = stream(&[(20, b"j"), (10, b"defg"), (14, b"hi"), (0, b"abc")]);
        assert!(is_stream(&bytes) && !is_stream(b"KDUMP   "));
        let cut = open(bytes.clone());
        bytes.extend([0xff; 16]);
        let source = open(bytes);
        assert_eq!((cut.ended, source.ended), (false, true));
        let whole = b"abc\0\0\0\0\0\0\0defghi\0\0\0\0j";
        assert_eq!(source.length(), whole.len() as u64);
        for from in 0..whole.len() {
            for to in from..=whole.len() {
                let found = read(&source, from as u64, (to - from) as u64);
                assert_eq!(found, whole[from..to], "{from} to {to}");
            }
        }
        assert!(!source.is_cut(0, whole.len() as u64));
    }

    #[test]
    fn of_two_records_for_one_place_the_later_one_counts() {
        let source = open(stream(&[(0, b"old"), (3, b"behind"), (0, b"new")]));
        assert_eq!(read(&source, 0, 9), b"newbehind");
    }

    #[test]
    fn records_that_overlap_are_damaged() {
        let overlap = |at| format!("records overlap at {at:#x}");
        assert_eq!(flaw(stream(&[(0, b"abcd"), (3, b"e")])), overlap(3));
        assert_eq!(flaw(stream(&[(3, b"e"), (0, b"abcd")])), overlap(0));
        assert_eq!(
            flaw(stream(&[(0, b"a"), (1, b"b"), (0, b"cd")])),
            overlap(0)
        );
        let beside = open(stream(&[(3, b"de"), (0, b"abc"), (5, b"f")]));
        assert_eq!(read(&beside, 0, 6), b"abcdef");
    }

    #[test]
    fn what_no_stream_says_is_damaged() {
        for at in [23, 31] {
            let mut bytes = stream(&[]);
            bytes[at] = 2;
            assert_eq!(flaw(bytes), "unknown kind of stream");
        }
        assert_eq!(flaw(stream(&[(-1, b"abc")])), "a record of 3 bytes at -1");
        let mut bytes = stream(&[(5, b"")]);
        bytes[4096 + 8..].fill(0xff);
        assert_eq!(flaw(bytes), "a record of -1 bytes at 5");
        let cut = flaw(stream(&[])[..31].to_vec());
        assert_eq!(cut, "ends before the stream's header");
    }

    #[test]
    fn what_the_last_record_lacks_is_cut_off() {
        let whole = stream(&[(0, b"abcd"), (4, b"efgh")]);
        let source = open(whole[..whole.len() - 2].to_vec());
        assert_eq!((source.ended, source.length()), (false, 6));
        assert_eq!(read(&source, 0, 6), b"abcdef");
        for (offset, length, is_cut) in [
            (0, 6, false),
            (5, 1, false),
            (5, 2, true),
            (6, 1, true),
            (7, 1, true),
            (7, 9, true),
            (8, 1, false),
            (0, 9, true),
        ] {
            assert_eq!(
                source.is_cut(offset, length),
                is_cut,
                "{length} at {offset}"
            );
        }
        // A record of which nothing is there.
        let source = open(whole[..whole.len() - 4].to_vec());
        assert_eq!((source.length(), source.is_cut(4, 1)), (4, true));
    }

    #[test]
    fn a_record_that_was_cut_does_not_replace_an_earlier_one() {
        let whole = stream(&[(0, b"abcd"), (0, b"efgh")]);
        let source = open(whole[..whole.len() - 2].to_vec());
        assert_eq!(read(&source, 0, 4), b"abcd");
        assert_eq!((source.ended, source.is_cut(0, 4)), (false, false));
    }
}
