// SPDX-License-Identifier: LGPL-2.1-or-later
//! A standby's life on the in-memory host: built, watched, taken or discarded.
#![allow(missing_docs)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vicover::drain::Target;
use vicover::error::Error;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, HostEvent, MemoryHost, RECIPE};
use vicover::host::{BuiltStandby, HostError, StandbyHost};
use vicover::job::{Job, JobState, Outcome, Phase};
use vicover::options::Options;
use vicover::story::recover::recover;
use vicover::story::standby;
use vicover::told::event::{self as told, RecoveryEvent, StandbyEvent};
use vicover::told::kept::Kept;

const FRAMES: u64 = 16 * 512;
const OFTEN: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(60);

/// What happened to standbys, in order.
type Told = Arc<Mutex<Vec<String>>>;

/// Builds standbys out of nothing.
struct Builder {
    told: Told,
    /// What the next ones are built from; the last one stays.
    recipes: Vec<&'static str>,
    refuses: bool,
    built: u32,
}

impl Builder {
    fn new(told: &Told, recipes: &[&'static str]) -> Self {
        Self {
            told: told.clone(),
            recipes: recipes.to_vec(),
            refuses: false,
            built: 0,
        }
    }

    fn next(&mut self) -> &'static str {
        match self.recipes.len() {
            1 => self.recipes[0],
            _ => self.recipes.remove(0),
        }
    }
}

impl StandbyHost for Builder {
    fn build(&mut self, boot: bool, _stop: &dyn Fn() -> bool) -> Result<BuiltStandby, HostError> {
        if self.refuses {
            return Err(HostError::new("standby", "no room"));
        }
        self.built += 1;
        let recipe: String = self.next().into();
        let how = if boot { "booted" } else { "built" };
        self.told.lock().unwrap().push(format!("{how} {recipe}"));
        Ok(BuiltStandby {
            domid: self.built,
            pages: 100,
            recipe,
        })
    }

    fn recipe(&mut self) -> Result<String, HostError> {
        Ok(self.next().into())
    }

    fn discard(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        let recipe = &standby.recipe;
        self.told
            .lock()
            .unwrap()
            .push(format!("discarded {recipe}"));
        Ok(())
    }
}

/// Starts to keep a standby; returns its job and what is told of it.
fn keep(mut builder: Builder, boot: bool) -> (Job, Kept) {
    let kept = Kept::default();
    let work = move |shared: &JobState| standby::keep(&mut builder, boot, OFTEN, shared);
    (Job::start(kept.log("guest"), work).unwrap(), kept)
}

/// Waits until a standby is ready.
fn wait_ready(kept: &Kept) {
    let ready =
        |event: &told::Event| matches!(event, told::Event::Standby(StandbyEvent::Ready { .. }));
    assert!(kept.wait(DEADLINE, ready).is_some(), "{kept}");
}

/// Waits until a builder has done something.
fn wait_done(done: &Told, what: &str) {
    let end = Instant::now() + DEADLINE;
    while !done.lock().unwrap().iter().any(|line| line == what) {
        assert!(Instant::now() < end, "no '{what}' in {done:?}");
        std::thread::yield_now();
    }
}

fn ended(job: Job) -> Option<String> {
    let done = |snapshot: &vicover::job::Snapshot| snapshot.phase == Phase::Done;
    assert!(job.shared.wait(Some(DEADLINE), done), "it does not end");
    let failure = job.shared.with_failure(|failure| failure.map(Error::chain));
    job.join();
    failure
}

struct Recovered {
    host: MemoryHost,
    log: Kept,
    shared: JobState,
}

impl Recovered {
    /// Why the standby was not used.
    fn not_used(&self) -> String {
        let events = self.log.events();
        let why = events.into_iter().find_map(|event| match event {
            told::Event::Standby(StandbyEvent::NotUsed { why }) => Some(why),
            _ => None,
        });
        why.unwrap_or_else(|| panic!("{}", self.log))
    }
}

/// A crash with a standby that `keeper` keeps.
fn crash(keeper: &JobState, faults: Faults) -> Recovered {
    let (recovered, result) = try_recover(keeper, faults);
    result.unwrap();
    assert_eq!(recovered.host.released(), FRAMES);
    recovered
}

/// The same, which may fail.
fn try_recover(keeper: &JobState, faults: Faults) -> (Recovered, Result<(), Error>) {
    let directory = tempfile::tempdir().unwrap();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, faults);
    let log = Kept::default();
    let shared = JobState::new(log.log("guest"));
    let target = Target {
        options: Options::default(),
        name: "guest".into(),
        dump_dir: directory.path().into(),
        sink: Mutex::default(),
    };
    let toolstack = Box::new(host.clone());
    let result = recover(&host, toolstack, Some(keeper), &target, &shared);
    assert_eq!(host.violations(), Vec::<String>::new());
    (Recovered { host, log, shared }, result)
}

