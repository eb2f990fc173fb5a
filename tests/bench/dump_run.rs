// SPDX-License-Identifier: LGPL-2.1-or-later
//! One run of what tests/bench/dump and tests/bench/verdict measure, in a process of its
//! own.
//!
//! ```text
//! dump-run dump IMAGE DIRECTORY OPTIONS     a dump in a file
//! dump-run discard IMAGE OPTIONS            a dump that nobody keeps
//! dump-run synthetic BYTES OPTIONS          the same of a synthetic guest
//! dump-run write FILE BYTES                 sequential direct writes, and a sync
//! dump-run copy BYTES                       memory to memory
//! dump-run record IMAGE DIRECTORY           the record of a crash
//! ```
//!
//! Prints, in one line of JSON, `output_bytes` and, where the process does more
//! than what is measured, `seconds`. Of a record: `recorded_s`, the time until it is
//! there, and `has_death`, whether it says then what the guest died of.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::json;
use vicover::addr::PAGE_SIZE;
use vicover::drain::Target;
use vicover::dump::Sink;
use vicover::host::images::{FileImage, Image, SyntheticImage};
use vicover::host::memory::{Faults, MemoryHost};
use vicover::incident;
use vicover::job::JobState;
use vicover::options::Options;
use vicover::story::recover::dump_only;
use vicover::told::event::{Event, JobEvent};
use vicover::told::log::JobLog;
use vicover::told::record::Told;

const MIB: usize = 1 << 20;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| -> u64 { text.parse().expect("a number of bytes") };
    let file = |path: &str| -> io::Result<Arc<dyn Image>> {
        Ok(Arc::new(FileImage::open(Path::new(path))?))
    };
    let result = match arguments[..] {
        ["dump", image, dir, options] => dump(file(image)?, dir.as_ref(), options, None),
        ["discard", image, options] => discard(file(image)?, options),
        ["synthetic", bytes, options] => {
            let frames = number(bytes) / PAGE_SIZE as u64;
            discard(Arc::new(SyntheticImage::new(frames)), options)
        }
        ["write", path, bytes] => write(Path::new(path), number(bytes))?,
        ["copy", bytes] => copy(number(bytes)),
        ["record", image, dir] => record(file(image)?, dir.as_ref()),
        _ => panic!("usage: dump-run dump|discard|synthetic|write|copy|record ..."),
    };
    println!("{result}");
    Ok(())
}

fn discard(image: Arc<dyn Image>, options: &str) -> serde_json::Value {
    dump(
        image,
        Path::new("/nonexistent"),
        options,
        Some(Box::new(Discard)),
    )
}

fn dump(
    image: Arc<dyn Image>,
    dir: &Path,
    options: &str,
    sink: Option<Box<dyn Sink>>,
) -> serde_json::Value {
    let host = MemoryHost::new(image, 1, Faults::default());
    let target = Target {
        options: Options::parse(options).unwrap_or_else(|error| panic!("{error}")),
        name: "bench".into(),
        dump_dir: dir.into(),
        sink: Mutex::new(sink),
    };
    let log = JobLog::new("bench", Some(Box::new(|told| eprintln!("{}", told.event))));
    let shared = JobState::new(log);
    dump_only(&host, &target, &|| (), &shared).unwrap_or_else(|error| panic!("{}", error.chain()));
    json!({ "output_bytes": shared.counters.dump_bytes.load(Relaxed) })
}

/// A crash until its record is there, and what the record says then.
fn record(image: Arc<dyn Image>, dir: &Path) -> serde_json::Value {
    let since = Instant::now();
    let found = Arc::new(Mutex::new(json!(null)));
    let noted = found.clone();
    let listener = move |told: &Told<'_>| {
        let Event::Job(JobEvent::Recorded { path }) = told.event else {
            return;
        };
        let recorded_s = since.elapsed().as_secs_f64();
        let id = path.file_stem().and_then(|stem| stem.to_str());
        let record = incident::read(path.parent().expect("a directory"), id.expect("a name"));
        let has_death = record.expect("a record").died.is_some();
        *noted.lock().expect("one thread at a time") =
            json!({ "recorded_s": recorded_s, "has_death": has_death });
    };
    let host = MemoryHost::new(image, 1, Faults::default());
    let target = Target {
        options: Options::parse("compress=none,threads=1").expect("options"),
        name: "bench".into(),
        dump_dir: dir.into(),
        sink: Mutex::new(Some(Box::new(Discard))),
    };
    let job = JobState::new(JobLog::new("bench", Some(Box::new(listener))));
    let dump = || dump_only(&host, &target, &|| (), &job);
    incident::kept("bench", &target, None, &job, dump)
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    let found = found.lock().expect("one thread at a time");
    found.clone()
}

/// Takes everything and keeps nothing, as fast as can be.
struct Discard;

impl Sink for Discard {
    fn write_at(&mut self, _offset: u64, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }

    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}

/// Incompressible, so that no device makes less of it.
fn fill(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

fn write(path: &Path, bytes: u64) -> io::Result<serde_json::Value> {
    let mut memory = vec![0; MIB + PAGE_SIZE];
    // Direct I/O wants aligned memory.
    let start = memory.as_ptr().align_offset(PAGE_SIZE);
    let block = &mut memory[start..start + MIB];
    fill(block);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let begin = Instant::now();
    let blocks = bytes.div_ceil(MIB as u64);
    for _ in 0..blocks {
        file.write_all(block)?;
    }
    file.sync_all()?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "output_bytes": blocks * MIB as u64 }))
}

fn copy(bytes: u64) -> serde_json::Value {
    // Far more than any cache holds.
    let mut source = vec![0; 256 * MIB];
    fill(&mut source);
    let mut target = vec![1u8; 256 * MIB];
    let mut left = bytes;
    let begin = Instant::now();
    while left > 0 {
        let part = left.min(source.len() as u64) as usize;
        target[..part].copy_from_slice(black_box(&source[..part]));
        black_box(&mut target);
        left -= part as u64;
    }
    let seconds = begin.elapsed().as_secs_f64();
    json!({ "seconds": seconds, "output_bytes": bytes })
}
