// SPDX-License-Identifier: LGPL-2.1-or-later
//! How long it takes to find and check the kernel of a real crashed guest.
//!
//! Writes target/bench/find.json: `rows` with `guest`, `memory_mib`, `seconds` (the
//! least of alternating rounds, since the machine may have other things to do; memory's
//! file is in the page cache), `pages_probed`,
//! `told` (the kernel's release, or why it is not known) and `to_ordinary`, the time
//! to that of the first row, an ordinary guest of 1 GiB.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use vicover::addr::GfnRange;
use vicover::guest::limits::Limits;
use vicover::guest::locate::{locate, LocateError};
use vicover::guest::memory::GuestMemory;

use crate::guests::image::Image;

/// What all others are compared with.
const ORDINARY: &str = "linux-6.1";

/// Times of the ordinary guest that any other may take.
const ASKED: f64 = 1.3;

const ROUNDS: usize = 100;

struct Row {
    name: String,
    image: Image,
    times: Vec<Duration>,
}

/// The rows, and whether all of them took no longer than was asked for.
pub(crate) fn measure() -> (serde_json::Value, bool) {
    let mut rows: Vec<Row> = images()
        .into_iter()
        .map(|(name, directory)| Row {
            name,
            image: Image::open(&directory).expect("an image"),
            times: Vec::new(),
        })
        .collect();
    let find = |image: &Image| locate(image, &image.processors, &Limits::default());
    for round in 0..=ROUNDS {
        for row in &mut rows {
            let start = Instant::now();
            let found = find(&row.image);
            let took = start.elapsed();
            drop(found);
            // The first round brings memory's file into the page cache.
            if round > 0 {
                row.times.push(took);
            }
        }
    }
    let seconds: Vec<f64> = rows
        .iter()
        .map(|row| row.times.iter().min().map_or(0.0, Duration::as_secs_f64))
        .collect();
    let mut reached = true;
    let rows: Vec<_> = rows
        .iter()
        .zip(&seconds)
        .map(|(row, seconds_here)| {
            let pages: u64 = row.image.ram().iter().map(GfnRange::len).sum();
            let (told, pages_probed) = match find(&row.image) {
                Ok(located) => (located.kernel.name.release, located.pages_probed),
                Err(error) => (error.to_string(), probed(&error)),
            };
            let to_ordinary = seconds_here / seconds[0];
            reached &= to_ordinary <= ASKED;
            json!({
                "guest": row.name,
                "memory_mib": pages >> 8,
                "seconds": seconds_here,
                "pages_probed": pages_probed,
                "to_ordinary": to_ordinary,
                "told": told,
            })
        })
        .collect();
    (json!({ "asked_to_ordinary": ASKED, "rows": rows }), reached)
}

fn probed(error: &LocateError) -> u64 {
    match error {
        LocateError::Nothing { pages_probed, .. } | LocateError::Refused { pages_probed, .. } => {
            *pages_probed
        }
        LocateError::Contradiction(..) => 0,
    }
}

/// Names and directories, made where they are missing: the ordinary one first.
fn images() -> Vec<(String, PathBuf)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/build");
    let output_of = |words: &[&str]| {
        let output = Command::new(&script).args(words).output();
        let output = output.expect("tests/images/build");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/images/build: {errors}");
        String::from_utf8(output.stdout).expect("text")
    };
    let others = output_of(&["--list", "find"]);
    let names: Vec<&str> = [ORDINARY].into_iter().chain(others.lines()).collect();
    let lines = output_of(&names);
    let image = |line: &str| {
        let (name, directory) = line.split_once(' ').expect("a name and a directory");
        (name.to_owned(), PathBuf::from(directory))
    };
    lines.lines().map(image).collect()
}
