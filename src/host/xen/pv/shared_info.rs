// SPDX-License-Identifier: LGPL-2.1-or-later
//! The page that Xen shares with a PV guest, in which the guest says where its list of
//! machine frames is.

use std::mem::offset_of;

use xenctrl_sys as xc;

use super::super::control::Control;
use super::p2m::{ListPlace, MachineFrames, ENTRY};
use crate::addr::{GuestVirt, Mfn, PAGE_SHIFT, PAGE_SIZE};
use crate::host::HostError;

fn unfit(what: String) -> HostError {
    HostError::new("reading the p2m list", what)
}

/// Where the guest of a domain says that its list is.
///
/// # Errors
/// Those of mapping; and when the guest says nothing, or what no list can have.
pub(super) fn list_place(
    control: &Control,
    memory: &dyn MachineFrames,
    domid: u32,
) -> Result<ListPlace, HostError> {
    let frame = Mfn(control.domain_info(domid)?.shared_info_frame);
    let page = memory.map(&[Some(frame)])?;
    let word = |offset: usize| {
        let mut word = [0; ENTRY];
        let is_there = page.read(0, offset, &mut word);
        is_there.then_some(u64::from_le_bytes(word))
    };
    let cr3 = word(offset_of!(xc::shared_info, arch.p2m_cr3));
    let start = word(offset_of!(xc::shared_info, arch.p2m_vaddr));
    match (cr3, start) {
        (Some(cr3), Some(start)) => place(cr3, start),
        _ => Err(unfit(format!(
            "frame {frame} of domain {domid} is not there"
        ))),
    }
}

/// What a guest means by a root and an address.
fn place(cr3: u64, start: u64) -> Result<ListPlace, HostError> {
    if cr3 == 0 {
        let what = "the guest has no list that can be read at once (Linux has, since 4.0)";
        return Err(unfit(what.into()));
    }
    if start % PAGE_SIZE as u64 != 0 {
        return Err(unfit(format!("{start:#x} is not the beginning of a page")));
    }
    Ok(ListPlace {
        root: Mfn(cr3 >> PAGE_SHIFT),
        start: GuestVirt(start),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_names_no_list_or_an_odd_one_is_refused() {
        let start = 0xffff_c900_0000_0000;
        let found = place(0x1234_5000, start).unwrap();
        let root = Mfn(0x12345);
        assert_eq!(
            found,
            ListPlace {
                root,
                start: GuestVirt(start)
            }
        );
        assert!(place(0, start).unwrap_err().what.contains("no list"));
        let said = place(0x1000, start + 8).unwrap_err().what;
        assert_eq!(said, "0xffffc90000000008 is not the beginning of a page");
    }
}
