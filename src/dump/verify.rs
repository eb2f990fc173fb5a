// SPDX-License-Identifier: LGPL-2.1-or-later
//! Looks at a finished dump again: structure, counts, checksums.

use super::elf;
use super::error::Error;
use super::flat_reader::{self, FlatSource};
use super::manifest::{Manifest, PieceSums, VERSION};
use super::naming::manifest_path;
use super::notes::Status;
use super::reader::{fill, FileSource, Flaw, Reader, Source, Stored};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

/// Descriptors looked at in one go.
const BATCH: u64 = 4096;

/// No manifest is larger: that of a dump of 64 TiB has 11 MiB at most.
const MAX_MANIFEST: u64 = 16 << 20;

/// What a dump is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All that the dump promises is there, and is what was written.
    Complete,
    /// The dump opens up to where it got, or was cut off: why.
    Incomplete(String),
    /// The dump holds something that was not written so: what.
    Damaged(String),
}

/// What was found in a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the dump is worth.
    pub finding: Finding,
    /// Pages that the dump is to hold.
    pub wanted_pages: u64,
    /// Of `wanted_pages`, those with content of their own.
    pub stored_pages: u64,
    /// Of `wanted_pages`, those of zeroes only.
    pub zero_pages: u64,
    /// Of `wanted_pages`, those not there: never written, cut off, or unreadable in
    /// the guest.
    pub lost_pages: u64,
    /// Length of the file or device in bytes.
    pub length: u64,
    /// Whether a manifest was beside it to compare with. Without one every page is
    /// checked by itself, and nothing tells whether headers and tables have changed.
    pub with_manifest: bool,
}

/// Reopens a dump in a file or on a block device and checks all of it against
/// itself and against the manifest beside it. Takes kdump-compressed dumps, also as
/// flattened streams kept in a file, and ELF dumps; of the latter only structure and
/// completeness.
///
/// # Errors
/// When the file or its manifest cannot be opened or read, or is of another kind.
/// What is wrong with the dump itself is no error but the report's finding.
pub fn verify(path: &Path) -> Result<Report, Error> {
    let failed = |source| Error::Path {
        path: path.into(),
        source,
    };
    let source = FileSource::open(path, OpenOptions::new().read(true)).map_err(failed)?;
    let manifest = read_manifest(&manifest_path(path))?;
    let mut report = Report::of_nothing(source.length, manifest.is_some());
    match check_any(source, manifest.as_ref(), &mut report) {
        Ok(()) => {}
        Err(Flaw::Io(source)) => return Err(failed(source)),
        Err(flaw @ Flaw::Cut(_)) => report.finding = Finding::Incomplete(flaw.to_string()),
        Err(Flaw::Damaged(what)) => report.finding = Finding::Damaged(what),
    }
    Ok(report)
}

impl Report {
    /// Nothing was looked at yet of a dump of `length` bytes.
    pub(super) fn of_nothing(length: u64, with_manifest: bool) -> Self {
        Self {
            finding: Finding::Complete,
            wanted_pages: 0,
            stored_pages: 0,
            zero_pages: 0,
            lost_pages: 0,
            length,
            with_manifest,
        }
    }
}

