// SPDX-License-Identifier: LGPL-2.1-or-later
//! Makes a dump that was cut off safe to open.
//!
//! Readers trust descriptors: libkdumpfile up to 0.5.4 maps the file and dies
//! of SIGBUS at data beyond its end, and takes the rest of the last page for
//! zeroes. A killed writer leaves no such descriptor; a copy that was cut does.

use super::error::Error;
use super::kdump::{MainHeader, DESCRIPTOR_SIZE, INCOMPLETE};
use super::reader::{FileSource, Flaw, Reader, Source};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Descriptors looked at in one go.
const BATCH: usize = 4096;

/// Makes what a kdump-compressed dump still holds safe to open: pages whose
/// data is beyond the file's end are marked as lost, tables that are cut off
/// become a hole, which means the same, and the dump is marked as incomplete.
/// Changes nothing where nothing is missing. Returns the number of pages whose
/// data was cut off.
///
/// # Errors
/// When the file cannot be read or written, or ends before its page
/// descriptors begin: then there is no page in it.
pub fn mend(path: &Path) -> Result<u64, Error> {
    let failed = |source| Error::Path {
        path: path.into(),
        source,
    };
    let how = &mut OpenOptions::new();
    let source = FileSource::open(path, how.read(true).write(true)).map_err(failed)?;
    mend_file(&source.file).map_err(|flaw| failed(flaw.into()))
}

fn mend_file(file: &File) -> Result<u64, Flaw> {
    let mut reader = open(file)?;
    let (length, needed) = (reader.source().length(), reader.data_start());
    if length < needed {
        mark_incomplete(file, &reader)?;
        let table = reader.descriptor_offset(0);
        let whole = length.saturating_sub(table) / DESCRIPTOR_SIZE * DESCRIPTOR_SIZE;
        file.set_len(table + whole)?;
        file.set_len(needed)?;
        reader = open(file)?;
    }
    let mut cut_off = 0;
    for first in (0..reader.wanted).step_by(BATCH) {
        match reader.descriptors(first, BATCH) {
            Err(Flaw::Cut(_)) => {}
            result => {
                result?;
                continue;
            }
        }
        mark_incomplete(file, &reader)?;
        for rank in first..(first + BATCH as u64).min(reader.wanted) {
            match reader.descriptors(rank, 1) {
                Err(Flaw::Cut(_)) => {
                    let lost = [0; DESCRIPTOR_SIZE as usize];
                    file.write_all_at(&lost, reader.descriptor_offset(rank))?;
                    cut_off += 1;
                }
                result => drop(result?),
            }
        }
    }
    file.sync_all()?;
    Ok(cut_off)
}

fn open(file: &File) -> Result<Reader<FileSource>, Flaw> {
    let file = file.try_clone()?;
    let length = (&file).seek(io::SeekFrom::End(0))?;
    Reader::open(FileSource { file, length })
}

/// Comes before any other change: the dump is not what it was any more.
fn mark_incomplete(file: &File, reader: &Reader<FileSource>) -> io::Result<()> {
    let status = reader.header.status.get() | INCOMPLETE;
    let offset = std::mem::offset_of!(MainHeader, status) as u64;
    file.write_all_at(&status.to_le_bytes(), offset)
}
