// SPDX-License-Identifier: LGPL-2.1-or-later
//! The crashes of a guest since the machine was started, and the dumps made of them:
//! what tells a guest that keeps crashing from one that has crashed.
//!
//! A small file beside the journals, for each guest that has crashed. Every crash of a
//! guest may be handled by another process, so none of them can keep it in memory.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::book::{anew, make};
use crate::os::fd::{open_to_read, read_text};
use crate::os::file::lock;
use crate::os::process::boot_id;

/// More than any history has: two lists of times, and a path.
const MOST_BYTES: u64 = 64 << 10;

/// The crashes of a guest since the machine was started, and the dumps made of them.
/// Times are milliseconds since then, ascending; of each kind the last ones are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Layout of the file; others are refused.
    version: u32,
    /// The run of this machine's kernel.
    boot_id: String,
    /// When the guest crashed.
    pub crashes_ms: Vec<u64>,
    /// When a dump of it was complete.
    pub dumps_ms: Vec<u64>,
    /// Where the last of these dumps is, if it has a path.
    pub last_dump: Option<PathBuf>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl History {
    /// So many times of each kind are kept.
    pub const MOST: usize = 100;

    const VERSION: u32 = 1;

    /// The history of a guest that has not crashed in this run of the machine.
    fn none(boot_id: &str) -> Self {
        Self {
            version: Self::VERSION,
            boot_id: boot_id.into(),
            ..Self::default()
        }
    }

    /// Reads what a history's file says.
    ///
    /// # Errors
    /// When it is not what one says.
    pub fn read(text: &str) -> io::Result<Self> {
        let history: Self = serde_json::from_str(text)?;
        if history.version != Self::VERSION {
            return Err(invalid("it is of another version"));
        }
        for times in [&history.crashes_ms, &history.dumps_ms] {
            if times.len() > Self::MOST || !times.is_sorted() {
                return Err(invalid("its times are too many, or in disorder"));
            }
        }
        Ok(history)
    }

    /// Adds a crash.
    pub fn add_crash(&mut self, now: Duration) {
        add(&mut self.crashes_ms, now);
    }

    /// Adds a dump that is complete.
    pub fn add_dump(&mut self, now: Duration, path: Option<PathBuf>) {
        add(&mut self.dumps_ms, now);
        self.last_dump = path;
    }
}

fn add(times: &mut Vec<u64>, now: Duration) {
    times.push(ms(now));
    let surplus = times.len().saturating_sub(History::MOST);
    times.drain(..surplus);
}

/// A history's file.
#[derive(Clone, Debug)]
pub struct HistoryFile {
    directory: PathBuf,
    path: PathBuf,
}

/// A history as it is from now on.
pub struct Changed {
    /// The history.
    pub history: History,
    /// Why what the file said before is not in it.
    pub forgotten: Option<io::Error>,
}

impl HistoryFile {
    /// That of the guest with this uuid, in a directory of journals.
    pub fn of(directory: &Path, uuid: &str) -> Self {
        Self {
            directory: directory.into(),
            path: directory.join(format!("{uuid}.crashes")),
        }
    }

