// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a kernel says it died of, from the end of its log.
//!
//! `arch/x86/kernel/dumpstack.c`, `kernel/panic.c`, `lib/dump_stack.c`: a report begins
//! with a line that says what is wrong, its title, and goes on with the task, the
//! instruction, the call trace and the modules. Where the kernel panics because of a
//! report, that comes first and the panic's line after it; else the panic's line is the
//! title. [`signature`] makes one short text of it that stays the same for the same fault.

use super::kernel::Kernel;
use super::log::{Log, LogError, Record};
use super::memory::GuestMemory;

mod lines;
pub mod signature;

use lines::{frame_in, is_end_of_context, modules_in, shortened, task_in, PANIC};
pub use lines::{Place, Task};

/// How the lines begin that a report of an exception begins with.
const EXCEPTIONS: &[&str] = &[
    "BUG: ",
    "kernel BUG at ",
    "general protection fault",
    "Oops: ",
    "divide error: ",
    "invalid opcode: ",
    "stack segment: ",
    "int3: ",
    "alignment check: ",
    "traps: PANIC: ",
    "PANIC: double fault",
];
/// The line before a report whose title is the next one.
const CUT_HERE: &str = "------------[ cut here ]------------";

/// What a panic says of itself that another report has led to: how that goes on after
/// [`PANIC`], and how the title of such a report begins.
const OF_A_REPORT: [(&str, &[&str]); 7] = [
    ("Fatal exception", EXCEPTIONS),
    (INIT_KILLED, EXCEPTIONS),
    ("softlockup: ", &["watchdog: BUG: "]),
    ("hung_task: ", &["INFO: task "]),
    ("Hard LOCKUP", &["NMI watchdog: ", "watchdog: Watchdog "]),
    ("RCU Stall", &["rcu: INFO: "]),
    ("kernel: panic_on_warn set", &["WARNING: "]),
];

/// The first task has ended: by an exception of its own, or for a reason that the kernel
/// does not know.
const INIT_KILLED: &str = "Attempted to kill init!";
/// The number of the first task.
const INIT: u64 = 1;

/// Bytes of the log that are looked at from its end: a report, and what a panic prints
/// after its line, stacks of other processors included.
const LOG_BYTES: usize = 64 << 10;
/// Lines between the first that says what is wrong and the last, `Oops: ` with its number.
const BEGINNING: usize = 8;
/// Lines of a report that are looked at, after its title.
const LINES: usize = 200;
/// Functions of a call trace that are kept.
const FRAMES: usize = 64;
/// Characters of the title and of the panic's line that are kept: the kernel's own lines
/// are shorter (`vpanic`).
const MAX_TEXT: usize = 1024;

/// What a kernel says it died of.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Oops {
    /// What is wrong: the first line of the report.
    pub title: String,
    /// The panic's line, where the title is another.
    pub panic: Option<String>,
    /// How long the guest was up when it wrote the title, in nanoseconds of its clock.
    pub up_ns: u64,
    /// Who ran.
    pub task: Option<Task>,
    /// The instruction, where an exception tells it.
    pub at: Option<Place>,
    /// Who called, the innermost first.
    pub trace: Vec<Place>,
    /// Modules, as the kernel lists them: with their taints in brackets.
    pub modules: Vec<String>,
}

struct Line<'a> {
    time_ns: u64,
    text: &'a str,
}

impl Oops {
    /// What the kernel died of; none when its log does not end in a panic.
    ///
    /// # Errors
    /// When the log is not found.
    pub fn find(mem: &dyn GuestMemory, kernel: &Kernel) -> Result<Option<Self>, LogError> {
        Ok(Self::in_log(&Log::find(mem, kernel)?.tail(mem, LOG_BYTES)))
    }

