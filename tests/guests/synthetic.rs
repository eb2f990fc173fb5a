// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest made by hand: enough of a Linux 6.12 kernel for the walker, with
//! every part open to being made wrong.
//!
//! Its memory, by frames: page tables and the like from 0x100 on, the kernel's
//! image at 0x1000 (2 MiB), page descriptors from 0x2000 on.

use std::collections::BTreeMap;

use vicover::addr::{Gfn, GfnRange, GuestPhys, PAGE_SIZE};
use vicover::guest::arch::x86_64::Processor;
use vicover::guest::identity::UTS_FIELD;
use vicover::guest::memory::{read_u64, GuestMemory, ReadFault};

use super::memory::MemoryImage;

pub const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
pub const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
pub const VMALLOC: u64 = 0xffff_c900_0000_0000;
pub const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
pub const IMAGE: u64 = 0x100_0000;
pub const IMAGE_FRAMES: u64 = 512;
pub const DESCRIPTORS: u64 = 0x200_0000;
pub const SECTION_PAGES: u64 = 1 << 15;
pub const RELEASE: &str = "6.12.0-made-by-hand";

const ROOT: u64 = IMAGE + 0x10_0000;
const NAME: u64 = IMAGE + 0x10_1000;
const NODES: u64 = IMAGE + 0x10_2000;
const POINTERS: u64 = IMAGE + 0x10_3000;
const NODE: u64 = IMAGE + 0x10_4000;
const LOG: u64 = IMAGE + 0x10_6000;

const DESCRIPTOR: u64 = 64;
const MAPCOUNT: u64 = 48;
const REFCOUNT: u64 = 52;
const TAIL: u64 = 8;
const MAPPING: u64 = 24;
const PRIVATE: u64 = 40;

pub const LRU: u64 = 1 << 5;
pub const HEAD: u64 = 1 << 6;
pub const PG_PRIVATE: u64 = 1 << 14;
pub const SWAPBACKED: u64 = 1 << 17;
pub const POISON: u64 = 1 << 20;
pub const BUDDY: u32 = 0xf000_0000;
pub const OFFLINE: u32 = 0xf100_0000;
pub const HUGETLB: u32 = 0xf400_0000;
pub const SLAB: u32 = 0xf500_0000;
pub const NO_TYPE: u32 = 0xffff_ffff;

const WRITABLE_TABLE: u64 = 0x63;
const LARGE: u64 = 1 << 7;

pub struct Guest {
    pub memory: MemoryImage,
    pub lines: BTreeMap<String, String>,
    pub text_at: GuestPhys,
    pub note_at: GuestPhys,
    frames: u64,
    blocks: u64,
    next_frame: u64,
    free_blocks: [u64; 11],
}

/// A descriptor's members that the walker looks at.
#[derive(Clone, Copy)]
pub struct Page {
    pub flags: u64,
    pub tail: u64,
    pub mapping: u64,
    pub private: u64,
    pub mapcount: u32,
    pub refcount: u32,
}

pub const KERNEL_PAGE: Page = Page {
    flags: 0,
    tail: 0,
    mapping: 0,
    private: 0,
    mapcount: NO_TYPE,
    refcount: 1,
};

impl Guest {
    /// A guest with this many frames of RAM, all the kernel's.
    pub fn new(frames: u64) -> Self {
        Self::with_blocks(frames, frames.div_ceil(SECTION_PAGES))
    }

    /// A guest of which only the kernel's frames really exist, with `blocks`
    /// sections' worth of descriptors that all sections share in turn.
    pub fn with_blocks(frames: u64, blocks: u64) -> Self {
        Self::build(frames, blocks, VMEMMAP)
    }

    /// A guest whose descriptors are only where they were allocated, in the direct
    /// mapping.
    pub fn without_vmemmap(frames: u64) -> Self {
        let blocks = frames.div_ceil(SECTION_PAGES);
        Self::build(frames, blocks, DIRECT_MAP + DESCRIPTORS)
    }

