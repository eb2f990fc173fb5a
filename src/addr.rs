// SPDX-License-Identifier: LGPL-2.1-or-later
//! Kinds of addresses, as types that cannot be mixed up.
//!
//! Xen and Linux count the same memory in different ways, and using one
//! number for another is the classic bug of this field. For a PVH or HVM guest
//! a gfn and the pfn that the guest's kernel uses are equal by definition. A PV guest
//! names its pages to Xen by machine frame; here its gfns are the pfns of its kernel all
//! the same, and [`Mfn`] is what they are for Xen. The step from a gfn to a pfn is written
//! down with [`Gfn::as_pfn`] wherever it is taken.

use std::fmt;

/// Bytes in a page of x86-64 (4 KiB).
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Base-2 logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// One page's bytes, in memory of our own.
pub type Page = [u8; PAGE_SIZE];

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The sum, or `None` when it does not fit 64 bits.
            pub fn checked_add(self, n: u64) -> Option<Self> {
                self.0.checked_add(n).map(Self)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

number_type! {
    /// Guest frame number: a page as the hypervisor names it for the guest.
    Gfn
}
number_type! {
    /// Page frame number: a page as the guest's kernel names it, and as a dump does.
    Pfn
}
number_type! {
    /// Machine frame number: a page of the host's memory.
    Mfn
}
number_type! {
    /// Guest-physical address in bytes.
    GuestPhys
}
number_type! {
    /// Guest-virtual address in bytes, of the guest's kernel.
    GuestVirt
}

impl Gfn {
    /// The page of this frame as the guest's kernel counts it.
    pub fn as_pfn(self) -> Pfn {
        Pfn(self.0)
    }
}

impl Pfn {
    /// Address of the page's first byte; `None` beyond 64 bits.
    pub fn address(self) -> Option<GuestPhys> {
        self.0.checked_mul(PAGE_SIZE as u64).map(GuestPhys)
    }
}

impl GuestPhys {
    /// The page that holds this byte.
    pub fn gfn(self) -> Gfn {
        Gfn(self.0 >> PAGE_SHIFT)
    }

    /// Where in its page this byte is.
    pub fn page_offset(self) -> usize {
        (self.0 as usize) & (PAGE_SIZE - 1)
    }
}

/// A run of consecutive guest frames, `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct GfnRange {
    /// First frame.
    pub start: Gfn,
    /// One past the last frame.
    pub end: Gfn,
}

impl GfnRange {
    /// The frames from `start` up to, not including, `end`; empty when `end` is not above.
    pub fn new(start: Gfn, end: Gfn) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    /// Number of frames.
    pub fn len(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether there is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether `gfn` is one of the frames.
    pub fn contains(&self, gfn: Gfn) -> bool {
        self.start <= gfn && gfn < self.end
    }

    /// Every frame in order.
    pub fn iter(&self) -> impl Iterator<Item = Gfn> + '_ {
        (self.start.0..self.end.0).map(Gfn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_frame_agree() {
        let at = GuestPhys(0x12_3456);
        assert_eq!(at.gfn(), Gfn(0x123));
        assert_eq!(at.page_offset(), 0x456);
        assert_eq!(Pfn(0x123).address(), Some(GuestPhys(0x12_3000)));
    }

    #[test]
    fn arithmetic_beyond_64_bits_is_refused() {
        assert_eq!(Pfn(u64::MAX).address(), None);
        assert_eq!(Gfn(u64::MAX).checked_add(1), None);
    }

    #[test]
    fn a_range_never_has_negative_length() {
        let range = GfnRange::new(Gfn(5), Gfn(2));
        assert!(range.is_empty());
        assert_eq!(range.len(), 0);
        assert!(!range.contains(Gfn(5)));
    }
}
