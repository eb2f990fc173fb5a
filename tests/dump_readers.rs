// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps of synthetic memory, judged by independent readers.
//!
//! Needs `python3-drgn`, `libkdumpfile10` and `makedumpfile` of Debian 12 or
//! later; ignored otherwise, so that nothing passes without having been read.

#[path = "support/command.rs"]
mod command;
mod synthetic;

use command::run;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use synthetic::{
    check, content, expected, kept_or_not, present, Synthetic, FRAMES, HOLE, UNREADABLE,
};
use vicover::addr::{Pfn, PAGE_SIZE};
use vicover::dump::{
    mend, verify, Chunk, ChunkOutcome, Codec, Engine, EngineConfig, FileSink, Finding, FlatSink,
    Format, OpenSink, Sink, Summary, ZLIB, ZSTD,
};

/// Dumps the synthetic guest, chunks in an order of their own.
fn dump_to(sink: Box<dyn Sink>, format: Format) -> Summary {
    let config = EngineConfig {
        format,
        threads: 2,
        ..Default::default()
    };
    let (engine, completed) =
        Engine::start(sink, &synthetic::facts(), synthetic::bitmaps(), config).unwrap();
    let count = 512;
    let mut starts: Vec<u64> = (0..FRAMES).step_by(count).collect();
    starts.reverse();
    starts.swap(0, 5);
    let chunks = starts.len();
    for first in starts {
        let chunk = Chunk {
            first: Pfn(first),
            count: count.min((FRAMES - first) as usize),
            pages: Synthetic { first },
        };
        engine.submit(chunk).unwrap();
    }
    let summary = engine.finish().unwrap();
    let saved: u64 = completed
        .iter()
        .take(chunks)
        .map(|done| match done.outcome {
            ChunkOutcome::Saved { pages } => pages,
            ChunkOutcome::Lost(error) => panic!("{}", error.chain()),
        })
        .sum();
    assert_eq!(saved, summary.wanted_pages);
    summary
}

/// Dumps into a file of its own.
fn dump(dir: &Path, format: Format) -> PathBuf {
    let sink = FileSink::create(dir, "synthetic", 1_700_000_000, format).unwrap();
    dump_to(Box::new(sink), format).path.unwrap()
}

/// Two hundred lengths below the given one, longest first.
fn cuts(length: u64) -> Vec<u64> {
    let mut state = 1u64;
    let mut cuts: Vec<u64> = (0..200)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 16) % length
        })
        .collect();
    cuts.sort_unstable_by(|a, b| b.cmp(a));
    cuts
}

#[test]
#[ignore = "needs libkdumpfile10 and python3-drgn"]
fn two_hundred_cuts_of_each_codec_never_give_a_wrong_page() {
    for codec in [Codec::NONE, ZLIB.fastest(), ZSTD.fastest()] {
        cut_two_hundred_times(codec);
    }
}

fn cut_two_hundred_times(codec: Codec) {
    let dir = tempfile::tempdir().unwrap();
    let path = dump(dir.path(), Format::Kdump(codec));
    let maybe = |pfn| match kept_or_not(pfn) {
        b'k' => b'?',
        other => other,
    };
    let expected = expected(dir.path(), maybe);
    let copy = dir.path().join("copy");
    let mut opened = 0;
    for (index, length) in cuts(path.metadata().unwrap().len()).into_iter().enumerate() {
        std::fs::copy(&path, &copy).unwrap();
        let file = OpenOptions::new().write(true).open(&copy).unwrap();
        file.set_len(length).unwrap();
        assert!(matches!(
            verify(&copy).unwrap().finding,
            Finding::Incomplete(_)
        ));
        if mend(&copy).is_err() {
            continue;
        }
        opened += 1;
        let report = verify(&copy).unwrap();
        let facts = check(["libkdumpfile", "drgn"][index % 2], &copy, &expected);
        assert_eq!(
            facts["read"],
            report.stored_pages + report.zero_pages,
            "{codec:?}, cut at {length}"
        );
    }
    assert!(
        opened > 150,
        "{codec:?}: only {opened} of 200 could be opened"
    );
}

const CODECS: [Codec; 8] = [
    Codec::NONE,
    ZLIB.fastest(),
    ZLIB.at(6).unwrap(),
    ZLIB.at(9).unwrap(),
    ZSTD.at(-7).unwrap(),
    ZSTD.fastest(),
    ZSTD.at(3).unwrap(),
    ZSTD.at(19).unwrap(),
];

/// Debian 12's makedumpfile has no zstd: `VICOVER_MAKEDUMPFILE` says how to call
/// one that has, a word a line.
fn makedumpfile(codec: Codec) -> Command {
    let call: Vec<String> = if codec.spec() == ZSTD {
        let call = std::env::var("VICOVER_MAKEDUMPFILE").expect("VICOVER_MAKEDUMPFILE");
        call.lines().map(str::to_owned).collect()
    } else {
        vec!["makedumpfile".into()]
    };
    let mut command = Command::new(&call[0]);
    command.args(&call[1..]);
    command
}

#[test]
#[ignore = "needs python3-drgn and libkdumpfile10"]
fn drgn_and_libkdumpfile_read_every_page() {
    for codec in CODECS {
        let dir = tempfile::tempdir().unwrap();
        let path = dump(dir.path(), Format::Kdump(codec));
        let expected = expected(dir.path(), kept_or_not);
        let kept = (0..FRAMES).filter(|&pfn| kept_or_not(pfn) == b'k').count() as u64;
        let facts = check("libkdumpfile", &path, &expected);
        assert_eq!(facts["read"], kept, "{codec:?}");
        assert_eq!(facts["refused"], FRAMES - kept, "{codec:?}");
        assert_eq!(facts["release"], "6.1.0-vicover");
        assert_eq!(facts["nodename"], "synthetic");
        assert_eq!(facts["osrelease"], "6.1.0-vicover");
        assert_eq!(facts["cpus"], 2);
        assert_eq!(facts["rip"], 0xffff_ffff_8100_1000u64);
        assert_eq!(facts["max_pfn"], FRAMES);
        let facts = check("drgn", &path, &expected);
        assert_eq!(facts["read"], kept, "{codec:?}");
    }
}

