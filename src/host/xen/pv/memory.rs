// SPDX-License-Identifier: LGPL-2.1-or-later
//! A PV guest's memory as the rest of the library knows memory: numbered by the guest's
//! pages, with page tables that name those.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::control::Control;
use super::super::foreign::{ForeignMemory, FrameName};
use super::p2m::{ListPlace, Listed, MachineFrames, P2m, ENTRY};
use super::references;
use super::shared_info::list_place;
use super::tables::{shown, Tables};
use crate::addr::{Gfn, GfnRange, GuestPhys, Mfn, PAGE_SHIFT, PAGE_SIZE};
use crate::host::{Access, HostError, Mapping};

/// The machine frames of a domain.
struct Frames<'a> {
    foreign: &'a ForeignMemory,
    domid: u32,
}

impl MachineFrames for Frames<'_> {
    fn map(&self, frames: &[Option<Mfn>]) -> Result<Box<dyn Mapping>, HostError> {
        let names: Vec<_> = frames
            .iter()
            .map(|mfn| mfn.map(|mfn| FrameName(mfn.0)))
            .collect();
        let mapping = self.foreign.map(self.domid, &names, Access::Read)?;
        Ok(Box::new(mapping))
    }
}

/// What is known of a guest's memory since it was opened.
pub(in super::super) struct PvMemory {
    domid: u32,
    known: Arc<Known>,
    /// Nothing of the guest's holds its pages any more. Locked while that is brought about.
    is_let_go: Mutex<bool>,
}

struct Known {
    p2m: P2m,
    tables: Tables,
}

impl PvMemory {
    /// Finds out which machine frames the first `pages` of a guest are, and which of them
    /// are page tables.
    pub(in super::super) fn read(
        control: &Control,
        foreign: &ForeignMemory,
        domid: u32,
        pages: u64,
    ) -> Result<Self, HostError> {
        let frames = Frames { foreign, domid };
        let place: ListPlace = list_place(control, &frames, domid)?;
        let mut listed = Listed::read(&frames, place, pages)?;
        let types = |mfns: &[Mfn]| control.page_types(domid, mfns);
        let mut tables = Tables::among(&mut listed, types)?;
        let p2m = P2m::of(listed)?;
        tables.add_reached(&frames, &p2m, place.root)?;
        Ok(Self {
            domid,
            known: Arc::new(Known { p2m, tables }),
            is_let_go: Mutex::new(false),
        })
    }

    /// What Xen calls a page, if the guest has it.
    pub(in super::super) fn name(&self, gfn: Gfn) -> Option<FrameName> {
        self.known.p2m.machine(gfn).map(|mfn| FrameName(mfn.0))
    }

    /// What Xen calls a page, if it may be given back: the list of machine frames is there
    /// as long as the domain, so that another process can go on.
    pub(in super::super) fn name_to_release(&self, gfn: Gfn) -> Option<FrameName> {
        self.name(gfn).filter(|_| !self.known.p2m.is_own(gfn))
    }

    /// The root of page tables, as the rest of the library names it.
    pub(in super::super) fn root(&self, cr3: u64) -> u64 {
        let page = self.known.p2m.page(Mfn(cr3 >> PAGE_SHIFT));
        page.and_then(|gfn| gfn.as_pfn().address())
            .map_or(0, |GuestPhys(at)| at)
    }

    /// Takes away what keeps Xen from giving pages back and from letting them be written
    /// to: the processors' and the guest's own hold on its page tables. The domain cannot
    /// run after that, and its registers are gone.
    pub(in super::super) fn let_go(&self, control: &Control) -> Result<(), HostError> {
        let is_let_go = self.is_let_go.lock();
        let mut is_let_go = is_let_go.unwrap_or_else(PoisonError::into_inner);
        if *is_let_go {
            return Ok(());
        }
        if control.domain_info(self.domid)?.flags & xenctrl_sys::XEN_DOMINF_shutdown == 0 {
            let what = format!("domain {} has not shut down", self.domid);
            return Err(HostError::new("xc_vcpu_setcontext", what));
        }
        let Known { p2m, tables } = &*self.known;
        let tables: Vec<Mfn> = tables.pages().filter_map(|gfn| p2m.machine(gfn)).collect();
        references::drop_all(control, self.domid, &tables)?;
        *is_let_go = true;
        Ok(())
    }

    /// `frames` as they are to be read, from a mapping of what they are for Xen.
    pub(in super::super) fn shown(
        &self,
        frames: GfnRange,
        mapping: Box<dyn Mapping>,
    ) -> Box<dyn Mapping> {
        Box::new(Shown {
            known: self.known.clone(),
            frames,
            mapping,
        })
    }
}

/// Mapped pages, the entries of whose page tables name pages.
struct Shown {
    known: Arc<Known>,
    frames: GfnRange,
    mapping: Box<dyn Mapping>,
}

impl Shown {
    /// The level of the table at `index`, if there is one.
    fn level(&self, index: usize) -> Option<u8> {
        let gfn = self.frames.start.checked_add(index as u64)?;
        self.known.tables.level(gfn)
    }

    /// Reads part of a table of this level.
    fn read_table(&self, index: usize, level: u8, offset: usize, into: &mut [u8]) -> bool {
        let end = offset.checked_add(into.len());
        let Some(end) = end.filter(|end| *end <= PAGE_SIZE) else {
            return false;
        };
        for slot in offset / ENTRY..end.div_ceil(ENTRY) {
            let mut entry = [0; ENTRY];
            let first = slot * ENTRY;
            if !self.mapping.read(index, first, &mut entry) {
                return false;
            }
            let entry = u64::from_le_bytes(entry);
            let bytes = shown(&self.known.p2m, level, slot as u64, entry).to_le_bytes();
            let (from, to) = (first.max(offset), (first + ENTRY).min(end));
            into[from - offset..to - offset].copy_from_slice(&bytes[from - first..to - first]);
        }
        true
    }
}

impl Mapping for Shown {
    fn len(&self) -> usize {
        self.mapping.len()
    }

    fn is_present(&self, index: usize) -> bool {
        self.mapping.is_present(index)
    }

    fn failure(&self) -> Option<HostError> {
        self.mapping.failure()
    }

    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        match self.level(index) {
            Some(level) => self.read_table(index, level, offset, into),
            None => self.mapping.read(index, offset, into),
        }
    }

    /// What is not given back is not scrubbed, either.
    fn scrub(&self, index: usize) {
        let gfn = self.frames.start.checked_add(index as u64);
        if gfn.is_some_and(|gfn| !self.known.p2m.is_own(gfn)) {
            self.mapping.scrub(index);
        }
    }
}
