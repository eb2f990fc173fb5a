// SPDX-License-Identifier: LGPL-2.1-or-later
//! A domain that memory is claimed for.

use super::claim::Claimed;
use super::control::Control;
use super::foreign::{ForeignMapping, ForeignMemory};
use super::kind::Kind;
use crate::host::{Access, HostError, Mapping};

/// A domain, and handles to act on it.
pub(super) struct Claimant<'a> {
    pub(super) domid: u32,
    pub(super) kind: Kind,
    pub(super) control: &'a Control,
    pub(super) foreign: &'a ForeignMemory,
}

impl Claimed for Claimant<'_> {
    /// A mapped page: Xen frees it when it is unmapped, and the domain after it.
    type Pin = ForeignMapping;

    fn total_pages(&self) -> Result<u64, HostError> {
        self.control
            .domain_info(self.domid)
            .map(|info| info.tot_pages)
    }

    /// A page that we never release.
    fn pin(&self) -> Result<Self::Pin, HostError> {
        let frame = self.kind.kept_frame(self.control, self.domid)?;
        let page = self.foreign.map(self.domid, &[Some(frame)], Access::Read)?;
        if !page.is_present(0) {
            return Err(HostError::new(
                "xenforeignmemory_map",
                format!("frame {:#x} of domain {} is not there", frame.0, self.domid),
            ));
        }
        Ok(page)
    }

    fn set_claim(&self, pages: u64) -> Result<(), HostError> {
        self.control.set_claim(self.domid, pages)
    }

    /// In doubt the domain is dying: memory that is not claimed is only not protected.
    fn is_dying(&self) -> bool {
        self.kind.check_not_dying(self.control, self.domid).is_err()
    }
}
