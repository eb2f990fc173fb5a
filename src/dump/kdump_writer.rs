// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes kdump-compressed dumps: where each page's data and descriptor go.

use super::buffer::{Buffer, State};
use super::engine_state::EngineState;
use super::error::Error;
use super::facts::Facts;
use super::format_writer::FormatWriter;
use super::kdump::{self, BegunKdump, KdumpLayout, MainHeader, PageDescriptor, BLOCK};
use super::manifest::{self, Manifest, PieceSums};
use super::notes::Notes;
use super::output::Output;
use super::progress::Written;
use crate::addr::PAGE_SIZE;
use crate::os::page_buffer::PageBuffer;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::IntoBytes;

/// Descriptors gathered before they are written in any case: the memory of no more
/// than so many pages waits for that.
const MAX_DESCRIPTORS: usize = 4096;

/// Descriptors of consecutive rank.
struct Run {
    first_rank: u64,
    descriptors: Vec<PageDescriptor>,
}

pub(super) struct KdumpWriter {
    layout: KdumpLayout,
    header: MainHeader,
    shared: Arc<EngineState>,
    /// Writes of pages start and end at multiples of this.
    block: usize,
    /// Page data not written yet, or, in its first incomplete block, to be
    /// written again with what follows.
    gathered: PageBuffer,
    /// Where in the dump `gathered` starts; a multiple of `block`.
    gathered_at: u64,
    /// Bytes in `gathered`.
    used: usize,
    /// Of `used`, bytes already written.
    written: usize,
    runs: Vec<Run>,
    pending: Written,
    /// Checksums of data, from `summed_from` on.
    sums: PieceSums,
    /// Where the data begins that this process writes.
    summed_from: u64,
    /// The header is still to be written.
    header_due: bool,
}

impl KdumpWriter {
    /// Writes all that the header points at. The header itself is written before the
    /// first page: see [`KdumpWriter::write_header_if_due`].
    pub(super) fn begin(
        output: &mut Output,
        facts: &Facts,
        shared: &Arc<EngineState>,
        gather: usize,
    ) -> Result<Self, Error> {
        let bitmaps = &shared.bitmaps;
        let max_mapnr = bitmaps.present().limit().0;
        let notes = Notes::new(facts);
        let layout = KdumpLayout::new(notes.bytes.len(), max_mapnr, bitmaps.wanted_total());
        let header = kdump::main_header(facts, bitmaps, &layout, shared.codec.spec().flag)?;
        let sub = kdump::sub_header(facts, &notes, &layout, max_mapnr);

        let pages = layout.pages;
        output.step("space for the tables", |sink| sink.prepare(pages, pages))?;
        output.write("sub header", BLOCK, sub.as_bytes())?;
        output.write("notes", layout.notes, &notes.bytes)?;
        let tables = [
            (layout.bitmaps, bitmaps.present()),
            (layout.bitmaps + layout.bitmap_len, bitmaps.wanted()),
        ];
        for (mut at, bitmap) in tables {
            for part in bitmap.parts() {
                output.write("bitmaps", at, &part)?;
                at += part.len() as u64;
            }
        }
        output.write("zero page", layout.zero_page, &[0; PAGE_SIZE])?;
        let data_end = layout.pages;
        let begun = BegunKdump {
            header,
            layout,
            data_end,
        };
        let mut this = Self::after(begun, output, shared, gather)?;
        this.header_due = true;
        this.summed_from = this.layout.zero_page;
        this.sums = PieceSums::default();
        this.sums.append(&[0; PAGE_SIZE]);
        Ok(this)
    }

    /// Goes on with a dump that another process has begun. From here on its header says
    /// again that it is not complete.
    pub(super) fn resume(
        mut begun: BegunKdump,
        output: &mut Output,
        shared: &Arc<EngineState>,
        gather: usize,
    ) -> Result<Self, Error> {
        begun.header.status |= U32::new(kdump::INCOMPLETE | shared.codec.spec().flag);
        output.write("header", 0, begun.header.as_bytes())?;
        Self::after(begun, output, shared, gather)
    }

