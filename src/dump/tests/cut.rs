// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps that were cut off: what is missing is named and counted, what is left can be
//! mended, and gone on with.

use super::guest::{config, dump, Guest, CHUNK};
use crate::addr::{Page, Pfn};
use crate::dump::{
    mend, verify, Bitmap, Bitmaps, Chunk, Codec, Engine, EngineConfig, Facts, FileSink, Finding,
    Pages, Report, Unfinished, Unreadable, ZLIB,
};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// One block each of headers, of notes and of both bitmaps; then 188 descriptors.
const GUEST: Guest = Guest {
    frames: 250,
    seed: 9,
};
const WANTED: u64 = 188;
const DESCRIPTORS: u64 = 4 * 4096;
const DATA: u64 = 7 * 4096;

/// A file of so many of these bytes.
fn cut(image: &[u8], length: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    fs::write(&path, &image[..length as usize]).unwrap();
    (dir, path)
}

fn ends_before(what: &str) -> Finding {
    Finding::Incomplete(format!("ends before {what}"))
}

fn unfinished() -> Finding {
    Finding::Incomplete("was not finished".into())
}

#[test]
fn what_a_dump_ends_before_is_named() {
    let image = dump(GUEST, ZLIB.fastest(), 1, GUEST.chunks(CHUNK))
        .image()
        .0;
    let table_end = DESCRIPTORS + WANTED * 24;
    for (length, what) in [
        (0, "the header"),
        (15, "the header"),
        (16, "the header"),
        (4095, "the header"),
        (4096, "the sub header"),
        (8191, "the sub header"),
        (8192, "the bitmaps"),
        (DESCRIPTORS - 1, "the bitmaps"),
        (DESCRIPTORS, "the page descriptors"),
        (table_end - 1, "the page descriptors"),
        (table_end, "a page's data"),
        (DATA - 1, "a page's data"),
        (DATA, "a page's data"),
        (image.len() as u64 - 4096, "a page's data"),
    ] {
        let (_dir, path) = cut(&image, length);
        let report = verify(&path).unwrap();
        assert_eq!((report.finding, report.length), (ends_before(what), length));
        let mended = mend(&path);
        match length < DESCRIPTORS {
            true => {
                let said = mended.unwrap_err().chain();
                assert_eq!(said, format!("{}: ends before {what}", path.display()));
                assert_eq!(path.metadata().unwrap().len(), length, "it is left alone");
            }
            false => {
                mended.unwrap();
                assert_eq!(verify(&path).unwrap().finding, unfinished());
            }
        }
    }
}

#[test]
fn what_is_mended_has_the_pages_of_all_descriptors_that_are_left_whole() {
    let image = dump(GUEST, ZLIB.fastest(), 1, GUEST.chunks(CHUNK))
        .image()
        .0;
    // Frames 0, 1, 3, 4, 5, 7, 8, 9, 11 and 12: the first is zero, 5 cannot be read, 11
    // is cut in its middle, and of none of the others the data is left.
    for (length, cut_off) in [
        (DESCRIPTORS, 0),
        (DESCRIPTORS + 8 * 24 + 23, 6),
        (DESCRIPTORS + 10 * 24, 8),
    ] {
        let (_dir, path) = cut(&image, length);
        assert_eq!(mend(&path).unwrap(), cut_off, "{length}");
        let report = verify(&path).unwrap();
        let zero = u64::from(length > DESCRIPTORS);
        let counts = (report.zero_pages, report.stored_pages, report.lost_pages);
        assert_eq!(counts, (zero, 0, WANTED - zero), "{length}");
        assert_eq!(report.length, DATA);
        assert_eq!(report.finding, unfinished());
    }
    // Nothing is missing: nothing is changed.
    let (_dir, path) = cut(&image, image.len() as u64);
    assert_eq!(mend(&path).unwrap(), 0);
    assert!(fs::read(&path).unwrap() == image);
}

/// Zeroes, but for a few pages, in more than two of the batches that descriptors are read
/// in, which are of 4096.
const FRAMES: u64 = 9000;
const FILLED: [u64; 6] = [0, 4095, 4096, 8191, 8192, 8999];

/// Frames in each of two chunks: pages that are missing are beside each other, and not.
const CHUNKS: usize = FRAMES as usize / 2;

struct Sparse(u64);

impl Pages for Sparse {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let pfn = self.0 + index as u64;
        into.fill(match FILLED.contains(&pfn) {
            true => pfn as u8 | 1,
            false => 0,
        });
        Ok(())
    }
}

fn submit(engine: &Engine<Sparse>) {
    for first in (0..FRAMES).step_by(CHUNKS) {
        let chunk = Chunk {
            first: Pfn(first),
            count: CHUNKS,
            pages: Sparse(first),
        };
        engine.submit(chunk).unwrap();
    }
}

/// One thread, so that data are in the order of frames.
fn in_order() -> EngineConfig {
    EngineConfig {
        threads: 1,
        ..config(Codec::NONE)
    }
}

/// A complete dump whose last pages are cut off, as if its writer had been killed.
fn sparse_without_last(dir: &Path, pages: u64) -> PathBuf {
    let mut all = Bitmap::new(Pfn(FRAMES)).unwrap();
    all.set_range(Pfn(0), Pfn(FRAMES));
    let bitmaps = Arc::new(Bitmaps::new(all.clone(), all).unwrap());
    let config = in_order();
    let sink = FileSink::create(dir, "guest", 0, config.format).unwrap();
    let (engine, _completed) =
        Engine::start(Box::new(sink), &Facts::default(), bitmaps, config).unwrap();
    submit(&engine);
    let complete = engine.finish().unwrap().path.unwrap();
    fs::remove_file(format!("{}.sums", complete.display())).unwrap();
    let path = dir.join("guest.kdump.incomplete");
    fs::rename(complete, &path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - pages * 4096).unwrap();
    path
}

