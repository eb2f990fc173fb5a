// SPDX-License-Identifier: LGPL-2.1-or-later
//! The process is killed at every call in its turn, with files and host as they are then,
//! and another goes on; which is killed as well, at every call in its turn, before a third
//! brings the crash to its end.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::broken::{Broken, Fault, Life, Wrong};
use super::hooked_sink::HookedSink;
use super::{ended, files, for_each_number, keeper, scratch, start, Ended, Kept, MANY};
use crate::drain::Target;
use crate::dump::{verify, Finding, Sink};
use crate::host::images::SyntheticImage;
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::host::CrashedDomain;
use crate::job::{Count, Job, JobState, Outcome};
use crate::journal::{Book, Entry, HistoryFile, Past};
use crate::options::Options;
use crate::story::{recover, resume};

/// Frames of the guests here: few, since they die so often.
const FRAMES: u64 = 4 * 512;
/// The guest's uuid.
const UUID: &str = "uuid";
/// The time since the machine was started.
const NOW: Duration = Duration::from_secs(1000);

/// A journal in memory that is written to as long as its process lives. What was being
/// written at its death is there by half.
#[derive(Clone)]
struct Paper {
    text: Arc<Mutex<String>>,
    life: Arc<Life>,
}

impl Book for Paper {
    fn append(&mut self, line: &str) -> io::Result<()> {
        let was_dead = self.life.is_over();
        let lives = self.life.step();
        let mut text = self.text.lock().unwrap();
        match (lives, was_dead) {
            (true, _) => text.push_str(line),
            (false, false) => text.push_str(&line[..line.len() / 2]),
            (false, true) => {}
        }
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        if self.life.step() {
            self.text.lock().unwrap().clear();
        }
        Ok(())
    }
}

/// What crash it is.
#[derive(Clone, Copy, Debug)]
struct Kind {
    with_standby: bool,
    is_dumped: bool,
}

const PLAIN: Kind = Kind {
    with_standby: false,
    is_dumped: true,
};

/// A guest, its dumps and its journal, which outlive processes.
struct World {
    kind: Kind,
    host: MemoryHost,
    directory: tempfile::TempDir,
    journal: Arc<Mutex<String>>,
}

