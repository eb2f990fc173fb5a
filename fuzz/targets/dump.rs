// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps of every format that are changed in any place, cut off, and have any manifest
//! beside them: looked at, mended, and gone on with.
#![no_main]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vicover::drain::Target;
use vicover::dump::{mend, verify, FlatSink, PatientStream, Sink, Unfinished};
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::job::JobState;
use vicover::options::Options;
use vicover::story::recover::dump_only;
use vicover::told::kept::Kept;

/// Frames of the guest whose dumps are changed.
const FRAMES: u64 = 48;

/// A file of this process's in memory.
fn place(name: &str) -> PathBuf {
    let directory = Path::new("/dev/shm").join(format!("vicover-fuzz-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("there is memory for files");
    directory.join(name)
}

fn dump(options: &str, sink: Option<Box<dyn Sink>>) -> Vec<u8> {
    let directory = place("dumps");
    fs::create_dir_all(&directory).expect("there is memory for files");
    let target = Target {
        options: Options::parse(options).expect("options that there are"),
        name: "guest".into(),
        dump_dir: directory.clone(),
        sink: sink.into(),
    };
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    let job = JobState::new(Kept::default().log("guest"));
    dump_only(&host, &target, &|| (), &job).expect("a guest can be dumped");
    let bytes = job.dump_path().map(|path| fs::read(path).expect("a dump is there"));
    fs::remove_dir_all(&directory).expect("what was made can be removed");
    bytes.unwrap_or_default()
}

fn flattened() -> Vec<u8> {
    let path = place("stream");
    let file = File::create(&path).expect("there is memory for files");
    let stream = PatientStream::new(file, Duration::from_secs(60));
    dump("threads=1", Some(Box::new(FlatSink::new(stream))));
    fs::read(path).expect("the stream is there")
}

static DUMPS: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    [
        dump("threads=1", None),
        dump("threads=1,compress=zstd", None),
        dump("threads=1,format=elf", None),
        flattened(),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    let [which, manifest, records @ ..] = bytes else {
        return;
    };
    let mut dump = DUMPS[usize::from(*which) % DUMPS.len()].clone();
    let (records, manifest) = records.split_at(records.len().saturating_sub((*manifest).into()));
    for record in records.chunks_exact(12) {
        let at = u32::from_le_bytes(record[..4].try_into().unwrap()) as usize;
        match at >> 31 {
            0 => {
                let at = at % dump.len().saturating_sub(8).max(1);
                if let Some(place) = dump.get_mut(at..at + 8) {
                    place.copy_from_slice(&record[4..]);
                }
            }
            _ => dump.truncate((at & 0x7fff_ffff) % (dump.len() + 1)),
        }
    }
    let path = place("changed.incomplete");
    fs::write(&path, &dump).expect("there is memory for files");
    fs::write(place("changed.incomplete.sums"), manifest).expect("there is memory for files");
    let _ = verify(&path);
    let _ = Unfinished::open(&path);
    let _ = mend(&path);
    // What was mended has no page beyond the file's end.
    if mend(&path).is_ok() {
        assert_eq!(mend(&path).expect("as before"), 0);
    }
});
