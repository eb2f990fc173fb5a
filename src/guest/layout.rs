// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the kernel keeps what in its page descriptors (`struct page`).
//!
//! Which kernel it is shows in what its VMCOREINFO has, not in its version:
//! distributions carry changes back.

use super::vmcoreinfo::VmcoreInfo;

/// Bits of `page.flags`, as masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags {
    /// `PG_lru`: on a list of reclaimable pages.
    pub lru: u64,
    /// `PG_private`: a file system keeps data about it.
    pub private: u64,
    /// `PG_swapcache`, which means that only together with `PG_swapbacked`.
    pub swapcache: u64,
    /// `PG_swapbacked`.
    pub swapbacked: u64,
    /// `PG_head`: first page of a compound page.
    pub head: u64,
    /// `PG_hwpoison`; zero where the kernel has none.
    pub poison: u64,
    /// `PG_slab`; zero where slab is a page type.
    pub slab: u64,
}

/// How the order of a compound page, and that it is hugetlb, are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compound {
    /// A byte each in the first tail; hugetlb has destructor `hugetlb`
    /// (until Linux 6.5; in folios since commits 9c5ccf2db04b and 1c5509be58f6).
    Tail {
        /// Offset of the order in the first tail.
        order: usize,
        /// Offset of the destructor's number in the first tail.
        destructor: usize,
        /// `HUGETLB_PAGE_DTOR`.
        hugetlb: u8,
    },
    /// Low byte of the first tail's flags, and a flag there (Linux 6.6, commits
    /// ebc1baf5c9b4 and 9c5ccf2db04b).
    Flags {
        /// `PG_hugetlb`, as a mask.
        hugetlb: u64,
    },
    /// Low byte of the first tail's flags, and a page type (Linux 6.9, commit
    /// d99e3140a4d3).
    Type {
        /// `PAGE_HUGETLB_MAPCOUNT_VALUE`.
        hugetlb: PageType,
    },
}

/// A value of `page._mapcount` that says what an unmapped page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageType(u32);

impl PageType {
    /// From Linux 6.12 on the top byte is the type (commit 4ffca5a96678); before,
    /// types were single cleared bits (commit 6e292b9be7f4), and the whole is
    /// compared.
    pub fn matches(self, mapcount: u32) -> bool {
        if self.0 & 0x00ff_ffff == 0 {
            mapcount >> 24 == self.0 >> 24
        } else {
            mapcount == self.0
        }
    }
}

/// Where in a page descriptor the walker looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageLayout {
    /// `SIZE(page)`, in bytes; a multiple of 8.
    pub size: usize,
    /// Offset of `flags`.
    pub flags: usize,
    /// Offset of `_refcount`.
    pub refcount: usize,
    /// Offset of `_mapcount`, also the page type.
    pub mapcount: usize,
    /// Offset of `mapping`.
    pub mapping: usize,
    /// Offset of `private`: in a free block's first page, its order.
    pub private: usize,
    /// Offset of `compound_head`, `compound_info` from Linux 7.1 on (commit
    /// d50569612c29). Bit 0 marks a tail in both.
    pub tail: usize,
    /// Flags.
    pub bits: Flags,
    /// Compound pages.
    pub compound: Compound,
    /// Free blocks.
    pub buddy: PageType,
    /// Pages given back to the host.
    pub offline: Option<PageType>,
    /// Slab, from Linux 6.10 on (commit 46df8e73a4a3).
    pub slab: Option<PageType>,
    /// Memory not accepted yet; told from Linux 6.16 on.
    pub unaccepted: Option<PageType>,
    /// `LENGTH(zone.free_area)`: every order is below it.
    pub orders: u32,
}

/// Why a description gives no usable layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// The description lacks something, or a value is out of range.
    #[error("{0} is missing or out of range")]
    Value(&'static str),
    /// Two members that cannot share bytes do.
    #[error("{0} and {1} overlap")]
    Overlap(&'static str, &'static str),
}

/// Sizes of `struct page` that are believed.
const SIZES: std::ops::RangeInclusive<u64> = 40..=256;

/// `MAX_ORDER` of any x86-64 kernel so far is 11; a configuration may raise it.
const MAX_ORDERS: u64 = 20;

