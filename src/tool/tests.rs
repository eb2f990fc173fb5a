// SPDX-License-Identifier: LGPL-2.1-or-later
//! The program, by what it prints and with which status it ends.

use std::path::Path;

use super::*;
use crate::incident::{DumpState, Incident};
use crate::job::Outcome;
use crate::units::Utc;

/// What the program prints, what it says is wrong, and its status.
fn said(arguments: &[&str], terminal: Option<Terminal>) -> (String, String, ExitCode) {
    let (mut to, mut about) = (Vec::new(), Vec::new());
    let arguments = arguments.iter().map(OsString::from);
    let code = run(arguments, terminal, &mut to, &mut about);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(to), text(about), code)
}

fn crash(directory: &Path, guest: &str, at: u64) -> Incident {
    let id = format!("{guest}-{at}");
    let mut incident = Incident::new(&id, guest, "uuid", Utc(at));
    incident.is_over = true;
    incident.outcome = Outcome::Adopted;
    incident.dump.state = DumpState::Complete;
    incident.dump.length_bytes = Some(19 << 20);
    let text = serde_json::to_string_pretty(&incident).unwrap();
    std::fs::write(directory.join(format!("{id}.json")), text).unwrap();
    incident
}

#[test]
fn crashes_are_a_table_that_fits_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    crash(directory.path(), "web1", 0);
    crash(directory.path(), "database", 86_400);
    let list = |more: &[&str], terminal| {
        let arguments = [&["list", "-D", path], more].concat();
        said(&arguments, terminal)
    };
    let (all, about, code) = list(&[], None);
    assert_eq!(
        all,
        "CRASHED (UTC)        GUEST     NOW        DUMP      SIZE    DIED OF\n\
         1970-01-01 00:00:00  web1      recovered  complete  19 MiB  -\n\
         1970-01-02 00:00:00  database  recovered  complete  19 MiB  -\n"
    );
    assert_eq!((about.as_str(), code), ("", ExitCode::SUCCESS));
    let narrow = list(&[], Some(Terminal { columns: 30 })).0;
    assert!(narrow.lines().all(|line| line.chars().count() <= 30));
    assert!(
        narrow.starts_with("CRASHED (UTC)        GUEST   …\n"),
        "{narrow}"
    );
    let last = list(&["-n", "1"], None).0;
    assert_eq!(last.lines().count(), 2);
    assert!(last.contains("database"));
    let reversed = list(&["--reverse"], None).0;
    assert!(reversed.lines().nth(1).unwrap().contains("database"));
    let json = list(&["--json", "web1"], None).0;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["id"], &json["outcome"]),
        (&"web1-0".into(), &"adopted".into())
    );
    let (nothing, about, code) = list(&["web9"], None);
    assert_eq!((nothing.as_str(), code), ("", ExitCode::from(1)));
    assert_eq!(
        about,
        format!("vicover: no crash of web9 is recorded in {path}\n")
    );
}

#[test]
fn one_crash_is_the_last_one_or_that_which_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    crash(directory.path(), "web1", 0);
    crash(directory.path(), "web1", 10);
    crash(directory.path(), "web2", 20);
    let first_line = |named: &[&str]| {
        let arguments = [&["info", "-D", path], named].concat();
        let (text, about, _) = said(&arguments, None);
        text.lines().next().map_or(about, str::to_owned)
    };
    assert_eq!(first_line(&[]), "web2-20");
    assert_eq!(first_line(&["last"]), "web2-20");
    assert_eq!(first_line(&["web1"]), "web1-10");
    assert_eq!(first_line(&["web1-0"]), "web1-0");
    let nothing = format!("vicover: no crash of web3 is recorded in {path}\n");
    assert_eq!(first_line(&["web3"]), nothing);
    let json = said(&["info", "-D", path, "--json", "web1"], None).0;
    let json: Incident = serde_json::from_str(&json).unwrap();
    assert_eq!(json.id, "web1-10");
}

#[test]
fn where_nothing_is_handled_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    crash(directory.path(), "web1", 0);
    let path = directory.path().to_str().unwrap();
    let (text, _, code) = said(&["status", "-w", "-D", path], None);
    assert_eq!(text, "no crash is being handled\n");
    assert_eq!(code, ExitCode::SUCCESS);
    let json = said(&["status", "--json", "-D", path], None).0;
    assert_eq!(json, "");
}

