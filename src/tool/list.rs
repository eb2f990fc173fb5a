// SPDX-License-Identifier: LGPL-2.1-or-later
//! `vicover list`: crashes, one in a line.

use std::io::{ErrorKind, Write};
use std::path::Path;

use super::arguments::List;
use super::failure::Failure;
use super::table::{columns, fitted, Terminal};
use crate::incident::{list, printable, DumpState, Head, RecoveryState};
use crate::job::Outcome;
use crate::options::OnCrashLoop;
use crate::units::Size;

/// The crashes that are recorded in `directory`, of one guest or of all.
pub(super) fn crashes(directory: &Path, guest: Option<&str>) -> Result<Vec<Head>, Failure> {
    let heads = match list(directory) {
        // Nothing has crashed yet.
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let what = format!("{}: {error}", directory.display());
            return Err(Failure::Refused(what));
        }
        Ok(heads) => heads,
    };
    let is_wanted = |head: &Head| guest.is_none_or(|guest| head.guest == guest);
    Ok(heads.into_iter().filter(is_wanted).collect())
}

/// Says that there is none.
pub(super) fn none(directory: &Path, guest: Option<&str>) -> Failure {
    let of = guest.map(|guest| format!(" of {guest}"));
    Failure::Nothing(format!(
        "no crash{} is recorded in {}",
        of.unwrap_or_default(),
        directory.display()
    ))
}

pub(super) fn print(
    asked: &List,
    terminal: Option<Terminal>,
    to: &mut dyn Write,
) -> Result<(), Failure> {
    let mut heads = crashes(&asked.directory, asked.guest.as_deref())?;
    if heads.is_empty() {
        return Err(none(&asked.directory, asked.guest.as_deref()));
    }
    let skipped = heads.len().saturating_sub(asked.most.unwrap_or(usize::MAX));
    heads.drain(..skipped);
    if asked.is_reverse {
        heads.reverse();
    }
    if asked.is_json {
        for head in &heads {
            writeln!(to, "{}", json(head))?;
        }
        return Ok(());
    }
    let header = ["CRASHED (UTC)", "GUEST", "NOW", "DUMP", "SIZE", "DIED OF"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(heads.iter().map(row));
    for line in columns(&rows) {
        writeln!(to, "{}", fitted(&line, terminal))?;
    }
    Ok(())
}

fn row(head: &Head) -> [String; 6] {
    let at = head.crashed_s.to_string();
    let title = head.died.as_ref().map(|(_, title)| title.as_str());
    let title = title.map(|title| {
        title
            .strip_prefix("Kernel panic - not syncing: ")
            .unwrap_or(title)
    });
    [
        at.replace('T', " ").trim_end_matches('Z').to_owned(),
        printable(&head.guest),
        now(head).to_owned(),
        dump(head).to_owned(),
        head.dump
            .length_bytes
            .map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string()),
        printable(title.unwrap_or("-")),
    ]
}

/// What became of the guest.
pub(super) fn now(head: &Head) -> &'static str {
    match (head.outcome, head.recovery.state) {
        (Outcome::Adopted, _) => "recovered",
        (Outcome::Dirty, _) => "restarted",
        (Outcome::Untouched, _) => "left to xl",
        (Outcome::GivenUp(OnCrashLoop::Restart), _) => "given up, restarted",
        (Outcome::GivenUp(OnCrashLoop::Destroy), _) => "given up, destroyed",
        (Outcome::GivenUp(OnCrashLoop::Preserve), _) => "given up, kept",
        (Outcome::Undecided, RecoveryState::Running | RecoveryState::Settled) => "recovered",
        (Outcome::Undecided, _) => "down",
    }
}

/// What became of the dump.
fn dump(head: &Head) -> &'static str {
    match head.dump.state {
        DumpState::None if head.is_over => "none",
        DumpState::None => "to come",
        DumpState::Written if head.is_over => "incomplete",
        DumpState::Written => "is written",
        DumpState::Complete => "complete",
        DumpState::Incomplete => "incomplete",
        DumpState::NotMade => "none",
        DumpState::NotWanted => "not wanted",
        DumpState::Removed => "removed",
    }
}

/// A crash as programs read it: members of its record.
fn json(head: &Head) -> String {
    let died = head.died.as_ref();
    serde_json::json!({
        "id": head.id,
        "guest": head.guest,
        "uuid": head.uuid,
        "crashed_s": head.crashed_s,
        "is_over": head.is_over,
        "outcome": head.outcome,
        "signature": died.map(|(signature, _)| signature),
        "title": died.map(|(_, title)| title),
        "recovery": head.recovery,
        "dump": head.dump,
    })
    .to_string()
}