impl PageLayout {
    /// Takes the layout out of a description.
    pub fn new(info: &VmcoreInfo) -> Result<Self, LayoutError> {
        let size = info
            .size("page")
            .filter(|size| SIZES.contains(size) && size % 8 == 0)
            .ok_or(LayoutError::Value("SIZE(page)"))? as usize;
        let member = |name: &'static str, bytes: usize| {
            offset_below(info, name, size, bytes).ok_or(LayoutError::Value(name))
        };
        let bit = |name: &'static str| bit(info, name).ok_or(LayoutError::Value(name));
        let orders = info
            .length("zone.free_area")
            .filter(|orders| (1..=MAX_ORDERS).contains(orders))
            .ok_or(LayoutError::Value("LENGTH(zone.free_area)"))? as u32;
        let slab = page_type(info, "PAGE_SLAB_MAPCOUNT_VALUE");
        let layout = Self {
            size,
            flags: member("page.flags", 8)?,
            refcount: member("page._refcount", 4)?,
            mapcount: member("page._mapcount", 4)?,
            mapping: member("page.mapping", 8)?,
            private: member("page.private", 8)?,
            tail: member("page.compound_info", 8).or_else(|_| member("page.compound_head", 8))?,
            bits: Flags {
                lru: bit("PG_lru")?,
                private: bit("PG_private")?,
                swapcache: bit("PG_swapcache")?,
                swapbacked: bit("PG_swapbacked")?,
                head: head_mask(info).ok_or(LayoutError::Value("NUMBER(PG_head_mask)"))?,
                poison: bit("PG_hwpoison").unwrap_or(0),
                slab: match slab {
                    Some(_) => bit("PG_slab").unwrap_or(0),
                    None => bit("PG_slab")?,
                },
            },
            compound: compound(info, size)?,
            buddy: page_type(info, "PAGE_BUDDY_MAPCOUNT_VALUE")
                .ok_or(LayoutError::Value("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"))?,
            offline: page_type(info, "PAGE_OFFLINE_MAPCOUNT_VALUE"),
            slab,
            unaccepted: page_type(info, "PAGE_UNACCEPTED_MAPCOUNT_VALUE"),
            orders,
        };
        layout.check_overlaps()?;
        Ok(layout)
    }

    /// Offsets are the guest's word. Members that are in use at the same time
    /// must not share bytes, or one page's verdict would come from another
    /// member's value.
    fn check_overlaps(&self) -> Result<(), LayoutError> {
        let members = [
            ("page.flags", self.flags, 8),
            ("page._refcount", self.refcount, 4),
            ("page._mapcount", self.mapcount, 4),
            ("page.mapping", self.mapping, 8),
            ("page.private", self.private, 8),
            ("page.compound_head", self.tail, 8),
        ];
        for (index, &(one, from, bytes)) in members.iter().enumerate() {
            for &(other, other_from, other_bytes) in &members[..index] {
                if from < other_from + other_bytes && other_from < from + bytes {
                    return Err(LayoutError::Overlap(other, one));
                }
            }
        }
        Ok(())
    }
}

fn offset_below(info: &VmcoreInfo, name: &str, size: usize, bytes: usize) -> Option<usize> {
    let offset = usize::try_from(info.offset(name)?).ok()?;
    let fits = offset % bytes == 0 && offset.checked_add(bytes)? <= size;
    fits.then_some(offset)
}

fn bit(info: &VmcoreInfo, name: &str) -> Option<u64> {
    let bit = info.number(name).filter(|bit| (0..64).contains(bit))?;
    Some(1 << bit)
}

/// A mask already (`VMCOREINFO_NUMBER(PG_head_mask)`).
fn head_mask(info: &VmcoreInfo) -> Option<u64> {
    let mask = info.number("PG_head_mask")? as u64;
    mask.is_power_of_two().then_some(mask)
}

/// Types are negative as counts, less than any count that the kernel allows
/// (`PAGE_MAPCOUNT_RESERVE` is -128).
fn page_type(info: &VmcoreInfo, name: &str) -> Option<PageType> {
    let value = info.number(name)?;
    let is_type = (i64::from(i32::MIN)..-128).contains(&value);
    is_type.then_some(PageType(value as i32 as u32))
}

