// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps with every limit: whether there is one, whether it is kept to, and used.
//!
//! Writes target/bench/budget.json, `sweeps`: `image`, `options`, `whole_bytes` and
//! `pages` of a dump without a limit; for each limit from the smallest that a dump
//! takes to `whole_bytes`, in `limits`: `limit_bytes`, and of the dump `bytes`,
//! `pages`, and `used`, the part of the limit's whole blocks of 4 KiB, which a dump
//! consists of; `missing`, limits without a complete dump; `over`, those that a dump does
//! not keep to; `least_used`, the smallest part of a limit that was used although pages
//! had to be left out. Fails when there is any of the first two, or when the last is
//! below [`USED`].
//!
//! Environment: IMAGES, directories of real guests' memory (tests/images). STEPS (200).

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use serde_json::{json, Value};
use vicover::addr::{Gfn, GfnRange};
use vicover::drain::Target;
use vicover::dump::{self, verify, Finding, Report};
use vicover::error::Error;
use vicover::host::images::{FileImage, Image, View};
use vicover::host::memory::{Faults, MemoryHost};
use vicover::job::JobState;
use vicover::options::Options;
use vicover::story::recover::dump_only;
use vicover::told::log::JobLog;

/// The part of its limit that a dump has to use where pages are left out.
const USED: f64 = 0.95;
const BLOCK: u64 = 4096;
/// Frames of the images that are made here: 64 MiB.
const FRAMES: u64 = 16_384;
const MADE: &str = "dump_level=0,compress=zlib";
const REAL: [&str; 2] = ["dump_level=31,compress=zlib", "dump_level=0,compress=zstd"];

/// Memory all of zeroes or all of noise.
struct Plain {
    ram: [GfnRange; 1],
    noise: bool,
}

struct PlainView(Gfn, bool);

impl Image for Plain {
    fn ram(&self) -> &[GfnRange] {
        &self.ram
    }

    fn view(&self, frames: GfnRange) -> std::io::Result<Box<dyn View>> {
        Ok(Box::new(PlainView(frames.start, self.noise)))
    }
}

impl View for PlainView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        into.fill(0);
        let first = ((self.0 .0 + index as u64) << 12) + offset as u64;
        for (word, at) in into.chunks_mut(8).zip((first..).step_by(8)) {
            let mixed = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            if self.1 {
                word.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes()[..word.len()]);
            }
        }
        true
    }
}

/// The dump that there is with this limit, 0 being none; or why there is not.
fn dump_within(image: &Arc<dyn Image>, options: &str, limit: u64) -> Result<Report, Error> {
    let host = MemoryHost::new(image.clone(), 1, Faults::default());
    let directory = tempfile::tempdir().expect("a directory");
    let target = Target {
        options: Options::parse(&format!("{options},max_dump_size={limit}"))?,
        name: "guest".into(),
        dump_dir: directory.path().into(),
        sink: Mutex::default(),
    };
    let shared = JobState::new(JobLog::new("guest", Some(Box::new(|_| ()))));
    dump_only(&host, &target, &|| (), &shared)?;
    let path = shared.dump_path().expect("a finished dump has a path");
    verify(&path).map_err(Error::DumpStart)
}

/// The smallest dump of an image, as the refusal of a smaller one has it.
fn least(image: &Arc<dyn Image>, options: &str) -> u64 {
    let refused = dump_within(image, options, BLOCK).expect_err("no dump fits into a page");
    let Error::DumpStart(mut why) = refused else {
        panic!("{}", refused.chain());
    };
    while let dump::Error::At { source, .. } = why {
        why = *source;
    }
    match why {
        dump::Error::NoRoom { least, .. } => least,
        other => panic!("{}", other.chain()),
    }
}

fn sweep(name: &str, image: &Arc<dyn Image>, options: &str, steps: u64) -> Value {
    let there = |report: &Report| report.stored_pages + report.zero_pages;
    let whole = dump_within(image, options, 0).expect("a dump without a limit");
    let least = least(image, options);
    let (mut limits, mut missing, mut over) = (Vec::new(), Vec::new(), Vec::new());
    let mut least_used = 1.0f64;
    for step in 0..=steps {
        let limit = least + (whole.length - least) * step / steps;
        let report = match dump_within(image, options, limit) {
            Ok(report) if report.finding == Finding::Complete => report,
            other => {
                let why = match other {
                    Ok(report) => format!("{:?}", report.finding),
                    Err(error) => error.chain(),
                };
                missing.push(json!({ "limit_bytes": limit, "why": why }));
                continue;
            }
        };
        if report.length > limit {
            over.push(limit);
        }
        let used = report.length as f64 / (limit / BLOCK * BLOCK) as f64;
        if there(&report) < there(&whole) {
            least_used = least_used.min(used);
        }
        limits.push(json!({
            "limit_bytes": limit, "bytes": report.length, "pages": there(&report),
            "lost_pages": report.lost_pages, "used": used,
        }));
    }
    println!(
        "{name}, {options}, {least} to {} bytes: {} limits without a dump, {} not kept to, \
         {:.1} % used at least",
        whole.length,
        missing.len(),
        over.len(),
        least_used * 100.0
    );
    json!({
        "image": name, "options": options, "whole_bytes": whole.length,
        "pages": there(&whole), "limits": limits, "missing": missing, "over": over,
        "least_used": least_used,
    })
}

fn main() -> ExitCode {
    let steps = std::env::var("STEPS").map_or(200, |steps| steps.parse().expect("a number"));
    let mut sweeps = Vec::new();
    for (name, noise) in [("zeroes", false), ("noise", true)] {
        let ram = [GfnRange::new(Gfn(0), Gfn(FRAMES))];
        let image: Arc<dyn Image> = Arc::new(Plain { ram, noise });
        sweeps.push(sweep(name, &image, MADE, steps));
    }
    for path in std::env::var("IMAGES")
        .unwrap_or_default()
        .split_whitespace()
    {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The rest says of what the image was made.
        let name = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
        let image = FileImage::open(path).expect("an image");
        let image: Arc<dyn Image> = Arc::new(image);
        for options in REAL {
            sweeps.push(sweep(name, &image, options, steps));
        }
    }
    let holds = |sweep: &Value| {
        let none = |name: &str| sweep[name].as_array().is_some_and(Vec::is_empty);
        none("missing") && none("over") && sweep["least_used"].as_f64() >= Some(USED)
    };
    let passes = sweeps.iter().all(holds);
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let dir = format!("{target}/bench");
    std::fs::create_dir_all(&dir).expect("a directory for results");
    let result = json!({ "used_at_least": USED, "passes": passes, "sweeps": sweeps });
    let text = serde_json::to_string_pretty(&result).expect("JSON");
    std::fs::write(format!("{dir}/budget.json"), text).expect("the result is written");
    match passes {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
