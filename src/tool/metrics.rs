// SPDX-License-Identifier: LGPL-2.1-or-later
//! `vicover metrics`: figures of all crashes, as Prometheus reads them from a textfile of
//! its node_exporter.
//!
//! Figures are of the records that are there. They get smaller when records are deleted,
//! so that all are gauges.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::Write;

use super::arguments::Metrics;
use super::failure::Failure;
use super::list::crashes;
use crate::incident::{DumpState, Head, RecoveryState};
use crate::job::Outcome;

/// What there is to be said of one guest.
#[derive(Default)]
struct Figures {
    /// By what became of the guest.
    crashes: BTreeMap<&'static str, u64>,
    /// By what became of them.
    dumps: BTreeMap<&'static str, u64>,
    dump_bytes: u64,
    /// Of crashes whose recovery ran: how many, and how long it took until it did, together.
    recovered: u64,
    until_recovery_ms: u64,
    last_s: u64,
}

pub(super) fn print(asked: &Metrics, to: &mut dyn Write) -> Result<(), Failure> {
    let mut guests: BTreeMap<String, Figures> = BTreeMap::new();
    for head in crashes(&asked.directory, None)? {
        let figures = guests.entry(head.guest.clone()).or_default();
        figures.add(&head);
    }
    Table(&guests).write(to).map_err(Failure::from)
}

impl Figures {
    fn add(&mut self, head: &Head) {
        *self.crashes.entry(outcome(head)).or_default() += 1;
        *self.dumps.entry(dump(head)).or_default() += 1;
        if matches!(head.dump.state, DumpState::Complete | DumpState::Incomplete) {
            let bytes = head.dump.length_bytes.unwrap_or(0);
            self.dump_bytes = self.dump_bytes.saturating_add(bytes);
        }
        if let Some(ms) = head.recovery.unpaused_ms {
            self.recovered += 1;
            self.until_recovery_ms = self.until_recovery_ms.saturating_add(ms);
        }
        self.last_s = self.last_s.max(head.crashed_s.0);
    }
}

/// What became of the guest, in a word for each.
fn outcome(head: &Head) -> &'static str {
    match (head.outcome, head.recovery.state) {
        (Outcome::Adopted, _) => "recovered",
        (Outcome::Dirty, _) => "restarted",
        (Outcome::Untouched, _) => "left_to_xl",
        (Outcome::GivenUp(_), _) => "given_up",
        (Outcome::Undecided, RecoveryState::Running | RecoveryState::Settled) => "recovered",
        (Outcome::Undecided, _) if head.is_over => "unknown",
        (Outcome::Undecided, _) => "down",
    }
}

fn dump(head: &Head) -> &'static str {
    match head.dump.state {
        DumpState::None | DumpState::NotMade | DumpState::NotWanted if head.is_over => "none",
        DumpState::None => "to_come",
        DumpState::Written if !head.is_over => "being_written",
        DumpState::Written | DumpState::Incomplete => "incomplete",
        DumpState::Complete => "complete",
        DumpState::NotMade | DumpState::NotWanted => "none",
        DumpState::Removed => "removed",
    }
}

struct Table<'a>(&'a BTreeMap<String, Figures>);

impl Table<'_> {
    fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        self.by_kind(
            to,
            "vicover_crashes",
            "Crashes on record, by what became of the guest.",
            "outcome",
            |figures| &figures.crashes,
        )?;
        self.by_kind(
            to,
            "vicover_dumps",
            "Dumps of these crashes, by what became of them.",
            "state",
            |figures| &figures.dumps,
        )?;
        self.of_each(
            to,
            "vicover_dump_bytes",
            "Length of the dumps that are there.",
            |figures| Box::new(figures.dump_bytes),
        )?;
        self.of_each(
            to,
            "vicover_recoveries",
            "Crashes after which a recovery domain ran.",
            |figures| Box::new(figures.recovered),
        )?;
        self.of_each(
            to,
            "vicover_recovery_seconds",
            "Time from the crash until the recovery domain ran, of all of these together.",
            |figures| Box::new(Seconds(figures.until_recovery_ms)),
        )?;
        self.of_each(
            to,
            "vicover_last_crash_timestamp_seconds",
            "When the guest last crashed, in seconds since 1970.",
            |figures| Box::new(figures.last_s),
        )
    }

    /// A figure for each guest.
    fn of_each(
        &self,
        to: &mut dyn Write,
        name: &str,
        help: &str,
        figure: impl Fn(&Figures) -> Box<dyn Display>,
    ) -> std::io::Result<()> {
        head(to, name, help)?;
        for (guest, figures) in self.0 {
            writeln!(
                to,
                "{name}{{guest=\"{}\"}} {}",
                Label(guest),
                figure(figures)
            )?;
        }
        Ok(())
    }

    /// Figures for each guest, by a label.
    fn by_kind(
        &self,
        to: &mut dyn Write,
        name: &str,
        help: &str,
        label: &str,
        of: impl Fn(&Figures) -> &BTreeMap<&'static str, u64>,
    ) -> std::io::Result<()> {
        head(to, name, help)?;
        for (guest, figures) in self.0 {
            for (kind, count) in of(figures) {
                let guest = Label(guest);
                writeln!(to, "{name}{{guest=\"{guest}\",{label}=\"{kind}\"}} {count}")?;
            }
        }
        Ok(())
    }
}

fn head(to: &mut dyn Write, name: &str, help: &str) -> std::io::Result<()> {
    writeln!(to, "# HELP {name} {help}\n# TYPE {name} gauge")
}

/// Milliseconds, as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The value of a label: its three characters that mean something else are escaped.
struct Label<'a>(&'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => write!(f, "{c}"),
        })
    }
}
