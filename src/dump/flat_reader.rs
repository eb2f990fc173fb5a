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
        let parts = self.parts.len() as u64 + 1;
        within("records", parts, MOST_RECORDS).map_err(|error| Flaw::Damaged(error.to_string()))?;
        self.parts.insert(offset, part);
        Ok(())
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
