// SPDX-License-Identifier: LGPL-2.1-or-later
//! x86-64 address translation through the guest's own page tables.
//!
//! Format: Intel SDM volume 3A, chapter 4.5. A table can be any page the guest
//! likes, so a walk visits at most one entry per level, and a walk over a range
//! has a cap on the entries it looks at: tables that point to themselves make
//! it long, not endless.

use crate::addr::{Gfn, GuestPhys, GuestVirt, Page, PAGE_SHIFT, PAGE_SIZE};

use super::arch::x86_64::{Levels, ADDRESS, ENTRIES, LARGE, PAE_ROOT, PRESENT, WRITABLE};
use super::memory::{read_u64, GuestMemory, ReadFault};

/// A tree of page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageTables {
    root: GuestPhys,
    levels: u32,
    ignored_bits: u64,
}

/// Where a virtual address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The byte that the address names.
    pub phys: GuestPhys,
    /// Bytes from there on that are mapped by the same entry.
    pub mapped: u64,
}

/// Why a virtual address leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WalkError {
    /// No entry for it.
    #[error("{0} is not mapped")]
    NotMapped(GuestVirt),
    /// The address does not repeat its top bit, so no processor accepts it.
    #[error("{0} is not canonical")]
    NotCanonical(GuestVirt),
    /// A table, or the memory itself, cannot be read.
    #[error("{at} leads to memory that is not there: {fault}")]
    Unreadable {
        /// The address walked.
        at: GuestVirt,
        /// What could not be read.
        fault: ReadFault,
    },
}

impl PageTables {
    /// The tree below `root`: CR3, or the address of a topmost table; bits that
    /// are no address are dropped. `ignored_bits` of entries mean "encrypted"
    /// and are no part of an address either (`sme_mask`).
    pub fn new(root: u64, levels: Levels, ignored_bits: u64) -> Self {
        let tables = Self {
            root: GuestPhys(0),
            levels: levels as u32,
            ignored_bits,
        };
        tables.with_root(root)
    }

    /// A tree of the same kind below another root.
    pub fn with_root(&self, root: u64) -> Self {
        let address = match self.is_pae() {
            true => PAE_ROOT,
            false => ADDRESS,
        };
        Self {
            root: GuestPhys(root & address & !self.ignored_bits),
            ..*self
        }
    }

    fn is_pae(&self) -> bool {
        self.levels == Levels::Pae as u32
    }

    /// The topmost table.
    pub fn root(&self) -> GuestPhys {
        self.root
    }

    /// Base-2 logarithm of the bytes below one entry; level 1 is the lowest.
    fn shift(level: u32) -> u32 {
        PAGE_SHIFT + 9 * (level - 1)
    }

    /// The first address of the upper half: where the kernel's half begins.
    pub fn upper_half(&self) -> GuestVirt {
        GuestVirt(u64::MAX << (Self::shift(self.levels + 1) - 1))
    }

    fn is_canonical(&self, at: GuestVirt) -> bool {
        if self.is_pae() {
            return at.0 <= u64::from(u32::MAX);
        }
        let upper = self.upper_half().0;
        at.0 & upper == 0 || at.0 & upper == upper
    }

    /// Translates one address.
    pub fn translate(
        &self,
        mem: &dyn GuestMemory,
        at: GuestVirt,
    ) -> Result<Translation, WalkError> {
        self.walk(at, |_, entry| read_u64(mem, entry))
    }

    /// Translates one address with entries that `read` reads: their level, and where
    /// each is.
    fn walk(
        &self,
        at: GuestVirt,
        mut read: impl FnMut(u32, GuestPhys) -> Result<u64, ReadFault>,
    ) -> Result<Translation, WalkError> {
        if !self.is_canonical(at) {
            return Err(WalkError::NotCanonical(at));
        }
        let mut table = self.root;
        for level in (1..=self.levels).rev() {
            let index = at.0 >> Self::shift(level) & (ENTRIES as u64 - 1);
            let entry = read(level, GuestPhys(table.0 + index * 8))
                .map_err(|fault| WalkError::Unreadable { at, fault })?;
            match self.decode(entry, level) {
                None => return Err(WalkError::NotMapped(at)),
                Some(Entry::Table(next)) => table = next,
                Some(Entry::Leaf(page)) => {
                    let size = 1 << Self::shift(level);
                    let within = at.0 & (size - 1);
                    return Ok(Translation {
                        phys: GuestPhys(page.0 + within),
                        mapped: size - within,
                    });
                }
            }
        }
        Err(WalkError::NotMapped(at))
    }

    /// Copies `into.len()` bytes from a virtual address on.
    pub fn read(
        &self,
        mem: &dyn GuestMemory,
        at: GuestVirt,
        into: &mut [u8],
    ) -> Result<(), WalkError> {
        let mut done = 0;
        while done < into.len() {
            let here = at
                .checked_add(done as u64)
                .ok_or(WalkError::NotCanonical(at))?;
            let found = self.translate(mem, here)?;
            let part = (into.len() - done).min(usize::try_from(found.mapped).unwrap_or(usize::MAX));
            mem.read(found.phys, &mut into[done..done + part])
                .map_err(|fault| WalkError::Unreadable { at: here, fault })?;
            done += part;
        }
        Ok(())
    }