    /// `descriptors`: the address of page 0's.
    fn build(frames: u64, blocks: u64, descriptors: u64) -> Self {
        let sections = frames.div_ceil(SECTION_PAGES);
        let real = (DESCRIPTORS >> 12) + blocks * 512;
        let mut memory = MemoryImage::new();
        assert!(memory.add_ram(GfnRange::new(Gfn(0), Gfn(real.max(frames.min(0x6000))))));
        memory.claim(Gfn(frames));
        let mut guest = Self {
            memory,
            lines: BTreeMap::new(),
            text_at: GuestPhys(0),
            note_at: GuestPhys(0),
            frames,
            blocks,
            next_frame: 0x100,
            free_blocks: [0; 11],
        };
        for gib in 0..frames.div_ceil(1 << 18) {
            guest.map(DIRECT_MAP + (gib << 30), gib << 30, 3);
        }
        guest.map(KERNEL_MAP + IMAGE, IMAGE, 2);
        for section in (0..sections).filter(|_| descriptors == VMEMMAP) {
            let block = section % blocks;
            guest.map(VMEMMAP + (section << 21), DESCRIPTORS + (block << 21), 2);
        }
        for block in 0..blocks {
            for page in 0..SECTION_PAGES {
                guest.set(block * SECTION_PAGES + page, KERNEL_PAGE);
            }
        }
        guest.write_sections(sections, descriptors);
        guest.write_name(RELEASE);
        guest.write_u64(NODES, DIRECT_MAP + NODE);
        guest.write_u64(NODE + 0xf00, 1); // nr_zones
        guest.describe();
        guest
    }

    pub fn processors(&self) -> Vec<Processor> {
        vec![Processor {
            cr3: ROOT,
            ..Processor::default()
        }]
    }

    pub fn root(&self) -> u64 {
        ROOT
    }

    pub fn write_u64(&mut self, phys: u64, value: u64) {
        self.write(phys, &value.to_le_bytes());
    }

    pub fn write(&mut self, phys: u64, bytes: &[u8]) {
        self.memory.write(GuestPhys(phys), bytes).expect("RAM");
    }

    pub fn read_u64(&self, phys: u64) -> u64 {
        read_u64(&self.memory, GuestPhys(phys)).expect("RAM")
    }

    /// Maps the image read-only.
    pub fn protect_image(&mut self) {
        let entry = self.large_entry(KERNEL_MAP + IMAGE);
        self.write_u64(entry, IMAGE | LARGE | 1);
    }

    /// Where the entry is that maps a large page.
    fn large_entry(&self, virt: u64) -> u64 {
        let mut table = ROOT;
        for shift in [39, 30] {
            let index = virt >> shift & 511;
            table = self.read_u64(table + index * 8) & 0x000f_ffff_ffff_f000;
        }
        table + (virt >> 21 & 511) * 8
    }

    /// Maps what a large page maps by small ones instead, but for some that are to be
    /// `missing`.
    pub fn split(&mut self, virt: u64, missing: std::ops::Range<u64>) {
        let entry = self.large_entry(virt);
        let phys = self.read_u64(entry) & 0x000f_ffff_ffe0_0000;
        self.write_u64(entry, 0);
        for page in (0..512).filter(|page| !missing.contains(page)) {
            self.map(virt + (page << 12), phys + (page << 12), 1);
        }
    }

    /// A log of at most 16 records.
    pub fn add_log(&mut self, texts: &[&str]) {
        let (text_ring, records, infos) = (LOG + 0x30, LOG + 0x100, LOG + 0x300);
        let data = LOG + 0x800;
        let virt = |phys: u64| KERNEL_MAP + phys;
        self.write_u64(LOG + 0x60, virt(LOG));
        self.line("SYMBOL(prb)", format!("{:x}", virt(LOG + 0x60)));
        for (key, value) in [
            ("OFFSET(printk_ringbuffer.desc_ring)", 0),
            ("OFFSET(printk_ringbuffer.text_data_ring)", 0x30),
            ("OFFSET(prb_desc_ring.count_bits)", 0),
            ("OFFSET(prb_desc_ring.descs)", 8),
            ("OFFSET(prb_desc_ring.infos)", 16),
            ("OFFSET(prb_desc_ring.head_id)", 24),
            ("OFFSET(prb_desc_ring.tail_id)", 0x28),
            ("OFFSET(prb_data_ring.size_bits)", 0),
            ("OFFSET(prb_data_ring.data)", 8),
            ("SIZE(prb_desc)", 24),
            ("OFFSET(prb_desc.state_var)", 0),
            ("OFFSET(prb_desc.text_blk_lpos)", 8),
            ("OFFSET(prb_data_blk_lpos.begin)", 0),
            ("OFFSET(prb_data_blk_lpos.next)", 8),
            ("SIZE(printk_info)", 32),
            ("OFFSET(printk_info.ts_nsec)", 8),
            ("OFFSET(printk_info.text_len)", 16),
        ] {
            self.line(key, value);
        }
        self.write_u64(LOG, 4);
        self.write_u64(LOG + 8, virt(records));
        self.write_u64(LOG + 16, virt(infos));
        self.write_u64(LOG + 24, texts.len() as u64 - 1);
        self.write_u64(LOG + 0x28, 0);
        self.write_u64(text_ring, 10);
        self.write_u64(text_ring + 8, virt(data));
        let mut begin = 0;
        for (id, text) in texts.iter().enumerate() {
            let next = (begin + 8 + text.len() as u64).next_multiple_of(8);
            self.write_u64(data + begin, id as u64);
            self.write(data + begin + 8, text.as_bytes());
            let record = records + id as u64 * 24;
            self.write_u64(record, id as u64 | 2 << 62);
            self.write_u64(record + 8, begin);
            self.write_u64(record + 16, next);
            self.write_u64(infos + id as u64 * 32 + 16, text.len() as u64);
            begin = next;
        }
    }

