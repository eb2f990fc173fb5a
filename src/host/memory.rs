// SPDX-License-Identifier: LGPL-2.1-or-later
//! The in-memory host: a crashed guest made of an image or of synthetic pages,
//! and a recovery domain that is only bookkeeping. Everything but Xen itself is
//! tested on it, and C programs dump through it.
//!
//! It keeps the rules that a real hypervisor cannot check for us: it counts
//! every page that is released twice, released while mapped, or released with
//! the guest's bytes still in it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use super::faults::Faults;
pub use super::world::HostEvent;
use super::{
    images::{Image, View},
    marks::Marks,
    world::World,
    Access, Backing, BuiltStandby, CrashedDomain, Description, FoundRecovery, HostError, Mapping,
    RecoveryDomain, Requirement, Toolstack, VcpuState,
};
use crate::addr::{Gfn, GfnRange, PAGE_SIZE};

/// What standbys of this host's guest are built from.
pub const RECIPE: &str = "in memory";

/// A host with one crashed guest. Clones share it.
#[derive(Clone)]
pub struct MemoryHost {
    image: Arc<dyn Image>,
    /// Pages of RAM.
    pages: u64,
    vcpus: u32,
    thin_pages: u64,
    absent_every: Option<u64>,
    scrubbed: Arc<Marks>,
    released: Arc<Marks>,
    world: Arc<Mutex<World>>,
}

