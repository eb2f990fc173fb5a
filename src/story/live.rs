// SPDX-License-Identifier: LGPL-2.1-or-later
//! A dump of a domain that goes on running afterwards.

use std::sync::OnceLock;
use std::time::Duration;

use crate::drain::Target;
use crate::error::Error;
use crate::host::contained::contained;
use crate::host::{CrashedDomain, HostError, Pausable};
use crate::job::JobState;
use crate::story::recover::dump_only;
use crate::told::event::JobEvent;
use crate::units::Span;

/// Dumps a domain that is paused until all of it has been read, and lets it run
/// again whatever became of the dump.
pub fn dump<D: CrashedDomain + Pausable>(
    domain: &D,
    target: &Target,
    job: &JobState,
) -> Result<(), Error> {
    let paused = Paused::new(domain, job)?;
    // Writing the rest and waiting for the disk needs no domain that waits, too.
    let dumped = dump_only(domain, target, &|| paused.end(), job);
    dumped.and(paused.ended())
}

/// A domain that runs again when this is dropped, also by a panic.
struct Paused<'a> {
    domain: &'a dyn Pausable,
    since: Duration,
    ended: OnceLock<Result<(), HostError>>,
    job: &'a JobState,
}

impl<'a> Paused<'a> {
    fn new(domain: &'a dyn Pausable, job: &'a JobState) -> Result<Self, Error> {
        let paused = contained("pause", || domain.pause());
        paused.map_err(Error::host("pausing the domain"))?;
        job.log.tell(JobEvent::Paused);
        Ok(Self {
            domain,
            since: job.elapsed(),
            ended: OnceLock::new(),
            job,
        })
    }

    /// Lets the domain run, unless that has been done.
    fn end(&self) {
        self.ended.get_or_init(|| self.unpause());
    }

    fn unpause(&self) -> Result<(), HostError> {
        let unpaused = contained("unpause", || self.domain.unpause());
        let log = &self.job.log;
        match &unpaused {
            Ok(()) => log.tell(JobEvent::RunsAgain {
                paused: Span(self.job.elapsed() - self.since),
            }),
            Err(error) => self.job.tell_failure(JobEvent::StaysPaused {
                name: log.name().into(),
                error: error.clone(),
            }),
        }
        unpaused
    }

    /// Whether it runs again; sees to it first.
    fn ended(&self) -> Result<(), Error> {
        let unpaused = self.ended.get_or_init(|| self.unpause()).clone();
        unpaused.map_err(Error::host("unpausing the domain"))
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // The log has it when this fails; there is nobody else to tell.
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::event::Event;
    use crate::told::kept::Kept;
    use std::sync::Mutex;

    /// What was done to a domain.
    #[derive(Default)]
    struct Processors(Mutex<Vec<&'static str>>);

    impl Pausable for Processors {
        fn pause(&self) -> Result<(), HostError> {
            self.0.lock().unwrap().push("pause");
            Ok(())
        }
        fn unpause(&self) -> Result<(), HostError> {
            self.0.lock().unwrap().push("unpause");
            Ok(())
        }
    }

    #[test]
    fn whatever_ends_a_dump_the_domain_runs_again_and_once() {
        for is_ended in [false, true] {
            let (domain, kept) = (Processors::default(), Kept::default());
            let job = JobState::new(kept.log("guest"));
            let paused = Paused::new(&domain, &job).unwrap();
            if is_ended {
                paused.end();
            }
            drop(paused);
            assert_eq!(*domain.0.lock().unwrap(), ["pause", "unpause"]);
            let events = kept.events();
            let [Event::Job(JobEvent::Paused), Event::Job(JobEvent::RunsAgain { .. })] = events[..]
            else {
                panic!("{kept}");
            };
        }
    }
}