    /// One little-endian 64-bit word at a virtual address.
    pub fn read_u64(&self, mem: &dyn GuestMemory, at: GuestVirt) -> Result<u64, WalkError> {
        let mut word = [0; 8];
        self.read(mem, at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Where an entry leads; `None` when nowhere.
    fn decode(&self, entry: u64, level: u32) -> Option<Entry> {
        if entry & PRESENT == 0 {
            return None;
        }
        let address = entry & ADDRESS & !self.ignored_bits;
        // Large pages exist at levels 2 and 3; elsewhere the bit is no size.
        if level == 1 || (entry & LARGE != 0 && level <= 3) {
            let page = address & (u64::MAX << Self::shift(level));
            return Some(Entry::Leaf(GuestPhys(page)));
        }
        Some(Entry::Table(GuestPhys(address)))
    }

    /// Visits what is mapped from `first` to `last` (both within the same
    /// half), in ascending order: every table on the way, and every leaf.
    /// Tables that cannot be read are skipped, and counted.
    pub fn visit(
        &self,
        mem: &dyn GuestMemory,
        first: GuestVirt,
        last: GuestVirt,
        entries_left: &mut u64,
        visitor: &mut dyn FnMut(Visit) -> Descend,
    ) -> VisitEnd {
        let mut walk = Walk {
            tables: self,
            mem,
            first,
            last,
            entries_left,
            visitor,
            unreadable: 0,
        };
        let complete = walk.table(self.root, self.levels, 0);
        VisitEnd {
            complete,
            unreadable_tables: walk.unreadable,
        }
    }
}

/// Translates many addresses: keeps the tables that the last one led through, which
/// are those of the next one too when they are near each other.
pub struct Translator<'a> {
    tables: PageTables,
    mem: &'a dyn GuestMemory,
    /// For each level, the lowest first: a page with entries, and what it holds.
    kept: [(Gfn, Box<Page>); Levels::Five as usize],
}

impl<'a> Translator<'a> {
    /// A translator that keeps nothing yet.
    pub fn new(mem: &'a dyn GuestMemory, tables: PageTables) -> Self {
        let nothing = || (Gfn(u64::MAX), Box::new([0; PAGE_SIZE]));
        Self {
            tables,
            mem,
            kept: std::array::from_fn(|_| nothing()),
        }
    }

    /// Translates one address.
    pub fn translate(&mut self, at: GuestVirt) -> Result<Translation, WalkError> {
        let (mem, kept) = (self.mem, &mut self.kept);
        self.tables.walk(at, |level, entry| {
            let (gfn, page) = &mut kept[level as usize - 1];
            if *gfn != entry.gfn() {
                *gfn = Gfn(u64::MAX);
                let start = GuestPhys(entry.0 - entry.page_offset() as u64);
                mem.read(start, &mut page[..])?;
                *gfn = entry.gfn();
            }
            let word = &page[entry.page_offset()..][..8];
            Ok(u64::from_le_bytes(word.try_into().unwrap_or_default()))
        })
    }
}

enum Entry {
    Table(GuestPhys),
    Leaf(GuestPhys),
}

/// What a visit of a range comes across.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// A page that holds a table; `from` is the first address below it.
    Table {
        /// Where the table is.
        phys: GuestPhys,
        /// First virtual address that it translates.
        from: GuestVirt,
        /// Bytes of address space that it translates.
        bytes: u64,
    },
    /// Memory mapped by one entry.
    Leaf {
        /// First virtual address of the entry.
        at: GuestVirt,
        /// Where it leads.
        phys: GuestPhys,
        /// Bytes mapped.
        bytes: u64,
        /// Whether this entry allows writing; those above it may not.
        writable: bool,
    },
}

/// Whether to look into a table; without meaning for a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Descend {
    /// Look at the entries.
    Into,
    /// Leave the table out.
    Skip,
}

/// How a visit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VisitEnd {
    /// False when the cap on entries was met first.
    pub complete: bool,
    /// Tables left out because they could not be read.
    pub unreadable_tables: u64,
}

struct Walk<'a> {
    tables: &'a PageTables,
    mem: &'a dyn GuestMemory,
    first: GuestVirt,
    last: GuestVirt,
    entries_left: &'a mut u64,
    visitor: &'a mut dyn FnMut(Visit) -> Descend,
    unreadable: u64,
}

impl Walk<'_> {
    /// Depth is bounded by the number of levels. False: cap met.
    fn table(&mut self, phys: GuestPhys, level: u32, base: u64) -> bool {
        let shift = PageTables::shift(level);
        let seen = Visit::Table {
            phys,
            from: GuestVirt(base),
            bytes: (ENTRIES as u64) << shift,
        };
        if (self.visitor)(seen) == Descend::Skip {
            return true;
        }
        let mut table = [0; PAGE_SIZE];
        if self.mem.read(phys, &mut table).is_err() {
            self.unreadable += 1;
            return true;
        }
        for (index, entry) in table.chunks_exact(8).enumerate() {
            if *self.entries_left == 0 {
                return false;
            }
            *self.entries_left -= 1;
            let bits = u64::from_le_bytes(entry.try_into().unwrap_or_default());
            // Most lead nowhere: nothing else about them matters.
            let Some(entry) = self.tables.decode(bits, level) else {
                continue;
            };
            let mut at = base | (index as u64) << shift;
            if level == self.tables.levels && at & self.tables.upper_half().0 != 0 {
                at |= self.tables.upper_half().0;
            }
            let end = at | ((1u64 << shift) - 1);
            if end < self.first.0 || at > self.last.0 {
                continue;
            }
            match entry {
                Entry::Table(next) => {
                    if !self.table(next, level - 1, at) {
                        return false;
                    }
                }
                Entry::Leaf(phys) => {
                    (self.visitor)(Visit::Leaf {
                        at: GuestVirt(at),
                        phys,
                        bytes: 1 << shift,
                        writable: bits & WRITABLE != 0,
                    });
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
