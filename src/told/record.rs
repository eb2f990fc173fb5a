// SPDX-License-Identifier: LGPL-2.1-or-later
//! An event as programs read it: one JSON object.

use std::time::Duration;

use serde::Serialize;

use super::event::Event;
use crate::units::Span;

/// The version of the record: it changes when a member changes its meaning or goes
/// away, not when one is added.
pub const RECORD_VERSION: u32 = 1;

/// An event of a guest's job, and when it happened.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The guest's name.
    pub guest: &'a str,
    /// Time since the job was started.
    pub at: Duration,
    /// What happened.
    pub event: &'a Event,
}

#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    guest: &'a str,
    at_ms: u64,
    level: &'static str,
    #[serde(flatten)]
    event: &'a Event,
    line: String,
}

/// A level as records have it.
pub fn level_name(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    }
}

impl Told<'_> {
    /// Whole milliseconds since the job was started.
    pub fn at_ms(&self) -> u64 {
        Span(self.at).millis()
    }

    /// The event as one JSON object in a line: `version`, `guest`, `at_ms`, `level`
    /// ("error", "warn", "info", "debug"), `about` and `event` (what happened),
    /// the event's own members, whose names end in their units, and `line`, its text.
    /// It has 128 KiB at most: what a guest or a file system gives to an event is bounded.
    pub fn record(&self) -> String {
        let record = Record {
            version: RECORD_VERSION,
            guest: self.guest,
            at_ms: self.at_ms(),
            level: level_name(self.event.level()),
            event: self.event,
            line: self.event.to_string(),
        };
        // Only a map whose keys are not text cannot be written as JSON; there is none.
        serde_json::to_string(&record).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gfn;
    use crate::guest::verdict::Verdict;
    use crate::host::HostError;
    use crate::told::event::{DumpEvent, GuestEvent, RecoveryEvent, Step};
    use crate::units::Size;

    fn record_of(event: impl Into<Event>) -> String {
        let told = Told {
            guest: "web1",
            at: Duration::from_millis(1234),
            event: &event.into(),
        };
        told.record()
    }

    #[test]
    fn a_record_is_one_flat_object_with_units_in_its_names() {
        assert_eq!(
            record_of(RecoveryEvent::Seeded {
                released: Size(1 << 20),
                backed: Size(1 << 19),
                full: Size(1 << 21),
            }),
            "{\"version\":1,\"guest\":\"web1\",\"at_ms\":1234,\"level\":\"info\",\
             \"about\":\"recovery\",\"event\":\"seeded\",\"released_bytes\":1048576,\
             \"backed_bytes\":524288,\"full_bytes\":2097152,\"line\":\"seeded: 1 MiB released, \
             building the recovery domain with 512 KiB of 2 MiB\"}"
        );
        assert!(record_of(RecoveryEvent::Times {
            first_release: None,
            unpaused: Some(Span(Duration::from_millis(2500))),
            over: Span(Duration::from_secs(3)),
        })
        .contains("\"first_release_ms\":null,\"unpaused_ms\":2500,\"over_ms\":3000"));
    }

    /// README and `vicover.h` promise it to those who take a record with one call.
    #[test]
    fn no_guest_makes_a_record_longer_than_128_kib() {
        let name = "\\\"".repeat(5000);
        let lines = [
            format!("Kernel panic - not syncing: Fatal exception: {name}"),
            format!("BUG: {name}"),
            format!("CPU: 0 PID: 1 Comm: {name} Tainted: {}", "G".repeat(5000)),
            format!(
                "Modules linked in: {}",
                format!("{} ", &name[..200]).repeat(5000)
            ),
            format!("RIP: 0010:{name}+0x1/0x2 [{name}]"),
            "Call Trace:".into(),
        ];
        let trace = vec![format!("? {name}+0xfffffffffffffff0/0x2 [{name}]"); 100];
        let text = |lines: &[String]| lines.join("\n");
        let log = [text(&lines[1..]), text(&trace), lines[0].clone()];
        let records = log.map(|text| crate::guest::log::Record {
            time_ns: u64::MAX,
            text,
        });
        let oops = crate::guest::oops::Oops::in_log(&records).expect("a panic");
        assert_eq!((oops.trace.len(), oops.modules.len()), (64, 512));
        assert!(oops.panic.is_some() && oops.task.is_some() && oops.at.is_some());
        let record = record_of(GuestEvent::Died {
            signature: oops.signature(),
            oops: Box::new(oops),
        });
        assert!(
            (64 << 10..=128 << 10).contains(&record.len()),
            "{}",
            record.len()
        );
    }

    #[test]
    fn errors_verdicts_and_paths_are_written_whatever_they_hold() {
        let missed = record_of(DumpEvent::Missed {
            step: Step::Release,
            start: Gfn(16),
            end: Gfn(32),
            error: HostError::new("map", "a \"quoted\" word\n"),
        });
        assert!(missed.contains("\"step\":\"release\""), "{missed}");
        assert!(missed.contains("\"call\":\"map\""), "{missed}");
        assert!(!missed.contains('\n'), "{missed}");
        let verdicts = record_of(GuestEvent::Verdicts {
            pages: vec![(Verdict::ALL[0], 3)],
        });
        let expected = format!("\"pages\":{{\"{}\":3}}", Verdict::ALL[0].name());
        assert!(verdicts.contains(&expected), "{verdicts}");
        let path = std::os::unix::ffi::OsStringExt::from_vec(b"/d/\xff".to_vec());
        let started = record_of(DumpEvent::Started {
            path: Some(std::ffi::OsString::into(path)),
        });
        assert!(started.contains("\"path\":\"/d/\u{fffd}\""), "{started}");
    }
}
