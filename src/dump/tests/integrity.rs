// SPDX-License-Identifier: LGPL-2.1-or-later
//! Files on disk: what is cut off or altered is noticed.

use super::guest::{config, Guest, CHUNK, CODECS};
use super::recorder::{Call, Recorder};
use crate::dump::reader::{FileSource, Flaw, Reader, Stored};
use crate::dump::{
    mend, verify, Codec, EngineConfig, FileSink, Finding, FlatSink, Format, Sink, Summary, ZLIB,
};
use proptest::prelude::*;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

const GUEST: Guest = Guest {
    frames: 250,
    seed: 9,
};

fn dump(dir: &Path, codec: Codec) -> PathBuf {
    dump_as(dir, Format::Kdump(codec))
}

fn dump_as(dir: &Path, format: Format) -> PathBuf {
    let sink = FileSink::create(dir, "guest", 0, format).unwrap();
    dump_to(sink, format).path.unwrap()
}

fn dump_to(sink: impl Sink + 'static, format: Format) -> Summary {
    let config = EngineConfig {
        format,
        ..config(Codec::NONE)
    };
    let (engine, _completed) = GUEST.start(sink, config);
    for chunk in GUEST.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap()
}

/// One dump for all tests that only look at copies of it.
fn example() -> &'static (TempDir, PathBuf) {
    static EXAMPLE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dump(dir.path(), ZLIB.fastest());
        (dir, path)
    })
}

/// A copy of the example, its manifest beside it if asked for.
fn copy(with_manifest: bool) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy");
    let (_, original) = example();
    std::fs::copy(original, &path).unwrap();
    if with_manifest {
        let sums = PathBuf::from(format!("{}.sums", original.display()));
        std::fs::copy(sums, dir.path().join("copy.sums")).unwrap();
    }
    (dir, path)
}

#[test]
fn a_complete_dump_is_found_complete() {
    for codec in CODECS {
        let dir = tempfile::tempdir().unwrap();
        let path = dump(dir.path(), codec);
        assert!(path.ends_with("guest-19700101T000000Z.kdump"));
        let report = verify(&path).unwrap();
        assert_eq!(report.finding, Finding::Complete, "{codec:?}");
        assert!(report.with_manifest);
        assert_eq!(report.wanted_pages - report.lost_pages, GUEST.readable());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let file = File::open(&path).unwrap();
        let length = report.length;
        assert_eq!(
            GUEST.compare(FileSource { file, length }).unwrap(),
            GUEST.readable()
        );
        // Without the manifest the pages themselves are looked at.
        std::fs::remove_file(format!("{}.sums", path.display())).unwrap();
        let again = verify(&path).unwrap();
        assert_eq!(
            (again.finding, again.with_manifest),
            (Finding::Complete, false)
        );
    }
}

#[test]
fn an_unfinished_dump_is_found_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::create(dir.path(), "guest", 0, Format::Kdump(Codec::NONE)).unwrap();
    let (engine, _completed) = GUEST.start(sink, config(Codec::NONE));
    engine.submit(GUEST.chunk(0, CHUNK)).unwrap();
    let path = engine.finish().unwrap_err().summary.path.unwrap();
    assert!(path.ends_with("guest-19700101T000000Z.kdump.incomplete"));
    let report = verify(&path).unwrap();
    assert_eq!(
        report.finding,
        Finding::Incomplete("was not finished".into())
    );
    assert_eq!(
        report.stored_pages + report.zero_pages + report.lost_pages,
        report.wanted_pages
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_dump_cut_at_any_byte_is_incomplete(cut in any::<prop::sample::Index>(), manifest: bool) {
        let (_dir, path) = copy(manifest);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let length = cut.index(file.metadata().unwrap().len() as usize) as u64;
        file.set_len(length).unwrap();
        let report = verify(&path).unwrap();
        prop_assert!(matches!(report.finding, Finding::Incomplete(_)), "{:?}", report);
        // What is still there is right; `compare` panics at a wrong page.
        let found = GUEST.compare(FileSource { file, length }).ok();
        prop_assert_eq!(report.wanted_pages > 0, found.is_some());
        prop_assert_eq!(report.stored_pages + report.zero_pages, found.unwrap_or(0));
        prop_assert_eq!(report.lost_pages, report.wanted_pages - found.unwrap_or(0));
        // Once mended it opens without a flaw, and has the same pages.
        if mend(&path).is_ok() {
            let report = verify(&path).unwrap();
            prop_assert!(matches!(report.finding, Finding::Incomplete(_)), "{:?}", report);
            let file = File::open(&path).unwrap();
            let length = report.length;
            // Or more: the page of zeroes can be had again.
            let again = GUEST.compare(FileSource { file, length }).ok();
            prop_assert!(again >= found, "{again:?} after, {found:?} before");
            prop_assert_eq!(mend(&path).unwrap(), 0);
        } else {
            prop_assert_eq!(found, None);
        }
    }

    #[test]
    fn any_altered_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (_dir, path) = copy(true);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let at = at.index(file.metadata().unwrap().len() as usize) as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ flip], at).unwrap();
        let report = verify(&path).unwrap();
        prop_assert_ne!(report.finding, Finding::Complete, "byte {:#x}", at);
    }
}

