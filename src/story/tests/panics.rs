// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every method of a host panics, each in its turn.

use std::sync::Arc;
use std::time::Duration;

use super::{ended, guest, start, target, Kept, FRAMES};
use crate::addr::{Gfn, GfnRange};
use crate::host::memory::{Faults, HostEvent, MemoryHost, RECIPE};
use crate::host::{
    Access, Backing, BuiltStandby, CrashedDomain, HostError, Mapping, Pausable, RecoveryDomain,
    Requirement, StandbyHost, Toolstack, VcpuState,
};
use crate::job::{JobState, Outcome};
use crate::pacing::sample::DiskTotals;
use crate::story::{live, recover, standby};
use crate::told::event::{self as told, StandbyEvent};

/// A host of which one method is broken.
#[derive(Clone)]
struct Broken {
    host: MemoryHost,
    method: &'static str,
}

impl Broken {
    fn enter(&self, method: &str) {
        assert!(method != self.method, "{method} is broken on purpose");
    }
}

impl CrashedDomain for Broken {
    fn ram(&self) -> &[GfnRange] {
        self.enter("ram");
        self.host.ram()
    }
    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.enter("vcpus");
        self.host.vcpus()
    }
    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        self.enter("map");
        let mapping = self.host.map(frames, access)?;
        let broken = self.clone();
        Ok(Box::new(BrokenMapping { mapping, broken }))
    }
    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        self.enter("release");
        self.host.release(frames)
    }
    fn claim(&self, pages: u64) -> Result<(), HostError> {
        self.enter("claim");
        self.host.claim(pages)
    }
    fn check(&self) -> Result<(), HostError> {
        self.enter("check");
        self.host.check()
    }
}

struct BrokenMapping {
    mapping: Box<dyn Mapping>,
    broken: Broken,
}

impl Mapping for BrokenMapping {
    fn len(&self) -> usize {
        self.broken.enter("len");
        self.mapping.len()
    }
    fn is_present(&self, index: usize) -> bool {
        self.broken.enter("is_present");
        self.mapping.is_present(index)
    }
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        self.broken.enter("read");
        self.mapping.read(index, offset, into)
    }
    fn forget(&self) {
        self.broken.enter("forget");
        self.mapping.forget();
    }
    fn scrub(&self, index: usize) {
        self.broken.enter("scrub");
        self.mapping.scrub(index);
    }
}

impl Toolstack for Broken {
    fn detach(&mut self, standby: Option<&BuiltStandby>) -> Result<(), HostError> {
        self.enter("detach");
        self.host.detach(standby)
    }
    fn detach_interfaces(&mut self) -> Result<(), HostError> {
        // Too late for the interfaces to stay: that is another fault.
        let gone = self.host.detach_interfaces();
        self.enter("detach_interfaces");
        gone
    }
    fn requirement(&mut self) -> Result<Requirement, HostError> {
        self.enter("requirement");
        self.host.requirement()
    }
    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        self.enter("create");
        self.host.create()?;
        Ok(Arc::new(self.clone()))
    }
    fn recipe(&mut self) -> Result<String, HostError> {
        self.enter("recipe");
        Toolstack::recipe(&mut self.host)
    }
    fn adopt(&mut self, standby: &BuiltStandby) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        self.enter("adopt");
        self.host.adopt(standby)?;
        Ok(Arc::new(self.clone()))
    }
    fn forgo(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        self.enter("forgo");
        self.host.forgo(standby)
    }
    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.enter("start");
        self.host.start(recovery)
    }
    fn discard(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.enter("discard");
        Toolstack::discard(&mut self.host, recovery)
    }
    fn crashed_name(&self) -> String {
        self.enter("crashed_name");
        self.host.crashed_name()
    }
    fn destroy_crashed(&mut self) -> Result<(), HostError> {
        self.enter("destroy_crashed");
        self.host.destroy_crashed()
    }
    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.enter("settle");
        self.host.settle(recovery)
    }
    fn publish(&mut self, key: &str, value: &str) {
        self.enter("publish");
        self.host.publish(key, value);
    }
}

