// SPDX-License-Identifier: LGPL-2.1-or-later
//! The crashes of a guest, counted by whoever handles one of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::back_off::{of_late, treat, Treatment};
use crate::journal::{Changed, History, HistoryFile};
use crate::options::{OnCrashLoop, Options};

/// The time since the machine was started.
pub type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// Where the crashes of a guest are counted, and by which clock.
pub struct Count {
    file: HistoryFile,
    clock: Clock,
}

/// A crash that has been counted.
pub struct Counted {
    /// What is done about it.
    pub treatment: Treatment,
    /// Crashes of late, this one among them.
    pub crashes: usize,
    /// Why earlier crashes are not known.
    pub forgotten: Option<String>,
    /// Why nobody will know of this one.
    pub failed: Option<String>,
}

impl Count {
    /// Of the guest with this uuid, in a directory of journals.
    pub fn of(directory: &Path, uuid: &str, clock: Clock) -> Self {
        let file = HistoryFile::of(directory, uuid);
        Self { file, clock }
    }

    /// Counts a crash, and says what is done about it. One that cannot be counted is
    /// handled as if it were the first.
    pub fn crash(&self, options: &Options) -> Counted {
        let now = (self.clock)();
        let mut treatment = Treatment::Dump;
        let changed = self.file.change(now, |history| {
            history.add_crash(now);
            treatment = treat(history, now, options);
            if let Treatment::GiveUp { action, .. } = treatment {
                // Should somebody start the guest once more, they have done something
                // about it.
                if action != OnCrashLoop::Restart {
                    history.crashes_ms.clear();
                }
            }
        });
        let (mut crashes, mut forgotten, mut failed) = (1, None, None);
        match changed {
            Ok(changed) => {
                let limit = options.max_crashes;
                let late = |limit| of_late(&changed.history.crashes_ms, limit, now);
                crashes = limit.map_or(1, late);
                forgotten = changed.forgotten.map(|error| error.to_string());
            }
            Err(error) => {
                treatment = Treatment::Dump;
                failed = Some(error.to_string());
            }
        }
        Counted {
            treatment,
            crashes,
            forgotten,
            failed,
        }
    }

    /// What is done about a crash that was counted and has waited since.
    pub fn look_again(&self, options: &Options) -> io::Result<Treatment> {
        let now = (self.clock)();
        let Changed { history, .. } = self.file.change(now, |_| ())?;
        Ok(treat(&history, now, options))
    }

    /// Counts a dump that is complete.
    pub(crate) fn dump(&self, path: Option<PathBuf>) -> io::Result<()> {
        self.change(|history, now| history.add_dump(now, path))
    }

    /// Counts a dump that was complete when its process was killed, unless that has
    /// counted it.
    pub(crate) fn dump_of_earlier_process(&self, path: PathBuf) -> io::Result<()> {
        self.change(|history, now| {
            if history.last_dump.as_ref() != Some(&path) {
                history.add_dump(now, Some(path));
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut History, Duration)) -> io::Result<()> {
        let now = (self.clock)();
        self.file.change(now, |history| change(history, now))?;
        Ok(())
    }
}