    /// Number of frames of RAM.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Where the array of roots of memory sections is.
    pub fn sections_at(&self) -> u64 {
        let virt = u64::from_str_radix(&self.lines["SYMBOL(mem_section)"], 16);
        virt.expect("an address") - DIRECT_MAP
    }

    pub fn log_at(&self) -> u64 {
        LOG
    }

    /// A frame for the guest's own use.
    pub fn new_frame(&mut self) -> u64 {
        self.next_frame += 1;
        assert!(self.next_frame < IMAGE >> 12);
        (self.next_frame - 1) << 12
    }

    /// Maps one page; level 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB.
    pub fn map(&mut self, virt: u64, phys: u64, level: u32) {
        let mut table = ROOT;
        for at in (level + 1..=4).rev() {
            let entry = table + (virt >> (12 + 9 * (at - 1)) & 511) * 8;
            if self.read_u64(entry) == 0 {
                let new = self.new_frame();
                self.write_u64(entry, new | WRITABLE_TABLE);
            }
            table = self.read_u64(entry) & 0x000f_ffff_ffff_f000;
        }
        let entry = table + (virt >> (12 + 9 * (level - 1)) & 511) * 8;
        let large = if level > 1 { LARGE } else { 0 };
        self.write_u64(entry, phys | WRITABLE_TABLE | large);
    }

    fn write_sections(&mut self, sections: u64, descriptors: u64) {
        let array = self.new_frame();
        // More roots than fit a page are further frames in a row.
        for _ in 0..sections.div_ceil(128 * 512) {
            self.new_frame();
        }
        for root in 0..sections.div_ceil(128) {
            let entries = self.new_frame();
            self.write_u64(array + root * 8, DIRECT_MAP + entries);
            for section in root * 128..sections.min((root + 1) * 128) {
                self.write_u64(entries + section % 128 * 32, descriptors | 0b1111);
            }
        }
        self.line("SYMBOL(mem_section)", format!("{:x}", DIRECT_MAP + array));
    }

    pub fn write_name(&mut self, release: &str) {
        let fields = ["Linux", "host", release, "#1 SMP", "x86_64", "(none)"];
        for (index, field) in fields.iter().enumerate() {
            self.write(NAME + (index * UTS_FIELD) as u64, field.as_bytes());
        }
    }

    pub fn line(&mut self, key: &str, value: impl ToString) {
        self.lines.insert(key.to_owned(), value.to_string());
    }

    pub fn forget(&mut self, key: &str) {
        assert!(self.lines.remove(key).is_some(), "{key} was not there");
    }

    /// Where page descriptor `pfn` is in memory.
    pub fn descriptor(&self, pfn: u64) -> u64 {
        let block = pfn / SECTION_PAGES % self.blocks;
        DESCRIPTORS + (block * SECTION_PAGES + pfn % SECTION_PAGES) * DESCRIPTOR
    }

    pub fn set(&mut self, pfn: u64, page: Page) {
        let at = self.descriptor(pfn);
        self.write_u64(at, page.flags);
        self.write_u64(at + TAIL, page.tail);
        self.write_u64(at + MAPPING, page.mapping);
        self.write_u64(at + PRIVATE, page.private);
        self.write(at + MAPCOUNT, &page.mapcount.to_le_bytes());
        self.write(at + REFCOUNT, &page.refcount.to_le_bytes());
    }

    /// A free block, which the zone counts.
    pub fn set_free(&mut self, pfn: u64, order: u32) {
        self.free_blocks[order as usize] += 1;
        for page in pfn..pfn + (1 << order) {
            let free = Page {
                refcount: 0,
                ..KERNEL_PAGE
            };
            self.set(page, free);
        }
        let first = Page {
            mapcount: BUDDY,
            private: u64::from(order),
            refcount: 0,
            ..KERNEL_PAGE
        };
        self.set(pfn, first);
    }

    /// Has the zone count each free block this often: sections share descriptors.
    pub fn repeat_free(&mut self, times: u64) {
        for blocks in &mut self.free_blocks {
            *blocks *= times;
        }
    }

    pub fn set_cache(&mut self, pfn: u64) {
        let page = Page {
            flags: LRU,
            mapping: DIRECT_MAP + 0x1000,
            ..KERNEL_PAGE
        };
        self.set(pfn, page);
    }

