// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the events of a job come to: the record of its crash.

use std::path::Path;

use super::open_with::open_with;
use super::value::{
    Died, DumpState, Incident, Pauses, ProgressMark, RecoveryState, StepMark, Trouble,
};
use crate::told::event::{
    ControlEvent, DumpEvent, Event, GuestEvent, JobEvent, RecoveryEvent, StandbyEvent,
};
use crate::told::record::level_name;

/// Warnings and errors that are kept.
const MOST_TROUBLES: usize = 100;
/// Steps that are kept.
const MOST_STEPS: usize = 256;
/// Times at which it is kept how far the dump was.
const MOST_MARKS: usize = 64;
/// Lines of the guest's log that are kept: the last ones.
const MOST_LINES: usize = 100;
/// Characters that are kept of one of them: Linux writes no longer ones
/// (`PRINTKRB_RECORD_MAX`), a guest that lies does.
const MOST_LINE_CHARACTERS: usize = 1100;
/// Reasons for doubt that are kept.
const MOST_DOUBTS: usize = 100;

fn push<T>(list: &mut Vec<T>, most: usize, item: T) {
    if list.len() < most {
        list.push(item);
    }
}

impl Incident {
    /// Adds what an event tells that happened `at_ms` after the crash.
    pub(super) fn add(&mut self, event: &Event, at_ms: u64) {
        let level = event.level();
        if level <= log::Level::Warn {
            let trouble = Trouble {
                at_ms,
                level: level_name(level).into(),
                line: event.to_string(),
            };
            push(&mut self.troubles, MOST_TROUBLES, trouble);
        }
        match event {
            Event::Guest(event) => self.add_guest(event),
            Event::Recovery(event) => self.add_recovery(event, at_ms),
            Event::Dump(event) => self.add_dump(event, at_ms),
            Event::Control(ControlEvent::Guarded { pauses, paused, .. }) => {
                self.recovery.pauses = Some(Pauses {
                    count: *pauses,
                    paused_ms: paused.millis(),
                });
            }
            Event::Standby(StandbyEvent::Adopted { domid }) => self.created(*domid),
            Event::Control(_) | Event::Standby(_) | Event::Job(_) => {}
        }
        if is_step(event) {
            let (about, name) = event.names();
            let what = format!("{about} {name}");
            push(&mut self.steps, MOST_STEPS, StepMark { at_ms, what });
        }
    }

    fn add_guest(&mut self, event: &GuestEvent) {
        match event {
            GuestEvent::Seen { vcpus, memory } => {
                (self.vcpus, self.memory_bytes) = (Some(*vcpus), Some(memory.0));
            }
            GuestEvent::Kernel { release } => self.kernel = Some(release.clone()),
            GuestEvent::Died { oops, signature } => {
                self.died = Some(Died {
                    signature: signature.clone(),
                    oops: (**oops).clone(),
                });
            }
            GuestEvent::LogRead { text, lines } => {
                let skipped = lines.saturating_sub(MOST_LINES);
                let last = text.lines().skip(skipped);
                self.log = last
                    .map(|line| line.chars().take(MOST_LINE_CHARACTERS).collect())
                    .collect();
            }
            GuestEvent::Doubted { doubt } => {
                push(&mut self.doubts, MOST_DOUBTS, doubt.to_string());
            }
            GuestEvent::Planned {
                pages,
                wanted_pages,
                dump_level,
            } => {
                let plan = self.plan.get_or_insert_default();
                plan.pages = *pages;
                plan.wanted_pages = *wanted_pages;
                plan.dump_level = *dump_level;
            }
            GuestEvent::Verdicts { pages } => {
                let named = pages.iter().map(|(verdict, count)| {
                    let name = verdict.name().to_owned();
                    (name, *count)
                });
                self.plan.get_or_insert_default().verdicts = named.collect();
            }
            GuestEvent::Panicked { .. }
            | GuestEvent::Vmcoreinfo { .. }
            | GuestEvent::Noticed { .. }
            | GuestEvent::Unconfirmed { .. }
            | GuestEvent::TablesTranslated { .. } => {}
        }
    }

    fn created(&mut self, domid: u32) {
        self.recovery.domid = Some(domid);
        self.recovery.state = RecoveryState::Created;
    }