#[test]
fn what_is_not_understood_is_named() {
    let wrong = |arguments: &[&str]| {
        let (text, about, code) = said(arguments, None);
        assert_eq!((text.as_str(), code), ("", ExitCode::from(2)));
        about.lines().next().unwrap().to_owned()
    };
    assert_eq!(wrong(&["lst"]), "vicover: unknown command 'lst'");
    assert_eq!(
        wrong(&["list", "--colour"]),
        "vicover: invalid option '--colour'"
    );
    assert_eq!(
        wrong(&["metrics", "web1"]),
        "vicover: 1 names; allowed: none"
    );
    assert_eq!(wrong(&["info", "-w"]), "vicover: 'info' takes no --watch");
    assert_eq!(
        wrong(&["verify", "-n", "1", "x"]),
        "vicover: 'verify' takes no --lines"
    );
    assert_eq!(wrong(&["mend"]), "vicover: which dumps?");
    assert_eq!(
        wrong(&["list", "a", "b"]),
        "vicover: 2 names; allowed: one guest"
    );
    let missing = wrong(&["verify", "/nonexistent.kdump"]);
    assert_eq!(
        missing,
        "vicover: /nonexistent.kdump: No such file or directory (os error 2)"
    );
}

#[test]
fn help_fits_a_terminal_and_names_every_command() {
    for asked in [&["help"][..], &[], &["list", "--help"]] {
        let (text, about, code) = said(asked, None);
        assert_eq!((about.as_str(), code), ("", ExitCode::SUCCESS));
        assert!(text.lines().all(|line| line.len() <= 79), "{text}");
        for command in [
            "list", "info", "status", "metrics", "verify", "mend", "version",
        ] {
            assert!(text.contains(&format!("vicover {command}")), "{command}");
        }
    }
}

#[test]
fn figures_are_as_prometheus_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let figures = || said(&["metrics", "-D", path.to_str().unwrap()], None).0;
    assert_eq!(figures().lines().count(), 12, "what there could be");
    let write = |incident: &Incident| {
        let text = serde_json::to_string_pretty(incident).unwrap();
        std::fs::write(path.join(format!("{}.json", incident.id)), text).unwrap();
    };
    for (at, ms) in [(10, 1234), (20, 2000)] {
        let mut recovered = crash(path, "web1", at);
        recovered.recovery.unpaused_ms = Some(ms);
        write(&recovered);
    }
    let mut gone = crash(path, "web1", 5);
    (gone.outcome, gone.dump.state) = (Outcome::Dirty, DumpState::Removed);
    write(&gone);
    let mut now = Incident::new("odd-7", "o\"d\\d", "uuid", Utc(7));
    now.dump.state = DumpState::Written;
    write(&now);
    let figures = figures();
    let said: Vec<&str> = figures
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        said,
        [
            "vicover_crashes{guest=\"o\\\"d\\\\d\",outcome=\"down\"} 1",
            "vicover_crashes{guest=\"web1\",outcome=\"recovered\"} 2",
            "vicover_crashes{guest=\"web1\",outcome=\"restarted\"} 1",
            "vicover_dumps{guest=\"o\\\"d\\\\d\",state=\"being_written\"} 1",
            "vicover_dumps{guest=\"web1\",state=\"complete\"} 2",
            "vicover_dumps{guest=\"web1\",state=\"removed\"} 1",
            "vicover_dump_bytes{guest=\"o\\\"d\\\\d\"} 0",
            "vicover_dump_bytes{guest=\"web1\"} 39845888",
            "vicover_recoveries{guest=\"o\\\"d\\\\d\"} 0",
            "vicover_recoveries{guest=\"web1\"} 2",
            "vicover_recovery_seconds{guest=\"o\\\"d\\\\d\"} 0.000",
            "vicover_recovery_seconds{guest=\"web1\"} 3.234",
            "vicover_last_crash_timestamp_seconds{guest=\"o\\\"d\\\\d\"} 7",
            "vicover_last_crash_timestamp_seconds{guest=\"web1\"} 20",
        ]
    );
}
