// SPDX-License-Identifier: LGPL-2.1-or-later
//! The example of a toolstack, `c-tests/toolstack.c`, where there is no Xen: stand-ins
//! for the hypervisor and for libvicover tell what they are asked to do.
#![cfg(feature = "xen")]
#![allow(missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::c_program::{compile, library_in};
use tempfile::TempDir;

/// A configuration of the form that `xl create -n` prints.
const GUEST: &str = r#"{
    "c_info": { "type": "pvh", "name": "web1" },
    "b_info": { "max_memkb": 262144, "kernel": "/boot/guest", "type.pvh": {} },
    "disks": [ { "pdev_path": "/srv/web1.img", "vdev": "xvda", "readwrite": 1 } ]
}"#;

/// The program, and where it is.
struct Toolstack {
    directory: TempDir,
}

impl Toolstack {
    fn build() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = top().join("c-tests/toolstack.c");
        let linked = library_in(directory.path());
        compile(
            &source,
            &directory.path().join("toolstack"),
            [linked.to_str().unwrap(), "-lxenlight", "-lxentoollog"],
        );
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Runs it with the library of this build.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .env("LD_LIBRARY_PATH", self.directory.path())
            .output()
            .unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("toolstack"));
        command.args(arguments).current_dir(self.directory.path());
        command
    }

    /// Runs it with the stand-ins, which the variables steer.
    fn monitor(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let double = self.path("double");
        std::fs::create_dir_all(&double).unwrap();
        for (source, made) in [
            ("no-xen.c", self.path("no-xen.so")),
            ("vicover-double.c", double.join("libvicover.so.0")),
        ] {
            let source = top().join("xl-patch/tests").join(source);
            compile(
                &source,
                &made,
                ["-shared", "-fPIC", "-Wno-unused-parameter"],
            );
        }
        self.command(arguments)
            .env("LD_LIBRARY_PATH", double)
            .env("LD_PRELOAD", self.path("no-xen.so"))
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    /// What a guest's life was, in the stand-ins' words and the program's, without the
    /// lines that are in every life.
    fn life(&self, variables: &[(&str, &str)], options: &str) -> Vec<String> {
        self.file("guest.json", GUEST);
        let arguments = ["--dump-dir", "/dumps", "guest.json", options];
        let ran = self.monitor(variables, &arguments);
        assert!(ran.status.success(), "{ran:?}");
        text(&ran.stdout)
            .lines()
            .filter(|line| !line.starts_with("toolstack:") && !line.contains("watch "))
            .filter(|line| !line.contains("library: check"))
            .map(str::to_owned)
            .collect()
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn refused(ran: &Output, status: i32, said: &str) {
    assert_eq!(ran.status.code(), Some(status), "{ran:?}");
    assert!(text(&ran.stderr).contains(said), "{ran:?}");
}

#[test]
fn what_it_cannot_use_is_refused_before_anything_is_created() {
    let toolstack = Toolstack::build();
    refused(&toolstack.run(&[]), 2, "usage: toolstack");
    refused(&toolstack.run(&["a", "b", "c"]), 2, "usage: toolstack");
    refused(&toolstack.run(&["--dump-dir"]), 2, "usage: toolstack");
    let ran = toolstack.run(&["guest.json", "no_such_key=1"]);
    refused(&ran, 2, "no_such_key");
    let ran = toolstack.run(&["no-such.json"]);
    refused(&ran, 1, "no-such.json: No such file");
    toolstack.file("large.json", &" ".repeat((1 << 20) + 1));
    let ran = toolstack.run(&["large.json"]);
    refused(&ran, 1, "large.json is larger than the 1048576 bytes");
    toolstack.file("broken.json", "{ \"c_info\": ");
    let ran = toolstack.monitor(&[], &["broken.json"]);
    refused(&ran, 1, "broken.json is not a configuration");
    assert!(!text(&ran.stdout).contains("xen: create"), "{ran:?}");
}

#[test]
fn it_says_what_it_does_line_by_line() {
    let toolstack = Toolstack::build();
    toolstack.file("guest.json", GUEST);
    let variables = [
        ("NO_XEN_EVENTS", "crash,poweroff"),
        ("DOUBLE_OUTCOME", "adopted"),
    ];
    let ran = toolstack.monitor(&variables, &["--dump-dir", "/dumps", "guest.json"]);
    let said = text(&ran.stdout);
    let own: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("toolstack:"))
        .map(|line| line.split(" [pid").next().unwrap())
        .collect();
    assert_eq!(
        own,
        [
            "toolstack: Waiting for domain web1 (domid 1) to die",
            "toolstack: Domain 1 has shut down, reason code 3 0x3",
            "toolstack: Waiting for domain web1 (domid 101) to die",
            "toolstack: Domain 101 has shut down, reason code 0 0x0",
        ]
    );
    assert_eq!(text(&ran.stderr), "vicover: warning: only a double\n");
}

#[test]
fn the_recovery_domain_is_watched_in_turn() {
    let life = Toolstack::build().life(
        &[
            ("NO_XEN_EVENTS", "crash,watchdog,reboot,poweroff"),
            ("DOUBLE_OUTCOME", "adopted"),
        ],
        "compress=zstd",
    );
    assert_eq!(
        life,
        [
            "xen: create web1 as 1 with 1 disk(s)",
            "xen: unpause 1",
            "xen: read the configuration of 1",
            "xen: 1: crash",
            "xen: read the configuration of 1",
            "library: recover web1, domain 1 with 1 disk(s), options compress=zstd, to /dumps",
            "vicover: domain 1 crashed, domain 101 takes its place",
            "xen: read the configuration of 101",
            "xen: 101: watchdog",
            "xen: read the configuration of 101",
            "library: recover web1, domain 101 with 1 disk(s), options compress=zstd, to /dumps",
            "vicover: dump /dump is complete",
            "library: free job 7",
            "vicover: domain 101 crashed, domain 102 takes its place",
            "xen: read the configuration of 102",
            "xen: 102: reboot",
            "xen: read the configuration of 102",
            "xen: destroy 102",
            "vicover: dump /dump is complete",
            "library: free job 8",
            "xen: create web1 as 2 with 1 disk(s)",
            "xen: unpause 2",
            "xen: read the configuration of 2",
            "xen: 2: poweroff",
            "xen: read the configuration of 2",
            "xen: destroy 2",
        ]
    );
}

#[test]
fn a_crash_that_is_not_recovered_is_a_restart() {
    for (outcome, said) in [
        (
            "declined",
            vec!["vicover: libvicover declines: the double's reason"],
        ),
        (
            "untouched",
            vec![
                "vicover: domain 1 is as it crashed",
                "vicover: dump (no file) is incomplete: it is a double",
                "library: free job 7",
            ],
        ),
        (
            "dirty",
            vec![
                "vicover: domain 1 could not be replaced and must be restarted",
                "vicover: dump /dump is incomplete: it is a double",
                "library: free job 7",
            ],
        ),
    ] {
        let life = Toolstack::build().life(
            &[
                ("NO_XEN_EVENTS", "crash,poweroff"),
                ("DOUBLE_OUTCOME", outcome),
            ],
            "compress=zstd",
        );
        let again = ["xen: destroy 1", "xen: create web1 as 2 with 1 disk(s)"];
        let want: Vec<&str> = said.into_iter().chain(again).collect();
        assert_eq!(life[6..6 + want.len()], want, "{outcome}");
    }
}

#[test]
fn a_guest_that_keeps_crashing_is_what_the_operator_said() {
    let said = [
        "vicover: domain 1 keeps crashing and is not replaced",
        "vicover: the dump left no file",
        "library: free job 7",
    ];
    for (outcome, then) in [
        (
            "restart",
            vec!["xen: destroy 1", "xen: create web1 as 2 with 1 disk(s)"],
        ),
        ("destroy", vec!["xen: destroy 1"]),
        ("preserve", vec![]),
    ] {
        let variables = [
            ("NO_XEN_EVENTS", "crash,poweroff"),
            ("DOUBLE_OUTCOME", outcome),
        ];
        let life = Toolstack::build().life(&variables, "compress=zstd");
        let want: Vec<&str> = said.into_iter().chain(then).collect();
        assert_eq!(life[6..6 + want.len()], want, "{outcome}");
        let goes_on = life.len() > 6 + want.len();
        assert_eq!(goes_on, outcome == "restart", "{life:?}");
    }
}

#[test]
fn a_second_crash_meanwhile_waits_for_memory_only() {
    let life = Toolstack::build().life(
        &[
            ("NO_XEN_EVENTS", "crash,crash,poweroff"),
            ("DOUBLE_OUTCOME", "adopted"),
            ("DOUBLE_BUSY", "9"),
            ("NO_XEN_FREE", "192"),
        ],
        "compress=zstd",
    );
    assert_eq!(
        life[10..],
        [
            "library: recover web1, domain 101 with 1 disk(s), options compress=zstd, to /dumps",
            "vicover: domain 101 is restarted without a dump: the double's reason",
            "xen: destroy 101",
            "xen: 192 MiB are free",
            "vicover: waiting for memory that the dump gives back",
            "xen: 256 MiB are free",
            "xen: create web1 as 2 with 1 disk(s)",
            "xen: unpause 2",
            "xen: read the configuration of 2",
            "xen: 2: poweroff",
            "xen: read the configuration of 2",
            "xen: destroy 2",
            "vicover: waiting for the dump to end",
            "vicover: dump /dump is complete",
            "library: free job 7",
        ]
    );
}

#[test]
fn a_standby_is_kept_for_each_domain_and_none_in_the_end() {
    let life = Toolstack::build().life(
        &[
            ("NO_XEN_EVENTS", "crash,poweroff"),
            ("DOUBLE_OUTCOME", "adopted"),
        ],
        "standby=1",
    );
    assert_eq!(
        life[3..],
        [
            "library: keep a standby for domain 1 as job 7",
            "xen: 1: crash",
            "xen: read the configuration of 1",
            "library: recover web1, domain 1 with 1 disk(s), options standby=1, to /dumps",
            "library: with the standby of job 7",
            "vicover: domain 1 crashed, domain 101 takes its place",
            "library: cancel job 7",
            "library: free job 7",
            "xen: read the configuration of 101",
            "library: keep a standby for domain 101 as job 9",
            "xen: 101: poweroff",
            "xen: read the configuration of 101",
            "xen: destroy 101",
            "library: cancel job 9",
            "library: free job 9",
            "vicover: dump /dump is complete",
            "library: free job 8",
        ]
    );
}
