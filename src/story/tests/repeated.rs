// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest that crashes once more while the dump of an earlier crash is being written.

use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};

use super::hooked_sink::HookedSink;
use super::{ended, files, scratch, Ended, Kept, DEADLINE};
use crate::drain::Target;
use crate::dump::Sink;
use crate::error::{Error, ErrorKind};
use crate::host::images::SyntheticImage;
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::job::{Job, Outcome};
use crate::journal::Notes;
use crate::options::{OnCrashLoop, Options};
use crate::story::begin::recovery;
use crate::told::event::{DumpEvent, Event, JobEvent};

/// A guest, named as no other test's: recoveries are counted for the whole process.
struct Guest {
    name: &'static str,
    options: &'static str,
    directory: tempfile::TempDir,
    dumps: tempfile::TempDir,
}

/// A crash that is being handled.
struct Crash {
    host: MemoryHost,
    kept: Kept,
    job: Job,
}

impl Guest {
    fn new(name: &'static str, options: &'static str) -> Self {
        Self {
            name,
            options,
            directory: scratch(),
            dumps: scratch(),
        }
    }

    fn crash(&self, sink: Option<Box<dyn Sink>>) -> Result<Crash, Error> {
        let host = MemoryHost::new(Arc::new(SyntheticImage::new(512)), 1, Faults::default());
        let kept = Kept::default();
        let target = Target {
            options: Options::parse(self.options).unwrap(),
            name: "guest".into(),
            dump_dir: self.dumps.path().into(),
            sink: Mutex::new(sink),
        };
        let notes = Notes {
            directory: self.directory.path().into(),
            options: String::new(),
        };
        let opened = host.clone();
        let job = recovery(
            self.name,
            move || Ok((opened.clone(), Box::new(opened) as Box<_>)),
            None,
            target,
            notes,
            None,
            kept.log("guest"),
        )?;
        Ok(Crash { host, kept, job })
    }

    /// A crash whose dump does not get on before what is returned is dropped.
    fn crash_with_slow_dump(&self) -> (Crash, Sender<()>) {
        let (let_go, held) = channel::<()>();
        let sink = HookedSink::create(&self.dumps, move |_| {
            // Until the other end is gone.
            let _ = held.recv();
            Ok(())
        });
        let crash = self.crash(Some(Box::new(sink))).unwrap();
        (crash, let_go)
    }

    fn complete_dumps(&self) -> usize {
        let names = files(&self.dumps);
        names.iter().filter(|name| name.ends_with(".kdump")).count()
    }
}

impl Crash {
    fn ended(self, what: &str) -> (Ended, MemoryHost) {
        (ended(what, self.job, &self.kept), self.host)
    }
}

#[test]
fn a_queued_crash_does_not_get_the_dump_that_the_one_before_it_got_meanwhile() {
    let guest = Guest::new("queued", "on_recrash=queue,max_dumps=1/1h,compress=none");
    let (first, let_go) = guest.crash_with_slow_dump();
    let second = guest.crash(None).unwrap();
    let queued = |event: &Event| matches!(event, Event::Job(JobEvent::Queued));
    assert!(
        second.kept.wait(DEADLINE, queued).is_some(),
        "{}",
        second.kept
    );
    drop(let_go);
    let (first, _) = first.ended("the first");
    first.check(first.outcome == Outcome::Adopted, "outcome");
    let (second, host) = second.ended("the second");
    second.check(second.outcome == Outcome::Adopted, "outcome");
    second.check(host.violations().is_empty(), "violations");
    let not_wanted = |event: &Event| matches!(event, Event::Dump(DumpEvent::NotWanted { .. }));
    second.check(second.log.has(not_wanted), "it is not told");
    assert_eq!(guest.complete_dumps(), 1);
}

#[test]
fn crashes_that_are_refused_during_a_dump_count_until_the_guest_is_given_up_on() {
    let guest = Guest::new("refused", "max_crashes=2/1h,compress=none");
    let (first, let_go) = guest.crash_with_slow_dump();
    let refused = guest.crash(None).err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::Busy));
    // The dump of the first one is still being written.
    let (third, host) = guest.crash(None).unwrap().ended("the third");
    let given_up = Outcome::GivenUp(OnCrashLoop::Preserve);
    third.check(third.outcome == given_up, "outcome");
    third.check(host.events().is_empty(), "something was done to the domain");
    drop(let_go);
    let (first, host) = first.ended("the first");
    first.check(first.error.is_none(), "the dump");
    first.check(host.events().contains(&HostEvent::Settled), "not settled");
    assert_eq!(guest.complete_dumps(), 1);
}
