// SPDX-License-Identifier: LGPL-2.1-or-later
//! A host that panics or refuses on request.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::addr::{Gfn, GfnRange};
use crate::host::memory::MemoryHost;
use crate::host::{
    Access, Backing, BuiltStandby, CrashedDomain, Description, FoundRecovery, HostError, Mapping,
    Pausable, RecoveryDomain, Requirement, StandbyHost, Toolstack, VcpuState,
};
use crate::pacing::sample::DiskTotals;

/// What is wrong with a host.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// A method panics.
    PanicIn(&'static str),
    /// Of all calls that can be refused, the one of this number goes wrong. The first is 0.
    At(u64, Wrong),
    /// Nothing, but what ends with the process.
    Mortal,
}

/// How a call goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrong {
    /// It is refused.
    Refused,
    /// It ends its thread, as far as nobody catches that.
    Panics,
    /// It does what it should, late.
    Late,
}

/// Late for everybody who waits for anything here, but for deadlines of seconds.
pub(super) const LATENESS: Duration = Duration::from_millis(300);

/// A process that is killed before one of the things that it does.
pub(super) struct Life {
    /// Things done so far.
    steps: AtomicU64,
    /// Things that it gets to do.
    most: u64,
    is_over: AtomicBool,
    /// Done at the moment of its death.
    at_death: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Life {
    pub(super) fn of(most: u64, at_death: impl FnOnce() + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            steps: AtomicU64::new(0),
            most,
            is_over: AtomicBool::new(false),
            at_death: Mutex::new(Some(Box::new(at_death))),
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// Whether the process gets to do one more thing. Nothing more is done before what
    /// is done at its death is over, not even what only the dead process would see.
    pub(super) fn step(&self) -> bool {
        if self.steps.fetch_add(1, SeqCst) == self.most {
            // Whoever does something meanwhile does it before or after the death.
            let mut at_death = self.at_death.lock().unwrap();
            self.is_over.store(true, SeqCst);
            at_death.take().unwrap()();
        } else if self.is_over() {
            drop(self.at_death.lock().unwrap());
        }
        !self.is_over()
    }
}

/// A host in memory with a fault.
#[derive(Clone)]
pub(super) struct Broken {
    pub(super) host: MemoryHost,
    fault: Fault,
    calls: Arc<AtomicU64>,
    hit: Arc<OnceLock<&'static str>>,
    life: Option<Arc<Life>>,
}

impl Broken {
    pub(super) fn new(host: &MemoryHost, fault: Fault) -> Self {
        Self {
            host: host.clone(),
            fault,
            calls: Arc::default(),
            hit: Arc::default(),
            life: None,
        }
    }

    /// The host as a process sees it that is killed.
    pub(super) fn mortal(host: &MemoryHost, life: &Arc<Life>) -> Self {
        Self {
            life: Some(life.clone()),
            ..Self::new(host, Fault::Mortal)
        }
    }

    fn is_dead(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.is_over())
    }

    /// The method that went wrong.
    pub(super) fn hit(&self) -> Option<&'static str> {
        self.hit.get().copied()
    }

    /// Every method begins here.
    pub(super) fn enter(&self, method: &str) {
        if let Fault::PanicIn(broken) = self.fault {
            assert!(method != broken, "{method} is broken on purpose");
        }
    }

    /// Every method that can be refused begins here.
    pub(super) fn ask(&self, method: &'static str) -> Result<(), HostError> {
        self.enter(method);
        if self.life.as_ref().is_some_and(|life| !life.step()) {
            return Err(HostError::new(method, "the process is dead"));
        }
        let Fault::At(number, wrong) = self.fault else {
            return Ok(());
        };
        if self.calls.fetch_add(1, SeqCst) != number {
            return Ok(());
        }
        let _ = self.hit.set(method);
        match wrong {
            Wrong::Refused => Err(HostError::new(method, "refused on purpose")),
            // Without a word to standard error: thousands of tests would say so.
            Wrong::Panics => resume_unwind(Box::new(format!("{method} is broken on purpose"))),
            Wrong::Late => {
                std::thread::sleep(LATENESS);
                Ok(())
            }
        }
    }
}

