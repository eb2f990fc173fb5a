// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which machine frame is behind each of a PV guest's pages: the guest's own list of them
//! (p2m, physical to machine), and back.
//!
//! The guest says where the list is, and may have written anything there. So as many
//! entries are read as the domain may have pages, whatever the guest says of them; every
//! step to the list is a frame of the domain's, which Xen sees to when it is mapped; and
//! a machine frame that is in the list twice counts once.

use crate::addr::{Gfn, GuestVirt, Mfn, PAGE_SIZE};
use crate::host::{HostError, Mapping};
use crate::limits::bounded::{zeroes, MOST_FRAMES};

/// Bytes of an entry, of the list as of page tables.
pub(super) const ENTRY: usize = 8;
/// Entries in a page.
pub(super) const ENTRIES: u64 = (PAGE_SIZE / ENTRY) as u64;
/// An entry of a page table that is in force.
pub(super) const PRESENT: u64 = 1;
/// The frame in an entry of a page table.
pub(super) const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// No machine frame.
const NONE: u32 = u32::MAX;
/// What of an address each table above the last one takes: the bits from these on.
const ABOVE: [u32; 3] = [39, 30, 21];

/// Maps machine frames of one domain to be read.
pub(super) trait MachineFrames {
    /// A mapping of these frames, in this order. Frames that are not the domain's are
    /// absent.
    fn map(&self, frames: &[Option<Mfn>]) -> Result<Box<dyn Mapping>, HostError>;
}

/// Where a guest has its list (`relied_on::pv_list_is_linear`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ListPlace {
    /// The root of the page tables that lead to it.
    pub(super) root: Mfn,
    /// Where it begins there.
    pub(super) start: GuestVirt,
}

/// The machine frames that a guest lists for its pages. Anything may stand there.
pub(super) struct Listed {
    machine: Vec<u32>,
    /// The frames that the list is in, and the tables that lead to it.
    own: Vec<Mfn>,
}

impl Listed {
    /// Reads the list at `place` for the first `pages` of a guest. Pages whose part of the
    /// list is not there have no machine frame.
    ///
    /// # Errors
    /// Those of mapping, and when there is no memory for so many.
    pub(super) fn read(
        memory: &dyn MachineFrames,
        place: ListPlace,
        pages: u64,
    ) -> Result<Self, HostError> {
        let no_room = |error| HostError::new("reading the p2m list", format!("{error}"));
        let pages = pages.min(MOST_FRAMES);
        let mut machine = zeroes("pages", pages, pages).map_err(no_room)?;
        machine.fill(NONE);
        let mut own = Vec::new();
        let leaves = pages.div_ceil(ENTRIES);
        let mut leaf = 0;
        while leaf < leaves {
            let Some(at) = place.start.checked_add(leaf * PAGE_SIZE as u64) else {
                break;
            };
            let first = slot(at, 12);
            let count = (ENTRIES - first).min(leaves - leaf);
            own.push(place.root);
            if let Some(table) = last_table(memory, place.root, at, &mut own)? {
                let parts = machine.chunks_mut(ENTRIES as usize).skip(leaf as usize);
                read_leaves(memory, table, first, parts.take(count as usize), &mut own)?;
            }
            leaf += count;
        }
        Ok(Self { machine, own })
    }

    /// Pages that there can be.
    pub(super) fn pages(&self) -> u64 {
        self.machine.len() as u64
    }

    /// The pages from `from` on that have a machine frame.
    pub(super) fn entries(&self, from: Gfn) -> impl Iterator<Item = (Gfn, Mfn)> + '_ {
        let rest = self.machine.get(from.0 as usize..).unwrap_or(&[]);
        let listed = (from.0..).zip(rest).filter(|(_, mfn)| **mfn != NONE);
        listed.map(|(gfn, mfn)| (Gfn(gfn), Mfn((*mfn).into())))
    }

    /// Takes a page's machine frame from the list.
    pub(super) fn remove(&mut self, gfn: Gfn) {
        let at = usize::try_from(gfn.0).ok();
        if let Some(mfn) = at.and_then(|at| self.machine.get_mut(at)) {
            *mfn = NONE;
        }
    }
}

/// What an address takes of the table whose part begins at this bit.
fn slot(at: GuestVirt, bit: u32) -> u64 {
    at.0 >> bit & (ENTRIES - 1)
}