fn compound(info: &VmcoreInfo, size: usize) -> Result<Compound, LayoutError> {
    if let Some(hugetlb) = page_type(info, "PAGE_HUGETLB_MAPCOUNT_VALUE") {
        return Ok(Compound::Type { hugetlb });
    }
    if let Some(hugetlb) = bit(info, "PG_hugetlb") {
        return Ok(Compound::Flags { hugetlb });
    }
    let in_tail = |folio: &str, page: &str| {
        let offset = match info.offset(folio) {
            Some(offset) => offset.checked_sub(size as u64)?,
            None => info.offset(page)?,
        };
        usize::try_from(offset).ok().filter(|&offset| offset < size)
    };
    let hugetlb = info
        .number("HUGETLB_PAGE_DTOR")
        .and_then(|number| u8::try_from(number).ok())
        .ok_or(LayoutError::Value("NUMBER(HUGETLB_PAGE_DTOR)"))?;
    Ok(Compound::Tail {
        order: in_tail("folio._folio_order", "page.compound_order")
            .ok_or(LayoutError::Value("OFFSET(page.compound_order)"))?,
        destructor: in_tail("folio._folio_dtor", "page.compound_dtor")
            .ok_or(LayoutError::Value("OFFSET(page.compound_dtor)"))?,
        hugetlb,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::guests::synthetic::Guest;

    /// The layout that a guest made by hand describes, after lines were changed.
    fn layout(
        lines: impl IntoIterator<Item = (impl AsRef<str>, i64)>,
    ) -> Result<PageLayout, LayoutError> {
        let mut guest = Guest::new(1 << 14);
        for (key, value) in lines {
            guest.line(key.as_ref(), value);
        }
        let info = VmcoreInfo::parse(&guest.text()).expect("a description");
        PageLayout::new(&info)
    }

    #[test]
    fn a_type_is_a_top_byte_or_a_whole_count() {
        let by_byte = PageType(0xf000_0000);
        assert!(by_byte.matches(0xf000_0000) && by_byte.matches(0xf0ff_ffff));
        assert!(!by_byte.matches(0xf100_0000) && !by_byte.matches(0xffff_ffff));
        let whole = PageType(0xffff_ff7f);
        assert!(whole.matches(0xffff_ff7f));
        assert!(!whole.matches(0xffff_fe7f) && !whole.matches(0xff00_0000));
    }

    #[test]
    fn members_that_share_bytes_are_refused_and_neighbours_are_not() {
        let names = [
            "page.flags",
            "page._refcount",
            "page._mapcount",
            "page.mapping",
            "page.private",
            "page.compound_head",
        ];
        for (index, one) in names.into_iter().enumerate() {
            for other in &names[..index] {
                // At the very start, where nothing else is, and at the end.
                for at in [0, 56] {
                    let lines = (1..).zip(names).map(|(place, name)| {
                        let is_shared = name == one || name == *other;
                        let offset = if is_shared { at } else { place * 8 };
                        (format!("OFFSET({name})"), offset)
                    });
                    let overlap = LayoutError::Overlap(other, one);
                    assert_eq!(layout(lines), Err(overlap), "{at}");
                }
            }
        }
        let counts = |refcount, mapcount| {
            let lines = [
                ("OFFSET(page._refcount)", refcount),
                ("OFFSET(page._mapcount)", mapcount),
            ];
            layout(lines).map(|layout| (layout.refcount, layout.mapcount))
        };
        // Between others, and within one: flags, tail and mapping are 8 bytes at 0, 8
        // and 24, private is at 40.
        assert_eq!(counts(16, 20), Ok((16, 20)));
        assert_eq!(counts(36, 32), Ok((36, 32)));
        assert_eq!(counts(48, 60), Ok((48, 60)));
        let mapping = LayoutError::Overlap("page._refcount", "page.mapping");
        assert_eq!(counts(28, 48), Err(mapping));
        let flags = LayoutError::Overlap("page.flags", "page._mapcount");
        assert_eq!(counts(48, 4), Err(flags));
    }

    #[test]
    fn members_are_within_a_descriptor_and_at_a_multiple_of_their_size() {
        let mapping = |offset| {
            let found = layout([("OFFSET(page.mapping)", offset)]);
            found.map(|layout| layout.mapping)
        };
        assert_eq!((mapping(16), mapping(56)), (Ok(16), Ok(56)));
        for offset in [20, 57, 60, 64, -8] {
            let refused = Err(LayoutError::Value("page.mapping"));
            assert_eq!(mapping(offset), refused, "{offset}");
        }
    }

    #[test]
    fn the_tails_order_and_destructor_are_within_a_descriptor() {
        let found = |order: i64, destructor: i64| {
            let mut guest = Guest::new(1 << 14);
            guest.forget("NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)");
            guest.line("NUMBER(HUGETLB_PAGE_DTOR)", 2);
            guest.line("OFFSET(page.compound_order)", order);
            guest.line("OFFSET(page.compound_dtor)", destructor);
            let info = VmcoreInfo::parse(&guest.text()).expect("a description");
            PageLayout::new(&info).map(|layout| layout.compound)
        };
        let last = Compound::Tail {
            order: 63,
            destructor: 62,
            hugetlb: 2,
        };
        assert_eq!(found(63, 62), Ok(last));
        let order = LayoutError::Value("OFFSET(page.compound_order)");
        assert_eq!(found(64, 62), Err(order));
        let destructor = LayoutError::Value("OFFSET(page.compound_dtor)");
        assert_eq!(found(63, 64), Err(destructor));
    }

    #[test]
    fn a_types_value_is_less_than_any_count() {
        let name = "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)";
        let buddy = |value| {
            let found = layout([(name, value)]);
            found.map(|layout| layout.buddy)
        };
        let refused = Err(LayoutError::Value(name));
        for value in [-128, -1, 0, 127, 128, i64::from(i32::MIN) - 1] {
            assert_eq!(buddy(value), refused, "{value}");
        }
        assert_eq!(buddy(-129), Ok(PageType(0xffff_ff7f)));
        assert_eq!(buddy(i64::from(i32::MIN)), Ok(PageType(0x8000_0000)));
    }
}