    /// What the kernel died of, from the last records of its log, oldest first; none when
    /// it did not panic.
    pub fn in_log(records: &[Record]) -> Option<Self> {
        let lines: Vec<Line<'_>> = records.iter().flat_map(lines_of).collect();
        let panic = lines
            .iter()
            .rposition(|line| line.text.starts_with(PANIC))?;
        let title = cause(&lines, panic).unwrap_or(panic);
        let report = &lines[title..lines.len().min(title + LINES)];
        let (at, trace) = called(&report[1..]);
        let modules = report.iter().find_map(|line| modules_in(line.text));
        Some(Self {
            title: shortened(lines[title].text, MAX_TEXT),
            panic: (title != panic).then(|| shortened(lines[panic].text, MAX_TEXT)),
            up_ns: lines[title].time_ns,
            task: report.iter().find_map(|line| task_in(line.text)),
            at,
            trace,
            modules: modules.unwrap_or_default(),
        })
    }

    /// The panic's line.
    pub fn panic_line(&self) -> &str {
        self.panic.as_deref().unwrap_or(&self.title)
    }
}

/// Of records, the last ones, whose texts take no more together than is looked at.
pub fn at_end(records: &[Record]) -> &[Record] {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.text.len();
        bytes <= LOG_BYTES
    };
    let count = records.iter().rev().take_while(fits).count();
    &records[records.len() - count..]
}

fn lines_of(record: &Record) -> impl Iterator<Item = Line<'_>> {
    let time_ns = record.time_ns;
    let lines = record.text.lines().map(str::trim_end);
    lines.map(move |text| Line { time_ns, text })
}

/// The title of the report that led to the panic in line `panic`, if one did.
fn cause(lines: &[Line<'_>], panic: usize) -> Option<usize> {
    let why = &lines[panic].text[PANIC.len()..];
    let mut known = OF_A_REPORT.iter();
    let (_, titles) = known.find(|(begin, _)| why.starts_with(begin))?;
    let is_title = |line: &Line<'_>| titles.iter().any(|title| line.text.starts_with(title));
    let last = lines[..panic].iter().rposition(is_title)?;
    // What an exception is comes some lines before its number.
    let first = last.saturating_sub(BEGINNING);
    let is_before = |line: &Line<'_>| is_title(line) || line.text == CUT_HERE;
    let earlier = lines[first..last].iter().position(is_before);
    let title = earlier.map_or(last, |place| first + place);
    let title = title + usize::from(lines[title].text == CUT_HERE);
    let mut report = lines[title..panic].iter();
    let ran = report.find_map(|line| task_in(line.text));
    let is_its_own = !why.starts_with(INIT_KILLED) || ran.is_some_and(|task| task.pid == INIT);
    is_its_own.then_some(title)
}

/// The instruction and the call trace of the report whose lines after its title these are.
fn called(lines: &[Line<'_>]) -> (Option<Place>, Vec<Place>) {
    let mut at = None;
    let mut trace = Vec::new();
    let mut is_interrupt = false;
    let mut begun = false;
    for line in lines {
        let text = line.text.trim_start();
        if !begun {
            at = at.or_else(|| text.strip_prefix("RIP: 0010:").and_then(frame_in));
            begun = text == "Call Trace:";
            continue;
        }
        match text {
            "<IRQ>" | "<NMI>" | "<SOFTIRQ>" | "<#DF>" | "<#DB>" | "<#VC>"
            | "<ENTRY_TRAMPOLINE>" => {
                is_interrupt = true;
            }
            "<TASK>" => is_interrupt = false,
            _ if is_end_of_context(text) => is_interrupt = false,
            // The registers with which an exception or system call began.
            _ if is_register(text) => {}
            _ => match frame_in(text) {
                Some(place) if trace.len() < FRAMES => trace.push(Place {
                    is_interrupt,
                    ..place
                }),
                Some(_) => {}
                None => break,
            },
        }
    }
    (at, trace)
}

/// Whether a line within a call trace tells registers.
fn is_register(text: &str) -> bool {
    const REGISTERS: [&str; 9] = [
        "RIP: ",
        "RSP: ",
        "RAX: ",
        "RDX: ",
        "RBP: ",
        "R10: ",
        "R13: ",
        "Code: ",
        "ORIG_RAX: ",
    ];
    REGISTERS.iter().any(|begin| text.starts_with(begin))
}

#[cfg(test)]
mod tests;
