// SPDX-License-Identifier: LGPL-2.1-or-later
//! The lines that operators read and search for, word for word.

use std::path::PathBuf;
use std::time::Duration;

use log::Level::{self, Debug, Error as Failed, Info, Warn};

use super::*;
use crate::addr::Gfn;
use crate::guest::locate::LocateError;
use crate::guest::oops::{Oops, Place, Task};
use crate::host::HostError;
use crate::options::{AtMost, OnCrashLoop};
use crate::units::{Size, Span};

fn lines_are<E: Into<Event>>(expected: Vec<(E, Level, &str)>) {
    for (event, level, line) in expected {
        let event = event.into();
        assert_eq!((event.level(), event.to_string().as_str()), (level, line));
    }
}

fn refused() -> HostError {
    HostError::new("libxl_domain_destroy", "ERROR_FAIL")
}

fn cause() -> Cause {
    Cause::from(&Error::Host {
        step: "creating the recovery domain",
        source: refused(),
    })
}

fn death() -> GuestEvent {
    let place = |function: &str, module: Option<&str>| Place {
        function: function.into(),
        offset_bytes: 0x1b,
        module: module.map(Into::into),
        is_sure: true,
        is_interrupt: false,
    };
    let task = Task {
        name: "sh".into(),
        pid: 31,
        cpu: Some(2),
        taint: Some("GOE".into()),
    };
    let oops = Oops {
        title: "BUG: kernel NULL pointer dereference".into(),
        panic: None,
        up_ns: 12_000_000_000,
        task: Some(task),
        at: Some(place("f", Some("broken"))),
        trace: vec![place("g", None)],
        modules: vec![],
    };
    GuestEvent::Died {
        oops: Box::new(oops),
        signature: "0123456789abcdef".into(),
    }
}

#[test]
fn what_a_guest_died_of_is_told() {
    lines_are(vec![(
        death(),
        Info,
        "the guest died of \"BUG: kernel NULL pointer dereference\" at f+0x1b [broken] < g, in \
         sh (PID 31, CPU 2, tainted GOE), up 12.00 s; signature 0123456789abcdef",
    )]);
}

#[test]
fn what_is_kept_of_a_crash_is_told() {
    let text = "[    0.000000] Linux\n[    0.000001] x\n".into();
    let path = PathBuf::from("/d/web1.json");
    let error = "No space left on device".to_owned();
    lines_are(vec![
        (
            Event::from(GuestEvent::LogRead { text, lines: 2 }),
            Debug,
            "the guest's log: 2 lines, 38 bytes",
        ),
        (
            JobEvent::Recorded { path: path.clone() }.into(),
            Info,
            "what is known of the crash is in /d/web1.json",
        ),
        (
            JobEvent::NotRecorded { path, error }.into(),
            Warn,
            "no record of the crash in /d/web1.json: No space left on device",
        ),
    ]);
}

#[test]
fn a_guest_is_described() {
    let doubt = crate::guest::doubt::Doubt::NoKernel(LocateError::Nothing {
        pages_probed: 12,
        whole: true,
    });
    let (release, memory) = ("6.1.0-18-amd64".to_owned(), Size(512 << 20));
    let line = "Kernel panic - not syncing: sysrq triggered crash".to_owned();
    lines_are(vec![
        (
            GuestEvent::Panicked { line },
            Info,
            "the guest asked for a restart after \"Kernel panic - not syncing: sysrq triggered crash\"",
        ),
        (
            GuestEvent::Seen { vcpus: 2, memory },
            Info,
            "guest: 2 vCPUs, 512 MiB of memory",
        ),
        (
            GuestEvent::Kernel { release },
            Info,
            "guest runs Linux 6.1.0-18-amd64",
        ),
        (
            GuestEvent::Vmcoreinfo {
                gfns: vec![16, 32],
                by_search: false,
                pages_probed: 7,
            },
            Debug,
            "VMCOREINFO at gfn 0x10, 0x20, found by the processors in 7 pages",
        ),
        (
            GuestEvent::Doubted { doubt },
            Warn,
            "every page is dumped: no VMCOREINFO in 12 pages",
        ),
        (
            GuestEvent::Unconfirmed {
                release: Some("5.4".into()),
                is_32_bit: true,
            },
            Warn,
            "the dump repeats what Linux 5.4 says of itself, which is not confirmed: drgn reads \
             it by physical address, others refuse it",
        ),
        (
            GuestEvent::Planned {
                pages: 10,
                wanted_pages: 3,
                dump_level: 31,
            },
            Info,
            "plan: 10 pages, 3 to dump, level 31",
        ),
    ]);
}

