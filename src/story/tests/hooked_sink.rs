// SPDX-License-Identifier: LGPL-2.1-or-later
//! A dump's file of which every call is told before it is made, and may be refused.

use std::io;
use std::path::PathBuf;

use crate::dump::{Codec, DumpPlace, FileSink, Format, Sink};
use crate::limits::cancel::Cancel;

/// What is asked before a call.
type Before = Box<dyn Fn(&'static str) -> io::Result<()> + Send>;

/// A dump's file of which every call is told before it is made, and may be refused.
pub(super) struct HookedSink {
    file: FileSink,
    before: Before,
}

impl HookedSink {
    /// The file of a new dump.
    pub(super) fn create(
        directory: &tempfile::TempDir,
        before: impl Fn(&'static str) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let format = Format::Kdump(Codec::NONE);
        Self {
            file: FileSink::create(directory.path(), "guest", 0, format).unwrap(),
            before: Box::new(before),
        }
    }
}

impl Sink for HookedSink {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.before)("write_at")?;
        self.file.write_at(offset, bytes)
    }
    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.before)("write_pages")?;
        self.file.write_pages(offset, bytes)
    }
    fn block(&self) -> usize {
        self.file.block()
    }
    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()> {
        (self.before)("prepare")?;
        self.file.prepare(tables, whole)
    }
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        (self.before)("set_length")?;
        self.file.set_length(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        (self.before)("sync")?;
        self.file.sync()
    }
    fn read_back(&mut self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        (self.before)("read_back")?;
        self.file.read_back(offset, into)
    }
    fn publish(&mut self, manifest: Option<&str>) -> io::Result<()> {
        (self.before)("publish")?;
        self.file.publish(manifest)
    }
    fn path(&self) -> Option<PathBuf> {
        self.file.path()
    }
    fn place(&self) -> DumpPlace {
        self.file.place()
    }
    fn doubt(&mut self) -> Option<io::Error> {
        self.file.doubt()
    }
    fn heed(&mut self, cancel: &Cancel) {
        self.file.heed(cancel);
    }
}
