// SPDX-License-Identifier: LGPL-2.1-or-later
//! What events come to in the record.

use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::guest::oops::Oops;
use crate::guest::verdict::Verdict;
use crate::host::HostError;
use crate::incident::DumpPart;
use crate::told::event::Cause;
use crate::units::Utc;
use crate::units::{Size, Span};

fn incident(events: Vec<Event>) -> Incident {
    let mut incident = Incident::new("web1-T", "web1", "uuid", Utc(0));
    for (number, event) in events.iter().enumerate() {
        incident.add(event, 100 * (number as u64 + 1));
    }
    incident
}

fn refused() -> HostError {
    HostError::new("libxl_domain_destroy", "ERROR_FAIL")
}

fn complete(path: Option<&str>) -> DumpEvent {
    DumpEvent::Complete {
        pages: 50,
        zero_pages: 3,
        unreadable_pages: 2,
        length: Size(7000),
        path: path.map(Into::into),
    }
}

#[test]
fn a_guest_and_its_plan_are_kept() {
    let oops = Oops {
        title: "BUG: x".into(),
        panic: None,
        up_ns: 1,
        task: None,
        at: None,
        trace: vec![],
        modules: vec![],
    };
    let (release, signature) = ("6.1.0".to_owned(), "aa".to_owned());
    let text: String = (0..150).map(|line| format!("line {line}\n")).collect();
    let seen = incident(vec![
        GuestEvent::Seen {
            vcpus: 2,
            memory: Size(1 << 29),
        }
        .into(),
        GuestEvent::Kernel { release }.into(),
        GuestEvent::Died {
            oops: Box::new(oops.clone()),
            signature: signature.clone(),
        }
        .into(),
        GuestEvent::LogRead {
            text: text.into(),
            lines: 150,
        }
        .into(),
        GuestEvent::Planned {
            pages: 100,
            wanted_pages: 60,
            dump_level: 31,
        }
        .into(),
        GuestEvent::Verdicts {
            pages: vec![(Verdict::Kernel, 60)],
        }
        .into(),
    ]);
    assert_eq!(seen.kernel.as_deref(), Some("6.1.0"));
    assert_eq!((seen.vcpus, seen.memory_bytes), (Some(2), Some(1 << 29)));
    assert_eq!(seen.died, Some(Died { signature, oops }));
    assert_eq!(seen.log.len(), 100);
    assert_eq!(seen.log[99], "line 149");
    let plan = seen.plan.unwrap();
    assert_eq!(
        (plan.pages, plan.wanted_pages, plan.dump_level),
        (100, 60, 31)
    );
    assert_eq!(plan.verdicts["kernel"], 60);
    let steps: Vec<_> = seen.steps.iter().map(|step| step.what.as_str()).collect();
    let expected = ["guest seen", "guest kernel", "guest died", "guest planned"];
    assert_eq!(steps, expected);
    assert_eq!(seen.steps[3].at_ms, 500);
}

#[test]
fn whatever_a_guest_writes_its_record_can_be_read() {
    let long = "\\\"".repeat(1 << 15);
    let seen = incident(vec![GuestEvent::LogRead {
        text: format!("{long}\n").repeat(200).into(),
        lines: 200,
    }
    .into()]);
    assert_eq!(seen.log.len(), 100);
    assert!(seen
        .log
        .iter()
        .all(|line| line.len() == MOST_LINE_CHARACTERS));
    // A list of crashes, and whatever shows one, reads no more than 1 MiB (`files.rs`).
    let record = serde_json::to_string_pretty(&seen).unwrap();
    assert!(record.len() < 1 << 19, "{}", record.len());
}