impl RecoveryDomain for Broken {
    fn domid(&self) -> u32 {
        self.enter("domid");
        self.host.domid()
    }
    fn exists(&self) -> bool {
        self.enter("exists");
        self.host.exists()
    }
    fn processor_time(&self) -> Result<Duration, HostError> {
        self.enter("processor_time");
        self.host.processor_time()
    }
    fn backing(&self) -> Result<Backing, HostError> {
        self.enter("backing");
        self.host.backing()
    }
    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        self.enter("grow");
        self.host.grow(pages)
    }
    fn pause(&self) -> Result<(), HostError> {
        self.enter("pause");
        RecoveryDomain::pause(&self.host)
    }
    fn unpause(&self) -> Result<(), HostError> {
        self.enter("unpause");
        RecoveryDomain::unpause(&self.host)
    }
    fn disk_totals(&self) -> Option<DiskTotals> {
        self.enter("disk_totals");
        self.host.disk_totals()
    }
}

/// What a recovery must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Right {
    outcome: Outcome,
    dumped: bool,
    /// Whether all memory was given back.
    released: bool,
}

/// A recovery, and a complete dump.
const BOTH: Right = Right {
    outcome: Outcome::Adopted,
    dumped: true,
    released: true,
};
/// The dump, and nothing in the guest's place.
const DUMP: Right = Right {
    outcome: Outcome::Dirty,
    dumped: true,
    released: true,
};
const DUMP_ONLY: Right = Right {
    released: false,
    ..DUMP
};
/// Nothing was done.
const NOTHING: Right = Right {
    outcome: Outcome::Untouched,
    dumped: false,
    released: false,
};

/// Recovers a guest of a broken host, with a standby on request.
fn recover_with(method: &'static str, faults: Faults, with_standby: bool, right: Right) {
    let directory = tempfile::tempdir().unwrap();
    let (host, kept) = (guest(faults), Kept::default());
    let broken = Broken {
        host: host.clone(),
        method,
    };
    let target = target(&directory, None);
    let keeper = with_standby.then(|| {
        let keeper = JobState::new(Kept::default().log("guest"));
        keeper.standby.offer(BuiltStandby {
            domid: 7,
            pages: 100,
            recipe: RECIPE.into(),
        });
        keeper
    });
    let job = start(&kept, move |shared| {
        let toolstack = Box::new(broken.clone());
        recover::recover(&broken, toolstack, keeper.as_ref(), &target, shared)
    });
    let ended = ended(method, job, &kept);
    let found = Right {
        outcome: ended.outcome,
        dumped: ended.error.is_none(),
        released: host.released() == FRAMES,
    };
    ended.check(found == right, &format!("{found:?}, not {right:?}"));
    let violations = host.violations();
    ended.check(violations.is_empty(), &format!("{violations:?}"));
    let events = host.events();
    let fair = events.contains(&HostEvent::Detached) || host.released() == 0;
    ended.check(fair, "one writer to the disk");
}

#[test]
fn a_toolstack_that_panics_ends_the_recovery_as_if_it_had_refused() {
    for (method, right) in [
        ("detach", DUMP_ONLY),
        ("detach_interfaces", BOTH),
        ("requirement", NOTHING),
        ("create", DUMP),
        ("start", DUMP),
        ("destroy_crashed", BOTH),
        ("settle", BOTH),
        ("publish", BOTH),
    ] {
        recover_with(method, Faults::default(), false, right);
    }
    for method in ["recipe", "adopt", "detach_interfaces"] {
        recover_with(method, Faults::default(), true, BOTH);
    }
    let kept = Faults {
        detach: true,
        ..Faults::default()
    };
    recover_with("forgo", kept, true, DUMP_ONLY);
}

#[test]
fn a_recovery_domain_that_panics_costs_no_more_than_one_that_refuses() {
    for (method, right) in [
        ("domid", BOTH),
        ("exists", BOTH),
        ("processor_time", BOTH),
        ("backing", BOTH),
        ("grow", BOTH),
        ("pause", BOTH),
        // It cannot be let run in the first place.
        ("unpause", DUMP),
        ("disk_totals", BOTH),
    ] {
        recover_with(method, Faults::default(), false, right);
    }
}

