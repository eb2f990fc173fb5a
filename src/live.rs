//! A dump of a domain that goes on running afterwards.

use std::mem::ManuallyDrop;

use crate::error::Error;
use crate::host::{CrashedDomain, Pausable};
use crate::job::{Outcome, Shared};
use crate::joblog::job_log;
use crate::recover::{dump_only, Target};

/// Dumps a domain that is paused meanwhile, and lets it run again whatever
/// became of the dump.
pub fn dump<D: CrashedDomain + Pausable>(
    domain: &D,
    target: &Target,
    shared: &Shared,
) -> Result<(), Error> {
    // Whatever happens, there is no domain to restart.
    shared.decide(Outcome::Untouched, 0);
    let paused = Paused::new(domain, shared)?;
    let dumped = dump_only(domain, target, shared);
    dumped.and(paused.end())
}

/// A domain that runs again when this is dropped, also by a panic.
struct Paused<'a> {
    domain: &'a dyn Pausable,
    shared: &'a Shared,
}

impl<'a> Paused<'a> {
    fn new(domain: &'a dyn Pausable, shared: &'a Shared) -> Result<Self, Error> {
        domain.pause().map_err(Error::host("pausing the domain"))?;
        job_log!(shared.log, Info, "paused");
        Ok(Self { domain, shared })
    }

    fn end(self) -> Result<(), Error> {
        ManuallyDrop::new(self).unpause()
    }

    fn unpause(&self) -> Result<(), Error> {
        let unpaused = self.domain.unpause();
        let unpaused = unpaused.map_err(Error::host("unpausing the domain"));
        match &unpaused {
            Ok(()) => job_log!(self.shared.log, Info, "runs again"),
            Err(error) => job_log!(self.shared.log, Error, "{}", error.chain()),
        }
        unpaused
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // The log has it when this fails; there is nobody else to tell.
        let _ = self.unpause();
    }
}