#[test]
fn recovery_is_where_the_last_event_says() {
    let built = incident(vec![RecoveryEvent::Created { domid: 7 }.into()]);
    assert_eq!(built.recovery.state, RecoveryState::Created);
    let adopted = incident(vec![StandbyEvent::Adopted { domid: 8 }.into()]);
    assert_eq!(adopted.recovery.domid, Some(8));
    let pauses = ControlEvent::Guarded {
        pauses: 3,
        paused: Span(Duration::from_millis(250)),
        lowest_cache: None,
    };
    let settled = incident(vec![
        RecoveryEvent::Created { domid: 7 }.into(),
        RecoveryEvent::Unpaused { domid: 7 }.into(),
        RecoveryEvent::Settled { released_pages: 9 }.into(),
        pauses.into(),
        RecoveryEvent::NotSettled {
            domid: 7,
            error: refused(),
        }
        .into(),
    ]);
    let recovery = settled.recovery;
    assert_eq!(recovery.state, RecoveryState::Settled);
    assert_eq!((recovery.domid, recovery.unpaused_ms), (Some(7), Some(200)));
    assert_eq!(recovery.why, Some(refused().to_string()));
    let (count, paused_ms) = (3, 250);
    assert_eq!(recovery.pauses, Some(Pauses { count, paused_ms }));
    assert_eq!(settled.troubles.len(), 1);
    assert_eq!(settled.troubles[0].level, "error");
    let why = Cause::from(&Error::Cancelled);
    let failed = incident(vec![RecoveryEvent::Failed { why: why.clone() }.into()]);
    assert_eq!(failed.recovery.state, RecoveryState::Failed);
    assert_eq!(failed.recovery.why, Some(why.text));
    let gone = RecoveryEvent::Gone {
        domid: 7,
        released: Size(0),
    };
    assert_eq!(
        incident(vec![gone.into()]).recovery.state,
        RecoveryState::Gone
    );
}

#[test]
fn a_dump_is_what_became_of_it() {
    let path = Some("/d/web1-T.kdump.incomplete".into());
    let begun = DumpEvent::Started { path };
    let written = incident(vec![begun.clone().into()]).dump;
    assert_eq!(written.state, DumpState::Written);
    assert_eq!(written.path.as_deref(), Some("/d/web1-T.kdump.incomplete"));
    let left_out = DumpEvent::LeftOut {
        kept_pages: 60,
        wanted_pages: 70,
        room: Size(0),
    };
    let progress = DumpEvent::Progress {
        percent: 50,
        dumped_pages: 30,
        planned_pages: 60,
        written: Size(10),
        released: Size(20),
    };
    let ended = incident(vec![
        left_out.into(),
        begun.clone().into(),
        progress.into(),
        DumpEvent::NoRoomForLast { pages: 1 }.into(),
        complete(Some("/d/web1-T.kdump")).into(),
    ]);
    let expected = DumpPart {
        state: DumpState::Complete,
        path: Some("/d/web1-T.kdump".into()),
        sums: None,
        pages: Some(50),
        zero_pages: Some(3),
        unreadable_pages: Some(2),
        no_room_pages: 11,
        length_bytes: Some(7000),
        why: None,
        open_with: vec!["makedumpfile --dump-dmesg /d/web1-T.kdump dmesg.txt".into()],
    };
    assert_eq!(ended.dump, expected);
    let mark = ProgressMark {
        at_ms: 300,
        dumped_pages: 30,
        planned_pages: 60,
        written_bytes: 10,
        released_bytes: 20,
    };
    assert_eq!(ended.progress, [mark]);
    let why = Cause::from(&Error::Cancelled);
    let incomplete = DumpEvent::Incomplete {
        why: why.clone(),
        is_told: false,
    };
    let incomplete = incident(vec![begun.clone().into(), incomplete.into()]).dump;
    assert_eq!(incomplete.state, DumpState::Incomplete);
    assert_eq!(incomplete.why, Some(why.text.clone()));
    assert!(incomplete.path.is_some(), "what was written is there");
    let not_made = incident(vec![begun.into(), DumpEvent::NotMade { why }.into()]).dump;
    assert_eq!((not_made.state, not_made.path), (DumpState::NotMade, None));
    let stream = incident(vec![complete(None).into()]).dump;
    assert_eq!((stream.path, stream.open_with.len()), (None, 0));
}

#[test]
fn lists_have_an_end() {
    let doubted = |_| -> Event {
        let doubt = crate::guest::doubt::Doubt::Failed("x".into());
        GuestEvent::Doubted { doubt }.into()
    };
    let many = incident((0..1000).map(doubted).collect());
    assert_eq!(many.doubts.len(), MOST_DOUBTS);
    assert_eq!(many.troubles.len(), MOST_TROUBLES);
    let detached = |_| RecoveryEvent::Detached.into();
    let many = incident((0..1000).map(detached).collect());
    assert_eq!(many.steps.len(), MOST_STEPS);
}