    /// Changes the history; `now` is the time since the machine was started. The file says
    /// what it said before, or all of what it says now. One that says what it cannot is
    /// as good as none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn change(&self, now: Duration, change: impl FnOnce(&mut History)) -> io::Result<Changed> {
        let changed = self.change_alone(now, change);
        changed.map_err(|error| self.of_this(error))
    }

    /// An error with the file's path.
    fn of_this(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }

    fn change_alone(
        &self,
        now: Duration,
        change: impl FnOnce(&mut History),
    ) -> io::Result<Changed> {
        make(&self.directory)?;
        // Two processes may each have a crash of the guest: the lock is there until this
        // is closed.
        let directory = open_to_read(&self.directory)?;
        lock(&directory)?;
        let boot_id = boot_id()?;
        let (mut history, forgotten) = match self.read(&boot_id, now) {
            Ok(history) => (history, None),
            Err(error) => (History::none(&boot_id), Some(self.of_this(error))),
        };
        change(&mut history);
        self.write(&history)?;
        Ok(Changed { history, forgotten })
    }

    fn read(&self, boot_id: &str, now: Duration) -> io::Result<History> {
        let history = match read_text(&self.path, MOST_BYTES) {
            Ok(text) => History::read(&text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => History::none(boot_id),
            Err(error) => return Err(error),
        };
        if history.boot_id != boot_id {
            return Ok(History::none(boot_id));
        }
        let last = [&history.crashes_ms, &history.dumps_ms].map(|times| times.last().copied());
        match last.into_iter().flatten().any(|at| at > ms(now)) {
            true => Err(invalid("it tells of times to come")),
            false => Ok(history),
        }
    }

    fn write(&self, history: &History) -> io::Result<()> {
        let unfinished = self.path.with_extension("crashes.new");
        let mut file = anew(&unfinished)?;
        file.write_all(serde_json::to_string(history)?.as_bytes())?;
        fs::rename(&unfinished, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn crash(file: &HistoryFile, now: Duration) -> Changed {
        file.change(now, |history| history.add_crash(now)).unwrap()
    }

    #[test]
    fn crashes_and_dumps_are_remembered_and_only_root_reads_them() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("vicover");
        let file = HistoryFile::of(&directory, "a");
        crash(&file, at(10));
        let path = Some(PathBuf::from("/d/web1.kdump"));
        let dumped = |history: &mut History| history.add_dump(at(12), path.clone());
        file.change(at(12), dumped).unwrap();
        let Changed { history, forgotten } = crash(&file, at(20));
        assert!(forgotten.is_none(), "{forgotten:?}");
        assert_eq!(history.crashes_ms, [10_000, 20_000]);
        assert_eq!(history.dumps_ms, [12_000]);
        assert_eq!(history.last_dump, path);
        let other = crash(&HistoryFile::of(&directory, "b"), at(21));
        assert_eq!(other.history.crashes_ms, [21_000]);
        let names = fs::read_dir(&directory).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.crashes", "b.crashes"]);
        let mode = fs::metadata(directory.join("a.crashes")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_more_is_kept_than_can_be_asked_for() {
        let mut history = History::none("b");
        (0..500).for_each(|second| history.add_crash(at(second)));
        assert_eq!(history.crashes_ms.len(), History::MOST);
        assert_eq!(history.crashes_ms.last(), Some(&499_000));
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(History::read(&text).unwrap(), history);
    }

    #[test]
    fn a_history_that_cannot_be_is_none_and_that_is_said() {
        let place = tempfile::tempdir().unwrap();
        let file = HistoryFile::of(place.path(), "a");
        let known = crash(&file, at(10)).history;
        let text = |history: &History| serde_json::to_string(history).unwrap();
        let many = vec![1; History::MOST + 1];
        let with = |crashes_ms: Vec<u64>| History {
            crashes_ms,
            ..known.clone()
        };
        let cases = [
            String::new(),
            "{}".into(),
            text(&known)[1..].into(),
            text(&with(vec![2, 1])),
            text(&with(many)),
            text(&with(vec![20_001])),
            text(&History {
                version: 2,
                ..known.clone()
            }),
            format!("{}{}", text(&known), " ".repeat(MOST_BYTES as usize)),
        ];
        for case in cases {
            fs::write(&file.path, &case).unwrap();
            let Changed { history, forgotten } = crash(&file, at(20));
            let start: String = case.chars().take(80).collect();
            assert!(forgotten.is_some(), "{start}");
            assert_eq!(history.crashes_ms, [20_000], "{start}");
        }
    }

    #[test]
    fn another_run_of_the_machine_begins_anew_without_a_word() {
        let place = tempfile::tempdir().unwrap();
        let file = HistoryFile::of(place.path(), "a");
        let mut before = History::none("another");
        before.add_crash(at(9999));
        file.write(&before).unwrap();
        let Changed { history, forgotten } = crash(&file, at(20));
        assert!(forgotten.is_none(), "{forgotten:?}");
        assert_eq!(history.crashes_ms, [20_000]);
    }
}
