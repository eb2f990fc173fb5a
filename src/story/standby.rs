// SPDX-License-Identifier: LGPL-2.1-or-later
//! A standby: a recovery domain that is built before it is needed, and kept,
//! stopped and thinly backed, beside the running guest. At the crash nobody has to
//! wait for memory, nor for a domain to be built: disks and interfaces move over,
//! and it runs.

use std::time::Duration;

use crate::error::Error;
use crate::host::contained::ContainedStandbyHost;
use crate::host::{BuiltStandby, HostError, StandbyHost};
use crate::job::JobState;
use crate::told::event::StandbyEvent;
use crate::units::Size;

/// How often the guest's configuration and boot files are compared with what the
/// standby was built from. A crash in between is not at their mercy: what is out
/// of date is found then, too, and not used.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Keeps a standby until a recovery takes it or the caller cancels. It is built
/// anew when what it was built from changes, which is looked at so `often`.
pub fn keep(
    host: &mut dyn StandbyHost,
    boot: bool,
    often: Duration,
    job: &JobState,
) -> Result<(), Error> {
    let host = &mut ContainedStandbyHost(host);
    let slot = &job.standby;
    while !job.is_cancelled() {
        let standby = match host.build(boot, &|| job.is_cancelled()) {
            Ok(standby) => standby,
            Err(_) if job.is_cancelled() => return Ok(()),
            Err(error) => {
                let told = error.clone();
                job.tell_failure(StandbyEvent::NotBuilt { error: told });
                return Err(Error::host("building a standby")(error));
            }
        };
        let (domid, held) = (standby.domid, Size::of_pages(standby.pages));
        let recipe = standby.recipe.clone();
        slot.offer(standby);
        // Not before: whoever hears it may crash the guest.
        job.log.tell(StandbyEvent::Ready { domid, held });
        if watch(host, &recipe, often, job) {
            return Ok(());
        }
        // Between the last look and now, a recovery may have come.
        let Some(standby) = slot.withdraw() else {
            return Ok(());
        };
        say_if_kept(host.discard(&standby), &standby, job);
    }
    Ok(())
}

/// Waits for the standby to be taken: true. False when it is not wanted any more,
/// or when the guest is not what it was built from.
fn watch(host: &mut dyn StandbyHost, recipe: &str, often: Duration, job: &JobState) -> bool {
    loop {
        if job.standby.wait_taken(often, || job.is_cancelled()) {
            return true;
        }
        if job.is_cancelled() {
            return false;
        }
        match host.recipe() {
            Ok(now) if now == recipe => {}
            Ok(_) => {
                job.log.tell(StandbyEvent::Outdated);
                return false;
            }
            // The guest is ending; whoever looks after it will say so.
            Err(error) => job.log.tell(StandbyEvent::GuestNotSeen { error }),
        }
    }
}

/// Says so in the log when discarding a standby has failed.
pub(crate) fn say_if_kept(
    discarded: Result<(), HostError>,
    standby: &BuiltStandby,
    job: &JobState,
) {
    if let Err(error) = discarded {
        let domid = standby.domid;
        let held = Size::of_pages(standby.pages);
        let told = StandbyEvent::NotDestroyed { domid, held, error };
        job.log.tell(told);
    }
}
