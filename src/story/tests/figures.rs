// SPDX-License-Identifier: LGPL-2.1-or-later
//! Figures that the story counts by, of which a wrong one would spoil no run.

use std::sync::atomic::Ordering::Relaxed;

use super::broken::{Broken, Fault, Running, Wrong};
use super::{guest, guest_of, scratch, target, Faults, Kept, DEADLINE};
use crate::drain::handover::Handover;
use crate::host::{RecoveryDomain, Requirement, Toolstack};
use crate::job::JobState;
use crate::story::{bring_up::bring_up, live};
use crate::told::event::{Event, JobEvent, RecoveryEvent};
use crate::units::Size;

/// How much was released whenever recovery was about to be built.
fn seeds(kept: &Kept) -> Vec<Size> {
    let seed = |event: &Event| match event {
        Event::Recovery(RecoveryEvent::Seeded { released, .. }) => Some(*released),
        _ => None,
    };
    kept.events().iter().filter_map(seed).collect()
}

#[test]
fn a_recovery_that_could_not_be_built_is_tried_with_a_quarter_more() {
    const NEED: u64 = 400;
    let creations = 1;
    let host = guest_of(
        NEED * 4,
        Faults {
            creations,
            ..Faults::default()
        },
    );
    let kept = Kept::default();
    let job = JobState::new(kept.log("guest"));
    let handover = Handover::new(&host, &job.log, &job.cancel);
    let requirement = Requirement {
        free_pages: NEED,
        backed_pages: NEED,
        full_pages: NEED * 4,
    };
    let mut next = 0;
    let mut release = |pages: u64| {
        let frames: Vec<_> = (next..next + pages).map(crate::addr::Gfn).collect();
        next += pages;
        crate::host::CrashedDomain::release(&host, &frames).unwrap();
        job.counters.released.fetch_add(pages, Relaxed);
        handover.add_released(pages);
    };
    std::thread::scope(|scope| {
        let (handover, job, host) = (&handover, &job, &host);
        let built = scope.spawn(move || {
            let toolstack: &mut dyn Toolstack = &mut host.clone();
            bring_up(toolstack, handover, requirement, None, job).map(|built| built.domid())
        });
        release(NEED);
        let again =
            |event: &Event| matches!(event, Event::Recovery(RecoveryEvent::CreatingAgain { .. }));
        assert!(kept.wait(DEADLINE, again).is_some(), "{kept}");
        release(NEED / 4 - 1);
        // Time enough to go on in, for one that does not wait.
        (0..1000).for_each(|_| std::thread::yield_now());
        assert_eq!(seeds(&kept), [Size::of_pages(NEED)]);
        release(1);
        let domid = built.join().unwrap().unwrap();
        assert_eq!(domid, RecoveryDomain::domid(host));
        assert_eq!(seeds(&kept)[1], Size::of_pages(NEED + NEED / 4));
    });
}

#[test]
fn how_long_a_domain_stood_is_counted_from_its_pause_on() {
    let kept = Kept::default();
    let job = JobState::new(kept.log("guest"));
    let mut begun = job.elapsed();
    // The second one's pause is not where the job begins.
    for number in 0..2 {
        let directory = scratch();
        let host = guest(Faults::default());
        let running = Running(Broken::new(&host, Fault::At(u64::MAX, Wrong::Refused)));
        live::dump(&running, &target(&directory, None), &job).unwrap();
        let ended = job.elapsed();
        let stood = |event: &Event| match event {
            Event::Job(JobEvent::RunsAgain { paused }) => Some(paused.0),
            _ => None,
        };
        let stood: Vec<_> = kept.events().iter().filter_map(stood).collect();
        assert_eq!(stood.len(), number + 1, "{kept}");
        assert!(
            !stood[number].is_zero() && stood[number] <= ended - begun,
            "{kept}"
        );
        begun = ended;
    }
}
