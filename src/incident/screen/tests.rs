// SPDX-License-Identifier: LGPL-2.1-or-later
//! The screen, as a person sees it.

use super::*;
use crate::guest::oops::{Oops, Task};
use crate::incident::{Earlier, EarlierCrash, PlanPart, RecoveryPart, Trouble};
use crate::units::Utc;

fn place(function: &str, module: Option<&str>) -> Place {
    Place {
        function: function.into(),
        offset_bytes: 0x1b,
        module: module.map(Into::into),
        is_sure: true,
        is_interrupt: false,
    }
}

/// A crash that ended well.
pub(in crate::incident) fn ended_well() -> Incident {
    let at = Utc(1_767_323_045);
    let mut incident = Incident::new("web1-20260102T030405Z", "web1", "uuid", at);
    incident.outcome = Outcome::Adopted;
    incident.is_over = true;
    incident.kernel = Some("6.1.0-18-amd64".into());
    incident.vcpus = Some(2);
    incident.memory_bytes = Some(512 << 20);
    let task = Task {
        name: "kworker/0:1".into(),
        pid: 31,
        cpu: Some(0),
        taint: Some("GOE".into()),
    };
    let trace = ["work_fn", "process_one_work", "worker_thread", "kthread"];
    let mut trace: Vec<Place> = trace.iter().map(|name| place(name, None)).collect();
    trace[0].module = Some("broken".into());
    trace.push(place("ret_from_fork_asm", None));
    incident.died = Some(Died {
        signature: "34813974d496018d".into(),
        oops: Oops {
            title: "BUG: kernel NULL pointer dereference, address: 0000000000000018".into(),
            panic: Some("Kernel panic - not syncing: Fatal exception".into()),
            up_ns: 125_000_000_000,
            task: Some(task),
            at: Some(place("release_it", Some("broken"))),
            trace,
            modules: vec![],
        },
    });
    let crash = |guest: &str, at| EarlierCrash {
        crashed_s: Utc(at),
        id: format!("{guest}-{}", Utc(at).compact()),
        guest: guest.into(),
    };
    incident.earlier = Some(Earlier {
        count: 14,
        first: crash("web3", 1_740_960_000),
        last: crash("web7", 1_767_300_000),
    });
    incident.plan = Some(PlanPart {
        pages: 131_072,
        wanted_pages: 23_706,
        dump_level: 31,
        ..PlanPart::default()
    });
    incident.recovery = RecoveryPart {
        state: RecoveryState::Settled,
        domid: Some(7),
        unpaused_ms: Some(2_350),
        ..RecoveryPart::default()
    };
    incident.dump.state = DumpState::Complete;
    incident.dump.pages = Some(23_706);
    incident.dump.length_bytes = Some(19 << 20);
    incident.dump.path = Some("/var/lib/xen/dump/web1-20260102T030405Z.kdump".into());
    incident.dump.open_with = vec!["crash VMLINUX DUMP".into(), "drgn -c DUMP".into()];
    incident
}

#[test]
fn a_crash_is_told_on_one_screen() {
    let expected = "\
web1-20260102T030405Z

Guest      web1, Linux 6.1.0-18-amd64, 2 vCPUs, 512 MiB
Crashed    2026-01-02T03:04:05Z, 2 min 5 s after it was started
Died of    BUG: kernel NULL pointer dereference, address: 0000000000000018
           Kernel panic - not syncing: Fatal exception
At         release_it+0x1b [broken]
Called by  work_fn [broken] < process_one_work < worker_thread < kthread <
           ret_from_fork_asm
Task       kworker/0:1, PID 31, CPU 0, tainted GOE
Signature  34813974d496018d, seen 14 times since Mar 3, 2025 before, last on
           web7 (web7-20260101T204000Z)
Recovery   domain 7 is an ordinary domain, it runs since 2.35 s after the crash
Dump       complete, 19 MiB, 23706 of 131072 pages (level 31),
           /var/lib/xen/dump/web1-20260102T030405Z.kdump
Open with  crash VMLINUX DUMP
           drgn -c DUMP
";
    assert_eq!(screen(&ended_well()), expected);
}

#[test]
fn what_went_wrong_is_there_and_moves_no_cursor() {
    let mut incident = Incident::new("web1-T", "web1\u{1b}[2J", "uuid", Utc(0));
    let trouble = |number| Trouble {
        at_ms: 1,
        level: "warn".into(),
        line: format!("trouble {number}"),
    };
    incident.troubles = (0..8).map(trouble).collect();
    incident.failure = Some("the disk is full".into());
    incident.doubts = vec!["no kernel".into()];
    let text = screen(&incident);
    assert!(!text.contains('\u{1b}'), "{text}");
    for expected in [
        "Guest      web1.[2J\n",
        "Died of    not known: ",
        "Recovery   none yet\n",
        "Dump       not begun\n           no kernel\n",
        "warn       trouble 5\n           and 2 more, in the .json\n",
        "Failed     the disk is full\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
}
