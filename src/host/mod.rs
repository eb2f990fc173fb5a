// SPDX-License-Identifier: LGPL-2.1-or-later
//! The host seam: what a crash needs from the machine that the guest ran on.
//!
//! Two implementations: [`memory`], over an image or a synthetic guest in this
//! process, and `xen`, over libxl, libxenctrl and libxenforeignmemory. Neither
//! knows Linux or dump formats.
//!
//! Threads: a [`CrashedDomain`] and a [`RecoveryDomain`] are used from several
//! threads at once; a [`Toolstack`] belongs to one thread.

use std::sync::Arc;
use std::time::Duration;

use crate::addr::{Gfn, GfnRange, Page};
use crate::pacing::sample::DiskTotals;

pub(crate) mod contained;
pub mod disk_statistics;
mod faults;
pub mod images;
mod marks;
pub mod memory;
pub mod qemu_registers;
#[cfg(any(feature = "xen", test))]
mod qemu_statistics;
mod world;
#[cfg(feature = "xen")]
pub mod xen;

/// A request that the host refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{call}: {what}")]
pub struct HostError {
    /// The call that failed, as the documentation of its library names it.
    pub call: &'static str,
    /// What the call said, with the errno text or libxl status.
    pub what: String,
    /// The system's error number; zero when the system gave none.
    pub errno: i32,
}

impl HostError {
    /// An error of `call` with a text that says what was wrong.
    pub fn new(call: &'static str, what: impl Into<String>) -> Self {
        Self {
            call,
            what: what.into(),
            errno: 0,
        }
    }

    /// An error of `call` for which the system has just set `errno`.
    pub fn last_os_error(call: &'static str) -> Self {
        let error = std::io::Error::last_os_error();
        Self {
            call,
            what: error.to_string(),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }
}

/// Whether a mapping may be written, which scrubbing needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only read.
    Read,
    /// Read and scrub.
    Scrub,
}

/// Registers of one virtual CPU at the moment of the crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuState {
    /// r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi:
    /// the order of Linux's `struct user_regs_struct`.
    pub general: [u64; 15],
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// cs, ss, ds, es, fs, gs.
    pub selectors: [u64; 6],
    /// Base of fs.
    pub fs_base: u64,
    /// Base of gs as the kernel uses it.
    pub gs_base: u64,
    /// Page-table root.
    pub cr3: u64,
    /// Control register 4; bit 12 (LA57) tells 5-level paging.
    pub cr4: u64,
}

/// Memory and registers of the domain that crashed.
pub trait CrashedDomain: Send + Sync {
    /// Where the guest has RAM, ascending, without the pages that the
    /// toolstack or the hypervisor keep for themselves.
    fn ram(&self) -> &[GfnRange];

    /// Registers, one entry for each virtual CPU.
    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError>;

    /// Maps consecutive frames. Frames that are not there are absent from the
    /// mapping, not an error.
    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError>;

    /// Gives frames back to the hypervisor and returns how many it accepted.
    /// The caller has unmapped and scrubbed them.
    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError>;

    /// Keeps so many of the pages given back from every other domain, in place of
    /// what was kept before. Nothing is kept when the domain is gone.
    fn claim(&self, pages: u64) -> Result<(), HostError>;

    /// Whether the guest's page tables name machine frames, which is not what is read of
    /// them here: that names the guest's frames.
    fn is_paravirtual(&self) -> bool {
        false
    }

    /// Pages that the domain has, those that are not RAM included.
    fn pages(&self) -> Result<u64, HostError>;

    /// Whether the domain still has all memory that was not given back through
    /// [`CrashedDomain::release`]. Asked where frames are missing from a mapping: an
    /// error says who or what took them, and that the rest will go as well.
    fn check(&self) -> Result<(), HostError> {
        Ok(())
    }
}

/// A domain whose processors can be stopped for a while.
pub trait Pausable: Sync {
    /// Stops the domain's processors. Whoever else stops them does so independently:
    /// they run again when all have let go.
    fn pause(&self) -> Result<(), HostError>;

