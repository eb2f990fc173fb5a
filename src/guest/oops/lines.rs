// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lines of a kernel's report, one at a time.

use std::fmt;

/// How a panic's line begins (`vpanic`).
pub(super) const PANIC: &str = "Kernel panic - not syncing: ";

/// Characters that are kept of a name that the guest tells.
const MAX_NAME: usize = 128;
/// Of a module's, with its taints: the kernel's have 55 at most (`MODULE_NAME_LEN`).
const MAX_MODULE_NAME: usize = 64;
/// Modules that are kept.
const MAX_MODULES: usize = 512;
/// Letters that are kept of the kernel's taints; it has 20 (`TAINT_FLAGS_COUNT`).
const MAX_TAINTS: usize = 64;

/// A place in a function, as the kernel writes it: `vfs_write+0xdb/0x3b0 [module]`.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// The function.
    pub function: String,
    /// Bytes after its beginning.
    pub offset_bytes: u64,
    /// The module that it is of; none for the kernel itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Whether the kernel's unwinder is sure that it was called. An address that it only
    /// found on the stack is written with a question mark.
    pub is_sure: bool,
    /// Whether it ran in an interrupt or exception: what comes after such places was
    /// interrupted by them, whatever it was.
    pub is_interrupt: bool,
}

/// As people are told of it beside its name: its number, its processor and the taints.
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {}", self.pid)?;
        self.cpu.map_or(Ok(()), |cpu| write!(f, ", CPU {cpu}"))?;
        let taint = self.taint.as_ref();
        taint.map_or(Ok(()), |taint| write!(f, ", tainted {taint}"))
    }
}

/// As people are told it: the function and its module; `{:#}` has the offset, too.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if f.alternate() {
            write!(f, "+{:#x}", self.offset_bytes)?;
        }
        match &self.module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

/// Who ran when a report was made.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// The task's name (`comm`).
    pub name: String,
    /// Its number.
    pub pid: u64,
    /// The processor; none where a report is about a task that did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// The kernel's taints, as letters; none for a kernel that is not tainted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taint: Option<String>,
}

/// `dump_stack_print_info`: `CPU: 0 UID: 0 PID: 1 Comm: sh Kdump: loaded Tainted: G  OE  6.1.0 #1`,
/// and `sched_show_task`'s title, `INFO: task sh:1 blocked for more than 120 seconds.`
pub(super) fn task_in(line: &str) -> Option<Task> {
    if let Some(rest) = line.strip_prefix("INFO: task ") {
        let (name, rest) = rest
            .rsplit_once(" blocked for ")
            .map(|(who, _)| who.rsplit_once(':'))??;
        return Some(Task {
            name: shortened(name, MAX_NAME),
            pid: rest.parse().ok()?,
            cpu: None,
            taint: None,
        });
    }
    let cpu = number_after(line.strip_prefix("CPU: ")?, "")?;
    let pid = number_after(line, " PID: ")?;
    let (_, rest) = line.split_once(" Comm: ")?;
    let ends = [" Kdump: ", " Not tainted", " Tainted: "];
    let end = ends.iter().filter_map(|end| rest.find(end)).min();
    let taint = rest
        .split_once(" Tainted: ")
        .map(|(_, after)| taint_of(after));
    Some(Task {
        name: shortened(&rest[..end.unwrap_or(rest.len())], MAX_NAME),
        pid,
        cpu: Some(cpu),
        taint,
    })
}

/// The letters, up to the kernel's release.
fn taint_of(text: &str) -> String {
    let letters = text.split_whitespace();
    let is_letters = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
    let taints = letters.take_while(is_letters).flat_map(str::chars);
    taints.take(MAX_TAINTS).collect()
}

fn number_after(line: &str, before: &str) -> Option<u64> {
    let (_, rest) = line.split_once(before)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// `? vfs_write+0xdb/0x3b0 [module]`: what `printk_stack_address` writes.
pub(super) fn frame_in(text: &str) -> Option<Place> {
    let (text, is_sure) = match text.strip_prefix("? ") {
        Some(text) => (text, false),
        None => (text, true),
    };
    let (place, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (function, numbers) = place.rsplit_once('+')?;
    let (offset, size) = numbers.split_once('/')?;
    let hexadecimal = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    hexadecimal(size)?;
    let in_brackets = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    // With CONFIG_STACKTRACE_BUILD_ID the module's build follows its name.
    let module = in_brackets.and_then(|module| module.split(' ').next());
    Some(Place {
        function: shortened(function, MAX_NAME),
        offset_bytes: hexadecimal(offset)?,
        module: module.map(module_name),
        is_sure,
        is_interrupt: false,
    })
}

/// Whether a part of a call trace ends here: `</IRQ>`.
pub(super) fn is_end_of_context(text: &str) -> bool {
    text.starts_with("</") && text.ends_with('>')
}

/// `print_modules`: `Modules linked in: a(OE) b c [last unloaded: d]`.
pub(super) fn modules_in(line: &str) -> Option<Vec<String>> {
    let names = line.strip_prefix("Modules linked in:")?;
    let names = names
        .split_once(" [last unloaded")
        .map_or(names, |(names, _)| names);
    Some(
        names
            .split_whitespace()
            .take(MAX_MODULES)
            .map(module_name)
            .collect(),
    )
}

fn module_name(text: &str) -> String {
    shortened(text, MAX_MODULE_NAME)
}

/// What is kept of a text that the guest tells.
pub(super) fn shortened(text: &str, most_characters: usize) -> String {
    text.chars().take(most_characters).collect()
}