#[test]
fn a_crashed_domain_that_panics_costs_what_it_was_asked_for() {
    let nothing_back = Right {
        outcome: Outcome::Dirty,
        dumped: false,
        released: false,
    };
    let no_dump = Right {
        dumped: false,
        ..BOTH
    };
    for (method, right) in [
        ("ram", NOTHING),
        ("vcpus", NOTHING),
        ("map", nothing_back),
        ("release", DUMP_ONLY),
        ("claim", BOTH),
        ("is_present", nothing_back),
        ("len", DUMP_ONLY),
        ("read", no_dump),
        ("forget", BOTH),
        ("scrub", DUMP_ONLY),
    ] {
        recover_with(method, Faults::default(), false, right);
    }
}

/// A domain that can be paused, in a broken way.
struct Running(Broken);

impl CrashedDomain for Running {
    fn ram(&self) -> &[GfnRange] {
        self.0.ram()
    }
    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.0.vcpus()
    }
    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        self.0.map(frames, access)
    }
    fn release(&self, _frames: &[Gfn]) -> Result<u64, HostError> {
        panic!("memory of a domain that goes on running was released")
    }
    fn claim(&self, _pages: u64) -> Result<(), HostError> {
        panic!("memory of a domain that goes on running was claimed")
    }
}

impl Pausable for Running {
    fn pause(&self) -> Result<(), HostError> {
        self.0.enter("pause");
        Ok(())
    }
    fn unpause(&self) -> Result<(), HostError> {
        self.0.enter("unpause");
        Ok(())
    }
}

#[test]
fn a_dump_of_a_running_domain_ends_whatever_panics() {
    for (method, dumped) in [
        ("pause", false),
        ("unpause", false),
        ("ram", false),
        ("vcpus", false),
        ("map", false),
        ("is_present", false),
        ("read", false),
        ("forget", true),
        ("len", true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::default();
        let host = guest(Faults::default());
        let running = Running(Broken { host, method });
        let target = target(&directory, None);
        let job = start(&kept, move |shared| live::dump(&running, &target, shared));
        let ended = ended(method, job, &kept);
        ended.check(ended.error.is_none() == dumped, "dumped or not");
        ended.check(ended.outcome == Outcome::Untouched, "outcome");
    }
}

impl StandbyHost for Broken {
    fn build(&mut self, _boot: bool, _stop: &dyn Fn() -> bool) -> Result<BuiltStandby, HostError> {
        self.enter("build");
        Ok(BuiltStandby {
            domid: 7,
            pages: 1,
            recipe: "first".into(),
        })
    }
    fn recipe(&mut self) -> Result<String, HostError> {
        self.enter("recipe");
        Ok("changed".into())
    }
    fn discard(&mut self, _standby: &BuiltStandby) -> Result<(), HostError> {
        self.enter("discard");
        Ok(())
    }
}

#[test]
fn keeping_a_standby_ends_whatever_panics() {
    for (method, said) in [
        ("build", "build is broken"),
        ("recipe", "recipe is broken"),
        ("discard", "discard is broken"),
    ] {
        let kept = Kept::default();
        let host = guest(Faults::default());
        let mut broken = Broken { host, method };
        let often = Duration::from_millis(1);
        let job = start(&kept, move |shared| {
            standby::keep(&mut broken, false, often, shared)
        });
        let told = |event: &told::Event| match event {
            told::Event::Standby(
                StandbyEvent::NotBuilt { error }
                | StandbyEvent::GuestNotSeen { error }
                | StandbyEvent::NotDestroyed { error, .. },
            ) => error.what.contains(said),
            _ => false,
        };
        let waited = kept.wait(super::DEADLINE, told);
        assert!(waited.is_some(), "no '{said}' in {kept}");
        job.shared.cancel();
        let ended = ended(method, job, &kept);
        ended.check(ended.error.is_none() == (method != "build"), "error");
    }
}
