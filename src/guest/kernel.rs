// SPDX-License-Identifier: LGPL-2.1-or-later
//! A kernel whose description has been checked against memory.

use crate::addr::{GuestPhys, GuestVirt, PAGE_SIZE};

use super::arch::x86_64::{Levels, Processor, ENCRYPTION_BITS, KERNEL_MAP, PUD_BYTES};
use super::identity::{UtsName, UTS_BYTES};
use super::memory::{is_ram, GuestMemory};
use super::paging::{PageTables, WalkError};
use super::vmcoreinfo::{ParseError, VmcoreInfo};

/// What memory and VMCOREINFO agree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The kernel's description.
    pub info: VmcoreInfo,
    /// The kernel's own page tables.
    pub tables: PageTables,
    /// Physical address less virtual address of the kernel's image, both
    /// counted from [`KERNEL_MAP`].
    pub phys_base: i64,
    /// First address of the direct mapping of all memory, when it could be
    /// told (`page_offset_base`).
    pub direct_map: Option<GuestVirt>,
    /// The kernel's name.
    pub name: UtsName,
}

/// Why a description is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The text itself is wrong.
    #[error(transparent)]
    Text(#[from] ParseError),
    /// Something it must say is missing or out of range.
    #[error("{0} is missing or out of range")]
    Value(&'static str),
    /// The topmost page table is not in RAM.
    #[error("the topmost page table, {0}, is not RAM")]
    RootNotRam(GuestPhys),
    /// The page tables do not map the kernel.
    #[error("the page tables do not map the kernel: {0}")]
    NotMapped(#[from] WalkError),
    /// The page tables map the kernel to another place.
    #[error("the page tables map the kernel to {found}, not {stated}")]
    Elsewhere {
        /// Where the tables lead.
        found: GuestPhys,
        /// Where the description says it is.
        stated: GuestPhys,
    },
    /// The kernel has no page tables that this library reads.
    #[error("a 32-bit kernel, and only page descriptors of 64-bit kernels are understood")]
    Bits32,
    /// No processor's page tables hold this kernel.
    #[error("no processor runs this kernel")]
    NotRun,
    /// The kernel's name in memory is another one.
    #[error("memory holds no kernel named {0}")]
    OtherName(String),
}

impl Kernel {
    /// Checks a description against memory.
    pub fn check(mem: &dyn GuestMemory, info: VmcoreInfo) -> Result<Self, Refusal> {
        if info.is_32_bit() {
            return Err(Refusal::Bits32);
        }
        if info.page_size() != Some(PAGE_SIZE as u64) {
            return Err(Refusal::Value("PAGESIZE"));
        }
        let phys_base = info
            .number("phys_base")
            .ok_or(Refusal::Value("NUMBER(phys_base)"))?;
        let levels = match info.number("pgtable_l5_enabled") {
            Some(1) => Levels::Five,
            Some(0) | None => Levels::Four,
            Some(_) => return Err(Refusal::Value("NUMBER(pgtable_l5_enabled)")),
        };
        let encrypted = encryption_bit(&info)?;
        let root = image_symbol(&info, phys_base, "swapper_pg_dir")
            .ok_or(Refusal::Value("SYMBOL(swapper_pg_dir)"))?;
        if root.page_offset() != 0 || !is_ram(mem.ram(), root.gfn()) {
            return Err(Refusal::RootNotRam(root));
        }
        let tables = PageTables::new(root.0, levels, encrypted);

        let text = info
            .symbol("_stext")
            .ok_or(Refusal::Value("SYMBOL(_stext)"))?;
        let stated =
            image_symbol(&info, phys_base, "_stext").ok_or(Refusal::Value("SYMBOL(_stext)"))?;
        let found = tables.translate(mem, text)?.phys;
        if found != stated {
            return Err(Refusal::Elsewhere { found, stated });
        }
        let name = read_name(mem, &tables, &info)?;
        let direct_map = find_direct_map(mem, &tables, &info);
        Ok(Self {
            info,
            tables,
            phys_base,
            direct_map,
            name,
        })
    }

    /// Where a symbol of the kernel's image is in memory.
    pub fn image_symbol(&self, name: &str) -> Option<GuestPhys> {
        image_symbol(&self.info, self.phys_base, name)
    }

    /// Whether a processor was on page tables that hold this kernel, or has such
    /// tables beside what it was on: a fact that the guest cannot leave behind by
    /// chance.
    pub fn is_run_by(&self, mem: &dyn GuestMemory, processor: &Processor) -> bool {
        let Some(text) = self.info.symbol("_stext") else {
            return false;
        };
        let stated = self.image_symbol("_stext");
        processor.roots().any(|root| {
            let found = self.tables.with_root(root).translate(mem, text);
            found.is_ok_and(|found| Some(found.phys) == stated)
        })
    }
}

/// `sme_mask` is one address bit, or none.
fn encryption_bit(info: &VmcoreInfo) -> Result<u64, Refusal> {
    let mask = info.number("sme_mask").unwrap_or(0) as u64;
    let is_address_bit = mask.is_power_of_two() && ENCRYPTION_BITS.contains(&mask);
    if mask == 0 || is_address_bit {
        Ok(mask)
    } else {
        Err(Refusal::Value("NUMBER(sme_mask)"))
    }
}

/// `__phys_addr` of an address in the kernel's image (`arch/x86/mm/physaddr.c`).
fn image_symbol(info: &VmcoreInfo, phys_base: i64, name: &str) -> Option<GuestPhys> {
    let within = info.symbol(name)?.0.checked_sub(KERNEL_MAP)?;
    within.checked_add_signed(phys_base).map(GuestPhys)
}

/// `init_uts_ns.name`. The structure began with a reference count before Linux
/// 5.11 (commit 9a56493f6942), which also is when its offset began to be told.
fn read_name(
    mem: &dyn GuestMemory,
    tables: &PageTables,
    info: &VmcoreInfo,
) -> Result<UtsName, Refusal> {
    let space = info
        .symbol("init_uts_ns")
        .ok_or(Refusal::Value("SYMBOL(init_uts_ns)"))?;
    let offset = info.offset("uts_namespace.name").unwrap_or(4);
    let at = space
        .checked_add(offset)
        .ok_or(Refusal::Value("OFFSET(uts_namespace.name)"))?;
    let mut bytes = [0; UTS_BYTES];
    tables.read(mem, at, &mut bytes)?;
    UtsName::parse(&bytes)
        .filter(|name| name.sysname == "Linux" && name.release == info.release())
        .ok_or_else(|| Refusal::OtherName(info.release().to_owned()))
}

/// The direct mapping begins on a multiple of 1 GiB (`kernel_randomize_memory`
/// moves it by whole PUD entries, `arch/x86/mm/kaslr.c`). The array of memory
/// sections is allocated at boot, so its address is within the direct mapping.
fn find_direct_map(
    mem: &dyn GuestMemory,
    tables: &PageTables,
    info: &VmcoreInfo,
) -> Option<GuestVirt> {
    let inside = info.symbol("mem_section")?;
    if inside < tables.upper_half() || inside.0 >= KERNEL_MAP {
        return None;
    }
    let phys = tables.translate(mem, inside).ok()?.phys;
    let base = inside.0.checked_sub(phys.0)?;
    let begins_well = base % PUD_BYTES == 0 && base >= tables.upper_half().0;
    begins_well.then_some(GuestVirt(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::guests::synthetic::{self as made, Guest};

    const FRAMES: u64 = 1 << 14;
    /// Where the kernel's half of the addresses begins.
    const UPPER: u64 = 0xffff_8000_0000_0000;

    fn check(guest: &Guest) -> Result<Kernel, Refusal> {
        let info = VmcoreInfo::parse(&guest.text()).expect("a description");
        Kernel::check(guest, info)
    }

    fn check_with(key: &str, value: &str) -> Result<Kernel, Refusal> {
        let mut guest = Guest::new(FRAMES);
        guest.line(key, value);
        check(&guest)
    }

    #[test]
    fn what_no_kernel_says_is_refused() {
        for (key, value) in [
            ("PAGESIZE", "8192"),
            ("NUMBER(phys_base)", "none"),
            ("NUMBER(pgtable_l5_enabled)", "2"),
            ("NUMBER(sme_mask)", "2147483648"),
            ("NUMBER(sme_mask)", "12884901888"),
            ("NUMBER(sme_mask)", "4503599627370496"),
            ("NUMBER(sme_mask)", "-1"),
            ("SYMBOL(swapper_pg_dir)", "ffffffff7ffff000"),
            ("SYMBOL(_stext)", "none"),
        ] {
            let refusal = check_with(key, value).expect_err(key);
            assert_eq!(refusal, Refusal::Value(key), "{value}");
        }
        let name = check_with("OFFSET(uts_namespace.name)", "18446744073709551615");
        let name = name.expect_err("no name");
        assert_eq!(name, Refusal::Value("OFFSET(uts_namespace.name)"));
    }

    #[test]
    fn the_topmost_page_table_is_a_page_of_ram() {
        let guest = Guest::new(FRAMES);
        let root = |phys: u64| {
            let refusal = check_with(
                "SYMBOL(swapper_pg_dir)",
                &format!("{:x}", made::KERNEL_MAP + phys),
            );
            refusal.expect_err("no table")
        };
        for phys in [guest.root() + 8, FRAMES << 12] {
            assert_eq!(root(phys), Refusal::RootNotRam(GuestPhys(phys)));
        }
        // Any other page leads nowhere.
        let text = GuestVirt(made::KERNEL_MAP + made::IMAGE);
        let empty = root((FRAMES - 1) << 12);
        assert_eq!(empty, Refusal::NotMapped(WalkError::NotMapped(text)));
    }

    #[test]
    fn page_tables_lead_to_the_kernel_that_is_described() {
        let mut guest = Guest::new(FRAMES);
        let kernel = check(&guest).expect("a kernel");
        assert_eq!(kernel.image_symbol("_stext"), Some(GuestPhys(made::IMAGE)));
        assert_eq!(kernel.image_symbol("mem_section"), None);
        guest.map(made::KERNEL_MAP + made::IMAGE, 0x140_0000, 2);
        let elsewhere = Refusal::Elsewhere {
            found: GuestPhys(0x140_0000),
            stated: GuestPhys(made::IMAGE),
        };
        assert_eq!(check(&guest), Err(elsewhere));
    }

    #[test]
    fn one_bit_of_an_address_may_mean_encrypted() {
        for bit in [32, 47, 51] {
            let mut guest = Guest::new(FRAMES);
            guest.line("NUMBER(sme_mask)", 1u64 << bit);
            let entry = guest.root() + 511 * 8;
            let upper = guest.read_u64(entry);
            guest.write_u64(entry, upper | 1 << bit);
            let kernel = check(&guest).expect("a kernel");
            assert_eq!(kernel.tables.root(), GuestPhys(guest.root()), "bit {bit}");
        }
    }

    #[test]
    fn memory_holds_the_name_that_is_described() {
        let mut guest = Guest::new(FRAMES);
        let other = Err(Refusal::OtherName(made::RELEASE.to_owned()));
        guest.write_name("7.77.0-made-by-hand");
        assert_eq!(check(&guest), other);
        guest.write_name(made::RELEASE);
        assert_eq!(check(&guest).expect("a kernel").name.version, "#1 SMP");
        // Before Linux 5.11 a count was before it, and nothing said so.
        guest.forget("OFFSET(uts_namespace.name)");
        assert_eq!(check(&guest), other);
        let space = guest.lines["SYMBOL(init_uts_ns)"].clone();
        let name = u64::from_str_radix(&space, 16).expect("an address");
        guest.line("SYMBOL(init_uts_ns)", format!("{:x}", name - 4));
        assert_eq!(check(&guest).expect("a kernel").name.nodename, "host");
        guest.write(name - made::KERNEL_MAP, b"Minix");
        assert_eq!(check(&guest), other);
    }

    #[test]
    fn the_direct_mapping_begins_in_the_kernels_half_at_a_multiple_of_1_gib() {
        let mut guest = Guest::new(FRAMES);
        let direct_map = |guest: &mut Guest, inside: u64| {
            guest.line("SYMBOL(mem_section)", format!("{inside:x}"));
            check(guest).expect("a kernel").direct_map.map(|at| at.0)
        };
        let frame = guest.new_frame();
        guest.map(made::VMALLOC, frame, 1);
        guest.map(0x4000_0000, 0, 3);
        for (inside, direct) in [
            (made::DIRECT_MAP, Some(made::DIRECT_MAP)),
            (made::DIRECT_MAP + 0x12_3456, Some(made::DIRECT_MAP)),
            // In the image, elsewhere, nowhere, and in a program.
            (made::KERNEL_MAP + made::IMAGE, None),
            (made::VMALLOC, None),
            (made::VMALLOC + 0x1000, None),
            (0x4000_0000, None),
        ] {
            assert_eq!(direct_map(&mut guest, inside), direct, "{inside:#x}");
        }
        // At the border, and below.
        guest.map(UPPER, 0, 3);
        assert_eq!(direct_map(&mut guest, UPPER), Some(UPPER));
        guest.map(UPPER, 1 << 30, 3);
        assert_eq!(direct_map(&mut guest, UPPER), None);
        guest.forget("SYMBOL(mem_section)");
        assert_eq!(check(&guest).expect("a kernel").direct_map, None);
    }
}