/// Copies the files of a directory in which others may be at work: a file that gets its
/// last name meanwhile is copied under one of its names.
fn copy(from: &Path, to: &Path) {
    let names = || -> BTreeSet<OsString> {
        let entries = fs::read_dir(from).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    loop {
        let before = names();
        let copied = before
            .iter()
            .all(|name| fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && names() == before {
            return;
        }
        for name in &before {
            // What was copied is looked at once more.
            let _ = fs::remove_file(to.join(name));
        }
    }
}

impl World {
    fn new(kind: Kind) -> Self {
        let image = Arc::new(SyntheticImage::new(FRAMES));
        Self {
            kind,
            host: MemoryHost::new(image, 2, Faults::default()),
            directory: scratch(),
            journal: Arc::default(),
        }
    }

    /// A process that is killed before its call of this number; and where the dumps are
    /// then as they were at that moment.
    fn process(&self, most: u64) -> (Arc<Life>, tempfile::TempDir) {
        let after = scratch();
        let (from, to) = (self.directory.path().to_owned(), after.path().to_owned());
        (Life::of(most, move || copy(&from, &to)), after)
    }

    fn target(&self, sink: Option<Box<dyn Sink>>) -> Target {
        Target {
            options: Options::parse("threads=2,compress=none,dump_level=0").unwrap(),
            name: "guest".into(),
            dump_dir: self.directory.path().into(),
            sink: Mutex::new(sink),
        }
    }

    /// Where the guest's crashes are counted, which takes a call.
    fn count(&self, life: &Arc<Life>) -> Count {
        let life = life.clone();
        let clock = move || {
            life.step();
            NOW
        };
        Count::of(self.directory.path(), UUID, Box::new(clock))
    }

    /// Dumps that were counted.
    fn counted(&self) -> usize {
        let file = HistoryFile::of(self.directory.path(), UUID);
        file.change(NOW, |_| ()).unwrap().history.dumps_ms.len()
    }

    fn paper(&self, life: &Arc<Life>) -> Box<dyn Book> {
        Box::new(Paper {
            text: self.journal.clone(),
            life: life.clone(),
        })
    }

    /// The first process: it handles the crash from its beginning.
    fn handle(&self, kept: &Kept, life: &Arc<Life>) -> Job {
        let broken = Broken::mortal(&self.host, life);
        let of_sink = life.clone();
        let dead = || Err(io::Error::other("the process is dead"));
        let Kind {
            with_standby,
            is_dumped,
        } = self.kind;
        let sink = is_dumped.then(|| {
            let hooked = HookedSink::create(&self.directory, move |_| match of_sink.step() {
                true => Ok(()),
                false => dead(),
            });
            Box::new(hooked) as Box<dyn Sink>
        });
        let target = self.target(sink);
        let (paper, keeper) = (self.paper(life), with_standby.then(keeper));
        let count = self.count(life);
        start(kept, move |job| {
            assert!(job.count.set(count).is_ok());
            if !is_dumped {
                job.do_without_dump();
            }
            let mut toolstack = Box::new(broken.clone());
            open_journal(&broken, &mut toolstack, &target, paper, job);
            recover::recover(&broken, toolstack, keeper.as_ref(), &target, job)
        })
    }

    /// A process that goes on, and is killed.
    fn go_on(&self, kept: &Kept, life: &Arc<Life>, past: Past) -> Job {
        let broken = Broken::mortal(&self.host, life);
        self.go_on_as(kept, &broken, life, past)
    }

    /// A process that goes on, as which the host is `broken`.
    fn go_on_as(&self, kept: &Kept, broken: &Broken, life: &Arc<Life>, past: Past) -> Job {
        let is_there = !self.host.events().contains(&HostEvent::Destroyed);
        let (target, broken) = (self.target(None), broken.clone());
        let (paper, count) = (self.paper(life), self.count(life));
        start(kept, move |job| {
            assert!(job.count.set(count).is_ok());
            job.journal.open(paper);
            let domain = is_there.then_some(&broken as &dyn CrashedDomain);
            resume::resume(domain, Box::new(broken.clone()), &past, &target, job)
        })
    }

    /// What is left after a process that was killed.
    fn after(self, dumps: tempfile::TempDir) -> Self {
        let text = self.journal.lock().unwrap();
        // As whoever takes a journal over does.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let path = |directory: &tempfile::TempDir| directory.path().to_str().unwrap().to_owned();
        let moved = whole.replace(&path(&self.directory), &path(&dumps));
        let history = dumps.path().join(format!("{UUID}.crashes"));
        if let Ok(text) = fs::read_to_string(&history) {
            let moved = text.replace(&path(&self.directory), &path(&dumps));
            fs::write(history, moved).unwrap();
        }
        Self {
            kind: self.kind,
            host: self.host.clone(),
            directory: dumps,
            journal: Arc::new(Mutex::new(moved)),
        }
    }

    fn past(&self) -> Option<Past> {
        let text = self.journal.lock().unwrap().clone();
        let is_begun = text.contains('\n');
        is_begun.then(|| Past::read(&text).expect("the journal can be read"))
    }

    /// What must hold when the crash has come to its end.
    fn check(&self, ended: &Ended) {
        let violations = self.host.violations();
        ended.check(violations.is_empty(), &format!("{violations:?}"));
        let events = self.host.events();
        let has = |event: HostEvent| events.contains(&event);
        ended.check(ended.outcome == Outcome::Adopted, "outcome");
        ended.check(has(HostEvent::Unpaused), "nothing runs");
        ended.check(!self.host.is_recovery_stopped(), "recovery is stopped");
        ended.check(has(HostEvent::Destroyed), "the crashed domain is left");
        ended.check(has(HostEvent::Settled), "recovery is not settled");
        ended.check(self.host.claimed_pages() == 0, "memory is claimed");
        let runs = |event: &&HostEvent| matches!(event, HostEvent::Created | HostEvent::Adopted);
        let gone = |event: &&HostEvent| matches!(event, HostEvent::Discarded);
        let built = events.iter().filter(runs).count();
        let discarded = events.iter().filter(gone).count();
        ended.check(built == discarded + 1, "not exactly one recovery is left");
        ended.check(self.journal.lock().unwrap().is_empty(), "a journal is left");
        self.check_dumps(ended);
    }

    /// There is one dump where there is to be one, it is complete, it has every page as the
    /// guest had it, and it was counted once, whoever finished it.
    fn check_dumps(&self, ended: &Ended) {
        let counted = self.counted();
        let right = counted == usize::from(self.kind.is_dumped);
        ended.check(right, &format!("{counted} dumps were counted"));
        let mut names = files(&self.directory);
        names.retain(|name| !name.contains(".crashes"));
        if !self.kind.is_dumped {
            ended.check(names.is_empty(), &format!("{names:?}"));
            return;
        }
        // A file that had just been made is not known to be a dump.
        let is_empty = |name: &str| {
            let length = fs::metadata(self.directory.path().join(name))
                .unwrap()
                .len();
            name.ends_with(".incomplete") && length == 0
        };
        let is_dump = |name: &&String| !name.ends_with(".sums") && !is_empty(name);
        let dumps: Vec<&String> = names.iter().filter(is_dump).collect();
        ended.check(dumps.len() == 1, &format!("{names:?}"));
        ended.check(dumps[0].ends_with(".kdump"), &format!("{names:?}"));
        let report = verify(&self.directory.path().join(dumps[0])).unwrap();
        ended.check(report.finding == Finding::Complete, &format!("{report:?}"));
        ended.check(report.with_manifest, "it has no manifest");
        let (stored, zero) = (FRAMES / 4 * 3, FRAMES / 4);
        let right = (report.stored_pages, report.zero_pages) == (stored, zero);
        ended.check(right, &format!("{report:?}"));
    }
}

fn open_journal(
    domain: &Broken,
    toolstack: &mut Broken,
    target: &Target,
    mut paper: Box<dyn Book>,
    job: &JobState,
) {
    let options = "threads=2,compress=none,dump_level=0";
    let Ok(begun) = resume::begun(domain, toolstack, target, options, job) else {
        return;
    };
    let line = serde_json::to_string(&Entry::Begun(begun)).unwrap() + "\n";
    if paper.append(&line).is_ok() {
        job.journal.open(paper);
    }
}

/// Handles a crash in a process that is killed at call `first`, goes on in one that is
/// killed at call `second`, and in a third. Says whether each of the first two was killed.
fn kill(first: u64, second: u64, kind: Kind) -> (bool, bool) {
    let what = format!("killed at {first}, then at {second}, {kind:?}");
    let (world, kept) = (World::new(kind), Kept::default());
    let (life, dumps) = world.process(first);
    let handled = ended(&what, world.handle(&kept, &life), &kept);
    if !life.is_over() {
        world.check(&handled);
        return (false, false);
    }
    let mut world = world.after(dumps);
    let mut kills = 1;
    loop {
        let Some(past) = world.past() else {
            // Nothing was begun, or all is over.
            let events = world.host.events();
            let is_over = events.is_empty() || events.contains(&HostEvent::Settled);
            handled.check(is_over, "no journal of what was begun");
            return (true, kills > 1);
        };
        let kept = Kept::default();
        let most = if kills == 1 { second } else { u64::MAX };
        let (life, dumps) = world.process(most);
        let ended = ended(&what, world.go_on(&kept, &life, past), &kept);
        if !life.is_over() {
            world.check(&ended);
            return (true, kills > 1);
        }
        world = world.after(dumps);
        kills += 1;
    }
}

/// Calls of the second process between two of them at which it is killed, where nobody
/// says how many; `SECOND_KILLS=1` kills it at each.
const SECOND_KILLS: u64 = 23;

#[test]
fn whenever_the_process_is_killed_another_brings_the_crash_to_its_end() {
    for with_standby in [false, true] {
        let kind = Kind {
            with_standby,
            ..PLAIN
        };
        let killed = for_each_number(|call| kill(call, u64::MAX, kind).0);
        println!("faults: killed, standby {with_standby}: killed {killed}, resumed {killed}");
        assert!(killed > 50, "{killed} calls: most were not seen");
    }
}

#[test]
fn a_crash_that_is_not_dumped_is_brought_to_its_end_without_a_dump() {
    let kind = Kind {
        is_dumped: false,
        ..PLAIN
    };
    let killed = for_each_number(|call| {
        // The one that goes on is killed soon as well, or not at all.
        kill(call, 5, kind);
        kill(call, u64::MAX, kind).0
    });
    println!("faults: killed, not dumped: killed {killed}, resumed {killed}");
    assert!(killed > 20, "{killed} calls: most were not seen");
}

#[test]
fn whoever_goes_on_may_be_killed_as_well() {
    let step = std::env::var("SECOND_KILLS").ok();
    let step = step
        .and_then(|text| text.parse().ok())
        .unwrap_or(SECOND_KILLS);
    let kills = AtomicU64::new(0);
    for_each_number(|first| {
        // Others for each: together the few of each meet all of them.
        for second in (first % step..MANY).step_by(step as usize) {
            let with_standby = first % 2 == 1;
            let kind = Kind {
                with_standby,
                ..PLAIN
            };
            let (was_killed, again) = kill(first, second, kind);
            if !again {
                return was_killed;
            }
            kills.fetch_add(1, SeqCst);
        }
        unreachable!("going on takes more than {MANY} calls");
    });
    let kills = kills.into_inner();
    println!("faults: killed again: killed {kills}, resumed {kills}");
    assert!(kills > 50, "{kills} pairs: most were not seen");
}

/// Goes on after a kill at call `first` while the call `number` of going on is refused;
/// whether there was such a call.
fn refuse_while_going_on(first: u64, number: u64) -> bool {
    let what = format!("killed at {first}, then call {number} is refused");
    let (world, kept) = (World::new(PLAIN), Kept::default());
    let (life, dumps) = world.process(first);
    ended(&what, world.handle(&kept, &life), &kept);
    let world = world.after(dumps);
    let Some(past) = world.past() else {
        // All was over before.
        return false;
    };
    let broken = Broken::new(&world.host, Fault::At(number, Wrong::Refused));
    let kept = Kept::default();
    let job = world.go_on_as(&kept, &broken, &Life::of(u64::MAX, || ()), past);
    let ended = ended(&what, job, &kept);
    let hit = broken.hit().unwrap_or("none");
    let violations = world.host.violations();
    ended.check(violations.is_empty(), &format!("{hit}: {violations:?}"));
    let is_claimed = world.host.claimed_pages() > 0 && hit != "claim";
    ended.check(!is_claimed, "memory is claimed for nobody");
    let runs = world.host.events().contains(&HostEvent::Unpaused);
    match ended.outcome {
        Outcome::Adopted => ended.check(runs, "there is no recovery"),
        // The caller starts the guest anew.
        Outcome::Dirty => {}
        other => ended.check(false, &format!("{hit}: {other:?}")),
    }
    if hit == "none" {
        world.check(&ended);
    }
    hit != "none"
}

#[test]
fn going_on_ends_as_it_should_whichever_of_its_calls_is_refused() {
    let mut calls = 0;
    // Before a recovery is built, while one is, while one runs, and when the crashed
    // domain may be gone.
    for first in [12, 30, 45, 58, 66] {
        calls += for_each_number(|number| refuse_while_going_on(first, number));
    }
    println!("faults: going on: injected {calls}, survived {calls}");
    assert!(calls > 100, "{calls} calls: most were not seen");
}