impl MemoryHost {
    /// A crashed guest with the pages of `image`. Its recovery domain starts
    /// with a quarter of them.
    pub fn new(image: Arc<dyn Image>, vcpus: u32, faults: Faults) -> Self {
        let pages = image.ram().iter().map(GfnRange::len).sum();
        let end = image.ram().last().map_or(Gfn(0), |range| range.end);
        Self {
            image,
            pages,
            vcpus,
            thin_pages: pages / 4,
            absent_every: faults.absent_every,
            scrubbed: Arc::new(Marks::new(end)),
            released: Arc::new(Marks::new(end)),
            world: Arc::new(Mutex::new(World {
                faults,
                ..World::default()
            })),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_ram(&self, gfn: Gfn) -> bool {
        self.image.ram().iter().any(|range| range.contains(gfn))
    }

    /// Whether a frame of RAM still is the guest's.
    fn is_there(&self, gfn: Gfn) -> bool {
        let absent = self.absent_every.is_some_and(|n| gfn.0 % n == 0);
        !absent && !self.released.get(gfn)
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<HostEvent> {
        self.world().events.clone()
    }

    /// Broken rules so far; empty in a correct run.
    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    /// How often anything was mapped.
    pub fn mappings(&self) -> u64 {
        self.world().maps
    }

    /// Pages that were released.
    pub fn released(&self) -> u64 {
        self.released.count()
    }

    /// Whether somebody has stopped the recovery domain.
    pub fn is_recovery_stopped(&self) -> bool {
        self.world().is_stopped
    }

    /// Pages that are kept from other domains.
    pub fn claimed_pages(&self) -> u64 {
        self.world().claimed_pages
    }
}

struct MemoryMapping {
    host: MemoryHost,
    view: Box<dyn View>,
    frames: GfnRange,
    access: Access,
    /// The domain was gone when the mapping was made.
    is_empty: bool,
    /// Tells the host that this mapping is alive.
    _mapped: Arc<()>,
}

impl MemoryMapping {
    fn gfn(&self, index: usize) -> Option<Gfn> {
        let gfn = self.frames.start.checked_add(index as u64)?;
        let is_there = !self.is_empty && self.frames.contains(gfn);
        is_there.then_some(gfn)
    }
}

impl Mapping for MemoryMapping {
    fn len(&self) -> usize {
        self.frames.len() as usize
    }

    fn is_present(&self, index: usize) -> bool {
        self.gfn(index).is_some_and(|gfn| self.host.is_there(gfn))
    }

    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let Some(gfn) = self.gfn(index).filter(|gfn| self.host.is_there(*gfn)) else {
            return false;
        };
        if self.host.scrubbed.get(gfn) {
            into.fill(0);
            return offset + into.len() <= PAGE_SIZE;
        }
        self.view.read(index, offset, into)
    }

    fn forget(&self) {
        self.view.forget();
    }

    fn scrub(&self, index: usize) {
        let Some(gfn) = self.gfn(index) else { return };
        if self.access == Access::Scrub {
            self.host.scrubbed.set(gfn);
        } else {
            let mut world = self.host.world();
            world
                .violations
                .push(format!("{gfn}: scrubbed through a read-only mapping"));
        }
    }
}

impl CrashedDomain for MemoryHost {
    fn ram(&self) -> &[GfnRange] {
        self.image.ram()
    }

    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        if !self.image.vcpus().is_empty() {
            return Ok(self.image.vcpus().to_vec());
        }
        Ok((0..u64::from(self.vcpus))
            .map(|number| VcpuState {
                rip: 0xffff_ffff_8100_0000 + number,
                ..VcpuState::default()
            })
            .collect())
    }

    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        let mapped = Arc::new(());
        let view = self.image.view(frames);
        let view = view.map_err(|error| HostError::new("map", error.to_string()))?;
        let mut world = self.world();
        world.maps += 1;
        world.scrub_maps += u64::from(access == Access::Scrub);
        let of_this_kind = match access {
            Access::Read => world.maps - world.scrub_maps,
            Access::Scrub => world.scrub_maps,
        };
        let fails = |every: u64| world.maps % every == 0;
        if world.faults.map || world.faults.map_every.is_some_and(fails) {
            return Err(HostError::new("map", "refused as asked for"));
        }
        if world.faults.destroyed_after == Some((access, of_this_kind)) {
            world.crashed_is_gone = true;
            world.free_pages += self.pages - self.released.count();
        }
        let mapping = Box::new(MemoryMapping {
            host: self.clone(),
            view,
            frames,
            access,
            is_empty: world.crashed_is_gone,
            _mapped: mapped.clone(),
        });
        world
            .mappings
            .retain(|(_, mapping)| mapping.strong_count() > 0);
        world.mappings.push((frames, Arc::downgrade(&mapped)));
        Ok(mapping)
    }

    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        let mut world = self.world();
        if world.crashed_is_gone {
            return Ok(0);
        }
        world
            .mappings
            .retain(|(_, mapping)| mapping.strong_count() > 0);
        if world.faults.greedy_neighbour {
            world.free_pages = world.claimed_pages;
        }
        if world.has_interfaces {
            let what = "released before the interfaces were gone";
            world.violations.push(what.into());
        }
        for gfn in frames {
            if !self.is_ram(*gfn) || !self.released.set(*gfn) {
                world
                    .violations
                    .push(format!("{gfn}: released but not there"));
                continue;
            }
            if !self.scrubbed.get(*gfn) {
                world
                    .violations
                    .push(format!("{gfn}: released with its bytes"));
            }
            if world.mappings.iter().any(|(range, _)| range.contains(*gfn)) {
                world
                    .violations
                    .push(format!("{gfn}: released while mapped"));
            }
            world.free_pages += 1;
            world.events.push(HostEvent::Released(*gfn));
        }
        Ok(frames.len() as u64)
    }

    fn claim(&self, pages: u64) -> Result<(), HostError> {
        let mut world = self.world();
        if world.events.contains(&HostEvent::Destroyed) {
            world
                .violations
                .push("claimed for a domain that is gone".into());
        }
        if pages > world.free_pages {
            return Err(HostError::new("claim", "more than there is"));
        }
        world.claimed_pages = pages;
        Ok(())
    }

    fn pages(&self) -> Result<u64, HostError> {
        Ok(self.pages - self.released.count())
    }

    fn check(&self) -> Result<(), HostError> {
        match self.world().crashed_is_gone {
            true => Err(HostError::new("check", "the crashed domain is gone")),
            false => Ok(()),
        }
    }
}

impl Toolstack for MemoryHost {
    fn describe(&mut self) -> Result<Description, HostError> {
        Ok(Description {
            uuid: "in-memory".into(),
            domid: 1,
            text: String::new(),
        })
    }

    fn find_recovery(&mut self) -> Result<Option<FoundRecovery>, HostError> {
        let world = self.world();
        let is_stopped = world.is_stopped;
        Ok(world.recovery.map(|has_run| FoundRecovery {
            domain: Arc::new(self.clone()),
            is_running: has_run && !is_stopped,
        }))
    }

    fn complete_devices(&mut self, _recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        Ok(())
    }

    fn detach(&mut self, standby: Option<&BuiltStandby>) -> Result<(), HostError> {
        let mut world = self.world();
        if world.faults.detach {
            return Err(HostError::new("detach", "refused as asked for"));
        }
        world.events.push(HostEvent::Detached);
        world.has_interfaces = standby.is_some();
        Ok(())
    }

    fn detach_interfaces(&mut self) -> Result<(), HostError> {
        let lingering = self.world().faults.interfaces_linger;
        std::thread::sleep(lingering);
        let mut world = self.world();
        if std::mem::take(&mut world.has_interfaces) {
            if world.faults.interfaces {
                return Err(HostError::new("detach", "interfaces refused as asked for"));
            }
            world.events.push(HostEvent::InterfacesGone);
        }
        Ok(())
    }

