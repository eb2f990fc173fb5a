// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a domain's pages are named to Xen, and how what is in them is read.

use super::control::Control;
use super::foreign::{ForeignMemory, FrameName};
use super::kind::Kind;
use super::pv::PvMemory;
use crate::addr::{Gfn, GfnRange};
use crate::host::{Access, HostError, Mapping, VcpuState};

/// How a domain's memory is seen.
pub(super) enum View {
    /// Xen translates it.
    Translated,
    /// It does not.
    Paravirtual(PvMemory),
}

impl View {
    /// How the memory of a domain with so many pages at most is seen.
    pub(super) fn of(
        kind: Kind,
        control: &Control,
        foreign: &ForeignMemory,
        domid: u32,
        pages: u64,
    ) -> Result<Self, HostError> {
        match kind.is_translated() {
            true => Ok(Self::Translated),
            false => PvMemory::read(control, foreign, domid, pages).map(Self::Paravirtual),
        }
    }

    /// What Xen calls a page; none when the guest does not have it.
    pub(super) fn name(&self, gfn: Gfn) -> Option<FrameName> {
        match self {
            Self::Translated => Some(FrameName(gfn.0)),
            Self::Paravirtual(memory) => memory.name(gfn),
        }
    }

    /// What Xen calls a page that is to be given back; none when it stays.
    pub(super) fn name_to_release(&self, gfn: Gfn) -> Option<FrameName> {
        match self {
            Self::Translated => self.name(gfn),
            Self::Paravirtual(memory) => memory.name_to_release(gfn),
        }
    }

    /// Sees to it that a domain that will never run again can be mapped so.
    pub(super) fn prepare(&self, control: &Control, access: Access) -> Result<(), HostError> {
        match (self, access) {
            (Self::Paravirtual(memory), Access::Scrub) => memory.let_go(control),
            _ => Ok(()),
        }
    }

    /// What is read of `frames`, from a mapping of what they are for Xen.
    pub(super) fn shown(&self, frames: GfnRange, mapping: Box<dyn Mapping>) -> Box<dyn Mapping> {
        match self {
            Self::Translated => mapping,
            Self::Paravirtual(memory) => memory.shown(frames, mapping),
        }
    }

    /// Registers that fit to what is read.
    pub(super) fn shown_vcpu(&self, vcpu: VcpuState) -> VcpuState {
        match self {
            Self::Translated => vcpu,
            Self::Paravirtual(memory) => VcpuState {
                cr3: memory.root(vcpu.cr3),
                ..vcpu
            },
        }
    }
}