#[test]
fn a_standby_runs_before_any_page_is_released_and_gets_the_memory() {
    let told = Told::default();
    let (job, log) = keep(Builder::new(&told, &[RECIPE]), false);
    wait_ready(&log);
    let recovered = crash(&job.shared, Faults::default());
    assert_eq!(recovered.shared.snapshot().outcome, Outcome::Adopted);
    let events = recovered.host.events();
    let position = |wanted: HostEvent| events.iter().position(|event| *event == wanted);
    assert!(
        position(HostEvent::Adopted) < position(HostEvent::Unpaused),
        "{events:?}"
    );
    assert!(
        position(HostEvent::Detached) < position(HostEvent::Adopted),
        "one writer to the disk"
    );
    assert_eq!(position(HostEvent::Created), None);
    let released = |event: &HostEvent| matches!(event, HostEvent::Released(_));
    let gone = position(HostEvent::InterfacesGone);
    assert!(position(HostEvent::Unpaused) < gone, "nobody waits for it");
    assert!(gone < events.iter().position(released), "{gone:?}");
    let backing = vicover::host::RecoveryDomain::backing(&recovered.host).unwrap();
    assert_eq!(backing.total, FRAMES, "recovery has its full memory");
    assert_eq!(ended(job), None);
    assert_eq!(*told.lock().unwrap(), [format!("built {RECIPE}")]);
}

#[test]
fn one_that_is_cancelled_is_discarded() {
    let told = Told::default();
    let (job, log) = keep(Builder::new(&told, &["a"]), true);
    wait_ready(&log);
    job.shared.cancel();
    assert_eq!(ended(job), None);
    assert_eq!(*told.lock().unwrap(), ["booted a", "discarded a"]);
}

#[test]
fn one_that_is_out_of_date_is_not_used_but_a_domain_is_built() {
    let told = Told::default();
    let (job, log) = keep(Builder::new(&told, &["an older kernel"]), false);
    wait_ready(&log);
    let recovered = crash(&job.shared, Faults::default());
    assert!(recovered.host.events().contains(&HostEvent::Created));
    let changed = "the guest's configuration or boot files have changed";
    assert_eq!(recovered.not_used(), changed);
    job.shared.cancel();
    assert_eq!(ended(job), None);
    let told = told.lock().unwrap();
    assert_eq!(
        *told,
        ["built an older kernel", "discarded an older kernel"]
    );
}

#[test]
fn one_that_cannot_get_the_disks_is_replaced_by_a_new_domain() {
    let told = Told::default();
    let (job, log) = keep(Builder::new(&told, &[RECIPE]), false);
    wait_ready(&log);
    let faults = Faults {
        adoptions: 1,
        // Long enough for the drain to release something, if it did not wait.
        interfaces_linger: Duration::from_millis(50),
        ..Faults::default()
    };
    let recovered = crash(&job.shared, faults);
    let events = recovered.host.events();
    let position = |wanted: HostEvent| events.iter().position(|event| *event == wanted);
    assert!(position(HostEvent::Created).is_some());
    assert!(position(HostEvent::InterfacesGone) < position(HostEvent::Created));
    assert_eq!(recovered.not_used(), "adopt: refused as asked for");
    assert_eq!(ended(job), None);
}

#[test]
fn interfaces_that_do_not_go_keep_nobody_down() {
    let told = Told::default();
    let (job, log) = keep(Builder::new(&told, &[RECIPE]), false);
    wait_ready(&log);
    let faults = Faults {
        interfaces: true,
        ..Faults::default()
    };
    let recovered = crash(&job.shared, faults);
    assert_eq!(recovered.shared.snapshot().outcome, Outcome::Adopted);
    let kept = |event: &told::Event| {
        matches!(
            event,
            told::Event::Recovery(RecoveryEvent::InterfacesKept { .. })
        )
    };
    assert!(recovered.log.has(kept), "{}", recovered.log);
    assert_eq!(ended(job), None);
}

#[test]
fn one_is_discarded_when_the_crashed_domain_keeps_its_disks() {
    let told = Told::default();
    let (job, log) = keep(Builder::new(&told, &[RECIPE]), false);
    wait_ready(&log);
    let faults = Faults {
        detach: true,
        ..Faults::default()
    };
    let (recovered, result) = try_recover(&job.shared, faults);
    result.unwrap();
    assert_eq!(recovered.shared.snapshot().outcome, Outcome::Dirty);
    let events = recovered.host.events();
    assert!(events.contains(&HostEvent::Forgone), "{events:?}");
    assert!(
        !events.contains(&HostEvent::Adopted),
        "one writer to the disk"
    );
    assert_eq!(ended(job), None);
}

#[test]
fn a_guest_that_changes_gets_another_one() {
    let told = Told::default();
    // Built, found as it was, found changed, built again.
    let recipes = ["a", "a", "b", "b"];
    let (job, log) = keep(Builder::new(&told, &recipes), false);
    let outdated = told::Event::from(StandbyEvent::Outdated);
    let waited = log.wait(DEADLINE, |event| *event == outdated);
    assert!(waited.is_some(), "{log}");
    wait_done(&told, "built b");
    job.shared.cancel();
    assert_eq!(ended(job), None);
    let told = told.lock().unwrap();
    assert_eq!(*told, ["built a", "discarded a", "built b", "discarded b"]);
}

#[test]
fn where_there_cannot_be_one_the_job_says_why_and_a_crash_does_without() {
    let told = Told::default();
    let mut builder = Builder::new(&told, &["a"]);
    builder.refuses = true;
    let (job, _) = keep(builder, false);
    let keeper = job.shared.clone();
    let why = ended(job).unwrap();
    assert_eq!(why, "building a standby: standby: no room");
    let recovered = crash(&keeper, Faults::default());
    assert!(recovered.host.events().contains(&HostEvent::Created));
    assert_eq!(recovered.not_used(), "it is not built yet");
}