impl CrashedDomain for Broken {
    fn ram(&self) -> &[GfnRange] {
        self.enter("ram");
        self.host.ram()
    }
    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.ask("vcpus")?;
        self.host.vcpus()
    }
    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        self.ask("map")?;
        let mapping = self.host.map(frames, access)?;
        let broken = self.clone();
        Ok(Box::new(BrokenMapping { mapping, broken }))
    }
    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        self.ask("release")?;
        self.host.release(frames)
    }
    fn claim(&self, pages: u64) -> Result<(), HostError> {
        self.ask("claim")?;
        self.host.claim(pages)
    }
    fn pages(&self) -> Result<u64, HostError> {
        self.ask("pages")?;
        self.host.pages()
    }
    fn check(&self) -> Result<(), HostError> {
        self.ask("check")?;
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
        if !self.broken.is_dead() {
            self.mapping.scrub(index);
        }
    }
}

impl Toolstack for Broken {
    fn describe(&mut self) -> Result<Description, HostError> {
        self.ask("describe")?;
        self.host.describe()
    }
    fn find_recovery(&mut self) -> Result<Option<FoundRecovery>, HostError> {
        self.ask("find_recovery")?;
        let found = self.host.find_recovery()?;
        Ok(found.map(|found| FoundRecovery {
            domain: Arc::new(self.clone()),
            ..found
        }))
    }
    fn complete_devices(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.ask("complete_devices")?;
        self.host.complete_devices(recovery)
    }
    fn detach(&mut self, standby: Option<&BuiltStandby>) -> Result<(), HostError> {
        self.ask("detach")?;
        self.host.detach(standby)
    }
    fn detach_interfaces(&mut self) -> Result<(), HostError> {
        if self.life.is_some() {
            self.ask("detach_interfaces")?;
            return self.host.detach_interfaces();
        }
        // Too late for the interfaces to stay: that is another fault.
        let gone = self.host.detach_interfaces();
        self.ask("detach_interfaces")?;
        gone
    }
    fn requirement(&mut self) -> Result<Requirement, HostError> {
        self.ask("requirement")?;
        self.host.requirement()
    }
    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        self.ask("create")?;
        self.host.create()?;
        Ok(Arc::new(self.clone()))
    }
    fn recipe(&mut self) -> Result<String, HostError> {
        self.ask("recipe")?;
        Toolstack::recipe(&mut self.host)
    }
    fn adopt(&mut self, standby: &BuiltStandby) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        self.ask("adopt")?;
        self.host.adopt(standby)?;
        Ok(Arc::new(self.clone()))
    }
    fn forgo(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        self.ask("forgo")?;
        self.host.forgo(standby)
    }
    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.ask("start")?;
        self.host.start(recovery)
    }
    fn discard(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.ask("discard")?;
        Toolstack::discard(&mut self.host, recovery)
    }
    fn crashed_name(&self) -> String {
        self.enter("crashed_name");
        self.host.crashed_name()
    }
    fn destroy_crashed(&mut self) -> Result<(), HostError> {
        self.ask("destroy_crashed")?;
        self.host.destroy_crashed()
    }
    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.ask("settle")?;
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
        self.ask("processor_time")?;
        self.host.processor_time()
    }
    fn backing(&self) -> Result<Backing, HostError> {
        self.ask("backing")?;
        self.host.backing()
    }
    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        self.ask("grow")?;
        self.host.grow(pages)
    }
    fn pause(&self) -> Result<(), HostError> {
        self.ask("pause")?;
        RecoveryDomain::pause(&self.host)
    }
    fn unpause(&self) -> Result<(), HostError> {
        self.ask("unpause")?;
        RecoveryDomain::unpause(&self.host)
    }
    fn disk_totals(&self) -> Option<DiskTotals> {
        self.enter("disk_totals");
        self.host.disk_totals()
    }
}

/// A domain that can be paused, in a broken way.
pub(super) struct Running(pub(super) Broken);

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
    fn pages(&self) -> Result<u64, HostError> {
        self.0.pages()
    }
}

impl Pausable for Running {
    fn pause(&self) -> Result<(), HostError> {
        self.0.ask("pause")?;
        Ok(())
    }
    fn unpause(&self) -> Result<(), HostError> {
        self.0.ask("unpause")?;
        Ok(())
    }
}

impl StandbyHost for Broken {
    fn build(&mut self, _boot: bool, _stop: &dyn Fn() -> bool) -> Result<BuiltStandby, HostError> {
        self.ask("build")?;
        Ok(BuiltStandby {
            domid: 7,
            pages: 1,
            recipe: "first".into(),
        })
    }
    fn recipe(&mut self) -> Result<String, HostError> {
        self.ask("recipe")?;
        Ok("changed".into())
    }
    fn discard(&mut self, _standby: &BuiltStandby) -> Result<(), HostError> {
        self.ask("discard")?;
        Ok(())
    }
}