#[test]
fn what_is_not_as_the_guest_had_it_is_told() {
    lines_are(vec![
        (
            GuestEvent::TablesTranslated {
                not_for_crash: None,
            },
            Info,
            "the dump's page tables name the guest's pages, not the machine's; xen_start_info is \
             0 there, as crash needs it",
        ),
        (
            GuestEvent::TablesTranslated {
                not_for_crash: Some("it is hidden".into()),
            },
            Warn,
            "the dump's page tables name the guest's pages, not the machine's; crash will not \
             find its way through them: it is hidden",
        ),
    ]);
}

#[test]
fn a_recovery_is_followed() {
    lines_are(vec![
        (
            RecoveryEvent::Detached,
            Info,
            "detached: no disk of the crashed guest can write any more",
        ),
        (
            RecoveryEvent::CreatingAgain { why: cause() },
            Warn,
            "creating the recovery domain: libxl_domain_destroy: ERROR_FAIL; once more with more \
             memory",
        ),
        (
            RecoveryEvent::Unpaused { domid: 7 },
            Info,
            "recovery unpaused: domain 7",
        ),
        (
            RecoveryEvent::CrashedNotDestroyed {
                name: "web1-crashed-3".into(),
                held: Size(1 << 30),
                error: refused(),
            },
            Failed,
            "could not destroy web1-crashed-3, which holds 1 GiB: libxl_domain_destroy: \
             ERROR_FAIL: run `xl destroy web1-crashed-3`",
        ),
        (
            RecoveryEvent::Settled {
                released_pages: 512,
            },
            Info,
            "settled: recovery has its full memory, 512 pages (2 MiB) released",
        ),
        (
            RecoveryEvent::Times {
                first_release: Some(Span(Duration::from_millis(40))),
                unpaused: None,
                over: Span(Duration::from_secs(3)),
            },
            Info,
            "times: first page released after 40 ms, recovery unpaused never, all over after \
             3.00 s",
        ),
    ]);
}

#[test]
fn a_dump_is_told_to_its_end() {
    let path = PathBuf::from("/d/web1.kdump");
    lines_are(vec![
        (
            DumpEvent::Started {
                path: Some(path.clone()),
            },
            Info,
            "dumping to /d/web1.kdump",
        ),
        (
            DumpEvent::Missed {
                step: Step::Read,
                start: Gfn(0x200),
                end: Gfn(0x400),
                error: refused(),
            },
            Warn,
            "pages 0x200..0x400 were not read: libxl_domain_destroy: ERROR_FAIL",
        ),
        (
            DumpEvent::Complete {
                pages: 9,
                zero_pages: 2,
                unreadable_pages: 1,
                length: Size(4096),
                path: Some(path),
            },
            Info,
            "dump complete: 9 pages (2 zero, 1 unreadable), 4 KiB, /d/web1.kdump",
        ),
        (
            DumpEvent::Incomplete {
                why: cause(),
                is_told: false,
            },
            Failed,
            "dump incomplete: creating the recovery domain: libxl_domain_destroy: ERROR_FAIL",
        ),
        (
            DumpEvent::Incomplete {
                why: Cause::from(&Error::Cancelled),
                is_told: false,
            },
            Warn,
            "dump incomplete: cancelled by the caller",
        ),
    ]);
}