    fn requirement(&mut self) -> Result<Requirement, HostError> {
        Ok(Requirement {
            free_pages: self.thin_pages,
            backed_pages: self.thin_pages,
            full_pages: self.pages,
        })
    }

    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        let mut world = self.world();
        if world.faults.creations > 0 {
            world.faults.creations -= 1;
            return Err(HostError::new("create", "refused as asked for"));
        }
        let Some(left) = world.free_pages.checked_sub(self.thin_pages) else {
            return Err(HostError::new("create", "not enough free memory"));
        };
        world.free_pages = left;
        world.backing = Backing {
            total: self.thin_pages,
            spare: self.thin_pages,
            unbacked: self.pages,
            untold: 0,
        };
        world.recovery = Some(false);
        world.events.push(HostEvent::Created);
        Ok(Arc::new(self.clone()))
    }

    fn recipe(&mut self) -> Result<String, HostError> {
        Ok(RECIPE.into())
    }

    fn adopt(&mut self, standby: &BuiltStandby) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        let mut world = self.world();
        if world.faults.adoptions > 0 {
            world.faults.adoptions -= 1;
            return Err(HostError::new("adopt", "refused as asked for"));
        }
        world.backing = Backing {
            total: standby.pages,
            spare: standby.pages,
            unbacked: self.pages,
            untold: 0,
        };
        world.recovery = Some(false);
        world.events.push(HostEvent::Adopted);
        Ok(Arc::new(self.clone()))
    }

    fn forgo(&mut self, _standby: &BuiltStandby) -> Result<(), HostError> {
        self.world().events.push(HostEvent::Forgone);
        Ok(())
    }

    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        recovery.unpause()
    }

    fn discard(&mut self, _recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let mut world = self.world();
        world.free_pages += world.backing.total;
        world.backing = Backing::default();
        world.recovery = None;
        world.events.push(HostEvent::Discarded);
        Ok(())
    }

    fn crashed_name(&self) -> String {
        "guest-crashed-1".into()
    }

    fn destroy_crashed(&mut self) -> Result<(), HostError> {
        let mut world = self.world();
        if world.faults.destruction {
            return Err(HostError::new("destroy", "it does not go"));
        }
        if world.crashed_is_gone {
            return Err(HostError::new("destroy", "the crashed domain is gone"));
        }
        world.free_pages += self.pages - self.released.count();
        world.events.push(HostEvent::Destroyed);
        Ok(())
    }

    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        recovery.grow(u64::MAX)?;
        self.world().events.push(HostEvent::Settled);
        Ok(())
    }

    fn publish(&mut self, _key: &str, _value: &str) {}
}

impl RecoveryDomain for MemoryHost {
    fn domid(&self) -> u32 {
        0
    }

    fn exists(&self) -> bool {
        !self.world().recovery_is_gone
    }

    fn processor_time(&self) -> Result<Duration, HostError> {
        Ok(Duration::ZERO)
    }

    fn backing(&self) -> Result<Backing, HostError> {
        self.world().backing()
    }

    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        let mut world = self.world();
        world.backing()?;
        if world.faults.growth && !world.events.contains(&HostEvent::Destroyed) {
            return Err(HostError::new("grow", "refused as asked for"));
        }
        // A guest of a few pages may have got more than it had, to be built at all.
        let wanted = pages.min(self.pages.saturating_sub(world.backing.total));
        // Who settles asks for all there is. Where a neighbour takes what is not claimed,
        // less may be there than was given back.
        let is_exempt = pages == u64::MAX || world.faults.greedy_neighbour;
        let is_others = wanted > world.free_pages && !is_exempt;
        if is_others && !world.events.contains(&HostEvent::Destroyed) {
            let what = format!(
                "grown by {wanted} pages: {} are the guest's",
                world.free_pages
            );
            world.violations.push(what);
        }
        let granted = wanted.min(world.free_pages);
        world.free_pages -= granted;
        world.backing.total += granted;
        world.backing.spare += granted;
        Ok(world.backing)
    }

    fn pause(&self) -> Result<(), HostError> {
        let mut world = self.world();
        world.is_stopped = true;
        world.events.push(HostEvent::Paused);
        Ok(())
    }

    fn unpause(&self) -> Result<(), HostError> {
        let mut world = self.world();
        world.events.push(HostEvent::Unpaused);
        world.recovery = Some(true);
        world.is_stopped = false;
        if world.faults.recovery_lost {
            world.free_pages += world.backing.total;
            world.recovery_is_gone = true;
        }
        Ok(())
    }
}
