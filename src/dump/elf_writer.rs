// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes ELF vmcores: every page of RAM has a fixed place.

use super::buffer::{Buffer, State};
use super::elf::ElfLayout;
use super::engine_state::EngineState;
use super::error::Error;
use super::facts::Facts;
use super::format_writer::FormatWriter;
use super::notes::{Notes, Status};
use super::output::Output;
use super::progress::Written;
use crate::addr::PAGE_SIZE;
use std::sync::Arc;

/// Shorter runs of pages go through the page cache, which gathers them.
const DIRECT_FROM: usize = 128 << 10;

pub(super) struct ElfWriter {
    layout: ElfLayout,
    notes: Notes,
    shared: Arc<EngineState>,
    pending: Written,
}

impl ElfWriter {
    /// Writes all that can be written before the first page, headers last.
    pub(super) fn begin(
        output: &mut Output,
        facts: &Facts,
        shared: &Arc<EngineState>,
    ) -> Result<Self, Error> {
        if !output.is_seekable() {
            return Err(Error::NotSeekable { format: "ELF" });
        }
        let mut notes = Notes::new(facts);
        notes.set_status(Status::Incomplete);
        let layout = ElfLayout::new(notes.bytes.len(), shared.bitmaps.present())?;
        let headers = layout.notes + notes.bytes.len() as u64;
        output.step("space for the headers", |sink| {
            sink.prepare(headers, layout.length)
        })?;
        output.write("notes", layout.notes, &notes.bytes)?;
        output.write("headers", 0, &layout.headers())?;
        Ok(Self {
            layout,
            notes,
            shared: Arc::clone(shared),
            pending: Written::default(),
        })
    }

    fn mark(&mut self, output: &mut Output, status: Status) -> Result<(), Error> {
        self.notes.set_status(status);
        output.write("final mark", self.layout.notes, &self.notes.bytes)
    }
}

impl FormatWriter for ElfWriter {
    fn add(&mut self, output: &mut Output, buffer: &Buffer) -> Result<(), Error> {
        let limit = self.shared.bitmaps.wanted().limit();
        let pfns = self.shared.bitmaps.wanted().iter_range(buffer.first, limit);
        // The run being gathered: where in the buffer, where in the file.
        let (mut from, mut to, mut place) = (0, 0, 0);
        for (pfn, state) in pfns.zip(&buffer.slots) {
            let &State::Stored { at, .. } = state else {
                continue;
            };
            let here = self.layout.place(pfn);
            if here != place + (to - from) as u64 {
                write_run(output, place, &buffer.bytes[from..to])?;
                (from, place) = (at as usize, here);
            }
            to = at as usize + PAGE_SIZE;
        }
        write_run(output, place, &buffer.bytes[from..to])?;
        self.pending.add(&buffer.slots);
        Ok(())
    }

    /// All that was taken is in the dump already: its memory need not wait until a slow
    /// disk has nothing more to do.
    fn is_full(&self) -> bool {
        true
    }

    fn flush(&mut self, _output: &mut Output) -> Result<Written, Error> {
        Ok(std::mem::take(&mut self.pending))
    }

    fn length(&self) -> u64 {
        self.layout.length
    }

    fn complete(&mut self, output: &mut Output) -> Result<(), Error> {
        output.step("dump", |sink| sink.set_length(self.layout.length))?;
        output.step("dump", |sink| sink.sync())?;
        self.mark(output, Status::Complete)?;
        output.step("final mark", |sink| sink.sync())?;
        output.step("final name", |sink| sink.publish(None))
    }

    fn mark_incomplete(&mut self, output: &mut Output) -> Result<(), Error> {
        self.mark(output, Status::Incomplete)
    }
}

fn write_run(output: &mut Output, place: u64, bytes: &[u8]) -> Result<(), Error> {
    match bytes.len() < DIRECT_FROM {
        true => output.write("pages", place, bytes),
        false => output.write_pages(place, bytes),
    }
}
