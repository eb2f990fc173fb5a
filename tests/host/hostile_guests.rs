// SPDX-License-Identifier: LGPL-2.1-or-later
//! What guests hold that lie on purpose, for the emulated host, where a kernel of our own
//! (probe/pose.c) crashes as one of them.
//!
//! ```text
//! hostile-guests DIRECTORY     a file for each of them
//! ```
//!
//! In memory, tests/guest_hostile.rs has more of these, one lie at a time.
#![allow(missing_docs)]

#[path = "../guests/mod.rs"]
mod guests;

use std::fs;
use std::io;
use std::path::Path;

use guests::lies;
use guests::synthetic::{self as made, Guest};
use vicover::addr::{GuestPhys, Page, PAGE_SIZE};
use vicover::guest::memory::GuestMemory;

/// The guest's memory: 256 MiB.
const FRAMES: u64 = 1 << 16;
/// What is written: the kernel has nothing above.
const HELD_FRAMES: u64 = 0x4000;
/// Blocks of free pages are at most so large.
const ORDER: u32 = 10;

fn main() -> io::Result<()> {
    let directory = std::env::args().nth(1).expect("a directory");
    for (name, guest) in [
        ("forged", forged()),
        ("circular", lies::circular(FRAMES)),
        ("all-free", all_free()),
        ("too-many", too_many()),
        ("over-budget", over_budget()),
        ("endless", endless()),
    ] {
        write(&guest, &Path::new(&directory).join(name))?;
    }
    Ok(())
}

/// Descriptors are of absurd size, at absurd places, and there are more of everything
/// than there can be.
fn forged() -> Guest {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, ORDER);
    for (key, value) in [
        ("SIZE(page)", "1099511627776"),
        ("OFFSET(page.flags)", "18446744073709551608"),
        ("LENGTH(zone.free_area)", "64"),
        ("NUMBER(SECTION_SIZE_BITS)", "63"),
        ("LENGTH(node_data)", "18446744073709551615"),
        ("SYMBOL(node_data)", "fffffffffffffff8"),
    ] {
        guest.line(key, value);
    }
    guest.write_description();
    guest
}

/// Every page is said to be free, the kernel's own included, and the counts agree.
fn all_free() -> Guest {
    let mut guest = Guest::new(FRAMES);
    for block in 0..FRAMES >> ORDER {
        guest.set_free(block << ORDER, ORDER);
    }
    guest.write_description();
    guest
}

/// A kernel that has 64 GiB, all of it free: 256 times what the domain has.
fn too_many() -> Guest {
    let frames = 1 << 24;
    let mut guest = Guest::with_blocks(frames, 2);
    let blocks = (2 * made::SECTION_PAGES) >> ORDER;
    for block in 0..blocks {
        guest.set_free(block << ORDER, ORDER);
    }
    guest.repeat_free(frames / (2 * made::SECTION_PAGES));
    guest.write_description();
    guest
}

/// Descriptions of kernels everywhere, none of which is one: more than are tried.
fn over_budget() -> Guest {
    let mut guest = Guest::new(FRAMES);
    for at in [guest.text_at, guest.note_at] {
        guest.write(at.0, &[0; 64]);
    }
    for gfn in 0x2400..0x2800u64 {
        guest.write(gfn << 12, b"OSRELEASE=trap\nPAGESIZE=4096\n");
    }
    guest
}

/// A table of symbols whose names are one page, over and over, without an end.
fn endless() -> Guest {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, ORDER);
    let (names, tables) = (guest.new_frame(), [guest.new_frame(), guest.new_frame()]);
    guest.write(names, &[0x7f; PAGE_SIZE]);
    guest.map(made::VMALLOC, names, 1);
    for entry in 0..512 {
        guest.write_u64(tables[0] + entry * 8, tables[1] | 0x63);
        guest.write_u64(tables[1] + entry * 8, names | 0x63);
    }
    let root = guest.root();
    let upper = guest.read_u64(root + (made::VMALLOC >> 39 & 511) * 8) & !0xfff;
    guest.write_u64(upper + (made::VMALLOC >> 30 & 511) * 8, tables[0] | 0x63);
    let number = guest.new_frame();
    guest.write_u64(number, 1 << 22);
    for (part, at) in [
        ("num_syms", made::DIRECT_MAP + number),
        ("names", made::VMALLOC),
        ("token_table", made::DIRECT_MAP + names),
        ("token_index", made::DIRECT_MAP + names),
        ("offsets", made::DIRECT_MAP + names),
    ] {
        guest.line(&format!("SYMBOL(kallsyms_{part})"), format!("{at:x}"));
    }
    guest.write_description();
    guest
}

/// The form is described in probe/pose.c.
fn write(guest: &Guest, path: &Path) -> io::Result<()> {
    let mut page: Page = [0; PAGE_SIZE];
    let (mut frames, mut pages) = (Vec::new(), Vec::new());
    for frame in 0..HELD_FRAMES {
        let read = guest.read(GuestPhys(frame << 12), &mut page);
        if read.is_ok() && page.iter().any(|&byte| byte != 0) {
            frames.push(frame);
            pages.extend_from_slice(&page);
        }
    }
    let header = [guest.root(), made::IMAGE, made::KERNEL_MAP + made::IMAGE];
    let count = frames.len() as u64;
    let numbers = header.into_iter().chain([count]).chain(frames);
    let mut file: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    file.resize(file.len().next_multiple_of(PAGE_SIZE), 0);
    file.extend(pages);
    fs::write(path, file)
}
