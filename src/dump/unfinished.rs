// SPDX-License-Identifier: LGPL-2.1-or-later
//! Going on with a dump whose writer was killed.

use super::bitmap::{Bitmap, Bitmaps};
use super::error::Error;
use super::facts::Changes;
use super::file_sink::FileSink;
use super::kdump::{BegunKdump, SIGNATURE};
use super::mend::mend;
use super::reader::{unfit, FileSource, Flaw, Reader, Source, Stored};
use super::sink::Sink;
use crate::addr::Pfn;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Descriptors looked at in one go.
const BATCH: usize = 4096;

/// A kdump-compressed dump in a file of its own whose writer was killed.
pub struct Unfinished {
    pub(super) sink: FileSink,
    pub(super) begun: BegunKdump,
    pub(super) bitmaps: Arc<Bitmaps>,
    pub(super) stored: Bitmap,
    /// In what more pages are not stored as they are.
    pub(super) changes: Changes,
    /// Of the stored pages, those of zeroes only.
    pub(super) zero_pages: u64,
}

impl Unfinished {
    /// Goes on with these changes, which its writer made.
    #[must_use]
    pub fn with_changes(self, changes: Changes) -> Self {
        Self { changes, ..self }
    }

    /// Opens the dump at `path`, which ends in `.incomplete`, and finds out which pages
    /// are in it. None when there cannot be any: the header, which is written when all
    /// it points at is there, is missing.
    ///
    /// # Errors
    /// When it cannot be read and written, or is not what its writer leaves: there is
    /// no going on with it.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Path {
            path: path.into(),
            source,
        };
        let open = || FileSource::open(path, OpenOptions::new().read(true)).map_err(failed);
        if !has_header(&open()?).map_err(failed)? {
            return Ok(None);
        }
        mend(path)?;
        let sink = FileSink::reopen(path)?;
        Self::read(sink, open()?)
            .map(Some)
            .map_err(|flaw| failed(flaw.into()))
    }

    fn read(sink: FileSink, source: FileSource) -> Result<Self, Flaw> {
        let reader = Reader::open(source)?;
        let bitmaps = reader.bitmaps()?;
        let mut stored = Bitmap::new(bitmaps.wanted().limit()).map_err(unfit)?;
        let (mut zero_pages, mut data_end) = (0, reader.data_start());
        let mut pfns = bitmaps
            .wanted()
            .iter_range(Pfn(0), bitmaps.wanted().limit());
        for first in (0..reader.wanted).step_by(BATCH) {
            for found in reader.descriptors(first, BATCH)? {
                let pfn = pfns.next().ok_or(Flaw::Cut("the bitmaps"))?;
                match found {
                    Stored::Lost => continue,
                    // Its writer was killed in the middle of it: the checksum is what
                    // comes last. The guest still has the page.
                    Stored::At { sum: None, .. } => continue,
                    Stored::Zero => zero_pages += 1,
                    Stored::At { offset, size, .. } => {
                        data_end = data_end.max(offset + size as u64)
                    }
                }
                stored.set(pfn);
            }
        }
        drop(pfns);
        Ok(Self {
            sink,
            bitmaps: Arc::new(bitmaps),
            stored,
            changes: Changes::default(),
            zero_pages,
            begun: reader.begun(data_end),
        })
    }

    /// The file of the dump.
    pub fn sink(&self) -> &FileSink {
        &self.sink
    }

    /// Bytes that the dump may have in the end, where that is known, if `reserve` bytes
    /// of the file system it is on are to stay free: it takes some of it already.
    pub fn room(&self, reserve: u64) -> Option<u64> {
        let more = self.sink.room(reserve)?;
        Some(more.saturating_add(self.begun.data_end))
    }

    /// Which pages there are, and which are to be dumped.
    pub fn bitmaps(&self) -> &Arc<Bitmaps> {
        &self.bitmaps
    }

    /// The pages that are in the dump already.
    pub fn stored(&self) -> &Bitmap {
        &self.stored
    }
}

/// Whether a dump has been begun so far that there may be pages in it.
fn has_header(source: &FileSource) -> io::Result<bool> {
    let mut start = [0; SIGNATURE.len()];
    match source.length() < start.len() as u64 {
        true => Ok(false),
        false => source
            .read_at(0, &mut start)
            .map(|()| start != [0; SIGNATURE.len()]),
    }
}