fn counts(report: &Report) -> (u64, u64, u64) {
    (report.stored_pages, report.zero_pages, report.lost_pages)
}

#[test]
fn pages_that_were_cut_off_are_counted_whichever_batch_they_are_in() {
    let dir = tempfile::tempdir().unwrap();
    let zero = FRAMES - 6;
    for missing in [1, 2, 3, 5] {
        let path = sparse_without_last(dir.path(), missing);
        let report = verify(&path).unwrap();
        assert_eq!(report.finding, ends_before("a page's data"));
        assert_eq!(counts(&report), (6 - missing, zero, missing));
        assert_eq!(mend(&path).unwrap(), missing);
        let report = verify(&path).unwrap();
        assert_eq!(report.finding, unfinished());
        assert_eq!(counts(&report), (6 - missing, zero, missing));
    }
}

#[test]
fn who_goes_on_dumps_what_is_missing_and_nothing_else() {
    for (missing, room) in [(2, None), (5, None), (5, Some(2))] {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse_without_last(dir.path(), missing);
        let length = path.metadata().unwrap().len();
        let begun = Unfinished::open(&path).unwrap().expect("a header");
        let is_missing = |pfn: u64| FILLED[6 - missing as usize..].contains(&pfn);
        for pfn in 0..FRAMES {
            assert_eq!(begun.stored().get(Pfn(pfn)), !is_missing(pfn), "{pfn}");
        }
        assert_eq!(begun.bitmaps().wanted_total(), FRAMES);
        let config = EngineConfig {
            limit: room.map(|pages| length + pages * 4096),
            ..in_order()
        };
        let (engine, completed) = Engine::resume(begun, config).unwrap();
        assert_eq!(verify(&path).unwrap().finding, unfinished());
        let before = engine.progress();
        let there = FRAMES - missing;
        assert_eq!((before.pages, before.zero_pages), (there, FRAMES - 6));
        assert_eq!(before.bytes, length + 464, "its header was written anew");
        submit(&engine);
        let summary = engine.finish().unwrap();
        assert_eq!(completed.into_iter().count(), 2);
        let left_out = room.map_or(0, |pages| missing - pages);
        let progress = summary.progress;
        assert_eq!(
            (progress.pages, progress.left_out_pages),
            (FRAMES, left_out)
        );
        let report = verify(&summary.path.unwrap()).unwrap();
        assert_eq!(
            (report.finding, report.with_manifest),
            (Finding::Complete, true)
        );
        let zero = FRAMES - 6;
        assert_eq!((report.zero_pages, report.lost_pages), (zero, left_out));
        assert_eq!(report.length, length + (missing - left_out) * 4096);
    }
}

#[test]
fn a_dump_without_a_header_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.kdump.incomplete");
    for (bytes, is_begun) in [
        (&b""[..], false),
        (&b"KDUMP  "[..], false),
        (&[0; 8][..], false),
        (&[0; 8192][..], false),
        (&b"KDUMP   "[..], true),
        (&[&[0; 7][..], b"X"].concat()[..], true),
    ] {
        fs::write(&path, bytes).unwrap();
        let opened = Unfinished::open(&path).map(|found| found.is_some());
        assert_eq!(opened.is_err(), is_begun, "{bytes:?}");
        assert!(is_begun || matches!(opened, Ok(false)), "{bytes:?}");
    }
}

#[test]
fn who_goes_on_with_another_codec_says_so_in_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse_without_last(dir.path(), 2);
    let status = |path: &Path| fs::read(path).unwrap()[424];
    assert_eq!(status(&path), 0, "nothing is compressed");
    let begun = Unfinished::open(&path).unwrap().expect("a header");
    let config = EngineConfig {
        threads: 1,
        ..config(ZLIB.fastest())
    };
    let (engine, _completed) = Engine::resume(begun, config).unwrap();
    assert_eq!(status(&path), 0x8 | 0x1, "incomplete, zlib");
    submit(&engine);
    let path = engine.finish().unwrap().path.unwrap();
    assert_eq!(status(&path), 0x1);
    assert_eq!(verify(&path).unwrap().finding, Finding::Complete);
}

#[test]
fn who_goes_on_keeps_to_the_limit_and_counts_what_is_there_as_no_more() {
    // Compressed, all that is missing takes less than a block: for which there is room, or
    // not quite.
    for (room, is_room) in [(4095, false), (4096, true), (8191, true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse_without_last(dir.path(), 5);
        let length = path.metadata().unwrap().len();
        let begun = Unfinished::open(&path).unwrap().expect("a header");
        // All that is free is to stay so.
        assert_eq!(begun.room(u64::MAX), Some(length));
        let config = EngineConfig {
            threads: 1,
            limit: Some(length + room),
            ..config(ZLIB.fastest())
        };
        let (engine, _completed) = Engine::resume(begun, config).unwrap();
        submit(&engine);
        let summary = engine.finish().unwrap();
        let left_out = if is_room { 0 } else { 5 };
        assert_eq!(summary.progress.left_out_pages, left_out, "{room}");
        let right = if is_room { length + 4096 } else { length };
        assert_eq!(summary.length, right, "{room}");
    }
}
