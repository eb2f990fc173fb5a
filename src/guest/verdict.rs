// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a page is, and which kinds a dump level leaves out.

use std::fmt;

/// What a page is, as far as the guest's own descriptors tell.
///
/// Whether a page holds only zeroes is no verdict: that is found out by looking
/// at its bytes when it is dumped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// Nothing reliable says what it is; kept.
    Unknown,
    /// The kernel's own: slab, page tables, stacks, reserved and the like.
    Kernel,
    /// In the buddy allocator.
    Free,
    /// Page cache without private data.
    Cache,
    /// Page cache with private data (file system's buffers).
    PrivateCache,
    /// Anonymous memory of processes.
    User,
    /// Page of a hugetlb pool, in use or not.
    Hugetlb,
    /// Given back to the host (balloon) or logically offline.
    Offline,
    /// The hardware reported it as broken.
    Poisoned,
    /// Free, but not accepted yet by a confidential guest.
    Unaccepted,
    /// Its descriptor says that it could be left out, but the kernel's page
    /// tables say that it is the kernel's: kept.
    NeverExclude,
}

impl Verdict {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Unknown,
        Self::Kernel,
        Self::Free,
        Self::Cache,
        Self::PrivateCache,
        Self::User,
        Self::Hugetlb,
        Self::Offline,
        Self::Poisoned,
        Self::Unaccepted,
        Self::NeverExclude,
    ];

    /// The part of a dump level that leaves such pages out, those with the most useful
    /// contents first; `None` of pages that every level keeps, or none.
    pub fn part(self) -> Option<u8> {
        match self {
            Self::User | Self::Hugetlb => Some(DumpLevel::USER),
            Self::PrivateCache => Some(DumpLevel::PRIVATE_CACHE),
            Self::Cache => Some(DumpLevel::CACHE),
            Self::Free | Self::Unaccepted => Some(DumpLevel::FREE),
            _ => None,
        }
    }

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Kernel => "kernel",
            Self::Free => "free",
            Self::Cache => "cache",
            Self::PrivateCache => "private_cache",
            Self::User => "user",
            Self::Hugetlb => "hugetlb",
            Self::Offline => "offline",
            Self::Poisoned => "poisoned",
            Self::Unaccepted => "unaccepted",
            Self::NeverExclude => "never_exclude",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which kinds of pages a dump leaves out: makedumpfile's dump levels, which
/// add up (makedumpfile(8), option `-d`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DumpLevel(u8);

impl DumpLevel {
    /// Leaves out pages of zeroes.
    pub const ZERO: u8 = 1;
    /// Leaves out page cache without private data.
    pub const CACHE: u8 = 2;
    /// Leaves out page cache with and without private data.
    pub const PRIVATE_CACHE: u8 = 4;
    /// Leaves out memory of processes.
    pub const USER: u8 = 8;
    /// Leaves out free pages.
    pub const FREE: u8 = 16;

    /// Everything that can be read.
    pub const ALL_PAGES: Self = Self(0);
    /// What kdump services use: 31.
    pub const DEFAULT: Self = Self(31);

    /// `None` above 31.
    pub fn new(level: u8) -> Option<Self> {
        (level <= Self::DEFAULT.0).then_some(Self(level))
    }

    /// A level that leaves out more parts.
    pub fn with(self, parts: u8) -> Self {
        Self(self.0 | parts & Self::DEFAULT.0)
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether pages of zeroes are left out, which only their bytes tell.
    pub fn excludes_zero(self) -> bool {
        self.0 & Self::ZERO != 0
    }

    /// The level without some of its parts.
    pub fn without(self, parts: u8) -> Self {
        Self(self.0 & !parts)
    }

    /// Whether a page of this kind is left out. What cannot be read is, at
    /// every level.
    pub fn excludes(self, verdict: Verdict) -> bool {
        let has = |part: u8| self.0 & part != 0;
        match verdict {
            Verdict::Unknown | Verdict::Kernel | Verdict::NeverExclude => false,
            Verdict::Free | Verdict::Unaccepted => has(Self::FREE),
            Verdict::Cache => has(Self::CACHE | Self::PRIVATE_CACHE),
            Verdict::PrivateCache => has(Self::PRIVATE_CACHE),
            Verdict::User | Verdict::Hugetlb => has(Self::USER),
            Verdict::Offline | Verdict::Poisoned => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(level: u8) -> Vec<Verdict> {
        let level = DumpLevel::new(level).unwrap();
        let mut all = Verdict::ALL.to_vec();
        all.retain(|&verdict| level.excludes(verdict));
        all
    }

    #[test]
    fn levels_add_up_as_makedumpfile_has_them() {
        use Verdict::*;
        assert_eq!(excluded(0), [Offline, Poisoned]);
        assert_eq!(excluded(1), [Offline, Poisoned]);
        assert_eq!(excluded(2), [Cache, Offline, Poisoned]);
        assert_eq!(excluded(4), [Cache, PrivateCache, Offline, Poisoned]);
        assert_eq!(excluded(8), [User, Hugetlb, Offline, Poisoned]);
        assert_eq!(excluded(16), [Free, Offline, Poisoned, Unaccepted]);
        let kept = [Unknown, Kernel, NeverExclude];
        assert_eq!(excluded(31).len(), Verdict::ALL.len() - kept.len());
        assert_eq!(DumpLevel::new(32), None);
        assert_eq!(DumpLevel::DEFAULT.without(DumpLevel::FREE).get(), 15);
    }

    #[test]
    fn parts_are_added_to_a_level_and_taken_from_it() {
        let level = |number| DumpLevel::new(number).unwrap();
        assert_eq!(level(2).with(DumpLevel::CACHE), level(2));
        assert_eq!(level(2).with(DumpLevel::FREE | DumpLevel::ZERO), level(19));
        // There are no other parts.
        assert_eq!(level(2).with(0xe0), level(2));
        assert_eq!(level(18).without(DumpLevel::CACHE | 0xe0), level(16));
        assert_eq!(level(18).without(DumpLevel::USER), level(18));
        let zero = [0, 1, 30, 31].map(|number| level(number).excludes_zero());
        assert_eq!(zero, [false, true, false, true]);
    }

    #[test]
    fn each_part_of_a_level_leaves_out_what_is_of_it() {
        for verdict in Verdict::ALL {
            let by_part = [2, 4, 8, 16].map(|part| {
                let level = DumpLevel::new(part).unwrap();
                level.excludes(verdict)
            });
            let first = match verdict.part() {
                None => [verdict == Verdict::Offline || verdict == Verdict::Poisoned; 4],
                // Page cache goes with what goes with it.
                Some(DumpLevel::CACHE) => [true, true, false, false],
                Some(part) => [2, 4, 8, 16].map(|other| other == part),
            };
            assert_eq!(by_part, first, "{verdict}");
        }
    }

    #[test]
    fn verdicts_have_names() {
        let names = Verdict::ALL.map(|verdict| verdict.to_string());
        let words = "unknown kernel free cache private_cache user hugetlb offline poisoned \
            unaccepted never_exclude";
        assert_eq!(names.join(" "), words);
    }
}
