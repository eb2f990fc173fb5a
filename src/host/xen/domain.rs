// SPDX-License-Identifier: LGPL-2.1-or-later
//! A domain's memory: mapping, scrubbing and releasing its frames.

use std::sync::OnceLock;

use xenctrl_sys as xc;

use super::claim::{claim_above_total, Claimed};
use super::claimant::Claimant;
use super::config::CrashConfig;
use super::control::Control;
use super::foreign::ForeignMemory;
use super::kind::Kind;
use super::view::View;
use crate::addr::{Gfn, GfnRange};
use crate::host::{Access, CrashedDomain, HostError, Mapping, Pausable, VcpuState};

/// Most frames that one hypercall gives back, so that a refused frame costs
/// little to find.
const RELEASE_BATCH: usize = 512;

/// A domain as the hypervisor shows it.
pub struct XenDomain {
    domid: u32,
    kind: Kind,
    ram: Vec<GfnRange>,
    control: Control,
    foreign: ForeignMemory,
    most_pages: u64,
    view: OnceLock<View>,
}

impl XenDomain {
    /// Opens a domain that has crashed. Called after xl has become a daemon.
    ///
    /// A recovery domain that crashed before it had all its memory gets the rest
    /// first, when the host has it.
    pub fn open_crashed(domid: u32, config: &CrashConfig) -> Result<Self, HostError> {
        let control = Control::open()?;
        if control.domain_info(domid)?.flags & xc::XEN_DOMINF_shutdown == 0 {
            return Err(HostError::new(
                "xc_domain_getinfolist",
                format!("domain {domid} has not shut down"),
            ));
        }
        config.kind()?.make_whole(&control, domid)?;
        Self::open(domid, config)
    }

    /// Opens handles of our own on a domain that may be running.
    ///
    /// A domain whose frames cannot be mapped without harm is refused.
    pub fn open(domid: u32, config: &CrashConfig) -> Result<Self, HostError> {
        let control = Control::open()?;
        control.domain_info(domid)?;
        let kind = config.kind()?;
        kind.check_mappable(&control, domid)?;
        let foreign = ForeignMemory::open()?;
        Ok(Self {
            domid,
            kind,
            ram: kind.ram(config.asked()?),
            control,
            foreign,
            most_pages: config.full_pages(),
            view: OnceLock::new(),
        })
    }

    /// How the memory is seen, as it was when somebody first looked: a domain that is
    /// dumped while it runs has been stopped by then.
    fn view(&self) -> Result<&View, HostError> {
        if let Some(view) = self.view.get() {
            return Ok(view);
        }
        let (control, foreign) = (&self.control, &self.foreign);
        let view = View::of(self.kind, control, foreign, self.domid, self.most_pages)?;
        Ok(self.view.get_or_init(|| view))
    }

    fn claimant(&self) -> Claimant<'_> {
        Claimant {
            domid: self.domid,
            kind: self.kind,
            control: &self.control,
            foreign: &self.foreign,
        }
    }
}

impl CrashedDomain for XenDomain {
    fn ram(&self) -> &[GfnRange] {
        &self.ram
    }

    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        let vcpus = self.kind.vcpus(&self.control, self.domid)?;
        let view = self.view()?;
        let shown = vcpus.into_iter().map(|vcpu| view.shown_vcpu(vcpu));
        Ok(shown.collect())
    }

    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        let view = self.view()?;
        view.prepare(&self.control, access)?;
        let names: Vec<_> = frames.iter().map(|gfn| view.name(gfn)).collect();
        let mapping = self.foreign.map(self.domid, &names, access)?;
        Ok(view.shown(frames, Box::new(mapping)))
    }

    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        let (mut accepted, view) = (0, self.view()?);
        let names: Vec<_> = frames
            .iter()
            .filter_map(|gfn| view.name_to_release(*gfn))
            .collect();
        for batch in names.chunks(RELEASE_BATCH) {
            let mut rest = batch;
            while !rest.is_empty() {
                let done = self.control.decrease_reservation(self.domid, rest);
                accepted += done as u64;
                // Xen stops at the first frame it refuses, a hole for example:
                // go on behind it.
                rest = rest.get(done + 1..).unwrap_or(&[]);
            }
        }
        Ok(accepted)
    }

    fn claim(&self, pages: u64) -> Result<(), HostError> {
        claim_above_total(&self.claimant(), pages)
    }

    fn is_paravirtual(&self) -> bool {
        !self.kind.is_translated()
    }

    fn pages(&self) -> Result<u64, HostError> {
        self.claimant().total_pages()
    }

    fn check(&self) -> Result<(), HostError> {
        // The clearer answer when there is no domain.
        self.control.domain_info(self.domid)?;
        let refused = self.kind.check_not_dying(&self.control, self.domid);
        refused.map_err(|error| HostError {
            what: format!("domain {} is being destroyed", self.domid),
            ..error
        })
    }
}

/// An administrator's pause outlasts ours, and ours theirs
/// (`relied_on::pauses_are_counted`).
impl Pausable for XenDomain {
    fn pause(&self) -> Result<(), HostError> {
        self.control.pause(self.domid)
    }

    fn unpause(&self) -> Result<(), HostError> {
        self.control.unpause(self.domid)
    }
}
