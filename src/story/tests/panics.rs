// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every method of a host panics, each in its turn.

use std::time::Duration;

use super::broken::{Broken, Fault, Running};
use super::{ended, guest, keeper, scratch, start, target, Kept, FRAMES};
use crate::host::memory::{Faults, HostEvent};
use crate::job::Outcome;
use crate::story::{live, recover, standby};
use crate::told::event::{self as told, StandbyEvent};

/// What a recovery must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Right {
    outcome: Outcome,
    dumped: bool,
    /// Whether all memory was given back.
    released: bool,
}

/// A recovery, and a complete dump.
const BOTH: Right = Right {
    outcome: Outcome::Adopted,
    dumped: true,
    released: true,
};
/// The dump, and nothing in the guest's place.
const DUMP: Right = Right {
    outcome: Outcome::Dirty,
    dumped: true,
    released: true,
};
const DUMP_ONLY: Right = Right {
    released: false,
    ..DUMP
};
/// Nothing was done.
const NOTHING: Right = Right {
    outcome: Outcome::Untouched,
    dumped: false,
    released: false,
};

/// Recovers a guest of a broken host, with a standby on request.
fn recover_with(method: &'static str, faults: Faults, with_standby: bool, right: Right) {
    let directory = scratch();
    let (host, kept) = (guest(faults), Kept::default());
    let broken = Broken::new(&host, Fault::PanicIn(method));
    let target = target(&directory, None);
    let keeper = with_standby.then(keeper);
    let job = start(&kept, move |shared| {
        let toolstack = Box::new(broken.clone());
        recover::recover(&broken, toolstack, keeper.as_ref(), &target, shared)
    });
    let ended = ended(method, job, &kept);
    let found = Right {
        outcome: ended.outcome,
        dumped: ended.error.is_none(),
        released: host.released() == FRAMES,
    };
    ended.check(found == right, &format!("{found:?}, not {right:?}"));
    let violations = host.violations();
    ended.check(violations.is_empty(), &format!("{violations:?}"));
    let events = host.events();
    let fair = events.contains(&HostEvent::Detached) || host.released() == 0;
    ended.check(fair, "one writer to the disk");
}

#[test]
fn a_toolstack_that_panics_ends_the_recovery_as_if_it_had_refused() {
    for (method, right) in [
        ("detach", DUMP_ONLY),
        ("detach_interfaces", BOTH),
        ("requirement", NOTHING),
        ("create", DUMP),
        ("start", DUMP),
        ("destroy_crashed", BOTH),
        ("settle", BOTH),
        ("publish", BOTH),
    ] {
        recover_with(method, Faults::default(), false, right);
    }
    for method in ["recipe", "adopt", "detach_interfaces"] {
        recover_with(method, Faults::default(), true, BOTH);
    }
    let kept = Faults {
        detach: true,
        ..Faults::default()
    };
    recover_with("forgo", kept, true, DUMP_ONLY);
}

#[test]
fn a_recovery_domain_that_panics_costs_no_more_than_one_that_refuses() {
    for (method, right) in [
        ("domid", BOTH),
        ("exists", BOTH),
        ("processor_time", BOTH),
        ("backing", BOTH),
        ("grow", BOTH),
        ("pause", BOTH),
        // It cannot be let run in the first place.
        ("unpause", DUMP),
        ("disk_totals", BOTH),
    ] {
        recover_with(method, Faults::default(), false, right);
    }
}

#[test]
fn a_crashed_domain_that_panics_costs_what_it_was_asked_for() {
    let nothing_back = Right {
        outcome: Outcome::Dirty,
        dumped: false,
        released: false,
    };
    let no_dump = Right {
        dumped: false,
        ..BOTH
    };
    for (method, right) in [
        ("ram", NOTHING),
        ("vcpus", NOTHING),
        ("map", nothing_back),
        ("release", DUMP_ONLY),
        ("claim", BOTH),
        ("is_present", nothing_back),
        ("len", DUMP_ONLY),
        ("read", no_dump),
        ("forget", BOTH),
        ("scrub", DUMP_ONLY),
    ] {
        recover_with(method, Faults::default(), false, right);
    }
}

#[test]
fn a_dump_of_a_running_domain_ends_whatever_panics() {
    for (method, dumped) in [
        ("pause", false),
        ("unpause", false),
        ("ram", false),
        ("vcpus", false),
        ("map", false),
        ("is_present", false),
        ("read", false),
        ("forget", true),
        ("len", true),
    ] {
        let directory = scratch();
        let kept = Kept::default();
        let host = guest(Faults::default());
        let running = Running(Broken::new(&host, Fault::PanicIn(method)));
        let target = target(&directory, None);
        let job = start(&kept, move |shared| live::dump(&running, &target, shared));
        let ended = ended(method, job, &kept);
        ended.check(ended.error.is_none() == dumped, "dumped or not");
        ended.check(ended.outcome == Outcome::Untouched, "outcome");
    }
}

#[test]
fn keeping_a_standby_ends_whatever_panics() {
    for (method, said) in [
        ("build", "build is broken"),
        ("recipe", "recipe is broken"),
        ("discard", "discard is broken"),
    ] {
        let kept = Kept::default();
        let host = guest(Faults::default());
        let mut broken = Broken::new(&host, Fault::PanicIn(method));
        let often = Duration::from_millis(1);
        let job = start(&kept, move |shared| {
            standby::keep(&mut broken, false, often, shared)
        });
        let told = |event: &told::Event| match event {
            told::Event::Standby(
                StandbyEvent::NotBuilt { error }
                | StandbyEvent::GuestNotSeen { error }
                | StandbyEvent::NotDestroyed { error, .. },
            ) => error.what.contains(said),
            _ => false,
        };
        let waited = kept.wait(super::DEADLINE, told);
        assert!(waited.is_some(), "no '{said}' in {kept}");
        job.shared.cancel();
        let ended = ended(method, job, &kept);
        ended.check(ended.error.is_none() == (method != "build"), "error");
    }
}