fn read_manifest(path: &Path) -> Result<Option<Manifest>, Error> {
    let failed = |source| Error::Path {
        path: path.into(),
        source,
    };
    let source = match FileSource::open(path, OpenOptions::new().read(true)) {
        Ok(source) => source,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if source.length > MAX_MANIFEST {
        let what = format!(
            "{} bytes; a manifest has {MAX_MANIFEST} at most",
            source.length
        );
        return Err(failed(io::Error::new(ErrorKind::InvalidData, what)));
    }
    let mut text = vec![0; source.length as usize];
    source.read_at(0, &mut text).map_err(failed)?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    if manifest.version != VERSION || manifest.piece_bytes == 0 {
        return Err(failed(ErrorKind::Unsupported.into()));
    }
    Ok(Some(manifest))
}

fn check_any(
    source: FileSource,
    manifest: Option<&Manifest>,
    report: &mut Report,
) -> Result<(), Flaw> {
    let mut first_bytes = [0; 16];
    fill(&source, "the header", 0, &mut first_bytes)?;
    if first_bytes == elf::IDENT {
        if elf::check(&source)? == Status::Incomplete {
            report.finding = unfinished();
        }
        return Ok(());
    }
    if !flat_reader::is_stream(&first_bytes) {
        return check(source, manifest, report);
    }
    let stream = FlatSource::open(source)?;
    let ended = stream.ended;
    check(stream, None, report)?;
    match ended {
        true => Ok(()),
        false => Err(Flaw::Cut("the stream's end")),
    }
}

fn unfinished() -> Finding {
    Finding::Incomplete("was not finished".into())
}

/// Checks a kdump-compressed dump.
pub(super) fn check(
    source: impl Source,
    manifest: Option<&Manifest>,
    report: &mut Report,
) -> Result<(), Flaw> {
    let reader = Reader::open(source)?;
    report.wanted_pages = reader.wanted;
    let (mut cut, mut summed_pages) = (None, 0);
    for first in (0..reader.wanted).step_by(BATCH as usize) {
        let batch = first..reader.wanted.min(first + BATCH);
        match check_pages(&reader, batch.clone(), manifest.is_none(), report) {
            Err(flaw @ Flaw::Cut(_)) => cut = Some(flaw),
            result => {
                summed_pages += result?;
                continue;
            }
        }
        for rank in batch {
            match check_pages(&reader, rank..rank + 1, manifest.is_none(), report) {
                Err(Flaw::Cut(_)) => report.lost_pages += 1,
                result => summed_pages += result?,
            }
        }
    }
    // A dump has the checksums of all its pages, or of none when another program wrote it.
    // A descriptor that lies in two sectors, one of which never came to the disk, may
    // have lost only the checksum.
    let without = report.stored_pages - summed_pages;
    if summed_pages > 0 && without > 0 {
        let what = format!("{without} pages lack the checksum that the others have");
        return Err(Flaw::Damaged(what));
    }
    if let Some(flaw) = cut {
        return Err(flaw);
    }
    if !reader.marked_complete() {
        report.finding = unfinished();
        return Ok(());
    }
    if reader.source().length() < reader.stated_length().max(reader.tables_end()) {
        return Err(Flaw::Cut("its stated length"));
    }
    if report.wanted_pages > 0 && report.lost_pages == report.wanted_pages {
        let none = format!("none of its {} pages is there", report.wanted_pages);
        report.finding = Finding::Incomplete(none);
        return Ok(());
    }
    match manifest {
        Some(manifest) => compare(&reader, manifest, report),
        None => Ok(()),
    }
}

/// Counts the pages of these ranks: all of them, or none when one has a flaw. Returns how
/// many of them have a checksum of their own.
fn check_pages(
    reader: &Reader<impl Source>,
    ranks: Range<u64>,
    decompress: bool,
    report: &mut Report,
) -> Result<u64, Flaw> {
    let found = reader.descriptors(ranks.start, (ranks.end - ranks.start) as usize)?;
    if decompress {
        for &stored in &found {
            reader.page(stored)?;
        }
    }
    let mut summed_pages = 0;
    for stored in found {
        match stored {
            Stored::Lost => report.lost_pages += 1,
            Stored::Zero => report.zero_pages += 1,
            Stored::At { sum, .. } => {
                report.stored_pages += 1;
                summed_pages += u64::from(sum.is_some());
            }
        }
    }
    Ok(summed_pages)
}

fn compare(reader: &Reader<impl Source>, manifest: &Manifest, report: &Report) -> Result<(), Flaw> {
    let damaged = |what: String| Err(Flaw::Damaged(what));
    if report.length < manifest.length {
        return Err(Flaw::Cut("the length its manifest states"));
    }
    if report.length > manifest.length {
        return damaged("longer than its manifest states".into());
    }
    let counts = (report.wanted_pages, report.zero_pages, report.lost_pages);
    let stated = (
        manifest.pages,
        manifest.zero_pages,
        manifest
            .unreadable_pages
            .saturating_add(manifest.left_out_pages),
    );
    if counts != stated {
        return damaged(format!(
            "pages in all, zero and lost: {counts:?}, the manifest has {stated:?}"
        ));
    }
    let source = reader.source();
    let tables = sums(source, 0, manifest.tables_bytes, u64::MAX)?;
    if manifest.tables_bytes != reader.tables_end() || tables != [manifest.tables_crc32] {
        return damaged("headers or tables have changed".into());
    }
    let start = manifest.tables_bytes;
    let pieces = (report.length - start).div_ceil(manifest.piece_bytes);
    if pieces != manifest.pieces_crc32.len() as u64 {
        return damaged("the manifest has another number of checksums".into());
    }
    let pieces = sums(source, start, report.length, manifest.piece_bytes)?;
    let differs = |(found, stated): (&u32, &u32)| found != stated;
    match pieces.iter().zip(&manifest.pieces_crc32).position(differs) {
        Some(index) => {
            let at = start + index as u64 * manifest.piece_bytes;
            damaged(format!("data has changed after offset {at:#x}"))
        }
        None => Ok(()),
    }
}

/// Checksums of `start..end` of the dump.
fn sums(source: &impl Source, start: u64, end: u64, piece_bytes: u64) -> Result<Vec<u32>, Flaw> {
    if end > source.length() {
        return Err(Flaw::Cut("the tables its manifest states"));
    }
    let mut sums = PieceSums::of_pieces(piece_bytes);
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let part = buffer
            .len()
            .min((end - at).try_into().unwrap_or(usize::MAX));
        source.read_at(at, &mut buffer[..part])?;
        sums.append(&buffer[..part]);
        at += part as u64;
    }
    Ok(sums.take())
}
