// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C programs of `c-tests/`, built by the system's C compiler against
//! `include/vicover.h` and the shared library.
#![allow(missing_docs)]

mod support;

use std::path::Path;

use support::c_program::build_and_run;

fn run(name: &str, directory: &Path) -> String {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("c-tests");
    build_and_run(&programs.join(format!("{name}.c")), directory)
}

#[test]
fn structs_lie_where_compiled_programs_expect_them() {
    run("layout", tempfile::tempdir().unwrap().path());
}

#[test]
fn misuse_is_answered() {
    run("misuse", tempfile::tempdir().unwrap().path());
}

#[test]
fn a_caller_hands_in_descriptors_and_verifies_dumps() {
    run("sinks", tempfile::tempdir().unwrap().path());
}

#[test]
fn there_is_a_dump_whenever_more_than_its_tables_fits() {
    run("room", tempfile::tempdir().unwrap().path());
}

#[test]
fn options_of_the_host_count_where_a_caller_says_nothing_else() {
    run("host_options", tempfile::tempdir().unwrap().path());
}

#[test]
fn the_pace_of_a_running_job_changes() {
    run("pace", tempfile::tempdir().unwrap().path());
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error_and_nobody_waits() {
    run("threads", tempfile::tempdir().unwrap().path());
}

#[test]
fn numbers_that_cannot_be_are_refused_before_memory_is_taken() {
    run("sizes", tempfile::tempdir().unwrap().path());
}

#[test]
fn no_descriptor_takes_the_number_of_a_standard_stream() {
    run("descriptors", tempfile::tempdir().unwrap().path());
}

#[test]
fn path_name_and_verdict_agree_however_a_dump_ends() {
    run("ends", tempfile::tempdir().unwrap().path());
}

#[test]
fn events_reach_callback_and_socket_as_the_log_tells_them() {
    let directory = tempfile::tempdir().unwrap();
    let records = run("events", directory.path());
    let mut names = Vec::new();
    for record in records.lines() {
        let record: serde_json::Value = serde_json::from_str(record).expect("JSON in a line");
        assert_eq!(record["version"], 1);
        assert_eq!(record["guest"], "events \"x\"");
        names.push(format!("{} {}", record["about"], record["event"]).replace('"', ""));
    }
    let place = |name: &str| names.iter().position(|one| one == name);
    let order = ["guest seen", "dump started", "dump complete"].map(place);
    assert!(order[0].is_some() && order.is_sorted(), "{names:?}");
}

#[test]
fn a_c_program_dumps_a_guest() {
    let directory = tempfile::tempdir().unwrap();
    let path = run("dump_image", directory.path());
    let bytes = std::fs::read(path.trim()).expect("the dump is where it says");
    assert_eq!(&bytes[..8], b"KDUMP   ");
}
