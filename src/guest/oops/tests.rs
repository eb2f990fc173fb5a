// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reports as kernels write them.

use super::*;

const SYSRQ: &str = "\
sysrq: Trigger a crash
Kernel panic - not syncing: sysrq triggered crash
CPU: 1 PID: 214 Comm: sh Not tainted 6.1.0-40-amd64 #1  Debian 6.1.153-1
Call Trace:
 <TASK>
 dump_stack_lvl+0x44/0x5c
 panic+0x118/0x2ed
 sysrq_handle_crash+0x16/0x20
 __handle_sysrq.cold+0x52/0x1a7
 write_sysrq_trigger+0x28/0x40
 proc_reg_write+0x56/0xa0
 vfs_write+0xc8/0x3e0
 entry_SYSCALL_64_after_hwframe+0x6e/0xd8
RIP: 0033:0x7f1a4a2b1300
Code: 40 00 48 8b
RSP: 002b:00007ffd0a3c9b18 EFLAGS: 00000202 ORIG_RAX: 0000000000000001
 </TASK>
Kernel Offset: 0x2e00000 from 0xffffffff81000000";

const NULL_IN_A_MODULE: &str = "\
BUG: kernel NULL pointer dereference, address: 0000000000000018
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
PGD 0 P4D 0
Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 0 UID: 0 PID: 31 Comm: kworker/0:1 Kdump: loaded Tainted: G           OE      6.12.117+deb13-amd64 #1
Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE
RIP: 0010:release_it+0x1b/0x40 [broken]
Code: 00 00 0f 1f
RSP: 0018:ffffb1ad40a5fe30 EFLAGS: 00010246
Call Trace:
 <TASK>
 ? __die_body.cold+0x19/0x27
 ? page_fault_oops+0x15a/0x2d0
 ? asm_exc_page_fault+0x26/0x30
 ? release_it+0x1b/0x40 [broken]
 work_fn+0x2a/0x60 [broken 2a1b]
 process_one_work+0x174/0x330
 worker_thread+0x251/0x390
 kthread+0xd2/0x100
 ret_from_fork_asm+0x1a/0x30
 </TASK>
Modules linked in: broken(OE) xen_blkfront [last unloaded: fine]
CR2: 0000000000000018
---[ end trace 0000000000000000 ]---
RIP: 0010:release_it+0x1b/0x40 [broken]
Kernel panic - not syncing: Fatal exception
Kernel Offset: 0x2e00000 from 0xffffffff81000000";

