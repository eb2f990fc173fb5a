// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a domain asks of the disks that QEMU serves, as QEMU counts it.
//!
//! QEMU is asked through its monitor, one JSON text a line (QMP, QEMU's
//! `docs/interop/qmp-spec.rst`). What it says is bounded and counts only: a guest may have
//! taken over its own QEMU.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::os::fd::stream_to;
use crate::pacing::sample::DiskTotals;

/// How long an answer may take, however it comes. Whoever asks has other things to look
/// at.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long it is left alone after it has not answered: another program may be talking to
/// it, which it does with one at a time.
const PAUSE: Duration = Duration::from_secs(5);
/// Bytes of a line, at most.
const MOST: usize = 256 << 10;
/// Lines that are no answer, at most: QEMU tells events in between.
const MOST_EVENTS: usize = 100;

/// The disks that one QEMU serves.
pub(super) struct QemuStatistics {
    monitor: PathBuf,
    connection: Option<BufReader<UnixStream>>,
    /// It did not answer then.
    failed: Option<Instant>,
}

impl QemuStatistics {
    /// Asks the QEMU whose monitor is at a path. Nothing is opened yet.
    pub(super) fn new(monitor: impl Into<PathBuf>) -> Self {
        Self {
            monitor: monitor.into(),
            connection: None,
            failed: None,
        }
    }

    /// Added up over all disks; `None` when QEMU does not answer. How many requests are on
    /// their way it does not tell, nor whether several were at once: while requests take time
    /// the disk counts as busy.
    pub(super) fn totals(&mut self) -> Option<DiskTotals> {
        if self.failed.is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        let asked = self.ask();
        if asked.is_err() {
            self.connection = None;
            self.failed = Some(Instant::now());
        }
        asked.ok()
    }

    fn ask(&mut self) -> io::Result<DiskTotals> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.monitor)?),
        };
        let answer = execute(connection, "query-blockstats")?;
        let disks = answer.as_array().map_or(&[][..], Vec::as_slice);
        let all = disks.iter().map(|disk| totals_of(&disk["stats"]));
        Ok(all.fold(DiskTotals::default(), DiskTotals::plus))
    }
}

/// One disk, from QEMU's `BlockDeviceStats` (`qapi/block-core.json`).
fn totals_of(stats: &Value) -> DiskTotals {
    let sum = |member: &str| {
        ["rd", "wr", "flush", "unmap"]
            .iter()
            .filter_map(|kind| stats[format!("{kind}_{member}")].as_u64())
            .fold(0, u64::saturating_add)
    };
    let (requests, wait) = (
        sum("operations"),
        Duration::from_nanos(sum("total_time_ns")),
    );
    DiskTotals {
        sent: requests,
        requests,
        wait,
        busy: wait,
        in_flight: 0,
    }
}

fn connect(monitor: &Path) -> io::Result<BufReader<UnixStream>> {
    let until = Instant::now() + PATIENCE;
    let stream = stream_to(monitor)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut connection = BufReader::new(stream);
    // It greets whoever comes, and takes no command before this one.
    line(&mut connection, until)?;
    execute(&mut connection, "qmp_capabilities")?;
    Ok(connection)
}

/// Has a command be carried out; its answer.
fn execute(connection: &mut BufReader<UnixStream>, command: &str) -> io::Result<Value> {
    let until = Instant::now() + PATIENCE;
    let asked = serde_json::json!({ "execute": command });
    connection
        .get_mut()
        .write_all(format!("{asked}\n").as_bytes())?;
    for _ in 0..MOST_EVENTS {
        let mut said = line(connection, until)?;
        if let Some(answer) = said.get_mut("return") {
            return Ok(answer.take());
        }
        if said.get("error").is_some() {
            break;
        }
    }
    Err(io::Error::other(format!("no answer to {command}")))
}

