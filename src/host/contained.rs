// SPDX-License-Identifier: LGPL-2.1-or-later
//! A panic in a host is its refusal of what it was asked for: whoever asked goes on
//! as after any other, and nobody waits for an answer that does not come.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Access, Backing, BuiltStandby, CrashedDomain, Description, FoundRecovery, HostError, Mapping,
    RecoveryDomain, Requirement, StandbyHost, Toolstack, VcpuState,
};
use crate::addr::{Gfn, GfnRange};
use crate::error::panic_text;
use crate::pacing::sample::DiskTotals;

/// Does something with a host that may refuse.
///
/// What the host was changing when it panicked is the host's to make good: it is asked
/// again for other things.
pub(crate) fn contained<T>(
    call: &'static str,
    work: impl FnOnce() -> Result<T, HostError>,
) -> Result<T, HostError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = format!("internal error: {}", panic_text(&*panic));
        Err(HostError::new(call, what))
    })
}

/// A crashed domain whose panics are refusals.
pub(crate) struct ContainedDomain<'a> {
    inner: &'a dyn CrashedDomain,
    ram: &'a [GfnRange],
}

impl<'a> ContainedDomain<'a> {
    /// Asks for the domain's RAM, which is outside of any containment: nothing has
    /// been done yet.
    pub(crate) fn new(inner: &'a dyn CrashedDomain) -> Self {
        let ram = inner.ram();
        Self { inner, ram }
    }
}

impl CrashedDomain for ContainedDomain<'_> {
    fn ram(&self) -> &[GfnRange] {
        self.ram
    }

    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        contained("vcpus", || self.inner.vcpus())
    }

    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        contained("map", || self.inner.map(frames, access))
    }

    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        contained("release", || self.inner.release(frames))
    }

    fn claim(&self, pages: u64) -> Result<(), HostError> {
        contained("claim", || self.inner.claim(pages))
    }

    fn is_paravirtual(&self) -> bool {
        self.inner.is_paravirtual()
    }

    fn pages(&self) -> Result<u64, HostError> {
        contained("pages", || self.inner.pages())
    }

    fn check(&self) -> Result<(), HostError> {
        contained("check", || self.inner.check())
    }
}

/// A toolstack whose panics, and those of the domains that it makes, are refusals.
pub(crate) struct ContainedToolstack(pub(crate) Box<dyn Toolstack>);

impl Toolstack for ContainedToolstack {
    fn describe(&mut self) -> Result<Description, HostError> {
        contained("describe", || self.0.describe())
    }

    fn find_recovery(&mut self) -> Result<Option<FoundRecovery>, HostError> {
        let found = contained("find", || self.0.find_recovery())?;
        Ok(found.map(|found| FoundRecovery {
            domain: ContainedRecovery::of(found.domain),
            ..found
        }))
    }

    fn complete_devices(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        contained("devices", || self.0.complete_devices(recovery))
    }

    fn detach(&mut self, standby: Option<&BuiltStandby>) -> Result<(), HostError> {
        contained("detach", || self.0.detach(standby))
    }

    fn detach_interfaces(&mut self) -> Result<(), HostError> {
        contained("detach", || self.0.detach_interfaces())
    }

    fn requirement(&mut self) -> Result<Requirement, HostError> {
        contained("requirement", || self.0.requirement())
    }

    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        contained("create", || self.0.create()).map(ContainedRecovery::of)
    }

    fn recipe(&mut self) -> Result<String, HostError> {
        contained("recipe", || self.0.recipe())
    }

    fn adopt(&mut self, standby: &BuiltStandby) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        contained("adopt", || self.0.adopt(standby)).map(ContainedRecovery::of)
    }

    fn forgo(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        contained("forgo", || self.0.forgo(standby))
    }

    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        contained("start", || self.0.start(recovery))
    }

    fn discard(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        contained("discard", || self.0.discard(recovery))
    }

    fn crashed_name(&self) -> String {
        let name = contained("name", || Ok(self.0.crashed_name()));
        name.unwrap_or_else(|_| "the crashed domain".into())
    }

    fn destroy_crashed(&mut self) -> Result<(), HostError> {
        contained("destroy", || self.0.destroy_crashed())
    }

    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        contained("settle", || self.0.settle(recovery))
    }

    fn publish(&mut self, key: &str, value: &str) {
        let published = contained("publish", || {
            self.0.publish(key, value);
            Ok(())
        });
        // Only for onlookers.
        let _ = published;
    }
}

/// A recovery domain whose panics are refusals.
struct ContainedRecovery {
    inner: Arc<dyn RecoveryDomain>,
    domid: u32,
}

impl ContainedRecovery {
    fn of(inner: Arc<dyn RecoveryDomain>) -> Arc<dyn RecoveryDomain> {
        let domid = contained("domid", || Ok(inner.domid()));
        Arc::new(Self {
            domid: domid.unwrap_or(0),
            inner,
        })
    }
}

impl RecoveryDomain for ContainedRecovery {
    fn domid(&self) -> u32 {
        self.domid
    }

    fn exists(&self) -> bool {
        // One that cannot be asked is not given up for that.
        contained("exists", || Ok(self.inner.exists())).unwrap_or(true)
    }

    fn processor_time(&self) -> Result<Duration, HostError> {
        contained("processor time", || self.inner.processor_time())
    }

    fn backing(&self) -> Result<Backing, HostError> {
        contained("backing", || self.inner.backing())
    }

    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        contained("grow", || self.inner.grow(pages))
    }

    fn pause(&self) -> Result<(), HostError> {
        contained("pause", || self.inner.pause())
    }

    fn unpause(&self) -> Result<(), HostError> {
        contained("unpause", || self.inner.unpause())
    }

    fn disk_totals(&self) -> Option<DiskTotals> {
        let totals = contained("disk totals", || Ok(self.inner.disk_totals()));
        totals.ok().flatten()
    }
}

/// A builder of standbys whose panics are refusals.
pub(crate) struct ContainedStandbyHost<'a>(pub(crate) &'a mut dyn StandbyHost);

impl StandbyHost for ContainedStandbyHost<'_> {
    fn build(&mut self, boot: bool, stop: &dyn Fn() -> bool) -> Result<BuiltStandby, HostError> {
        contained("build", || self.0.build(boot, stop))
    }

    fn recipe(&mut self) -> Result<String, HostError> {
        contained("recipe", || self.0.recipe())
    }

    fn discard(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        contained("discard", || self.0.discard(standby))
    }
}