/// The table whose entries are the pages around an address; none where there is none.
fn last_table(
    memory: &dyn MachineFrames,
    root: Mfn,
    at: GuestVirt,
    own: &mut Vec<Mfn>,
) -> Result<Option<Mfn>, HostError> {
    let mut table = root;
    for bit in ABOVE {
        let mapping = memory.map(&[Some(table)])?;
        let mut entry = [0; ENTRY];
        if !mapping.read(0, slot(at, bit) as usize * ENTRY, &mut entry) {
            return Ok(None);
        }
        match frame(u64::from_le_bytes(entry)) {
            Some(next) => {
                own.push(next);
                table = next;
            }
            None => return Ok(None),
        }
    }
    Ok(Some(table))
}

/// The frame that an entry of a page table names.
pub(super) fn frame(entry: u64) -> Option<Mfn> {
    (entry & PRESENT != 0).then_some(Mfn((entry & FRAME) >> 12))
}

/// Reads the parts of the list that the entries of `table` lead to, from `first` on.
fn read_leaves<'a>(
    memory: &dyn MachineFrames,
    table: Mfn,
    first: u64,
    parts: impl ExactSizeIterator<Item = &'a mut [u32]>,
    own: &mut Vec<Mfn>,
) -> Result<(), HostError> {
    let mapping = memory.map(&[Some(table)])?;
    let mut entries = vec![0; parts.len() * ENTRY];
    if !mapping.read(0, first as usize * ENTRY, &mut entries) {
        return Ok(());
    }
    let frames: Vec<Option<Mfn>> = words(&entries).map(frame).collect();
    let leaves = memory.map(&frames)?;
    own.extend(frames.iter().flatten());
    let mut page = vec![0; PAGE_SIZE];
    for (index, part) in parts.enumerate() {
        let page = &mut page[..part.len() * ENTRY];
        if leaves.read(index, 0, page) {
            let listed = words(page).map(listed);
            part.iter_mut().zip(listed).for_each(|(mfn, to)| *mfn = to);
        }
    }
    Ok(())
}

/// The entries in bytes.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let entries = bytes.chunks_exact(ENTRY);
    entries.map(|entry| entry.try_into().map_or(0, u64::from_le_bytes))
}

/// The machine frame of an entry of the list. Linux marks others' frames and holes by the
/// highest bits, so that these are no frames that Xen has.
fn listed(entry: u64) -> u32 {
    u32::try_from(entry).unwrap_or(NONE)
}

/// A guest's pages and their machine frames, each of which is one page's.
pub(super) struct P2m {
    machine: Vec<u32>,
    /// Pages that have a machine frame, in the order of these.
    by_machine: Vec<u32>,
    /// The pages that the guest's list is in, ascending.
    own: Vec<Gfn>,
}

impl P2m {
    /// Makes a two-way list. Of pages with the same machine frame the first has it.
    ///
    /// # Errors
    /// When there is no memory for so many.
    pub(super) fn of(listed: Listed) -> Result<Self, HostError> {
        let no_room = |error| HostError::new("reading the p2m list", format!("{error}"));
        let count = listed.entries(Gfn(0)).count() as u64;
        let mut by_machine = zeroes("pages", count, count).map_err(no_room)?;
        for (at, (gfn, _)) in by_machine.iter_mut().zip(listed.entries(Gfn(0))) {
            *at = gfn.0 as u32;
        }
        let Listed {
            mut machine,
            own: list,
        } = listed;
        by_machine.sort_unstable_by_key(|gfn: &u32| (machine[*gfn as usize], *gfn));
        by_machine.dedup_by(|later, first| {
            let is_same = machine[*later as usize] == machine[*first as usize];
            if is_same {
                machine[*later as usize] = NONE;
            }
            is_same
        });
        let mut this = Self {
            machine,
            by_machine,
            own: Vec::new(),
        };
        this.own = list.iter().filter_map(|mfn| this.page(*mfn)).collect();
        this.own.sort_unstable();
        this.own.dedup();
        Ok(this)
    }

    /// The machine frame of a page, if it has one.
    pub(super) fn machine(&self, gfn: Gfn) -> Option<Mfn> {
        let mfn = *self.machine.get(usize::try_from(gfn.0).ok()?)?;
        (mfn != NONE).then_some(Mfn(mfn.into()))
    }

    /// Whether the guest's list is in a page, or a table that leads to it.
    pub(super) fn is_own(&self, gfn: Gfn) -> bool {
        self.own.binary_search(&gfn).is_ok()
    }

    /// The page that has a machine frame.
    pub(super) fn page(&self, mfn: Mfn) -> Option<Gfn> {
        let wanted = u32::try_from(mfn.0).ok()?;
        let of = |gfn: &u32| self.machine[*gfn as usize];
        let at = self.by_machine.binary_search_by_key(&wanted, of).ok()?;
        Some(Gfn(self.by_machine[at].into()))
    }
}
