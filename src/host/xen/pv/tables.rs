// SPDX-License-Identifier: LGPL-2.1-or-later
//! Page tables of a PV guest, and what they would be if Xen translated its memory.
//!
//! A PV guest's page tables name machine frames, and Xen has entries of its own in each
//! root. Readers of dumps know neither. So an entry is shown with the guest's page in place
//! of the machine frame; one that leads to memory that is not the guest's, and those of
//! Xen's, are shown as if nothing were there.

use xenctrl_sys as xc;

use super::p2m::{frame, words, Listed, MachineFrames, P2m, FRAME};
use crate::addr::{Gfn, Mfn, PAGE_SHIFT, PAGE_SIZE};
use crate::host::{HostError, Mapping};
use crate::limits::bounded::zeroes;

/// The level of a root.
const ROOT: u8 = 4;
/// Entries of a root that are Xen's (`relied_on::pv_root_has_xens_entries`).
const XENS: std::ops::Range<u64> = 256..272;

/// What Xen has a page for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PageType {
    /// The domain has no such page.
    Absent,
    /// What the guest likes.
    Plain,
    /// A page table of this level, from 1 on.
    Table { level: u8, is_pinned: bool },
}

impl PageType {
    /// What Xen says of a page (`XEN_DOMCTL_PFINFO_*`).
    pub(super) fn of(said: u64) -> Self {
        let is = |kind: u32| said & u64::from(xc::XEN_DOMCTL_PFINFO_LTAB_MASK) == u64::from(kind);
        if is(xc::XEN_DOMCTL_PFINFO_XTAB) || is(xc::XEN_DOMCTL_PFINFO_BROKEN) {
            return Self::Absent;
        }
        let level = said & u64::from(xc::XEN_DOMCTL_PFINFO_LTABTYPE_MASK);
        match (level >> xc::XEN_DOMCTL_PFINFO_LTAB_SHIFT) as u8 {
            level @ 1..=ROOT => Self::Table {
                level,
                is_pinned: said & u64::from(xc::XEN_DOMCTL_PFINFO_LPINTAB) != 0,
            },
            _ => Self::Plain,
        }
    }
}

/// Which of a guest's pages are page tables.
pub(super) struct Tables {
    /// The level of each page; zero where a page is no table.
    levels: Vec<u8>,
}

/// How many types Xen is asked for at once.
const BATCH: usize = 1024;
/// How many tables are mapped at once.
const TABLES: usize = 256;
/// A kernel has a table for 512 pages in each of its mappings of them, of which few are of
/// all memory; and some tables whatever memory it has.
const PAGES_A_TABLE: usize = 64;
const LEAST_TABLES: usize = 4096;

impl Tables {
    /// Finds out which pages of a list are tables, and takes those from it that the domain
    /// does not have. `types` asks Xen for the types of machine frames.
    pub(super) fn among(
        listed: &mut Listed,
        types: impl Fn(&[Mfn]) -> Result<Vec<u64>, HostError>,
    ) -> Result<Self, HostError> {
        let no_room = |error| HostError::new("reading page types", format!("{error}"));
        let pages = listed.pages();
        let mut levels: Vec<u8> = zeroes("pages", pages, pages).map_err(no_room)?;
        let mut from = Gfn(0);
        loop {
            let (gfns, mfns): (Vec<_>, Vec<_>) = listed.entries(from).take(BATCH).unzip();
            let Some(last) = gfns.last() else { break };
            from = Gfn(last.0 + 1);
            for (gfn, said) in gfns.iter().zip(types(&mfns)?) {
                match PageType::of(said) {
                    PageType::Absent => listed.remove(*gfn),
                    PageType::Plain => {}
                    PageType::Table { level, .. } => levels[gfn.0 as usize] = level,
                }
            }
        }
        Ok(Self { levels })
    }

    /// Counts the tables, too, that a root leads to: of a domain that nothing holds any more
    /// Xen does not know them. A guest may say of every page that it is a table: no more are
    /// counted than a kernel can have.
    ///
    /// # Errors
    /// Those of mapping.
    pub(super) fn add_reached(
        &mut self,
        memory: &dyn MachineFrames,
        p2m: &P2m,
        root: Mfn,
    ) -> Result<(), HostError> {
        let most = self.levels.len() / PAGES_A_TABLE + LEAST_TABLES;
        let mut tables: Vec<Gfn> = p2m.page(root).into_iter().collect();
        for gfn in &tables {
            self.levels[gfn.0 as usize] = ROOT;
        }
        let mut reached = 0;
        for level in (2..=ROOT).rev() {
            let mut below = Vec::new();
            for batch in tables.chunks(TABLES) {
                let frames: Vec<_> = batch.iter().map(|gfn| p2m.machine(*gfn)).collect();
                let mapping = memory.map(&frames)?;
                for index in 0..batch.len() {
                    for gfn in self.new_below(&*mapping, index, level, p2m) {
                        if reached == most {
                            return Ok(());
                        }
                        reached += 1;
                        self.levels[gfn.0 as usize] = level - 1;
                        below.push(gfn);
                    }
                }
            }
            tables = below;
        }
        Ok(())
    }

    /// The pages that a table of a mapping leads to, each once, and that are not known for
    /// tables.
    fn new_below(&self, mapping: &dyn Mapping, index: usize, level: u8, p2m: &P2m) -> Vec<Gfn> {
        let mut page = [0; PAGE_SIZE];
        if !mapping.copy(index, &mut page) {
            return Vec::new();
        }
        let entries = (0..)
            .zip(words(&page))
            .filter(|(slot, _)| !is_xens(level, *slot));
        let pages = entries.filter_map(|(_, entry)| p2m.page(frame(entry)?));
        let mut new: Vec<_> = pages
            .filter(|gfn| self.level(*gfn) != Some(level - 1))
            .collect();
        new.sort_unstable();
        new.dedup();
        new
    }

    /// The level of a page that is a table.
    pub(super) fn level(&self, gfn: Gfn) -> Option<u8> {
        let level = self.levels.get(usize::try_from(gfn.0).ok()?).copied();
        level.filter(|level| *level > 0)
    }

    /// The pages that are tables.
    pub(super) fn pages(&self) -> impl Iterator<Item = Gfn> + '_ {
        let tables = (0u64..).zip(&self.levels).filter(|(_, level)| **level > 0);
        tables.map(|(gfn, _)| Gfn(gfn))
    }
}

/// Whether an entry of a table is Xen's.
fn is_xens(level: u8, slot: u64) -> bool {
    level == ROOT && XENS.contains(&slot)
}

/// What stands in the dump in place of an entry of a table.
pub(super) fn shown(p2m: &P2m, level: u8, slot: u64, entry: u64) -> u64 {
    if is_xens(level, slot) {
        return 0;
    }
    match frame(entry) {
        None => entry,
        Some(mfn) => p2m
            .page(mfn)
            .map_or(0, |gfn| entry & !FRAME | gfn.0 << PAGE_SHIFT),
    }
}
