// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guests for tests: real ones from images, and made ones.
#![allow(dead_code, unreachable_pub, missing_docs)]
pub mod counting;
pub mod elf;
pub mod image;
pub mod kdump;
pub mod kernels;
pub mod lies;
pub mod memory;
pub mod overlay;
pub mod symbols;
pub mod synthetic;

use vicover::addr::{Gfn, GfnRange};
use vicover::guest::arch::x86_64::Processor;
use vicover::guest::limits::Limits;
use vicover::guest::locate::locate;
use vicover::guest::log::Log;
use vicover::guest::memory::GuestMemory;
use vicover::guest::plan::{build, Plan};
use vicover::guest::verdict::{DumpLevel, Verdict};

use synthetic::Guest;

/// Every page is either dumped, once, or left out.
pub fn assert_whole(guest: &dyn GuestMemory, plan: &Plan) {
    let mut times = vec![0u8; guest.end().0 as usize];
    for range in plan.kept().chain(plan.excluded()) {
        for gfn in range.iter() {
            times[gfn.0 as usize] += 1;
        }
    }
    let odd = times.iter().position(|&times| times != 1);
    assert_eq!(odd, None, "a page that is not there exactly once");
    let excluded: u64 = plan.excluded().map(|range: GfnRange| range.len()).sum();
    assert_eq!(excluded, plan.excluded_pages());
}

/// The plan at the usual level for a guest whose kernel can be found.
pub fn plan_of(guest: &Guest) -> Plan {
    plan_through(guest, &guest.processors())
}

/// The same, of memory that something stands before.
pub fn plan_through(memory: &dyn GuestMemory, processors: &[Processor]) -> Plan {
    let located = locate(memory, processors, &Limits::default()).expect("a kernel");
    let (level, limits) = (DumpLevel::DEFAULT, Limits::default());
    build(memory, &located, processors, level, &limits)
}

/// Verdicts on pages, as how many in a row have each.
pub fn verdicts(plan: &Plan, pages: std::ops::Range<u64>) -> Vec<(u64, Verdict)> {
    let mut runs: Vec<(u64, Verdict)> = Vec::new();
    for verdict in pages.map(|pfn| plan.verdict(Gfn(pfn))) {
        match runs.last_mut() {
            Some((number, same)) if *same == verdict => *number += 1,
            _ => runs.push((1, verdict)),
        }
    }
    runs
}

/// Does all that reads a guest, whatever it holds.
pub fn read_everything(guest: &dyn GuestMemory, processors: &[Processor]) {
    let Ok(located) = locate(guest, processors, &Limits::default()) else {
        return;
    };
    if let Ok(log) = Log::find(guest, &located.kernel) {
        log.tail(guest, 4096);
    }
    let limits = Limits::default();
    let plan = build(guest, &located, processors, DumpLevel::DEFAULT, &limits);
    assert_whole(guest, &plan);
}

/// A guest to be changed at random: small, with something of every kind.
pub fn fuzzed_guest() -> Guest {
    let mut guest = Guest::new(0x4000);
    guest.set_free(0x3000, 10);
    guest.set_cache(0x3400);
    let page = synthetic::Page {
        mapcount: synthetic::HUGETLB,
        ..synthetic::KERNEL_PAGE
    };
    guest.set_compound(0x3600, 9, page);
    guest.add_log(&["first", "second"]);
    guest.write_description();
    guest
}