    fn add_recovery(&mut self, event: &RecoveryEvent, at_ms: u64) {
        let recovery = &mut self.recovery;
        match event {
            RecoveryEvent::Created { domid } => self.created(*domid),
            RecoveryEvent::Unpaused { domid } => {
                recovery.domid = Some(*domid);
                recovery.state = RecoveryState::Running;
                recovery.unpaused_ms = Some(at_ms);
            }
            RecoveryEvent::Seeded { released, .. } => {
                let mark = ProgressMark {
                    at_ms,
                    dumped_pages: 0,
                    planned_pages: 0,
                    written_bytes: 0,
                    released_bytes: released.0,
                };
                push(&mut self.progress, MOST_MARKS, mark);
            }
            RecoveryEvent::Failed { why } => {
                recovery.state = RecoveryState::Failed;
                recovery.why = Some(why.text.clone());
            }
            RecoveryEvent::Gone { .. } => recovery.state = RecoveryState::Gone,
            RecoveryEvent::Settled { .. } => recovery.state = RecoveryState::Settled,
            RecoveryEvent::NotSettled { error, .. } => recovery.why = Some(error.to_string()),
            _ => {}
        }
    }

    fn add_dump(&mut self, event: &DumpEvent, at_ms: u64) {
        match event {
            DumpEvent::Started { path } | DumpEvent::GoneOn { path, .. } => {
                self.dump_is(DumpState::Written, path.as_deref());
            }
            DumpEvent::LeftOut {
                kept_pages,
                wanted_pages,
                ..
            } => self.dump.no_room_pages = wanted_pages.saturating_sub(*kept_pages),
            DumpEvent::NoRoomForLast { pages } => {
                let dump = &mut self.dump;
                dump.no_room_pages = dump.no_room_pages.saturating_add(*pages);
            }
            DumpEvent::Progress {
                dumped_pages,
                planned_pages,
                written,
                released,
                ..
            } => {
                let mark = ProgressMark {
                    at_ms,
                    dumped_pages: *dumped_pages,
                    planned_pages: *planned_pages,
                    written_bytes: written.0,
                    released_bytes: released.0,
                };
                push(&mut self.progress, MOST_MARKS, mark);
            }
            DumpEvent::Complete {
                pages,
                zero_pages,
                unreadable_pages,
                length,
                path,
            } => {
                self.dump_is(DumpState::Complete, path.as_deref());
                let dump = &mut self.dump;
                dump.pages = Some(*pages);
                dump.zero_pages = Some(*zero_pages);
                dump.unreadable_pages = Some(*unreadable_pages);
                dump.length_bytes = Some(length.0);
            }
            DumpEvent::Incomplete { why, .. } => {
                self.dump.state = DumpState::Incomplete;
                self.dump.why = Some(why.text.clone());
            }
            DumpEvent::NotMade { why } => {
                // A file in which no dump was begun has not stayed.
                self.dump_is(DumpState::NotMade, None);
                self.dump.why = Some(why.text.clone());
            }
            DumpEvent::NotWanted { .. } => {
                self.dump.state = DumpState::NotWanted;
                self.dump.why = Some(event.to_string());
            }
            _ => {}
        }
    }

    fn dump_is(&mut self, state: DumpState, path: Option<&Path>) {
        self.dump.state = state;
        self.dump.path = path.map(|path| path.display().to_string());
        let release = self.kernel.as_deref();
        self.dump.open_with = path.map_or_else(Vec::new, |path| open_with(path, release));
    }
}

/// Whether an event is kept as a step: not what is told over and over, or stands
/// elsewhere in the record.
fn is_step(event: &Event) -> bool {
    match event {
        Event::Guest(event) => !matches!(
            event,
            GuestEvent::Doubted { .. }
                | GuestEvent::Noticed { .. }
                | GuestEvent::Verdicts { .. }
                | GuestEvent::LogRead { .. }
                | GuestEvent::Vmcoreinfo { .. }
        ),
        Event::Dump(event) => !matches!(
            event,
            DumpEvent::Progress { .. } | DumpEvent::Missed { .. } | DumpEvent::MoreMissed { .. }
        ),
        Event::Control(event) => !matches!(event, ControlEvent::Looked { .. }),
        Event::Job(event) => !matches!(
            event,
            JobEvent::EventsNotTaken { .. } | JobEvent::NotRecorded { .. }
        ),
        Event::Recovery(_) | Event::Standby(_) => true,
    }
}

#[cfg(test)]
mod tests;
