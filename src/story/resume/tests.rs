// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a process that goes on makes of what a journal says and of what it finds.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::addr::Gfn;
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::journal::Entry;
use crate::story::tests::{guest_of, target};
use crate::told::event::Event;
use crate::told::kept::Kept;

const FRAMES: u64 = 2 * 512;

/// A crash whose first process is gone.
struct Interrupted {
    host: MemoryHost,
    target: Target,
    past: Past,
    job: JobState,
    kept: Kept,
    _directory: TempDir,
}

impl Interrupted {
    /// After these entries of the journal.
    fn after(entries: &[Entry]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = guest_of(FRAMES, Faults::default());
        let target = target(&directory, None);
        let kept = Kept::default();
        let job = JobState::new(kept.log("guest"));
        let begun = begun(&host, &mut host.clone(), &target, "", &job).unwrap();
        let lines = [Entry::Begun(begun)].into_iter().chain(entries.to_vec());
        let line = |entry| serde_json::to_string(&entry).unwrap() + "\n";
        Self {
            past: Past::read(&lines.map(line).collect::<String>()).unwrap(),
            _directory: directory,
            host,
            target,
            job,
            kept,
        }
    }

    fn prepared(&self) -> Prepared {
        prepare(&self.host, &self.past, &self.target, &self.job).unwrap()
    }

    fn has(&self, event: HostEvent) -> bool {
        self.host.events().contains(&event)
    }
}

/// From here on pages are given back.
const UNDERSTOOD: Entry = Entry::Understood {
    untouched: Untouched::Frames(Vec::new()),
};

#[test]
fn a_standby_that_was_taken_and_did_not_become_the_recovery_domain_is_removed() {
    for (entries, is_removed) in [
        (vec![Entry::Standby { domid: 7 }, Entry::Detaching], true),
        (vec![Entry::Detaching], false),
    ] {
        let left = Interrupted::after(&entries);
        let running = running_recovery(&mut left.host.clone(), &left.past).unwrap();
        assert!(running.is_none());
        assert_eq!(left.has(HostEvent::Forgone), is_removed, "{entries:?}");
    }
}

#[test]
fn only_a_recovery_domain_that_its_guard_has_stopped_is_let_run() {
    for (is_running, is_stopped) in [(false, false), (true, false), (true, true), (false, true)] {
        let left = Interrupted::after(&[]);
        let past = Past {
            is_stopped,
            ..left.past.clone()
        };
        let domain = Arc::new(left.host.clone());
        let_run(&FoundRecovery { domain, is_running }, &past, &left.job);
        let is_let_run = !is_running && is_stopped;
        assert_eq!(left.has(HostEvent::Unpaused), is_let_run, "{past:?}");
    }
}

#[test]
fn where_there_can_be_no_recovery_nothing_stays_claimed_for_one() {
    let left = Interrupted::after(&[Entry::Detaching, UNDERSTOOD]);
    left.host.release(&[Gfn(0), Gfn(1)]).unwrap();
    left.host.claim(2).unwrap();
    let domain = ContainedDomain::new(&left.host);
    let dumped = stay_down(
        &domain,
        &left.past,
        &left.target,
        &Error::Cancelled,
        &left.job,
    );
    assert!(dumped.is_ok(), "{}", left.kept);
    assert_eq!(left.host.claimed_pages(), 0);
    assert_eq!(left.job.snapshot().outcome, Outcome::Dirty);
}

#[test]
fn a_dump_that_nobody_wants_is_not_begun_again() {
    let left = Interrupted::after(&[Entry::Detaching, UNDERSTOOD]);
    assert!(matches!(left.prepared().left, Left::All));
    left.job.do_without_dump();
    assert!(matches!(left.prepared().left, Left::Nothing));
}

#[test]
fn a_dump_that_was_a_stream_is_made_anew_and_that_is_told() {
    let begun = Entry::DumpBegun {
        path: None,
        changes: dump::Changes::default(),
    };
    let left = Interrupted::after(&[Entry::Detaching, UNDERSTOOD, begun]);
    assert!(matches!(left.prepared().left, Left::All));
    let told = |event: &Event| matches!(event, Event::Dump(DumpEvent::NotGoneOn { .. }));
    assert!(left.kept.has(told), "{}", left.kept);
}

#[test]
fn devices_that_are_gone_are_told_as_the_next_phase() {
    let left = Interrupted::after(&[Entry::Detaching]);
    detach_again(&mut left.host.clone(), &left.job).unwrap();
    assert_eq!(left.job.snapshot().phase, Phase::Seed);
}

#[test]
fn of_a_dump_that_has_ended_nothing_is_left_to_be_dumped() {
    let ended = Entry::DumpEnded { is_complete: false };
    let left = Interrupted::after(&[Entry::Detaching, UNDERSTOOD, ended]);
    assert!(matches!(left.prepared().left, Left::Nothing));
}

#[test]
fn a_recovery_domain_gets_what_it_has_not_got_yet_where_that_is_known() {
    // Of 300 pages 256 were taken to build it, and it has got 16 since. Of another domain
    // than was written down nothing is known.
    for (domid, total) in [(0, 284), (9, 256)] {
        let built = Entry::Built {
            domid,
            spent_pages: 256,
            backed_pages: 240,
        };
        let left = Interrupted::after(&[Entry::Detaching, UNDERSTOOD, built]);
        let frames: Vec<_> = (0..300).map(Gfn).collect();
        left.host.release(&frames).unwrap();
        let domain = left.host.clone().create().unwrap();
        let found = FoundRecovery {
            domain: domain.clone(),
            is_running: true,
        };
        let handover = Handover::new(&left.host, &left.job.log, &left.job.cancel);
        handover.resume(300);
        take_charge(&handover, &found, 300, &left.past, &left.job);
        assert_eq!(domain.backing().unwrap().total, total);
        assert!(left.job.milestones.unpaused.get().is_some());
    }
}