/// What it says in one line, which it has said whole by then.
fn line(connection: &mut BufReader<UnixStream>, until: Instant) -> io::Result<Value> {
    let mut text = Vec::new();
    while text.len() < MOST {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        connection.get_ref().set_read_timeout(Some(left))?;
        let said = connection.fill_buf()?;
        let end = said.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(said.len(), |end| end + 1);
        text.extend_from_slice(&said[..taken]);
        connection.consume(taken);
        if end.is_some() || taken == 0 {
            return serde_json::from_slice(&text).map_err(io::Error::from);
        }
    }
    Err(io::Error::other("a line without an end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread::{spawn, JoinHandle};

    /// Serves the first who comes to a monitor.
    fn monitor<T: Send + 'static>(
        serve: impl FnOnce(UnixStream) -> T + Send + 'static,
    ) -> (tempfile::TempDir, PathBuf, JoinHandle<T>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor");
        let listener = UnixListener::bind(&path).unwrap();
        #[allow(clippy::disallowed_methods)] // not the library's
        let serving = spawn(move || serve(listener.accept().unwrap().0));
        (directory, path, serving)
    }

    /// A QEMU that says these lines, each but the first after it was told something; what it
    /// was told.
    fn qemu(lines: Vec<String>) -> (tempfile::TempDir, PathBuf, JoinHandle<Vec<String>>) {
        monitor(move |mut stream| {
            let mut told = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut heard = Vec::new();
            for (number, said) in lines.iter().enumerate() {
                if number > 0 {
                    let Some(Ok(command)) = told.next() else {
                        break;
                    };
                    heard.push(command);
                }
                if stream.write_all(said.as_bytes()).is_err() {
                    break;
                }
            }
            heard
        })
    }

    fn conversation(answer: &str) -> Vec<String> {
        let greeting = "{\"QMP\": {\"version\": {}}}\n";
        [greeting, "{\"return\": {}}\n", answer]
            .map(String::from)
            .into()
    }

    #[test]
    fn the_requests_of_all_disks_are_added_up_and_events_passed_over() {
        let answer = "{\"event\": \"RTC_CHANGE\"}\n{\"return\": [\
            {\"stats\": {\"rd_operations\": 3, \"wr_operations\": 4, \"flush_operations\": 1,\
             \"rd_total_time_ns\": 5000, \"wr_total_time_ns\": 6000}},\
            {\"stats\": {\"unmap_operations\": 2, \"unmap_total_time_ns\": 7000}}, {}]}\n";
        let (_directory, path, serving) = qemu(conversation(answer));
        let mut disks = QemuStatistics::new(path);
        let expected = DiskTotals {
            sent: 10,
            requests: 10,
            wait: Duration::from_nanos(18_000),
            busy: Duration::from_nanos(18_000),
            in_flight: 0,
        };
        assert_eq!(disks.totals(), Some(expected));
        let heard = serving.join().unwrap();
        assert_eq!(
            heard,
            [
                "{\"execute\":\"qmp_capabilities\"}",
                "{\"execute\":\"query-blockstats\"}"
            ]
        );
        // It has gone, and is not asked again at once.
        assert_eq!(disks.totals(), None);
        assert!(disks.failed.is_some() && disks.connection.is_none());
    }

    /// A QEMU that a guest has taken over need never come to an end.
    #[test]
    fn an_answer_that_comes_byte_by_byte_is_given_up_in_time() {
        const MANY: u32 = 100;
        let (_directory, path, serving) = monitor(|mut stream| {
            let mut said = 0;
            while said < MANY && stream.write_all(b" ").is_ok() {
                said += 1;
                std::thread::sleep(PATIENCE / 10);
            }
            said
        });
        assert_eq!(QemuStatistics::new(path).totals(), None);
        let said: u32 = serving.join().unwrap();
        assert!(said > 1 && said < MANY, "{said} bytes");
    }

    #[test]
    fn a_monitor_that_does_not_answer_or_says_too_much_is_no_statistics() {
        for last in ["", "{\"error\": {}}\n", &"x".repeat(1 << 20), "[]\n[]\n"] {
            let (_directory, path, serving) = qemu(conversation(last));
            assert_eq!(QemuStatistics::new(path).totals(), None, "{:.20}", last);
            serving.join().unwrap();
        }
        assert_eq!(QemuStatistics::new("/nowhere").totals(), None);
    }
}
