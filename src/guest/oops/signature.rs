// SPDX-License-Identifier: LGPL-2.1-or-later
//! One short text for what a kernel died of: the same when it dies of the same again,
//! elsewhere in memory, in another task, under another load.

use super::lines::PANIC;
use super::{Oops, Place};

/// Functions that count, the innermost first: who called those differs from case to case.
const FUNCTIONS: usize = 5;

/// Functions that a kernel goes through when it reports, whatever it is about.
const REPORTING: [&str; 28] = [
    "dump_stack",
    "dump_stack_lvl",
    "__dump_stack",
    "show_stack",
    "show_regs",
    "panic",
    "vpanic",
    "nmi_panic",
    "die",
    "__die",
    "__die_body",
    "die_addr",
    "oops_end",
    "oops_enter",
    "page_fault_oops",
    "do_trap",
    "do_error_trap",
    "do_invalid_op",
    "report_bug",
    "handle_bug",
    "fixup_bug",
    "__warn",
    "warn_slowpath_fmt",
    "make_task_dead",
    "rewind_stack_and_make_dead",
    "__crash_kexec",
    // Where a task waits that is reported because it waits too long.
    "__schedule",
    "schedule",
];
/// How the names of others of them begin.
const EXCEPTIONS: [&str; 6] = [
    "exc_",
    "asm_exc_",
    "search_module_",
    "kernelmode_fixup",
    "no_context",
    "bad_area",
];

/// The places that tell faults apart, the innermost first: the instruction, if it is
/// told, and the surest callers, beside those that only report.
pub fn told(oops: &Oops) -> impl Iterator<Item = &Place> {
    let sure = oops.trace.iter().filter(|place| place.is_sure);
    let places = oops.at.iter().chain(sure);
    let places = places.filter(|place| !is_reporting(&place.function));
    // What an interrupt has interrupted has nothing to do with it.
    let began_in_interrupt = oops.trace.first().is_some_and(|place| place.is_interrupt);
    places.take_while(move |place| {
        oops.at.as_ref().is_some_and(|at| std::ptr::eq(at, *place))
            || !began_in_interrupt
            || place.is_interrupt
    })
}

fn is_reporting(function: &str) -> bool {
    let name = base(function);
    REPORTING.contains(&name) || EXCEPTIONS.iter().any(|begin| name.starts_with(begin))
}

/// A function's name without what the compiler has made of it.
fn base(function: &str) -> &str {
    let ends = [".cold", ".part.", ".isra.", ".constprop.", ".llvm."];
    let end = ends.iter().filter_map(|end| function.find(end)).min();
    &function[..end.unwrap_or(function.len())]
}

impl Oops {
    /// The signature, 16 hexadecimal digits.
    pub fn signature(&self) -> String {
        let mut parts = vec![kind(&self.title)];
        let mut before = "";
        for place in told(self) {
            let name = base(&place.function);
            // A function and its cold part, or the instruction and its trace, are one.
            if name != before {
                let module = place.module.as_deref().unwrap_or_default();
                parts.push(format!("{module}:{name}"));
                before = name;
            }
            if parts.len() > FUNCTIONS {
                break;
            }
        }
        format!("{:016x}", fnv_1a(parts.join("\n").as_bytes()))
    }
}

/// What kind of fault a title tells: without addresses, numbers, and who it was.
fn kind(title: &str) -> String {
    let title = title.strip_prefix(PANIC).unwrap_or(title);
    if title.starts_with("INFO: task ") {
        return "INFO: task blocked".to_owned();
    }
    // "soft lockup - CPU#0 stuck for 26s! [sh:123]", "Oops: 0002 [#1] PREEMPT SMP", and
    // "WARNING: mm/slab.c:7 at kfree+0x7/0x9, CPU#0: sh/123".
    let end = [" [", ", CPU#"]
        .iter()
        .filter_map(|end| title.find(end))
        .min();
    let title = &title[..end.unwrap_or(title.len())];
    let words = title.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !is_number(word)).collect()
}

fn is_number(word: &str) -> bool {
    let word = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let seconds = word.strip_suffix('s').unwrap_or(word);
    word.strip_prefix("0x").is_some_and(is_hexadecimal)
        || word.len() >= 8 && is_hexadecimal(word)
        || !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit())
}

/// FNV-1a of 64 bits: short, and the same in every release of this library.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