    /// A compound page: the first descriptor as given, and tails.
    pub fn set_compound(&mut self, pfn: u64, order: u32, first: Page) {
        for page in pfn..pfn + (1 << order) {
            let flags = if page == pfn + 1 { u64::from(order) } else { 0 };
            let tail = Page {
                flags,
                tail: VMEMMAP + pfn * DESCRIPTOR + 1,
                refcount: 0,
                ..KERNEL_PAGE
            };
            self.set(page, tail);
        }
        let flags = first.flags | HEAD;
        self.set(pfn, Page { flags, ..first });
    }

    fn describe(&mut self) {
        let symbol = |phys: u64| format!("{:x}", KERNEL_MAP + phys);
        self.line("PAGESIZE", PAGE_SIZE);
        self.line("SYMBOL(swapper_pg_dir)", symbol(ROOT));
        self.line("SYMBOL(_stext)", symbol(IMAGE));
        self.line("SYMBOL(init_uts_ns)", symbol(NAME));
        self.line("SYMBOL(node_data)", symbol(NODES));
        for (key, value) in [
            ("OFFSET(uts_namespace.name)", 0),
            ("NUMBER(phys_base)", 0),
            ("NUMBER(pgtable_l5_enabled)", 0),
            ("NUMBER(sme_mask)", 0),
            ("NUMBER(SECTION_SIZE_BITS)", 27),
            ("SIZE(mem_section)", 32),
            ("OFFSET(mem_section.section_mem_map)", 0),
            ("SIZE(page)", DESCRIPTOR as i64),
            ("OFFSET(page.flags)", 0),
            ("OFFSET(page._refcount)", REFCOUNT as i64),
            ("OFFSET(page._mapcount)", MAPCOUNT as i64),
            ("OFFSET(page.mapping)", MAPPING as i64),
            ("OFFSET(page.private)", PRIVATE as i64),
            ("OFFSET(page.compound_head)", TAIL as i64),
            ("NUMBER(PG_lru)", 5),
            ("NUMBER(PG_private)", 14),
            ("NUMBER(PG_swapcache)", 10),
            ("NUMBER(PG_swapbacked)", 17),
            ("NUMBER(PG_hwpoison)", 20),
            ("NUMBER(PG_head_mask)", 64),
            ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", BUDDY as i32 as i64),
            ("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", OFFLINE as i32 as i64),
            ("NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)", HUGETLB as i32 as i64),
            ("NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)", SLAB as i32 as i64),
            ("LENGTH(node_data)", 1),
            ("OFFSET(pglist_data.node_zones)", 0),
            ("OFFSET(pglist_data.nr_zones)", 0xf00),
            ("SIZE(zone)", 0x600),
            ("OFFSET(zone.free_area)", 0x100),
            ("LENGTH(zone.free_area)", 11),
            ("SIZE(free_area)", 88),
            ("OFFSET(free_area.free_list)", 0),
            ("LENGTH(free_area.free_list)", 5),
            ("SIZE(list_head)", 16),
        ] {
            self.line(key, value);
        }
        self.text_at = GuestPhys(self.new_frame());
        self.note_at = GuestPhys(self.new_frame());
        self.new_frame(); // a note may be longer than a page
        self.write_u64(POINTERS, DIRECT_MAP + self.text_at.0);
        self.write_u64(POINTERS + 8, DIRECT_MAP + self.note_at.0);
        self.write_description();
    }

    pub fn text(&self) -> Vec<u8> {
        let mut text = format!("OSRELEASE={RELEASE}\n").into_bytes();
        for (key, value) in &self.lines {
            text.extend(format!("{key}={value}\n").bytes());
        }
        text
    }

    /// Puts VMCOREINFO and the zone's counters into memory.
    pub fn write_description(&mut self) {
        let mut text = self.text();
        let note = super::elf::note(b"VMCOREINFO\0", 0, &text);
        // The kernel counts the name's zero, and no more.
        let mut note = note;
        note[0] = 11;
        text.resize(PAGE_SIZE, 0);
        self.write(self.text_at.0, &text[..PAGE_SIZE]);
        self.write(self.note_at.0, &note[..note.len().min(2 * PAGE_SIZE)]);
        for order in 0..self.free_blocks.len() {
            let at = NODE + 0x100 + order as u64 * 88 + 80;
            self.write_u64(at, self.free_blocks[order]);
        }
    }
}

impl GuestMemory for Guest {
    fn end(&self) -> Gfn {
        Gfn(self.frames)
    }

    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault> {
        self.memory.read(at, into)
    }

    fn ram(&self) -> &[GfnRange] {
        self.memory.ram()
    }
}
