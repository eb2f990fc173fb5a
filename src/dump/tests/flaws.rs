// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps and manifests that say what cannot be: each flaw is found, and named.

use super::guest::{config, dump, Guest, CHUNK};
use super::recorder::Recorder;
use crate::dump::{
    verify, Changes, Codec, Engine, FileSink, Finding, Format, Manifest, Report, ZLIB,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const GUEST: Guest = Guest {
    frames: 250,
    seed: 9,
};
const WANTED: u64 = 188;
/// Where the parts of its dump are, in blocks: headers, notes, a bitmap of one block each
/// time, and two of descriptors.
const SUB_HEADER: usize = 4096;
const PRESENT: usize = 2 * 4096;
const DUMPED: usize = 3 * 4096;
const DESCRIPTORS: usize = 4 * 4096;
const ZERO_PAGE: usize = 6 * 4096;
const DATA: usize = 7 * 4096;

fn image() -> Vec<u8> {
    dump(GUEST, ZLIB.fastest(), 1, GUEST.chunks(CHUNK))
        .image()
        .0
}

/// What is found in these bytes, without a manifest.
fn report(image: &[u8]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    std::fs::write(&path, image).unwrap();
    verify(&path).unwrap()
}

/// What is found when these bytes are at this place.
fn finding(image: &[u8], at: usize, bytes: &[u8]) -> Finding {
    let mut copy = image.to_vec();
    copy[at..][..bytes.len()].copy_from_slice(bytes);
    report(&copy).finding
}

fn damaged(what: impl Into<String>) -> Finding {
    Finding::Damaged(what.into())
}

fn ends_before(what: &str) -> Finding {
    Finding::Incomplete(format!("ends before {what}"))
}

#[test]
fn what_a_header_says_that_cannot_be_is_named() {
    let image = image();
    assert_eq!(finding(&image, 0, b"KDUMP"), Finding::Complete);
    let blocks = (image.len() / 4096) as u32;
    let version = "header version is 0x5, not 0x6";
    let length = ends_before("its stated length");
    for (at, value, right) in [
        (0, 0, damaged("not a kdump-compressed dump")),
        (8, 5, damaged(version)),
        (424, 0x8 | 1, Finding::Incomplete("was not finished".into())),
        (428, 8192, damaged("block size is 0x2000, not 0x1000")),
        (432, 7, damaged("size of the notes is 0x8, not 0x2")),
        (436, 4, damaged("size of the bitmaps is 0x4, not 0x2")),
        (448, blocks + 1, length),
        (448, 0, Finding::Complete),
    ] {
        let found = finding(&image, at, &u32::to_le_bytes(value));
        assert_eq!(found, right, "{value:#x} at {at}");
    }
}

#[test]
fn what_a_sub_header_says_that_cannot_be_is_named() {
    let image = image();
    let length = image.len() as u64;
    let outside = || damaged("notes are outside of the dump");
    let blocks = (4096 + 104 + length - 1).div_ceil(4096);
    let most = format!("size of the notes is 0x2, not {blocks:#x}");
    for (field, value, right) in [
        (48, 0, outside()),
        (56, u64::MAX, outside()),
        (56, length, outside()),
        (56, length - 1, damaged(most)),
        (96, (1 << 32) + 1, damaged("0x100000001 frames cannot be")),
        (
            96,
            1 << 32,
            damaged("size of the bitmaps is 0x2, not 0x40000"),
        ),
    ] {
        let found = finding(&image, SUB_HEADER + field, &value.to_le_bytes());
        assert_eq!(found, right, "{value:#x} in field {field}");
    }
}

#[test]
fn bitmaps_that_do_not_fit_together_are_damaged() {
    let image = image();
    // The last byte that has frames: two of them.
    let last = 250 / 8;
    assert_eq!((image[PRESENT + last], image[DUMPED + last]), (3, 3));
    let stray = damaged("a page near frame 0xf8 is dumped but not RAM");
    assert_eq!(finding(&image, DUMPED + last, &[7]), stray);
    let beyond = || damaged("RAM beyond the last frame");
    assert_eq!(finding(&image, PRESENT + last, &[7]), beyond());
    assert_eq!(finding(&image, PRESENT + last + 1, &[1]), beyond());
    // In the second block of two.
    let (sink, bitmaps) = (Recorder::new(1), GUEST.bitmaps_up_to(40_000));
    let (engine, _completed) = Engine::start(
        Box::new(sink.clone()),
        &GUEST.facts(),
        bitmaps,
        config(Codec::NONE),
    )
    .unwrap();
    for chunk in GUEST.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap();
    let stray = damaged("a page near frame 0x8008 is dumped but not RAM");
    assert_eq!(
        finding(&sink.image().0, PRESENT + 3 * 4096 + 1, &[1]),
        stray
    );
}

/// A `page_desc` without a checksum.
fn descriptor(offset: u64, size: u32, flags: u32) -> Vec<u8> {
    let (size, flags) = (size.to_le_bytes(), flags.to_le_bytes());
    [&offset.to_le_bytes()[..], &size, &flags, &[0; 8]].concat()
}

#[test]
fn what_a_descriptor_says_that_cannot_be_is_named() {
    let image = image();
    let (length, data) = (image.len() as u64, DATA as u64);
    let of_third = |what: &str| damaged(format!("descriptor 3: {what}"));
    let absurd = || of_third("size or flags make no sense");
    let in_tables = || of_third("its data would be in the tables");
    let outside = of_third("its data is outside of any file");
    let unsummed = damaged("1 pages lack the checksum that the others have");
    for (offset, size, flags, right) in [
        (0, 4096, 0, of_third("lost, but has a size")),
        (0, 0, 1, of_third("lost, but has a size")),
        (data, 4095, 0, absurd()),
        (data, 4096, 1, absurd()),
        (data, 0, 1, absurd()),
        (data, 100, 0x40, absurd()),
        (ZERO_PAGE as u64 - 1, 4096, 0, in_tables()),
        (u64::MAX - 10, 4096, 0, outside),
        (length - 4095, 4096, 0, ends_before("a page's data")),
        (length - 4096, 4096, 0, unsummed),
        (ZERO_PAGE as u64, 4096, 0, Finding::Complete),
    ] {
        let bytes = descriptor(offset, size, flags);
        let found = finding(&image, DESCRIPTORS + 3 * 24, &bytes);
        assert_eq!(found, right, "{size} bytes, {flags:#x}, at {offset:#x}");
    }
}

#[test]
fn a_descriptor_without_size_and_flags_is_of_a_lost_page() {
    let mut image = image();
    let before = report(&image);
    image[DESCRIPTORS + 3 * 24..][..24].copy_from_slice(&descriptor(DATA as u64, 0, 0));
    let after = report(&image);
    assert_eq!(after.finding, Finding::Complete);
    assert_eq!(after.lost_pages, before.lost_pages + 1);
    assert_eq!(after.stored_pages, before.stored_pages - 1);
    // Nor is there any other page.
    image[DESCRIPTORS..][..WANTED as usize * 24].fill(0);
    let none = report(&image);
    let said = format!("none of its {WANTED} pages is there");
    assert_eq!(none.finding, Finding::Incomplete(said));
    assert_eq!((none.lost_pages, none.wanted_pages), (WANTED, WANTED));
}

#[test]
fn without_checksums_a_page_is_looked_at_by_unpacking_it() {
    let mut image = image();
    for rank in 0..WANTED as usize {
        image[DESCRIPTORS + rank * 24 + 16..][..8].fill(0);
    }
    assert_eq!(report(&image).finding, Finding::Complete);
    let third = DESCRIPTORS + 3 * 24;
    let offset = u64::from_le_bytes(image[third..][..8].try_into().unwrap());
    assert_eq!(image[third + 12], 1, "it is compressed");
    let found = finding(&image, offset as usize, &[0xff; 8]);
    let said = format!("the page at {offset:#x} does not decompress");
    assert_eq!(found, damaged(said));
    let found = finding(&image, ZERO_PAGE + 4095, &[1]);
    assert_eq!(found, damaged("the page at 0x6000 has changed"));
}

#[test]
fn a_page_without_a_checksum_is_found_also_where_others_are_cut_off() {
    let mut image = image();
    let length = image.len() - 4096;
    assert_eq!(
        report(&image[..length]).finding,
        ends_before("a page's data")
    );
    image[DESCRIPTORS + 3 * 24 + 16..][..8].fill(0);
    let unsummed = damaged("1 pages lack the checksum that the others have");
    assert_eq!(report(&image[..length]).finding, unsummed);
}

#[test]
fn a_dump_that_is_to_hold_nothing_lacks_nothing() {
    let guest = Guest { frames: 1, seed: 3 };
    let empty = dump(guest, Codec::NONE, 1, guest.chunks(CHUNK)).image().0;
    let report = report(&empty);
    assert_eq!(
        (report.finding, report.wanted_pages),
        (Finding::Complete, 0)
    );
}

/// A dump with its manifest.
fn with_manifest() -> (TempDir, PathBuf, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let format = Format::Kdump(ZLIB.fastest());
    let sink = FileSink::create(dir.path(), "guest", 0, format).unwrap();
    let (engine, _completed) = GUEST.start(sink, config(ZLIB.fastest()));
    for chunk in GUEST.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    let path = engine.finish().unwrap().path.unwrap();
    let manifest = std::fs::read(sums(&path)).unwrap();
    (dir, path, serde_json::from_slice(&manifest).unwrap())
}

fn sums(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.sums", path.display()))
}

#[test]
fn a_manifest_says_what_gzip_and_the_counts_of_pages_say() {
    let (_dir, path, manifest) = with_manifest();
    let dump = std::fs::read(&path).unwrap();
    let frames = (0..GUEST.frames).filter(|&pfn| GUEST.wanted(pfn));
    let (lost, read): (Vec<u64>, Vec<u64>) = frames.partition(|&pfn| GUEST.unreadable(pfn));
    let zero = read.iter().filter(|&pfn| pfn % 5 == 0).count() as u64;
    let right = Manifest {
        version: 1,
        length: dump.len() as u64,
        pages: WANTED,
        zero_pages: zero,
        unreadable_pages: lost.len() as u64,
        left_out_pages: 0,
        changes: Changes::default(),
        tables_bytes: ZERO_PAGE as u64,
        tables_crc32: crc32fast::hash(&dump[..ZERO_PAGE]),
        piece_bytes: 64 << 20,
        pieces_crc32: vec![crc32fast::hash(&dump[ZERO_PAGE..])],
    };
    assert_eq!(manifest, right);
}

#[test]
fn a_manifest_of_another_dump_is_told_from_this_ones() {
    let (_dir, path, manifest) = with_manifest();
    let found = |change: &dyn Fn(&mut Manifest)| {
        let mut other = manifest.clone();
        change(&mut other);
        std::fs::write(sums(&path), serde_json::to_string(&other).unwrap()).unwrap();
        verify(&path).unwrap().finding
    };
    let tables = || damaged("headers or tables have changed");
    let number = damaged("the manifest has another number of checksums");
    let (length, lost) = (manifest.length, manifest.unreadable_pages);
    let counts = |pages: u64, zero: u64, lost: u64| {
        let of = |pages, zero, lost| format!("({pages}, {zero}, {lost})");
        let own = of(
            manifest.pages,
            manifest.zero_pages,
            manifest.unreadable_pages,
        );
        let stated = of(pages, zero, lost);
        let said = "pages in all, zero and lost";
        damaged(format!("{said}: {own}, the manifest has {stated}"))
    };
    let (pages, zero) = (manifest.pages, manifest.zero_pages);
    assert_eq!(found(&|_| ()), Finding::Complete);
    let longer = ends_before("the length its manifest states");
    assert_eq!(found(&|other| other.length += 1), longer);
    let shorter = damaged("longer than its manifest states");
    assert_eq!(found(&|other| other.length -= 1), shorter);
    assert_eq!(
        found(&|other| other.pages += 1),
        counts(pages + 1, zero, lost)
    );
    assert_eq!(
        found(&|other| other.zero_pages -= 1),
        counts(pages, zero - 1, lost)
    );
    assert_eq!(
        found(&|other| other.left_out_pages = 3),
        counts(pages, zero, lost + 3)
    );
    assert_eq!(found(&|other| other.tables_crc32 ^= 1), tables());
    assert_eq!(found(&|other| other.tables_bytes += 4096), tables());
    let cut = ends_before("the tables its manifest states");
    assert_eq!(found(&|other| other.tables_bytes = length + 1), cut);
    assert_eq!(found(&|other| other.pieces_crc32.push(0)), number);
    let changed = damaged("data has changed after offset 0x6000");
    assert_eq!(found(&|other| other.pieces_crc32[0] ^= 1), changed);
}

#[test]
fn damage_is_found_within_the_piece_that_it_is_in() {
    let (_dir, path, mut manifest) = with_manifest();
    let dump = std::fs::read(&path).unwrap();
    manifest.piece_bytes = 5000;
    manifest.pieces_crc32 = dump[ZERO_PAGE..]
        .chunks(5000)
        .map(crc32fast::hash)
        .collect();
    let store = |manifest: &Manifest| {
        std::fs::write(sums(&path), serde_json::to_string(manifest).unwrap()).unwrap();
    };
    store(&manifest);
    assert_eq!(verify(&path).unwrap().finding, Finding::Complete);
    manifest.pieces_crc32[3] ^= 1;
    store(&manifest);
    let at = ZERO_PAGE + 3 * 5000;
    let said = format!("data has changed after offset {at:#x}");
    assert_eq!(verify(&path).unwrap().finding, damaged(said));
}

#[test]
fn a_manifest_that_nobody_here_writes_is_an_error() {
    let (_dir, path, manifest) = with_manifest();
    let refused = |manifest: &[u8]| {
        std::fs::write(sums(&path), manifest).unwrap();
        let said = verify(&path).unwrap_err().chain();
        let name = format!("{}: ", sums(&path).display());
        said.strip_prefix(&name).expect("its name").to_owned()
    };
    for (version, piece_bytes) in [(2, manifest.piece_bytes), (1, 0)] {
        let other = Manifest {
            version,
            piece_bytes,
            ..manifest.clone()
        };
        let text = serde_json::to_string(&other).unwrap();
        assert_eq!(refused(text.as_bytes()), "unsupported");
    }
    assert!(refused(b"{}").starts_with("missing field"));
    // As long as one may be, and longer.
    let most = 16 << 20;
    assert!(refused(&vec![0; most]).starts_with("expected value"));
    let right = "16777217 bytes; a manifest has 16777216 at most";
    assert_eq!(refused(&vec![0; most + 1]), right);
}
