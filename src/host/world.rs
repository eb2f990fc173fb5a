// SPDX-License-Identifier: LGPL-2.1-or-later
//! The books of the in-memory host: what it has, and what happened to it.

use std::sync::Weak;

use super::faults::Faults;
use super::{Backing, HostError};
use crate::addr::{Gfn, GfnRange};

/// Whether a recovery domain has been let run.
pub(super) type HasRun = bool;

/// What happened to the host, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostEvent {
    /// Devices are gone; with a standby, all but the interfaces.
    Detached,
    /// The interfaces that a standby let the crashed domain keep are gone.
    InterfacesGone,
    /// The recovery domain was built.
    Created,
    /// A standby was there and will not become the recovery domain.
    Forgone,
    /// A standby became the recovery domain.
    Adopted,
    /// The recovery domain runs.
    Unpaused,
    /// The recovery domain was stopped for lack of memory.
    Paused,
    /// A page went back to the hypervisor.
    Released(Gfn),
    /// The recovery domain is an ordinary domain.
    Settled,
    /// A recovery domain that did not come to life is gone.
    Discarded,
    /// The crashed domain is gone.
    Destroyed,
}

/// The books of a host in memory.
#[derive(Default)]
pub(super) struct World {
    pub(super) mappings: Vec<(GfnRange, Weak<()>)>,
    pub(super) violations: Vec<String>,
    pub(super) events: Vec<HostEvent>,
    pub(super) free_pages: u64,
    pub(super) claimed_pages: u64,
    pub(super) backing: Backing,
    /// There is a recovery domain, and whether it has run.
    pub(super) recovery: Option<HasRun>,
    /// The recovery domain is stopped, by whomever.
    pub(super) is_stopped: bool,
    pub(super) recovery_is_gone: bool,
    pub(super) maps: u64,
    /// Mappings to scrub, of all that `maps` counts.
    pub(super) scrub_maps: u64,
    pub(super) crashed_is_gone: bool,
    pub(super) has_interfaces: bool,
    pub(super) faults: Faults,
}

impl World {
    pub(super) fn backing(&self) -> Result<Backing, HostError> {
        match self.recovery_is_gone {
            true => Err(HostError::new("backing", "there is no recovery domain")),
            false => Ok(self.backing),
        }
    }
}