    /// Lets go of the domain's processors.
    fn unpause(&self) -> Result<(), HostError>;
}

/// Some mapped frames of the crashed domain. Never handed out as a slice: the
/// memory is shared with whoever else maps it.
pub trait Mapping: Send + Sync {
    /// Frames in the mapping, present or not.
    fn len(&self) -> usize;

    /// Whether the mapping has no frame.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether frame `index` is there.
    fn is_present(&self, index: usize) -> bool;

    /// Why frames that the domain has are absent all the same, if any are.
    fn failure(&self) -> Option<HostError> {
        None
    }

    /// Copies part of frame `index` out; false when it is not there.
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool;

    /// Copies a whole frame out; false when it is not there.
    fn copy(&self, index: usize, into: &mut Page) -> bool {
        self.read(index, 0, into)
    }

    /// Gives up what the mapping has of this process's own memory, as nobody reads
    /// for a while. Reading brings it back.
    fn forget(&self) {}

    /// Overwrites frame `index` with zeroes. Needs [`Access::Scrub`].
    fn scrub(&self, index: usize);
}

/// What a recovery domain costs before it can be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// Pages that must be free in the hypervisor: RAM, and what the hypervisor wants
    /// beside it for a domain of that size.
    pub free_pages: u64,
    /// Of these, pages of RAM that the domain has when it starts.
    pub backed_pages: u64,
    /// Pages of RAM that the domain has in the end.
    pub full_pages: u64,
}

/// What another process has to know to act on a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// What is the same over all crashes of the guest, as part of a file's name.
    pub uuid: String,
    /// The crashed domain's number in the hypervisor.
    pub domid: u32,
    /// All else, as the host writes it and reads it back.
    pub text: String,
}

/// A domain that an earlier process has built in the crashed one's place.
pub struct FoundRecovery {
    /// The domain.
    pub domain: Arc<dyn RecoveryDomain>,
    /// Whether its processors are free to run.
    pub is_running: bool,
}

/// Acts on domains as a whole. Used by one thread.
pub trait Toolstack: Send {
    /// What another process has to know to act on the same crash. Asked before anything
    /// is changed.
    fn describe(&mut self) -> Result<Description, HostError>;

    /// The domain that has the guest's name and uuid without being the crashed one, as
    /// an earlier process has left it.
    fn find_recovery(&mut self) -> Result<Option<FoundRecovery>, HostError>;

