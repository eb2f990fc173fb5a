// SPDX-License-Identifier: LGPL-2.1-or-later
//! What was found out about the guest.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use log::Level;
use serde::ser::SerializeMap;
use serde::Serialize;

use super::as_text;
use crate::guest::doubt::Doubt;
use crate::guest::oops::{signature, Oops};
use crate::guest::plan::Noticed;
use crate::guest::verdict::Verdict;
use crate::units::{Size, Span};

/// What was found out about the guest.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GuestEvent {
    /// The guest asked for a restart because its kernel had panicked.
    Panicked {
        /// The panic's line in the kernel's log.
        line: String,
    },
    /// The guest's registers have been read.
    Seen {
        /// Its processors.
        vcpus: usize,
        /// Its memory.
        #[serde(rename = "memory_bytes")]
        memory: Size,
    },
    /// The guest's kernel was found.
    Kernel {
        /// The kernel's release, such as "6.1.0-18-amd64".
        release: String,
    },
    /// The kernel's log ends in a panic.
    Died {
        /// What it died of.
        #[serde(flatten)]
        oops: Box<Oops>,
        /// The same for the same fault, 16 hexadecimal digits.
        signature: String,
    },
    /// The kernel's log has been read, from its end: all of it, unless it is longer than
    /// is kept.
    LogRead {
        /// The log, as dmesg(1) prints it.
        #[serde(skip)]
        text: Arc<str>,
        /// Its lines.
        lines: usize,
    },
    /// Where the kernel describes itself.
    Vmcoreinfo {
        /// Page frames of the description and its copies.
        gfns: Vec<u64>,
        /// Memory was searched, since no processor led to the kernel.
        by_search: bool,
        /// Pages that were looked at.
        pages_probed: u64,
    },
    /// Less is left out of the dump than was asked for.
    Doubted {
        /// Why.
        #[serde(serialize_with = "as_text")]
        doubt: Doubt,
    },
    /// Something is not as usual, and the dump does not suffer.
    Noticed {
        /// What.
        #[serde(serialize_with = "as_text")]
        what: Noticed,
    },
    /// What the dump says of the kernel is not confirmed.
    Unconfirmed {
        /// The release that a description claims; none without any description.
        release: Option<String>,
        /// The description is a 32-bit kernel's.
        is_32_bit: bool,
    },
    /// The guest's page tables name machine frames, those in the dump the guest's.
    TablesTranslated {
        /// Why the debugger crash will take them for the guest's own, if it will.
        not_for_crash: Option<String>,
    },
    /// What to dump has been decided.
    Planned {
        /// Pages of the guest.
        pages: u64,
        /// Pages to be dumped.
        wanted_pages: u64,
        /// The dump level that comes of it, as makedumpfile counts.
        dump_level: u8,
    },
    /// How many pages have which verdict.
    Verdicts {
        /// Verdicts with their pages, in the order of [`Verdict::ALL`].
        #[serde(serialize_with = "by_name")]
        pages: Vec<(Verdict, u64)>,
    },
}

impl GuestEvent {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Doubted { .. } | Self::Unconfirmed { .. } => Level::Warn,
            Self::TablesTranslated { not_for_crash } if not_for_crash.is_some() => Level::Warn,
            Self::LogRead { .. } | Self::Vmcoreinfo { .. } | Self::Verdicts { .. } => Level::Debug,
            _ => Level::Info,
        }
    }
}

impl fmt::Display for GuestEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { line } => write!(f, "the guest asked for a restart after \"{line}\""),
            Self::Seen { vcpus, memory } => {
                let plural = if *vcpus == 1 { "" } else { "s" };
                write!(f, "guest: {vcpus} vCPU{plural}, {memory} of memory")
            }
            Self::Kernel { release } => write!(f, "guest runs Linux {release}"),
            Self::Died { oops, signature } => died(f, oops, signature),
            Self::LogRead { text, lines } => {
                write!(
                    f,
                    "the guest's log: {lines} lines, {}",
                    Size(text.len() as u64)
                )
            }
            Self::Vmcoreinfo {
                gfns,
                by_search,
                pages_probed,
            } => {
                let places: Vec<String> = gfns.iter().map(|gfn| format!("{gfn:#x}")).collect();
                let by = match by_search {
                    true => "a search",
                    false => "the processors",
                };
                write!(
                    f,
                    "VMCOREINFO at gfn {}, found by {by} in {pages_probed} pages",
                    places.join(", ")
                )
            }
            Self::Doubted { doubt } => doubt.fmt(f),
            Self::Noticed { what } => what.fmt(f),
            Self::Unconfirmed { release, is_32_bit } => {
                unconfirmed(f, release.as_deref(), *is_32_bit)
            }
            Self::TablesTranslated { not_for_crash } => translated(f, not_for_crash.as_deref()),
            Self::Planned {
                pages,
                wanted_pages,
                dump_level,
            } => write!(
                f,
                "plan: {pages} pages, {wanted_pages} to dump, level {dump_level}"
            ),
            Self::Verdicts { pages } => {
                let each = pages.iter().map(|(verdict, count)| {
                    let name = verdict.name();
                    format!("{name} {count}")
                });
                write!(f, "verdicts: {}", each.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Functions of the call trace that the line names.
const CALLERS: usize = 6;

/// What it died of, where, who called, who ran, and when.
fn died(f: &mut fmt::Formatter<'_>, oops: &Oops, signature: &str) -> fmt::Result {
    write!(f, "the guest died of \"{}\"", oops.title)?;
    for (number, place) in signature::told(oops).take(CALLERS).enumerate() {
        match number {
            0 => write!(f, " at {place:#}")?,
            _ => write!(f, " < {place}")?,
        }
    }
    if let Some(task) = &oops.task {
        write!(f, ", in {} ({task})", task.name)?;
    }
    let up = Span(Duration::from_nanos(oops.up_ns));
    write!(f, ", up {up}; signature {signature}")
}

/// In what page tables in the dump are not as the guest had them.
fn translated(f: &mut fmt::Formatter<'_>, not_for_crash: Option<&str>) -> fmt::Result {
    f.write_str("the dump's page tables name the guest's pages, not the machine's; ")?;
    match not_for_crash {
        None => f.write_str("xen_start_info is 0 there, as crash needs it"),
        Some(why) => write!(f, "crash will not find its way through them: {why}"),
    }
}

/// What a dump of a guest that is not understood is good for.
fn unconfirmed(f: &mut fmt::Formatter<'_>, release: Option<&str>, is_32_bit: bool) -> fmt::Result {
    let help = match is_32_bit {
        // As tried with drgn 0.0.22 and makedumpfile 1.7.2.
        true => "drgn reads it by physical address, others refuse it",
        false => "readers may need help to open it",
    };
    match release {
        Some(release) => write!(
            f,
            "the dump repeats what Linux {release} says of itself, which is not confirmed: {help}"
        ),
        None => write!(f, "the dump does not say which kernel it is of: {help}"),
    }
}

fn by_name<S: serde::Serializer>(pages: &[(Verdict, u64)], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(pages.len()))?;
    for (verdict, count) in pages {
        map.serialize_entry(verdict.name(), count)?;
    }
    map.end()
}