    fn after(
        begun: BegunKdump,
        output: &Output,
        shared: &Arc<EngineState>,
        gather: usize,
    ) -> Result<Self, Error> {
        let BegunKdump {
            header,
            layout,
            data_end,
        } = begun;
        let block = output.block();
        let gathered_at = data_end.next_multiple_of(block as u64);
        Ok(Self {
            sums: PieceSums::after(gathered_at - layout.zero_page),
            summed_from: gathered_at,
            gathered: PageBuffer::new(gather).map_err(Error::Memory)?,
            gathered_at,
            used: 0,
            written: 0,
            block,
            layout,
            header,
            shared: Arc::clone(shared),
            runs: Vec::new(),
            pending: Written::default(),
            header_due: false,
        })
    }

    /// Writes the header when what it points at is on disk: after a power cut, too,
    /// there is no header without its tables. With other bitmaps than were written a
    /// dump would have each page at another's place. Not earlier, since nobody but the
    /// first page is to wait for the disk.
    fn write_header_if_due(&mut self, output: &mut Output) -> Result<(), Error> {
        if !self.header_due {
            return Ok(());
        }
        output.step("tables", |sink| sink.sync())?;
        output.write("header", 0, self.header.as_bytes())?;
        self.header_due = false;
        Ok(())
    }

    fn gather(&mut self, output: &mut Output, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let part = data.len().min(self.gathered.len() - self.used);
            self.gathered[self.used..][..part].copy_from_slice(&data[..part]);
            self.used += part;
            data = &data[part..];
            if self.used == self.gathered.len() {
                self.write_gathered(output)?;
            }
        }
        Ok(())
    }

    /// Writes `gathered`, filled up to a whole block; an incomplete last block
    /// stays in it.
    fn write_gathered(&mut self, output: &mut Output) -> Result<(), Error> {
        if self.written == self.used {
            return Ok(());
        }
        let padded = self.used.next_multiple_of(self.block);
        self.gathered[self.used..padded].fill(0);
        output.write_pages(self.gathered_at, &self.gathered[..padded])?;
        let whole = self.used / self.block * self.block;
        self.gathered.copy_within(whole..padded, 0);
        self.gathered_at += whole as u64;
        self.used -= whole;
        self.written = self.used;
        Ok(())
    }

    fn describe(&mut self, buffer: &Buffer, at: u64) {
        let next_rank = |run: &Run| run.first_rank + run.descriptors.len() as u64;
        if self.runs.last().map(next_rank) != Some(buffer.first_rank) {
            self.runs.push(Run {
                first_rank: buffer.first_rank,
                descriptors: Vec::with_capacity(buffer.slots.len()),
            });
        }
        let run = self.runs.last_mut().expect("there is one now");
        for &state in &buffer.slots {
            let (offset, size, flags, sum) = match state {
                State::Stored {
                    at: within,
                    size,
                    flags,
                    sum,
                } => (at + u64::from(within), size, flags, kdump::summed(sum)),
                State::Zero => (self.layout.zero_page, PAGE_SIZE as u32, 0, 0),
                State::Unreadable | State::NoRoom => (0, 0, 0, 0),
            };
            run.descriptors.push(PageDescriptor {
                offset: U64::new(offset),
                size: U32::new(size),
                flags: U32::new(flags),
                page_flags: U64::new(sum),
            });
        }
        self.pending.add(&buffer.slots);
    }

    /// Adds what is in `from..to` to `sums`; false when it cannot be read back.
    fn read_back(
        &mut self,
        output: &mut Output,
        from: u64,
        to: u64,
        sums: &mut PieceSums,
    ) -> Result<bool, Error> {
        let mut at = from;
        while at < to {
            let left = usize::try_from(to - at).unwrap_or(usize::MAX);
            let part = self.gathered.len().min(left);
            let buffer = &mut self.gathered[..part];
            if !output.step("manifest", |sink| sink.read_back(at, buffer))? {
                return Ok(false);
            }
            sums.append(buffer);
            at += part as u64;
        }
        Ok(true)
    }

    /// The manifest's text, if the tables can be read back.
    fn manifest(&mut self, output: &mut Output, length: u64) -> Result<Option<String>, Error> {
        let data_end = self.gathered_at + self.written as u64;
        let mut tables = PieceSums::of_pieces(u64::MAX);
        let mut before = PieceSums::default();
        let (data, own) = (self.layout.zero_page, self.summed_from);
        let is_read = self.read_back(output, 0, data, &mut tables)?
            && self.read_back(output, data, own, &mut before)?;
        if !is_read {
            return Ok(None);
        }
        self.sums.append(&vec![0; (length - data_end) as usize]);
        let mut sums = std::mem::take(&mut self.sums).following(before);
        let progress = self.shared.counters.snapshot();
        let manifest = Manifest {
            version: manifest::VERSION,
            length,
            pages: progress.pages,
            zero_pages: progress.zero_pages,
            unreadable_pages: progress.unreadable_pages,
            left_out_pages: progress.left_out_pages,
            changes: self.shared.changes.clone(),
            tables_bytes: self.layout.zero_page,
            tables_crc32: tables.take()[0],
            piece_bytes: sums.piece_bytes(),
            pieces_crc32: sums.take(),
        };
        serde_json::to_string(&manifest)
            .map(Some)
            .map_err(|error| output.failed("manifest", error.into()))
    }
}

