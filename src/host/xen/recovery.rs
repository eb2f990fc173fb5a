// SPDX-License-Identifier: LGPL-2.1-or-later
//! The recovery domain's memory while it is thinly backed.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xenctrl_sys as xc;

use super::claim::claim_above_total;
use super::claimant::Claimant;
use super::config::CrashConfig;
use super::control::Control;
use super::foreign::ForeignMemory;
use super::kind::Kind;
use super::libxl::KIB_PER_PAGE;
use super::store::Store;
use crate::host::disk_statistics::DiskStatistics;
use crate::host::qemu_statistics::QemuStatistics;
use crate::host::{Backing, HostError, RecoveryDomain};
use crate::pacing::sample::DiskTotals;

/// What libxl adds to a domain's limit (`relied_on::limit_slack`), in KiB.
const LIMIT_SLACK_KIB: u64 = 1024;
/// [`LIMIT_SLACK_KIB`] in pages: special pages count as the domain's, and Xen never
/// backs more than the guest has addresses for.
const LIMIT_SLACK_PAGES: u64 = LIMIT_SLACK_KIB / KIB_PER_PAGE;

/// Handles to act on a domain.
struct Hands {
    control: Control,
    store: Mutex<Store>,
}

impl Hands {
    fn open() -> Result<Self, HostError> {
        Ok(Self {
            control: Control::open()?,
            store: Mutex::new(Store::open()?),
        })
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recovery domain, built and thinly backed.
pub(super) struct XenRecovery {
    domid: u32,
    kind: Kind,
    most_pages: u64,
    watching: Hands,
    disks: Mutex<DiskStatistics>,
    /// Those that QEMU serves, if any.
    qemus_disks: Option<Mutex<QemuStatistics>>,
    /// Backing many pages takes the hypervisor long, and whoever watches the
    /// domain must not wait for it.
    growing: Hands,
    /// Of a domain whose guest takes its memory itself, to keep that for it.
    foreign: Option<ForeignMemory>,
}

impl XenRecovery {
    /// Takes charge of a domain that was just created. The domain's limit is raised to
    /// the full memory at once; what backs it follows page by page.
    pub(super) fn new(domid: u32, config: &CrashConfig) -> Result<Self, HostError> {
        let (watching, full_pages) = (Hands::open()?, config.full_pages());
        let control = &watching.control;
        control.set_max_memory(domid, full_pages * KIB_PER_PAGE + LIMIT_SLACK_KIB)?;
        let kind = config.kind()?;
        let foreign = kind.takes_memory().then(ForeignMemory::open);
        Ok(Self {
            domid,
            kind,
            most_pages: match kind.takes_memory() {
                true => full_pages,
                false => full_pages + LIMIT_SLACK_PAGES,
            },
            watching,
            disks: Mutex::new(DiskStatistics::new(Path::new("/sys"), domid)),
            // (`relied_on::qemu_has_a_second_monitor`)
            qemus_disks: config.has_qemus_disks().then(|| {
                let monitor = format!("/run/xen/qmp-libxenstat-{domid}");
                Mutex::new(QemuStatistics::new(monitor))
            }),
            growing: Hands::open()?,
            foreign: foreign.transpose()?,
        })
    }

    /// Sees to it that nobody else takes what the guest may take until it has `pages`.
    fn keep(&self, foreign: &ForeignMemory, pages: u64) -> Result<(), HostError> {
        let claimant = Claimant {
            domid: self.domid,
            kind: self.kind,
            control: &self.growing.control,
            foreign,
        };
        let has = self.watching.control.domain_info(self.domid)?.tot_pages;
        claim_above_total(&claimant, pages.saturating_sub(has))
    }
}

impl RecoveryDomain for XenRecovery {
    fn domid(&self) -> u32 {
        self.domid
    }

    fn exists(&self) -> bool {
        self.watching
            .control
            .domain_info(self.domid)
            .is_ok_and(|info| !has_ended(info.flags))
    }

    fn processor_time(&self) -> Result<Duration, HostError> {
        let info = self.watching.control.domain_info(self.domid)?;
        Ok(Duration::from_nanos(info.cpu_time))
    }

    fn backing(&self) -> Result<Backing, HostError> {
        let backing =
            self.kind
                .backing(&self.watching.control, &self.watching.store(), self.domid)?;
        Ok(match self.kind.takes_memory() {
            true => Backing {
                untold: self.most_pages.saturating_sub(backing.total),
                ..backing
            },
            false => backing,
        })
    }

    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        let now = self.backing()?;
        let target = now.total.saturating_add(pages).min(self.most_pages);
        if target <= now.total {
            return Ok(now);
        }
        if let Some(foreign) = &self.foreign {
            // What is not kept for it may be there all the same.
            let _ = self.keep(foreign, target);
        }
        let Hands { control, .. } = &self.growing;
        let store = self.growing.store();
        self.kind.set_backing(control, &store, self.domid, target)
    }

    fn pause(&self) -> Result<(), HostError> {
        self.watching.control.pause(self.domid)
    }

    fn unpause(&self) -> Result<(), HostError> {
        self.watching.control.unpause(self.domid)
    }

    fn disk_totals(&self) -> Option<DiskTotals> {
        let disks = self.disks.lock();
        let own = disks.unwrap_or_else(PoisonError::into_inner).totals();
        let Some(qemus) = &self.qemus_disks else {
            return own;
        };
        let qemus = qemus.lock();
        let qemus = qemus.unwrap_or_else(PoisonError::into_inner).totals()?;
        Some(match own {
            Some(own) => own.plus(qemus),
            None => qemus,
        })
    }
}

/// Whether a domain has ended, from its `XEN_DOMINF_*` flags. Xen reports "dying" only
/// at the very end (`relied_on::dying_shows_late`), "shut down" from the start. A
/// suspended domain comes back, or leaves for a save file.
fn has_ended(flags: u32) -> bool {
    let reason = flags >> xc::XEN_DOMINF_shutdownshift & xc::XEN_DOMINF_shutdownmask;
    let shut_down = flags & xc::XEN_DOMINF_shutdown != 0;
    flags & xc::XEN_DOMINF_dying != 0 || shut_down && reason != xc::SHUTDOWN_suspend
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shut_down(reason: u32) -> u32 {
        xc::XEN_DOMINF_shutdown | reason << xc::XEN_DOMINF_shutdownshift
    }

    #[test]
    fn crashed_and_dying_domains_have_ended_suspended_ones_have_not() {
        assert!(!has_ended(xc::XEN_DOMINF_running));
        assert!(!has_ended(xc::XEN_DOMINF_paused));
        assert!(has_ended(xc::XEN_DOMINF_dying));
        assert!(has_ended(shut_down(xc::SHUTDOWN_crash)));
        assert!(!has_ended(shut_down(xc::SHUTDOWN_suspend)));
    }
}
