// SPDX-License-Identifier: LGPL-2.1-or-later
//! A process that is killed while it dumps leaves a dump that opens and holds
//! every chunk that had come back.

mod synthetic;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use synthetic::{check, expected, kept_or_not, Synthetic, FRAMES};
use vicover::addr::Pfn;
use vicover::dump::{
    verify, Chunk, ChunkOutcome, Engine, EngineConfig, FileSink, Finding, Format, ZLIB,
};

const CHUNK: u64 = 64;
/// The test itself, which is also the process that is killed.
const NAME: &str = "what_came_back_before_the_kill_is_in_the_dump";

/// The process that is killed.
fn child(dir: &Path) {
    let config = EngineConfig {
        format: Format::Kdump(ZLIB.fastest()),
        threads: 2,
        ..Default::default()
    };
    let sink = FileSink::create(dir, "killed", 0, config.format).unwrap();
    let (facts, bitmaps) = (synthetic::facts(), synthetic::bitmaps());
    let (engine, completed) = Engine::start(Box::new(sink), &facts, bitmaps, config).unwrap();
    for first in (0..FRAMES).step_by(CHUNK as usize) {
        let count = CHUNK.min(FRAMES - first) as usize;
        let pages = Synthetic { first };
        engine
            .submit(Chunk {
                first: Pfn(first),
                count,
                pages,
            })
            .unwrap();
        let done = completed.recv().unwrap();
        assert!(matches!(done.outcome, ChunkOutcome::Saved { .. }));
        println!("\nsaved {}", done.chunk.first.0);
        std::io::stdout().flush().unwrap();
    }
    // Not finished: the parent kills, after the last chunk at the latest.
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "needs libkdumpfile10 and python3-drgn"]
fn what_came_back_before_the_kill_is_in_the_dump() {
    if let Some(dir) = std::env::var_os("VICOVER_CHILD_DIR") {
        child(Path::new(&dir));
    }
    for kill_after in [1, 2, 5, 13, 30, 64, FRAMES.div_ceil(CHUNK)] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--ignored", "--nocapture"])
            .env("VICOVER_CHILD_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let saved: Vec<u64> = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .filter_map(|line| line.unwrap().strip_prefix("saved ")?.parse().ok())
            .take(kill_after as usize)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(saved.len() as u64, kill_after);
        let dump = dir.path().join("killed-19700101T000000Z.kdump.incomplete");
        let finding = verify(&dump).unwrap().finding;
        assert_eq!(finding, Finding::Incomplete("was not finished".into()));
        let status = |pfn| match kept_or_not(pfn) {
            b'k' if !saved.contains(&(pfn / CHUNK * CHUNK)) => b'?',
            other => other,
        };
        let expected = expected(dir.path(), status);
        for reader in ["libkdumpfile", "drgn"] {
            let facts = check(reader, &dump, &expected);
            assert!(facts["read"].as_u64() > Some(0), "{facts}");
        }
    }
}