#[test]
fn a_dump_of_more_frames_than_any_guest_has_is_damaged() {
    use crate::dump::kdump::{SubHeader, BLOCK};
    let (_dir, path) = copy(false);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let at = BLOCK + std::mem::offset_of!(SubHeader, max_mapnr_64) as u64;
    file.write_all_at(&(1u64 << 40).to_le_bytes(), at).unwrap();
    let finding = verify(&path).unwrap().finding;
    let said = Finding::Damaged("0x10000000000 frames cannot be".into());
    assert_eq!(finding, said);
}

#[test]
fn any_bit_of_a_page_that_was_flipped_is_noticed_without_a_manifest() {
    for codec in CODECS {
        let dir = tempfile::tempdir().unwrap();
        let path = dump(dir.path(), codec);
        std::fs::remove_file(format!("{}.sums", path.display())).unwrap();
        let source = FileSource::open(&path, OpenOptions::new().read(true).write(true)).unwrap();
        let file = source.file.try_clone().unwrap();
        let reader = Reader::open(source).unwrap();
        let places = reader.descriptors(0, 8).unwrap();
        let places = places.into_iter().filter_map(|stored| match stored {
            Stored::At { offset, size, .. } => Some((stored, offset..offset + size as u64)),
            Stored::Zero => Some((stored, reader.tables_end()..reader.data_start())),
            Stored::Lost => None,
        });
        let mut flipped = 0;
        for (stored, mut place) in places {
            let first = place.start;
            for (at, bit) in place
                .by_ref()
                .flat_map(|at| (0..8).map(move |bit| (at, bit)))
            {
                // All of the start, where codecs have their headers.
                if at > first + 32 && (at + bit) % 5 != 0 {
                    continue;
                }
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
                let found = reader.page(stored);
                assert!(matches!(found, Err(Flaw::Damaged(_))), "{codec:?}, {at:#x}");
                if flipped == 0 {
                    let finding = verify(&path).unwrap().finding;
                    assert!(matches!(finding, Finding::Damaged(_)), "{finding:?}");
                }
                file.write_all_at(&byte, at).unwrap();
                flipped += 1;
            }
        }
        assert!(flipped > 1000);
        assert_eq!(verify(&path).unwrap().finding, Finding::Complete);
    }
}

#[test]
fn a_dump_that_does_not_get_its_name_is_not_complete() {
    for format in [Format::Kdump(ZLIB.fastest()), Format::Elf] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dump");
        let sink = FileSink::create_as(&path).unwrap();
        // Another one has the name by then.
        std::fs::write(&path, "another").unwrap();
        let config = EngineConfig {
            format,
            ..config(Codec::NONE)
        };
        let (engine, _completed) = GUEST.start(sink, config);
        for chunk in GUEST.chunks(CHUNK) {
            engine.submit(chunk).unwrap();
        }
        let path = engine.finish().unwrap_err().summary.path.unwrap();
        assert!(path.ends_with("dump.incomplete"));
        let report = verify(&path).unwrap();
        assert_eq!(
            report.finding,
            Finding::Incomplete("was not finished".into())
        );
    }
}

#[test]
fn only_files_and_devices_are_opened() {
    let (dir, path) = copy(false);
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    for other in [&fifo, dir.path(), Path::new("/dev/null")] {
        let refused = [verify(other).map(drop), mend(other).map(drop)];
        for error in refused.map(|result| result.unwrap_err().chain()) {
            let why = "neither a regular file nor a block device";
            assert_eq!(error, format!("{}: {why}", other.display()));
        }
    }
    let sums = dir.path().join("copy.sums");
    std::fs::rename(&fifo, &sums).unwrap();
    let error = verify(&path).unwrap_err().chain();
    assert!(
        error.contains("copy.sums: neither a regular file"),
        "{error}"
    );
    std::fs::remove_file(&sums).unwrap();
    // Memory is not taken because a file says so.
    File::create(&sums).unwrap().set_len(1 << 40).unwrap();
    let error = verify(&path).unwrap_err().chain();
    assert!(error.contains("copy.sums: 1099511627776 bytes"), "{error}");
}