#[test]
fn going_on_with_what_another_process_has_begun_is_told() {
    let path = Some(PathBuf::from("/d/web1.kdump.incomplete"));
    lines_are(vec![
        (
            Event::from(JobEvent::Resumed { domid: 7 }),
            Info,
            "resumed: going on with the crash of domain 7, whose process is gone",
        ),
        (
            JobEvent::NotNoted {
                error: "/run/vicover: Permission denied".into(),
            }
            .into(),
            Warn,
            "no journal, so nobody can go on should this process be killed: /run/vicover: \
             Permission denied",
        ),
        (
            JobEvent::HostOptionsRefused {
                error: "/etc/xen/vicover.conf: line 3: no".into(),
            }
            .into(),
            Warn,
            "the host's options are not taken: /etc/xen/vicover.conf: line 3: no",
        ),
        (
            DumpEvent::GoneOn {
                path: path.clone(),
                stored_pages: 10,
                wanted_pages: 100,
            }
            .into(),
            Info,
            "dump: going on with /d/web1.kdump.incomplete, which has 10 of 100 pages",
        ),
        (
            DumpEvent::NotGoneOn {
                path,
                why: "not a kdump-compressed dump".into(),
            }
            .into(),
            Warn,
            "/d/web1.kdump.incomplete stays incomplete, another dump gets what it lacks: not a \
             kdump-compressed dump",
        ),
        (
            DumpEvent::NotGoneOn {
                path: None,
                why: "it was a stream".into(),
            }
            .into(),
            Warn,
            "the dump stays incomplete, another dump gets what it lacks: it was a stream",
        ),
    ]);
}

#[test]
fn a_guest_that_keeps_crashing_is_told_with_what_is_done_about_it() {
    let limit = |count, minutes: u64| AtMost {
        count,
        within: Duration::from_secs(60 * minutes),
    };
    lines_are(vec![
        (
            Event::from(JobEvent::CrashedAgain {
                crashes: 4,
                limit: limit(5, 10),
            }),
            Warn,
            "crash 4 of the guest of late (max_crashes=5/10m)",
        ),
        (
            DumpEvent::NotWanted {
                dumps: 3,
                limit: limit(3, 60),
                last: Some("/d/web1.kdump".into()),
            }
            .into(),
            Warn,
            "no dump of this crash: 3 of the guest were made of late (max_dumps=3/1h), the last \
             one is /d/web1.kdump",
        ),
        (
            JobEvent::GivenUp {
                crashes: 6,
                limit: limit(5, 10),
                action: OnCrashLoop::Preserve,
            }
            .into(),
            Failed,
            "the guest keeps crashing: crash 6 of late, max_crashes=5/10m: it is left as it \
             crashed (on_crash_loop=preserve)",
        ),
        (
            JobEvent::HistoryLost {
                error: "its times are too many, or in disorder".into(),
            }
            .into(),
            Warn,
            "earlier crashes of the guest are forgotten: its times are too many, or in disorder",
        ),
        (
            JobEvent::NotCounted {
                error: "Permission denied".into(),
            }
            .into(),
            Warn,
            "the next crash of the guest is handled as if this one had not been: Permission \
             denied",
        ),
    ]);
}

#[test]
fn what_an_operator_has_to_do_is_in_the_line() {
    lines_are(vec![
        (
            Event::from(ControlEvent::StaysPaused {
                domid: 7,
                name: "web1".into(),
                error: refused(),
            }),
            Failed,
            "recovery domain 7 stays paused: libxl_domain_destroy: ERROR_FAIL: run `xl unpause \
             web1`",
        ),
        (
            StandbyEvent::NotDestroyed {
                domid: 9,
                held: Size(64 << 20),
                error: refused(),
            }
            .into(),
            Failed,
            "could not destroy standby domain 9, which holds 64 MiB: libxl_domain_destroy: \
             ERROR_FAIL: run `xl destroy 9`",
        ),
        (
            JobEvent::StaysPaused {
                name: "web1".into(),
                error: refused(),
            }
            .into(),
            Failed,
            "the domain stays paused: libxl_domain_destroy: ERROR_FAIL: run `xl unpause web1`",
        ),
    ]);
}

#[test]
fn dumps_that_go_are_told() {
    lines_are(vec![
        (
            Event::from(DumpEvent::Removed {
                path: "/d/web1.kdump".into(),
                length: Size(3 << 20),
                why: RemovedFor::KeepFree(Size(1 << 30)),
            }),
            Info,
            "removed /d/web1.kdump (3 MiB) for keep_free (1 GiB)",
        ),
        (
            DumpEvent::NotRemoved {
                path: "/d/web1.kdump".into(),
                error: "no".into(),
            }
            .into(),
            Warn,
            "dumps were not removed: /d/web1.kdump: no",
        ),
    ]);
}
