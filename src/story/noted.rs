// SPDX-License-Identifier: LGPL-2.1-or-later
//! A recovery domain whose stops are written down: one that is stopped when the process
//! is killed must be let run by whoever goes on.

use std::sync::Arc;
use std::time::Duration;

use crate::host::{Backing, HostError, RecoveryDomain};
use crate::job::JobState;
use crate::journal::{Entry, Journal};
use crate::pacing::sample::DiskTotals;

/// A recovery domain whose stops are written down.
pub(super) struct Noted {
    inner: Arc<dyn RecoveryDomain>,
    journal: Arc<Journal>,
}

impl Noted {
    /// The domain, with its stops in the job's journal.
    pub(super) fn of(inner: Arc<dyn RecoveryDomain>, job: &JobState) -> Arc<dyn RecoveryDomain> {
        let journal = job.journal.clone();
        Arc::new(Self { inner, journal })
    }

    fn note(&self, is_stopped: bool) {
        // Whoever goes on without it finds a domain that does not run, and says so.
        let _ = self.journal.note(&Entry::Stopped { is_stopped });
    }
}

impl RecoveryDomain for Noted {
    fn domid(&self) -> u32 {
        self.inner.domid()
    }

    fn exists(&self) -> bool {
        self.inner.exists()
    }

    fn processor_time(&self) -> Result<Duration, HostError> {
        self.inner.processor_time()
    }

    fn backing(&self) -> Result<Backing, HostError> {
        self.inner.backing()
    }

    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        self.inner.grow(pages)
    }

    fn pause(&self) -> Result<(), HostError> {
        self.note(true);
        self.inner.pause()
    }

    fn unpause(&self) -> Result<(), HostError> {
        let unpaused = self.inner.unpause();
        if unpaused.is_ok() {
            self.note(false);
        }
        unpaused
    }

    fn disk_totals(&self) -> Option<DiskTotals> {
        self.inner.disk_totals()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::journal::Book;
    use crate::told::kept::Kept;
    use std::io;
    use std::sync::Mutex;

    /// Calls and entries, in their order.
    pub(in crate::story) type Done = Arc<Mutex<Vec<String>>>;

    /// A journal whose lines are kept.
    pub(in crate::story) struct Lines(pub(in crate::story) Done);

    impl Book for Lines {
        fn append(&mut self, line: &str) -> io::Result<()> {
            self.0.lock().unwrap().push(line.trim_end().into());
            Ok(())
        }
        fn remove(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A domain each of whose answers is one of its own.
    struct Answering(Done);

    const BACKING: Backing = Backing {
        total: 3,
        spare: 2,
        unbacked: 5,
        untold: 0,
    };

    impl Answering {
        fn call(&self, name: &str) {
            self.0.lock().unwrap().push(name.into());
        }
    }

    impl RecoveryDomain for Answering {
        fn domid(&self) -> u32 {
            7
        }
        fn exists(&self) -> bool {
            self.0.lock().unwrap().is_empty()
        }
        fn processor_time(&self) -> Result<Duration, HostError> {
            Ok(Duration::from_secs(9))
        }
        fn backing(&self) -> Result<Backing, HostError> {
            Ok(BACKING)
        }
        fn grow(&self, pages: u64) -> Result<Backing, HostError> {
            self.call(&format!("grow {pages}"));
            self.backing()
        }
        fn pause(&self) -> Result<(), HostError> {
            self.call("pause");
            Ok(())
        }
        fn unpause(&self) -> Result<(), HostError> {
            self.call("unpause");
            let calls = self.0.lock().unwrap();
            let asked = |call: &&String| call.as_str() == "unpause";
            match calls.iter().filter(asked).count() {
                1 => Err(HostError::new("unpause", "refused as asked for")),
                _ => Ok(()),
            }
        }
        fn disk_totals(&self) -> Option<DiskTotals> {
            Some(DiskTotals {
                sent: 4,
                ..DiskTotals::default()
            })
        }
    }

    #[test]
    fn a_stop_is_written_down_before_it_and_its_end_once_it_has_come() {
        let done = Done::default();
        let job = JobState::new(Kept::default().log("test"));
        job.journal.open(Box::new(Lines(done.clone())));
        let noted = Noted::of(Arc::new(Answering(done.clone())), &job);
        noted.pause().unwrap();
        noted.unpause().unwrap_err();
        noted.unpause().unwrap();
        let stopped = |is_stopped| format!(r#"{{"entry":"stopped","is_stopped":{is_stopped}}}"#);
        let expected = [
            &stopped(true),
            "pause",
            "unpause",
            "unpause",
            &stopped(false),
        ];
        assert_eq!(*done.lock().unwrap(), expected);
    }

    #[test]
    fn all_else_is_what_the_domain_says() {
        let done = Done::default();
        let job = JobState::new(Kept::default().log("test"));
        let noted = Noted::of(Arc::new(Answering(done.clone())), &job);
        assert_eq!((noted.domid(), noted.exists()), (7, true));
        assert_eq!(noted.processor_time(), Ok(Duration::from_secs(9)));
        assert_eq!(noted.backing(), Ok(BACKING));
        assert_eq!(noted.disk_totals().map(|totals| totals.sent), Some(4));
        assert_eq!(noted.grow(11), Ok(BACKING));
        assert_eq!(*done.lock().unwrap(), ["grow 11"]);
        assert!(!noted.exists());
    }
}