#[test]
#[ignore = "needs makedumpfile, VICOVER_MAKEDUMPFILE and libkdumpfile10"]
fn makedumpfile_reads_every_page() {
    for codec in CODECS {
        let dir = tempfile::tempdir().unwrap();
        let path = dump(dir.path(), Format::Kdump(codec));
        let again = dir.path().join("again");
        run(makedumpfile(codec)
            .args(["-d", "0", "-c", "-f"])
            .args([&path, &again]));
        // For a lost page makedumpfile 1.7.2 writes what its buffer held before.
        let status = |pfn| {
            if UNREADABLE.contains(&pfn) {
                b'*'
            } else {
                kept_or_not(pfn)
            }
        };
        let expected = expected(dir.path(), status);
        check("libkdumpfile", &again, &expected);
    }
}

/// Excluded, zero and lost pages of an ELF dump read as zeroes.
fn elf_expected(dir: &Path) -> PathBuf {
    let path = dir.join("elf_expected");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for pfn in 0..FRAMES {
        let page = match kept_or_not(pfn) {
            b'k' => content(pfn),
            _ => [0; PAGE_SIZE],
        };
        let status = match present(pfn) {
            true => b'k',
            // libkdumpfile 0.5.1 gives zeroes for the page before a segment.
            false if pfn + 1 == HOLE.end => b'*',
            false => b'x',
        };
        file.write_all(&[status]).unwrap();
        file.write_all(&page).unwrap();
    }
    file.flush().unwrap();
    path
}

#[test]
#[ignore = "needs python3-drgn, libkdumpfile10 and makedumpfile"]
fn elf_dumps_are_read_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dump(dir.path(), Format::Elf);
    let expected = elf_expected(dir.path());
    let facts = check("libkdumpfile", &path, &expected);
    assert_eq!(facts["description"], "ELF64 dump");
    assert_eq!(facts["osrelease"], "6.1.0-vicover");
    assert_eq!(facts["cpus"], 2);
    check("drgn", &path, &expected);
    let again = dir.path().join("again");
    run(Command::new("makedumpfile")
        .args(["-d", "0", "-c", "-f"])
        .args([&path, &again]));
    check("libkdumpfile", &again, &expected);
}

#[test]
#[ignore = "needs makedumpfile and libkdumpfile10"]
fn a_flattened_stream_of_any_codec_becomes_an_ordinary_dump() {
    for codec in CODECS {
        let dir = tempfile::tempdir().unwrap();
        let stream = dir.path().join("stream");
        let file = std::fs::File::create(&stream).unwrap();
        dump_to(Box::new(FlatSink::new(file)), Format::Kdump(codec));
        assert_eq!(verify(&stream).unwrap().finding, Finding::Complete);
        let dump = dir.path().join("dump");
        run(Command::new("makedumpfile")
            .arg("-R")
            .arg(&dump)
            .stdin(std::fs::File::open(&stream).unwrap()));
        let expected = expected(dir.path(), kept_or_not);
        check("libkdumpfile", &dump, &expected);
        check("drgn", &dump, &expected);
    }
}

#[test]
#[ignore = "needs libkdumpfile10 and makedumpfile"]
fn a_flattened_stream_through_a_fifo_becomes_an_ordinary_dump() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    run(Command::new("mkfifo").arg(&fifo));
    let error = OpenSink::open(&fifo).err().unwrap();
    assert!(
        error.chain().contains("No such device"),
        "nobody reads it yet"
    );
    // Opened for both so that opening waits for nobody.
    let keep_open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let dump = dir.path().join("dump");
    let mut makedumpfile = Command::new("makedumpfile")
        .arg("-R")
        .arg(&dump)
        .stdin(std::fs::File::open(&fifo).unwrap())
        .spawn()
        .unwrap();
    let sink = OpenSink::open(&fifo).unwrap();
    drop(keep_open);
    let summary = dump_to(sink, Format::Kdump(ZLIB.fastest()));
    assert!(makedumpfile.wait().unwrap().success());
    let expected = expected(dir.path(), kept_or_not);
    check("libkdumpfile", &dump, &expected);
    assert_eq!(dump.metadata().unwrap().len(), summary.length);
    assert_eq!(verify(&dump).unwrap().finding, Finding::Complete);
}

/// A loop device, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(image: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

#[test]
#[ignore = "needs libkdumpfile10, and root for a loop device"]
fn a_block_device_holds_a_dump_whatever_was_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![0xee; 64 << 20]).unwrap();
    let device = Loop::attach(&image);
    let expected = expected(dir.path(), kept_or_not);
    for codec in [Codec::NONE, ZLIB.fastest()] {
        let sink = OpenSink::open(&device.0).unwrap();
        let summary = dump_to(sink, Format::Kdump(codec));
        assert_eq!(summary.path.as_ref(), Some(&device.0));
        check("libkdumpfile", &device.0, &expected);
        let report = verify(&device.0).unwrap();
        assert_eq!(report.finding, Finding::Complete);
        assert_eq!(report.length, 64 << 20);
        assert_eq!(report.wanted_pages, summary.wanted_pages);
        assert_eq!(report.lost_pages, UNREADABLE.count() as u64);
    }
}
