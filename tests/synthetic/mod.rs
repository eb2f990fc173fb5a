// SPDX-License-Identifier: LGPL-2.1-or-later
//! A synthetic guest for tests of whole dumps, and how readers are asked.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vicover::addr::{Page, Pfn, PAGE_SIZE};
use vicover::dump::{Bitmap, Bitmaps, Facts, Pages, Unreadable, Utsname, VcpuRegisters};

/// Frames of the synthetic guest: RAM with a hole, as below 4 GiB.
pub(crate) const FRAMES: u64 = 6000;
pub(crate) const HOLE: std::ops::Range<u64> = 3000..3300;
/// Reading these fails.
pub(crate) const UNREADABLE: std::ops::Range<u64> = 700..703;

/// The kernel's page tables (one page per level) and its names, which
/// makedumpfile reads through them, as it does the variable `mem_map`.
const TABLES: [u64; 3] = [0x1201, 0x1202, 0x1203];
const UTS_NAMESPACE: u64 = 0x1204;

/// Four-level tables that map 2 MiB of kernel at `ffffffff81200000` to the
/// physical address 0x1200000, or the namespace with the names.
fn kernel_page(pfn: u64) -> Option<Page> {
    const PRESENT_WRITABLE_ACCESSED_DIRTY: u64 = 0x63;
    const LARGE: u64 = 0x80;
    let mut page = [0; PAGE_SIZE];
    let mut entry = |index: usize, pfn: u64, flags: u64| {
        let value = (pfn * PAGE_SIZE as u64) | PRESENT_WRITABLE_ACCESSED_DIRTY | flags;
        page[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
    };
    match pfn {
        _ if pfn == TABLES[0] => entry(511, TABLES[1], 0),
        _ if pfn == TABLES[1] => entry(510, TABLES[2], 0),
        _ if pfn == TABLES[2] => entry(9, 0x1200, LARGE),
        UTS_NAMESPACE => {
            let names = [
                "Linux",
                "synthetic",
                "6.1.0-vicover",
                "#1 SMP",
                "x86_64",
                "(none)",
            ];
            for (field, name) in page[4..].chunks_mut(65).zip(names) {
                field[..name.len()].copy_from_slice(name.as_bytes());
            }
            page[0x800..][..8].copy_from_slice(&0xffff_ea00_0000_0000u64.to_le_bytes());
        }
        _ => return None,
    }
    Some(page)
}

/// What the synthetic guest has at a frame: zeroes, text-like and noise in turn.
pub(crate) fn content(pfn: u64) -> Page {
    if let Some(page) = kernel_page(pfn) {
        return page;
    }
    let mut state = pfn.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    match pfn % 7 {
        0 | 1 => [0; PAGE_SIZE],
        2 => std::array::from_fn(|_| noise()),
        3 => std::array::from_fn(|i| if i == 4095 { pfn as u8 | 1 } else { 0 }),
        _ => std::array::from_fn(|i| {
            b"kernel: panic at "[i % 17] ^ if i % 61 == 0 { noise() } else { 0 }
        }),
    }
}

pub(crate) fn present(pfn: u64) -> bool {
    !HOLE.contains(&pfn)
}

pub(crate) fn wanted(pfn: u64) -> bool {
    let kernel = TABLES.contains(&pfn) || pfn == UTS_NAMESPACE;
    kernel || present(pfn) && pfn % 11 != 5 && !(2000..2500).contains(&pfn)
}

pub(crate) struct Synthetic {
    pub(crate) first: u64,
}

impl Pages for Synthetic {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let pfn = self.first + index as u64;
        if UNREADABLE.contains(&pfn) {
            return Err(Unreadable);
        }
        *into = content(pfn);
        Ok(())
    }
}

pub(crate) fn facts() -> Facts {
    let vmcoreinfo = "OSRELEASE=6.1.0-vicover\nPAGESIZE=4096\n\
        SYMBOL(init_uts_ns)=ffffffff81204000\nSYMBOL(swapper_pg_dir)=ffffffff81201000\n\
        SYMBOL(init_top_pgt)=ffffffff81201000\n\
        SYMBOL(_stext)=ffffffff81000000\nSYMBOL(mem_map)=ffffffff81204800\n\
        SIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\n\
        OFFSET(page.mapping)=24\nOFFSET(page.lru)=8\nOFFSET(page._mapcount)=48\n\
        OFFSET(page.private)=40\n\
        NUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\n\
        NUMBER(SECTION_SIZE_BITS)=27\nNUMBER(MAX_PHYSMEM_BITS)=46\n\
        KERNELOFFSET=0\nCRASHTIME=1700000000\n";
    let registers = |index: u64| VcpuRegisters {
        rip: 0xffff_ffff_8100_1000 + index,
        rsp: 0xffff_c900_0000_0000,
        cs: 0x10,
        ss: 0x18,
        ..Default::default()
    };
    Facts {
        vmcoreinfo: vmcoreinfo.into(),
        utsname: Utsname {
            sysname: "Linux".into(),
            nodename: "synthetic".into(),
            release: "6.1.0-vicover".into(),
            version: "#1 SMP".into(),
            machine: "x86_64".into(),
            domainname: "(none)".into(),
        },
        phys_base: 0,
        vcpus: (0..2).map(registers).collect(),
        timestamp_s: 1_700_000_000,
        dump_level: 0,
        changes: Default::default(),
    }
}

pub(crate) fn bitmaps() -> Arc<Bitmaps> {
    let mut ram = Bitmap::new(Pfn(FRAMES)).unwrap();
    let mut dump = Bitmap::new(Pfn(FRAMES)).unwrap();
    for pfn in 0..FRAMES {
        if present(pfn) {
            ram.set(Pfn(pfn));
        }
        if wanted(pfn) {
            dump.set(Pfn(pfn));
        }
    }
    Arc::new(Bitmaps::new(ram, dump).unwrap())
}

/// Whether a page is in a complete dump.
pub(crate) fn kept_or_not(pfn: u64) -> u8 {
    if wanted(pfn) && !UNREADABLE.contains(&pfn) {
        b'k'
    } else {
        b'x'
    }
}

/// What readers must find, as `check_dump.py` wants to be told.
pub(crate) fn expected(dir: &Path, status: impl Fn(u64) -> u8) -> PathBuf {
    let path = dir.join("expected");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for pfn in 0..FRAMES {
        file.write_all(&[status(pfn)]).unwrap();
        file.write_all(&content(pfn)).unwrap();
    }
    file.flush().unwrap();
    path
}

/// What a reader says of a dump; fails when a page is not as expected.
pub(crate) fn check(reader: &str, dump: &Path, expected: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/check_dump.py");
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(reader)
        .args([dump, expected])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{reader}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
