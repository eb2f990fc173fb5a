// SPDX-License-Identifier: LGPL-2.1-or-later
//! The record on one screen, for people.

use std::fmt::Write;
use std::time::Duration;

use super::value::{Died, DumpState, Incident, RecoveryState};
use crate::guest::oops::{signature, Place};
use crate::job::Outcome;
use crate::units::{Size, Span};

/// Columns of a terminal.
const COLUMNS: usize = 80;
/// Columns of what comes before each value.
const LABEL: usize = 11;
/// Callers that are named.
const CALLERS: usize = 12;
/// Warnings and errors that are shown.
const TROUBLES: usize = 6;

/// The record of a crash as a text of lines, most of them no longer than a terminal's.
pub fn screen(incident: &Incident) -> String {
    let mut text = format!("{}\n\n", incident.id);
    let mut row = |label: &str, value: &str| add_row(&mut text, label, value);
    row("Guest", &guest(incident));
    row("Crashed", &crashed(incident));
    if let Some(died) = &incident.died {
        say_death(died, &mut row);
        row(
            "Signature",
            &format!("{}{}", died.signature, seen(incident)),
        );
    } else {
        row(
            "Died of",
            "not known: its kernel's log does not end in a panic",
        );
    }
    row("Recovery", &recovery(incident));
    row("Dump", &dump(incident));
    for doubt in &incident.doubts {
        row("", doubt);
    }
    for trouble in incident.troubles.iter().take(TROUBLES) {
        row(&trouble.level, &trouble.line);
    }
    let more = incident.troubles.len().saturating_sub(TROUBLES);
    if more > 0 {
        row("", &format!("and {more} more, in the .json"));
    }
    if let Some(why) = &incident.failure {
        row("Failed", why);
    }
    // Not wrapped: they are to be pasted.
    for (number, command) in incident.dump.open_with.iter().enumerate() {
        let label = if number == 0 { "Open with" } else { "" };
        let _ = writeln!(text, "{label:LABEL$}{}", printable(command));
    }
    text
}

/// A text that a guest or a file may have had its words in: nothing in it moves a cursor.
pub(crate) fn printable(text: &str) -> String {
    let or_dot = |c: char| if c.is_control() { '.' } else { c };
    text.chars().map(or_dot).collect()
}

/// Adds a value, which goes on below itself where it is longer than a line.
fn add_row(text: &mut String, label: &str, value: &str) {
    let mut line = format!("{label:LABEL$}");
    for word in printable(value).split(' ') {
        let length = line.chars().count();
        let is_first = length <= LABEL;
        if !is_first && length + 1 + word.chars().count() > COLUMNS {
            text.push_str(line.trim_end());
            text.push('\n');
            line = format!("{:LABEL$}", "");
        } else if !is_first {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn guest(incident: &Incident) -> String {
    let mut parts = vec![incident.guest.clone()];
    let release = incident.kernel.as_ref();
    parts.extend(release.map(|release| format!("Linux {release}")));
    let vcpus = incident.vcpus;
    parts.extend(vcpus.map(|vcpus| match vcpus {
        1 => "1 vCPU".to_owned(),
        _ => format!("{vcpus} vCPUs"),
    }));
    let memory = incident.memory_bytes;
    parts.extend(memory.map(|bytes| Size(bytes).to_string()));
    parts.join(", ")
}

fn crashed(incident: &Incident) -> String {
    let up = incident.died.as_ref().map(|died| {
        let up = Span(Duration::from_nanos(died.oops.up_ns));
        format!(", {up} after it was started")
    });
    format!("{}{}", incident.crashed_at, up.unwrap_or_default())
}

fn say_death(died: &Died, row: &mut impl FnMut(&str, &str)) {
    let Died { oops, .. } = died;
    row("Died of", &oops.title);
    if let Some(panic) = &oops.panic {
        row("", panic);
    }
    let mut places = signature::told(oops);
    if let Some(at) = places.next() {
        row("At", &format!("{at:#}"));
    }
    let callers: Vec<String> = places.take(CALLERS).map(Place::to_string).collect();
    if !callers.is_empty() {
        row("Called by", &callers.join(" < "));
    }
    if let Some(task) = &oops.task {
        row("Task", &format!("{}, {task}", task.name));
    }
}

/// What is known of other crashes of the same.
fn seen(incident: &Incident) -> String {
    let Some(earlier) = &incident.earlier else {
        return String::new();
    };
    let times = match earlier.count {
        1 => "once".to_owned(),
        count => format!("{count} times since {}", earlier.first.crashed_s.day()),
    };
    let last = &earlier.last;
    format!(
        ", seen {times} before, last on {} ({})",
        last.guest, last.id
    )
}

/// What became of the recovery.
pub(super) fn recovery(incident: &Incident) -> String {
    let recovery = &incident.recovery;
    let domain = recovery
        .domid
        .map_or_else(String::new, |domid| format!("domain {domid} "));
    let since = recovery.unpaused_ms.map(|ms| {
        let after = Span(Duration::from_millis(ms));
        format!(", it runs since {after} after the crash")
    });
    let mut text = match recovery.state {
        RecoveryState::None => match incident.outcome {
            Outcome::GivenUp(action) => format!("none, the guest keeps crashing: {action}"),
            Outcome::Untouched => "none: left to xl".to_owned(),
            _ => "none yet".to_owned(),
        },
        RecoveryState::Created => format!("{domain}is built"),
        RecoveryState::Running => format!("{domain}runs, on part of its memory"),
        RecoveryState::Settled => format!("{domain}is an ordinary domain"),
        RecoveryState::Gone => format!("{domain}has ended before the dump"),
        RecoveryState::Failed => "failed: the guest stays down until the dump is written".into(),
    };
    text.push_str(&since.unwrap_or_default());
    if let Some(why) = &recovery.why {
        let _ = write!(text, " ({why})");
    }
    if let Some(pauses) = recovery.pauses.filter(|pauses| pauses.count > 0) {
        let paused = Span(Duration::from_millis(pauses.paused_ms));
        let _ = write!(text, "; paused {} times, {paused} in all", pauses.count);
    }
    text
}

/// What became of the dump.
pub(super) fn dump(incident: &Incident) -> String {
    let dump = &incident.dump;
    let state = match dump.state {
        DumpState::None => "not begun",
        DumpState::Written => "being written",
        DumpState::Complete => "complete",
        DumpState::Incomplete => "incomplete",
        DumpState::NotMade => "none",
        DumpState::NotWanted => "none",
        DumpState::Removed => "removed",
    };
    let mut parts = vec![state.to_owned()];
    parts.extend(dump.length_bytes.map(|bytes| Size(bytes).to_string()));
    if let Some(plan) = &incident.plan {
        let level = plan.dump_level;
        let wanted = dump.pages.unwrap_or(plan.wanted_pages);
        parts.push(format!("{wanted} of {} pages (level {level})", plan.pages));
    }
    if dump.no_room_pages > 0 {
        parts.push(format!("no room for {} pages", dump.no_room_pages));
    }
    parts.extend(dump.path.clone());
    let why = dump.why.as_ref().map(|why| format!(": {why}"));
    parts.join(", ") + &why.unwrap_or_default()
}

#[cfg(test)]
pub(in crate::incident) mod tests;
