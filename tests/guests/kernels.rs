// SPDX-License-Identifier: LGPL-2.1-or-later
//! Kernels beside the one that a guest made by hand has.

use vicover::addr::{Gfn, GfnRange, GuestPhys, GuestVirt, PAGE_SIZE};
use vicover::guest::arch::x86_64::Processor;
use vicover::guest::memory::GuestMemory;

use super::memory::MemoryImage;
use super::synthetic::{self as made, Guest};

/// Where the second kernel's image is in memory, and how far its addresses are from
/// the first one's.
const IMAGE: u64 = 0x140_0000;
const MOVED: u64 = 0x1000_0000;

/// A kernel that is complete in memory.
pub struct Second {
    /// On its page tables.
    pub processor: Processor,
    /// Where its text is.
    pub text_at: GuestPhys,
}

/// Adds a kernel of another name, as kexec leaves one behind or starts one. `more`
/// lines are at the end of its description.
pub fn add_second(guest: &mut Guest, release: &str, more: &str) -> Second {
    let bytes = (made::IMAGE_FRAMES as usize) * PAGE_SIZE;
    let mut image = vec![0; bytes];
    guest.read(GuestPhys(made::IMAGE), &mut image).expect("RAM");
    guest.write(IMAGE, &image);
    let root = IMAGE + 0x10_0000;
    let (upper, lower) = (guest.new_frame(), guest.new_frame());
    let virt = made::KERNEL_MAP + made::IMAGE + MOVED;
    guest.write_u64(root + 511 * 8, upper | 0x63);
    guest.write_u64(upper + 510 * 8, lower | 0x63);
    guest.write_u64(lower + (virt >> 21 & 511) * 8, IMAGE | 0xe3);
    let field = vicover::guest::identity::UTS_FIELD as u64;
    guest.write(IMAGE + 0x10_1000 + 2 * field, &[0; 65]);
    guest.write(IMAGE + 0x10_1000 + 2 * field, release.as_bytes());

    let (text_at, note_at) = (guest.new_frame(), guest.new_frame());
    guest.new_frame();
    guest.write_u64(IMAGE + 0x10_3000, made::DIRECT_MAP + text_at);
    guest.write_u64(IMAGE + 0x10_3008, made::DIRECT_MAP + note_at);
    let mut text = format!("OSRELEASE={release}\n");
    for (key, value) in &guest.lines {
        let moved = u64::from_str_radix(value, 16).ok();
        let moved = moved.filter(|&at| key.starts_with("SYMBOL") && at >= made::KERNEL_MAP);
        match (key.as_str(), moved) {
            ("NUMBER(phys_base)", _) => {
                let base = IMAGE as i64 - (made::IMAGE + MOVED) as i64;
                text.push_str(&format!("{key}={base}\n"));
            }
            (_, Some(at)) => text.push_str(&format!("{key}={:x}\n", at + MOVED)),
            (_, None) => text.push_str(&format!("{key}={value}\n")),
        }
    }
    text.push_str(more);
    write_both(guest, text.as_bytes(), text_at, note_at);
    Second {
        processor: Processor {
            cr3: root,
            ..Processor::default()
        },
        text_at: GuestPhys(text_at),
    }
}

fn write_both(guest: &mut Guest, text: &[u8], text_at: u64, note_at: u64) {
    let mut note = super::elf::note(b"VMCOREINFO\0", 0, text);
    note[0] = 11;
    guest.write(text_at, text);
    guest.write(note_at, &note);
}

/// A guest of 32 bits with tables of three levels; its processor is in the kernel.
pub fn with_32_bits(frames: u64) -> (MemoryImage, Processor, &'static str) {
    const BASE: u64 = 0xc000_0000;
    const TEXT: &str = "OSRELEASE=6.1.0-686-pae\nPAGESIZE=4096\n\
        SYMBOL(init_uts_ns)=c1100000\nSYMBOL(swapper_pg_dir)=c1101000\n\
        SYMBOL(_stext)=c1000000\n";
    let mut memory = MemoryImage::new();
    assert!(memory.add_ram(GfnRange::new(Gfn(0), Gfn(frames))));
    let mut write = |at: u64, bytes: &[u8]| memory.write(GuestPhys(at), bytes).expect("RAM");
    let (top, table) = (0x5020, 0x6000);
    write(top + 3 * 8, &(table | 1u64).to_le_bytes());
    for large in 0..16u64 {
        // The text is not to be written to.
        let writable = if large == 8 { 0 } else { 2 };
        let entry = large << 21 | 0x80 | writable | 1;
        write(table + large * 8, &entry.to_le_bytes());
    }
    let text_at = (frames - 1) << 12;
    assert!(text_at < 32 << 20);
    write(text_at, TEXT.as_bytes());
    let pointer = (BASE + text_at) as u32;
    write(0x120_4004, &pointer.to_le_bytes());
    let processor = Processor {
        cr3: top,
        cr4: 0x6f0,
        rip: GuestVirt(BASE + 0x100_0123),
        ..Processor::default()
    };
    (memory, processor, TEXT)
}