const IN_AN_INTERRUPT: &str = "\
------------[ cut here ]------------
kernel BUG at net/core/skbuff.c:115!
invalid opcode: 0000 [#1] SMP NOPTI
CPU: 3 PID: 0 Comm: swapper/3 Not tainted 5.10.0-36-amd64 #1 Debian 5.10.244-1
RIP: 0010:skb_panic+0x4c/0x4e
Call Trace:
 <IRQ>
 skb_put.cold+0x10/0x10
 xennet_poll+0x3c1/0xd10 [xen_netfront]
 net_rx_action+0x13c/0x3b0
 </IRQ>
 default_idle+0x13/0x20
 start_secondary+0x113/0x150
Modules linked in: xen_netfront
Kernel panic - not syncing: Fatal exception in interrupt";

const LOCKUP: &str = "\
watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [stress:977]
Modules linked in: dummy
CPU: 0 PID: 977 Comm: stress Not tainted 6.1.0-40-amd64 #1
RIP: 0010:native_queued_spin_lock_slowpath+0x6e/0x2a0
Call Trace:
 <TASK>
 _raw_spin_lock+0x29/0x30
 dummy_loop+0x12/0x30 [dummy]
 </TASK>
Kernel panic - not syncing: softlockup: hung tasks
CPU: 0 PID: 977 Comm: stress Tainted: G             L     6.1.0-40-amd64 #1
Call Trace:
 <IRQ>
 panic+0x118/0x2ed
 watchdog_timer_fn.cold+0xc/0x16
 </IRQ>";

const HUNG: &str = "\
INFO: task mount:411 blocked for more than 120 seconds.
      Not tainted 6.12.117+deb13-amd64 #1
\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.
task:mount           state:D stack:0     pid:411   tgid:411   ppid:1      flags:0x00000002
Call Trace:
 <TASK>
 __schedule+0x505/0xc00
 schedule+0x27/0xf0
 rwsem_down_write_slowpath+0x1ff/0x6a0
 super_lock+0x8a/0x100
 </TASK>
Kernel panic - not syncing: hung_task: blocked tasks
CPU: 1 UID: 0 PID: 29 Comm: khungtaskd Not tainted 6.12.117+deb13-amd64 #1
Call Trace:
 <TASK>
 panic+0x335/0x38f
 watchdog.cold+0xc/0xb5
 </TASK>";

fn record(time_ns: u64, text: &str) -> Record {
    Record {
        time_ns,
        text: text.to_owned(),
    }
}

/// A record for each line, as the kernel has it, a millisecond apart.
fn records(log: &str) -> Vec<Record> {
    let lines = (1..).zip(log.lines());
    lines
        .map(|(ms, line)| record(ms * 1_000_000, line))
        .collect()
}

fn died(log: &str) -> Oops {
    Oops::in_log(&records(log)).expect("a panic")
}

/// The place that is told first.
fn culprit(oops: &Oops) -> Option<&Place> {
    signature::told(oops).next()
}

fn names(oops: &Oops) -> Vec<&str> {
    let trace = oops.trace.iter();
    trace.map(|place| place.function.as_str()).collect()
}

#[test]
fn a_panic_without_a_report_is_its_own() {
    let oops = died(SYSRQ);
    assert_eq!(
        oops.title,
        "Kernel panic - not syncing: sysrq triggered crash"
    );
    assert_eq!((&oops.panic, oops.up_ns), (&None, 2_000_000));
    assert_eq!(oops.panic_line(), oops.title);
    let task = Task {
        name: "sh".into(),
        pid: 214,
        cpu: Some(1),
        taint: None,
    };
    assert_eq!(oops.task, Some(task));
    assert_eq!(oops.at, None);
    assert_eq!(
        names(&oops),
        [
            "dump_stack_lvl",
            "panic",
            "sysrq_handle_crash",
            "__handle_sysrq.cold",
            "write_sysrq_trigger",
            "proc_reg_write",
            "vfs_write",
            "entry_SYSCALL_64_after_hwframe"
        ]
    );
    let place = Place {
        function: "sysrq_handle_crash".into(),
        offset_bytes: 0x16,
        module: None,
        is_sure: true,
        is_interrupt: false,
    };
    assert_eq!(culprit(&oops), Some(&place));
}

#[test]
fn an_exception_tells_where_it_was_and_whose_code_that_is() {
    let oops = died(NULL_IN_A_MODULE);
    let title = "BUG: kernel NULL pointer dereference, address: 0000000000000018";
    assert_eq!(oops.title, title);
    assert_eq!(
        oops.panic_line(),
        "Kernel panic - not syncing: Fatal exception"
    );
    let task = Task {
        name: "kworker/0:1".into(),
        pid: 31,
        cpu: Some(0),
        taint: Some("GOE".into()),
    };
    assert_eq!(oops.task, Some(task));
    let place = Place {
        function: "release_it".into(),
        offset_bytes: 0x1b,
        module: Some("broken".into()),
        is_sure: true,
        is_interrupt: false,
    };
    assert_eq!(
        (culprit(&oops), &oops.at),
        (Some(&place), &Some(place.clone()))
    );
    assert_eq!(oops.modules, ["broken(OE)", "xen_blkfront"]);
    let sure = |sure: bool| {
        oops.trace
            .iter()
            .filter(|place| place.is_sure == sure)
            .count()
    };
    assert_eq!((sure(true), sure(false)), (5, 4));
    assert_eq!(oops.trace[4].module.as_deref(), Some("broken"));
}

#[test]
fn what_was_interrupted_is_in_the_trace_and_not_in_the_signature() {
    let oops = died(IN_AN_INTERRUPT);
    assert_eq!(oops.title, "kernel BUG at net/core/skbuff.c:115!");
    assert_eq!(oops.trace.len(), 5);
    let told: Vec<&str> = signature::told(&oops)
        .map(|place| place.function.as_str())
        .collect();
    assert_eq!(
        told,
        ["skb_panic", "skb_put.cold", "xennet_poll", "net_rx_action"]
    );
    let other = IN_AN_INTERRUPT.replace(
        " default_idle+0x13/0x20\n start_secondary+0x113/0x150",
        " <TASK>\n vfs_read+0x1/0x2\n </TASK>",
    );
    assert_eq!(died(&other).signature(), oops.signature());
}

#[test]
fn a_watchdogs_panic_is_about_the_task_that_it_watched() {
    let oops = died(LOCKUP);
    assert_eq!(
        oops.title,
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [stress:977]"
    );
    assert_eq!(names(&oops), ["_raw_spin_lock", "dummy_loop"]);
    let oops = died(HUNG);
    let task = Task {
        name: "mount".into(),
        pid: 411,
        cpu: None,
        taint: None,
    };
    assert_eq!(oops.task, Some(task));
    let culprit = culprit(&oops).map(|place| place.function.as_str());
    assert_eq!(culprit, Some("rwsem_down_write_slowpath"));
}

#[test]
fn an_older_report_is_not_what_another_panic_is_about() {
    let end = NULL_IN_A_MODULE.find("Kernel panic").expect("a panic");
    let older = NULL_IN_A_MODULE.replace("Kernel panic - not syncing: Fatal exception\n", "");
    let oops = died(&format!("{older}\n{SYSRQ}"));
    assert_eq!(
        oops.title,
        "Kernel panic - not syncing: sysrq triggered crash"
    );
    assert_eq!(oops.signature(), died(SYSRQ).signature());
    let watchdog = LOCKUP.split_once("Kernel panic").expect("a panic").0;
    let between = format!(
        "{}{watchdog}{}",
        &NULL_IN_A_MODULE[..end],
        &NULL_IN_A_MODULE[end..]
    );
    assert_eq!(died(&between).title, died(NULL_IN_A_MODULE).title);
    // Nor is the first of two panics.
    assert_eq!(
        died(&format!("{SYSRQ}\n{LOCKUP}")).title,
        died(LOCKUP).title
    );
    assert_eq!(Oops::in_log(&records(&older)), None);
    assert_eq!(Oops::in_log(&[]), None);
}

#[test]
fn init_is_killed_by_an_exception_or_by_itself() {
    let died_of = |before: &str| {
        let line = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009";
        died(&format!("{before}\n{line}\nCPU: 0 PID: 1 Comm: init")).title
    };
    assert!(died_of("systemd[1]: nothing").starts_with(PANIC));
    let before = NULL_IN_A_MODULE
        .rsplit_once("Kernel panic")
        .expect("a panic")
        .0;
    let of_init = before.replace("PID: 31 Comm: kworker/0:1", "PID: 1 Comm: init");
    assert!(died_of(of_init.trim_end()).starts_with("BUG: kernel NULL"));
    assert!(died_of(before.trim_end()).starts_with(PANIC));
}

#[test]
fn the_signature_is_the_faults_and_not_the_cases() {
    let logs = [SYSRQ, NULL_IN_A_MODULE, IN_AN_INTERRUPT, LOCKUP, HUNG];
    let signatures: Vec<String> = logs.iter().map(|log| died(log).signature()).collect();
    for (log, changes) in [
        (
            0,
            [
                ("PID: 214", "PID: 9"),
                ("CPU: 1", "CPU: 0"),
                ("0x16/0x20", "0x18/0x30"),
            ],
        ),
        (
            1,
            [
                ("kworker/0:1", "sh"),
                ("00000018", "00000040"),
                ("0x1b/0x40", "0x1d/0x44"),
            ],
        ),
        (
            2,
            [("c:115!", "c:118!"), ("swapper/3", "sh"), ("[#1]", "[#2]")],
        ),
        (
            3,
            [
                ("CPU#0", "CPU#7"),
                ("26s! [stress:977]", "48s! [dd:1]"),
                ("PID: 977", "PID: 1"),
            ],
        ),
        (
            4,
            [
                ("mount:411", "my mount:12"),
                ("120", "241"),
                ("Not tainted", "Tainted: G"),
            ],
        ),
    ] {
        let mut other = logs[log].to_owned();
        for (from, to) in changes {
            assert!(other.contains(from), "{from}");
            other = other.replace(from, to);
        }
        assert_eq!(died(&other).signature(), signatures[log], "{log}");
        for (place, signature) in signatures.iter().enumerate() {
            assert_eq!(*signature == signatures[log], place == log);
        }
    }
    let elsewhere = SYSRQ.replace("sysrq_handle_crash+", "another_function+");
    assert_ne!(died(&elsewhere).signature(), signatures[0]);
    let in_another = NULL_IN_A_MODULE.replace("[broken", "[torn");
    assert_ne!(died(&in_another).signature(), signatures[1]);
    // Known, so that it is noticed when records of an earlier release would not match.
    assert_eq!(signatures[0], "02e401c1abeff9ce");
    // README's.
    assert_eq!(signatures[1], "34813974d496018d");
}

#[test]
fn a_lying_guest_costs_no_more_than_its_log() {
    let line = " function_of_some_length+0x16/0x20\n".repeat(100_000);
    let log = format!(
        "{PANIC}x\nCPU: 0 PID: 1 Comm: {}\nCall Trace:\n{line}",
        "y".repeat(9999)
    );
    let oops = died(&log);
    assert_eq!(oops.trace.len(), FRAMES);
    assert_eq!(oops.task.expect("a task").name.len(), 128);
    for line in [
        "CPU: 99999999999999999999999 PID: 1 Comm: x",
        "CPU:  PID:  Comm: ",
        "INFO: task : blocked for ",
        " + / [",
        " a+0x/0x",
        " a+0x1/0xfffffffffffffffff",
        "RIP: 0010:",
        "Modules linked in:",
    ] {
        let oops = died(&format!("{PANIC}x\n{line}\nCall Trace:\n{line}"));
        assert_eq!(
            (oops.task, oops.at, oops.trace),
            (None, None, vec![]),
            "{line}"
        );
    }
}

#[test]
fn only_the_end_of_a_log_is_looked_at() {
    let record = |text: String| Record { time_ns: 0, text };
    let after = |bytes: usize| {
        let panic = record(format!("{PANIC}x"));
        let rest = record("y".repeat(bytes));
        Oops::in_log(at_end(&[panic, rest]))
    };
    let room = LOG_BYTES - PANIC.len() - 1;
    assert!(after(room).is_some());
    assert_eq!(after(room + 1), None);
    assert_eq!(after(2 * LOG_BYTES), None);
}