    /// Sees to it that `recovery`, which an earlier process has let run, gets the devices
    /// that this process had not given it wholly. Does not wait for that.
    fn complete_devices(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError>;

    /// Makes way for a successor: the crashed domain gets another name and
    /// loses its disks and interfaces; interfaces that `standby` has of its own can
    /// wait for [`Toolstack::detach_interfaces`]. Returns when none of the disks can write
    /// any more. After a failure some devices may be gone. Meanwhile `standby`, if there is
    /// one, gets the name; whether that worked, [`Toolstack::adopt`] tells. May be asked
    /// again, also by another process: what is done already stays done.
    fn detach(&mut self, standby: Option<&BuiltStandby>) -> Result<(), HostError>;

    /// Takes the interfaces that [`Toolstack::detach`] has left to the crashed domain, if
    /// any. No page is released before that.
    fn detach_interfaces(&mut self) -> Result<(), HostError>;

    /// What [`Toolstack::create`] will need.
    fn requirement(&mut self) -> Result<Requirement, HostError>;

    /// Builds the recovery domain, paused, with the memory that
    /// [`Requirement::backed_pages`] states.
    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError>;

    /// What a standby for the crashed domain must have been built from.
    fn recipe(&mut self) -> Result<String, HostError>;

    /// Makes the standby that was there for [`Toolstack::detach`] the recovery
    /// domain: the standby gets the crashed domain's disks, and the interfaces that it
    /// has not yet. Destroys the standby when that fails.
    fn adopt(&mut self, standby: &BuiltStandby) -> Result<Arc<dyn RecoveryDomain>, HostError>;

    /// Destroys a standby that was there for [`Toolstack::detach`] and will not be
    /// adopted.
    fn forgo(&mut self, standby: &BuiltStandby) -> Result<(), HostError>;

    /// Lets a new recovery domain run for the first time.
    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError>;

    /// Destroys a recovery domain that did not come to life.
    fn discard(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError>;

    /// The name that the crashed domain has since [`Toolstack::detach`].
    fn crashed_name(&self) -> String;

    /// Removes what is left of the crashed domain.
    fn destroy_crashed(&mut self) -> Result<(), HostError>;

    /// Turns the recovery domain into an ordinary one: full memory, ordinary
    /// targets.
    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError>;

    /// Tells observers outside the process where the job is.
    fn publish(&mut self, key: &str, value: &str);
}

/// A recovery domain that was built before it is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuiltStandby {
    /// The standby's number in the hypervisor.
    pub domid: u32,
    /// Pages of the host's memory that the standby holds, tables included.
    pub pages: u64,
    /// What the standby was built from: equal texts build equal domains.
    pub recipe: String,
}

/// Builds standbys for one running guest. Used by one thread.
pub trait StandbyHost: Send {
    /// Builds a standby, without disks, and leaves it stopped. With `boot`, the standby
    /// has run until it waits for its disk; it has no interface until it is stopped
    /// for good. Gives up when `stop` says so.
    fn build(&mut self, boot: bool, stop: &dyn Fn() -> bool) -> Result<BuiltStandby, HostError>;

    /// What a standby would be built from now.
    fn recipe(&mut self) -> Result<String, HostError>;

    /// Destroys a standby.
    fn discard(&mut self, standby: &BuiltStandby) -> Result<(), HostError>;
}

/// What a domain has of the memory that its guest sees, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backing {
    /// Pages that the domain has.
    pub total: u64,
    /// Of these, pages that are behind no address yet: so many may the guest still
    /// touch for the first time without more memory. One more may be its end.
    pub spare: u64,
    /// Addresses that the guest sees and that no page is behind yet. None of a guest
    /// that sees only what it has.
    pub unbacked: u64,
    /// Pages that the guest is to have and does not see yet. None of a guest that sees all
    /// that it is to have.
    pub untold: u64,
}

impl Backing {
    /// Pages that the domain lacks: zero when whatever the guest touches is covered.
    pub fn missing(&self) -> u64 {
        self.unbacked.saturating_sub(self.spare)
    }

    /// Whether the guest sees so little of its memory, less than three quarters, that what
    /// it runs may not do with that. It cannot wait for more: it fails.
    pub fn is_small(&self) -> bool {
        self.untold > self.total / 3
    }
}

/// The recovery domain once it is built.
pub trait RecoveryDomain: Send + Sync {
    /// The domain's number in the hypervisor; zero in the in-memory host.
    fn domid(&self) -> u32;

    /// Whether the domain has not ended: neither destroyed, nor shut down for good,
    /// which the domain's own policy answers by destroying it.
    fn exists(&self) -> bool;

    /// Processor time that the domain has used since it was built.
    fn processor_time(&self) -> Result<Duration, HostError>;

    /// What the domain has of the memory that its guest sees.
    fn backing(&self) -> Result<Backing, HostError>;

    /// Gives the domain `pages` more, at most its full memory; returns what it then has.
    fn grow(&self, pages: u64) -> Result<Backing, HostError>;

    /// Stops the domain's processors.
    fn pause(&self) -> Result<(), HostError>;

    /// Lets the domain's processors run.
    fn unpause(&self) -> Result<(), HostError>;

    /// What the domain has asked of its disks; `None` where nobody counts that.
    fn disk_totals(&self) -> Option<DiskTotals> {
        None
    }
}