impl FormatWriter for KdumpWriter {
    /// Takes the pages of one buffer. Their data may be written at once, their
    /// descriptors are with the next flush.
    fn add(&mut self, output: &mut Output, buffer: &Buffer) -> Result<(), Error> {
        self.write_header_if_due(output)?;
        let at = self.gathered_at + self.used as u64;
        let data = &buffer.bytes[..buffer.used];
        self.sums.append_summed(data, &buffer.sum);
        if self.used == 0 && data.len() % self.block == 0 {
            output.write_pages(at, data)?;
            self.gathered_at += data.len() as u64;
        } else {
            self.gather(output, data)?;
        }
        self.describe(buffer, at);
        Ok(())
    }

    /// Whether a flush is due even though more pages are waiting.
    fn is_full(&self) -> bool {
        self.pending.pages as usize >= MAX_DESCRIPTORS
    }

    /// Writes all pages taken so far, then their descriptors.
    fn flush(&mut self, output: &mut Output) -> Result<Written, Error> {
        self.write_header_if_due(output)?;
        self.write_gathered(output)?;
        for run in self.runs.drain(..) {
            let at = self.layout.descriptor(run.first_rank);
            output.write("page descriptors", at, run.descriptors.as_bytes())?;
        }
        Ok(std::mem::take(&mut self.pending))
    }

    /// Length of the dump as far as written.
    fn length(&self) -> u64 {
        (self.gathered_at + self.written as u64).next_multiple_of(BLOCK)
    }

    /// Everything is on disk before the header says so, and the header is
    /// before the dump gets its final name.
    fn complete(&mut self, output: &mut Output) -> Result<(), Error> {
        let length = self.length();
        output.step("dump", |sink| sink.set_length(length))?;
        output.step("dump", |sink| sink.sync())?;
        let pages = self.shared.counters.pages.load(Ordering::Relaxed);
        self.header.status &= U32::new(!kdump::INCOMPLETE);
        self.header.written_blocks = kdump::capped(pages);
        self.header.device_blocks = match u32::try_from(length / BLOCK) {
            Ok(blocks) => U32::new(blocks),
            Err(_) => U32::ZERO,
        };
        output.write("header", 0, self.header.as_bytes())?;
        output.step("final mark", |sink| sink.sync())?;
        let manifest = self.manifest(output, length)?;
        output.step("final name", |sink| sink.publish(manifest.as_deref()))
    }

    fn mark_incomplete(&mut self, output: &mut Output) -> Result<(), Error> {
        self.header.status |= U32::new(kdump::INCOMPLETE);
        output.write("header", 0, self.header.as_bytes())
    }
}