#[test]
fn something_else_is_not_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(matches!(
        verify(&path).unwrap().finding,
        Finding::Damaged(_)
    ));
    let error = verify(&dir.path().join("none")).unwrap_err();
    assert!(error
        .chain()
        .ends_with("none: No such file or directory (os error 2)"));
}

/// Cuts a file at every `step`-th length; each must be found incomplete.
fn every_cut_is_incomplete(path: &Path, step: usize) {
    every_cut_from_is_incomplete(path, 0, step);
}

/// As [`every_cut_is_incomplete`], at lengths of at least `from`.
fn every_cut_from_is_incomplete(path: &Path, from: u64, step: usize) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for length in (from..length).rev().step_by(step) {
        file.set_len(length).unwrap();
        let report = verify(path).unwrap();
        assert!(
            matches!(report.finding, Finding::Incomplete(_)),
            "{report:?}"
        );
    }
}

#[test]
fn a_stream_in_a_file_is_checked_as_the_dump_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let stream = File::create(&path).unwrap();
    let format = Format::Kdump(ZLIB.fastest());
    let summary = dump_to(FlatSink::new(stream), format);
    let report = verify(&path).unwrap();
    assert_eq!(report.finding, Finding::Complete);
    assert_eq!(report.wanted_pages, summary.wanted_pages);
    assert_eq!(report.lost_pages, summary.progress.unreadable_pages);
    every_cut_is_incomplete(&path, 9973);
}

/// A cut within a record leaves a hole before data that came earlier in the
/// stream: half a descriptor is not a descriptor of half a size.
#[test]
fn a_stream_cut_within_descriptors_is_incomplete() {
    let recorded = Recorder::new(1);
    dump_to(recorded.clone(), Format::Kdump(ZLIB.fastest()));
    let reader = Reader::open(recorded.image()).unwrap();
    let table = reader.descriptor_offset(0)..reader.tables_end();
    // All data before all descriptors, as a busy writer may have it.
    let mut calls = recorded.calls();
    let is_descriptors =
        |call: &Call| matches!(call, Call::Write { offset, .. } if table.contains(offset));
    let last = calls.len() - 3;
    calls[..last].sort_by_key(is_descriptors);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let mut sink = FlatSink::new(File::create(&path).unwrap());
    let mut data_end = 0;
    for call in calls {
        if data_end == 0 && is_descriptors(&call) {
            data_end = path.metadata().unwrap().len();
        }
        if let Call::Write { offset, bytes } = call {
            sink.write_at(offset, &bytes).unwrap();
        }
    }
    sink.set_length(recorded.length().unwrap()).unwrap();
    sink.publish(None).unwrap();
    assert_eq!(verify(&path).unwrap().finding, Finding::Complete);
    // Seven and the size of a descriptor, 24, have no common factor.
    every_cut_from_is_incomplete(&path, data_end, 7);
}

/// Cuts an ELF dump within its headers: as an interrupted copy leaves it, and, before
/// the note that says how far it is, as a loss of power does, zeroes in place of what
/// is missing.
fn every_cut_in_headers_is_incomplete(path: &Path) {
    let whole = std::fs::read(path).unwrap();
    let name = whole
        .windows(7)
        .position(|bytes| bytes == b"VICOVER")
        .unwrap();
    let copy = path.with_extension("copy");
    for cut in 0..name + 12 {
        std::fs::write(&copy, &whole[..cut]).unwrap();
        let lengths = [cut, whole.len()];
        let zeroed = (16..=name - 12).contains(&cut);
        for length in &lengths[..1 + usize::from(zeroed)] {
            let file = File::options().write(true).open(&copy).unwrap();
            file.set_len(*length as u64).unwrap();
            let report = verify(&copy).unwrap();
            let is_incomplete = matches!(report.finding, Finding::Incomplete(_));
            assert!(is_incomplete, "cut at {cut}: {report:?}");
        }
    }
    std::fs::remove_file(copy).unwrap();
}

#[test]
fn an_elf_dump_says_whether_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dump_as(dir.path(), Format::Elf);
    assert!(path.ends_with("guest-19700101T000000Z.elf"));
    assert_eq!(verify(&path).unwrap().finding, Finding::Complete);
    every_cut_in_headers_is_incomplete(&path);
    every_cut_is_incomplete(&path, 99_991);
    let sink = FileSink::create(dir.path(), "half", 0, Format::Elf).unwrap();
    let config = EngineConfig {
        format: Format::Elf,
        ..config(Codec::NONE)
    };
    let (engine, _completed) = GUEST.start(sink, config);
    engine.submit(GUEST.chunk(0, CHUNK)).unwrap();
    let path = engine.finish().unwrap_err().summary.path.unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(
        report.finding,
        Finding::Incomplete("was not finished".into())
    );
}
