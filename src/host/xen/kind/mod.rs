// SPDX-License-Identifier: LGPL-2.1-or-later
//! Kinds of guests. What is true of one kind only is in its file here, and whoever
//! wants to know it asks [`Kind`].
//!
//! A new kind gets a file and a line in each `match` below. It has to answer
//! - what may stand in the part of a configuration that only guests of that kind
//!   have, and why some things may not;
//! - which frames are the guest's RAM. Only these are mapped, saved and given back;
//!   all others are the toolstack's, Xen's or a backend's for good;
//! - when its frames may be mapped, and what registers its processors had;
//! - for claims on it (`claim.rs`): a frame that it has to the end, and a call that
//!   Xen refuses from the moment on when it begins to destroy the domain;
//! - how it starts with less memory than it has in the end: with how much, what it is
//!   told, what it has and lacks since, and how it gets more.

use super::allowed::{Keys, Reasons};
use super::control::Control;
use super::foreign::FrameName;
use super::store::Store;
use crate::addr::GfnRange;
use crate::host::{Backing, HostError, VcpuState};

mod hvm;
mod pod;
mod pv;
mod pvh;
mod ram;
mod registers;

/// Said of guests of any other kind.
pub(super) const SUPPORTED: &str =
    "only PV, PVH and HVM guests are supported (type=\"pv\", \"pvh\" or \"hvm\")";

/// The kinds of guests that can be dumped and recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Hardware virtualisation without a device model.
    Pvh,
    /// Hardware virtualisation with a device model.
    Hvm,
    /// No hardware virtualisation.
    Pv,
}

/// What a configuration asks for of memory, in KiB.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// All that the guest has in the end.
    pub(super) full_kib: u64,
    /// Of that, the graphics adapter's.
    pub(super) video_kib: u64,
    /// The hole for devices below 4 GiB; zero for as little as the kind has.
    pub(super) hole_kib: u64,
}

impl Kind {
    /// The kind that libxl calls `name`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            pvh::NAME => Some(Self::Pvh),
            hvm::NAME => Some(Self::Hvm),
            pv::NAME => Some(Self::Pv),
            _ => None,
        }
    }

    /// What the kind's own part of the build information may hold.
    pub(super) fn keys(self) -> Keys {
        match self {
            Self::Pvh => pvh::KEYS,
            Self::Hvm => hvm::KEYS,
            Self::Pv => pv::KEYS,
        }
    }

    /// Why the kind cannot have some of what other kinds may come to have.
    pub(super) fn reasons(self) -> [Reasons; 2] {
        match self {
            Self::Pvh => [pod::REASONS, &[]],
            Self::Hvm => [pod::REASONS, hvm::REASONS],
            Self::Pv => [&[], &[]],
        }
    }

    /// Whether Xen translates what guests of the kind take for machine memory.
    pub(super) fn is_translated(self) -> bool {
        match self {
            Self::Pvh | Self::Hvm => true,
            Self::Pv => false,
        }
    }

    /// Whether a domain of the kind gets more memory only by its guest's taking it, as
    /// soon as there is some.
    pub(super) fn takes_memory(self) -> bool {
        match self {
            Self::Pvh | Self::Hvm => false,
            Self::Pv => true,
        }
    }

    /// Why there is no standby for a guest of the kind, if there is none.
    pub(super) fn why_no_standby(self) -> Option<&'static str> {
        match self {
            Self::Pvh | Self::Hvm => None,
            Self::Pv => Some(pv::NO_STANDBY),
        }
    }

    /// Whether a QEMU runs beside every domain of the kind, whatever its devices are.
    pub(super) fn has_device_model(self) -> bool {
        match self {
            Self::Pvh | Self::Pv => false,
            Self::Hvm => true,
        }
    }

    /// Where a guest has RAM, ascending.
    pub(super) fn ram(self, asked: Asked) -> Vec<GfnRange> {
        match self {
            Self::Pvh => pvh::ram(asked.full_kib),
            Self::Hvm => hvm::ram(asked.full_kib, asked.video_kib, asked.hole_kib),
            Self::Pv => pv::ram(asked.full_kib),
        }
    }

    /// Gives a domain that lacks memory the rest, when the host has it.
    pub(super) fn make_whole(self, control: &Control, domid: u32) -> Result<(), HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::make_whole(control, domid),
            Self::Pv => Ok(()),
        }
    }

    /// Refuses a domain whose frames cannot be mapped without harm.
    pub(super) fn check_mappable(self, control: &Control, domid: u32) -> Result<(), HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::check_mappable(control, domid),
            Self::Pv => pv::check_mappable(control, domid),
        }
    }

    /// Registers of every virtual processor that was ever started.
    pub(super) fn vcpus(self, control: &Control, domid: u32) -> Result<Vec<VcpuState>, HostError> {
        match self {
            Self::Pvh | Self::Hvm | Self::Pv => registers::read_all(control, domid),
        }
    }

    /// A frame beside RAM that the domain has as long as it lives.
    pub(super) fn kept_frame(self, control: &Control, domid: u32) -> Result<FrameName, HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::kept_frame(control, domid),
            Self::Pv => pv::kept_frame(control, domid),
        }
    }

    /// Fails from the moment on when Xen begins to destroy the domain.
    pub(super) fn check_not_dying(self, control: &Control, domid: u32) -> Result<(), HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::check_not_dying(control, domid),
            Self::Pv => pv::check_not_dying(control, domid),
        }
    }

    /// KiB that back a domain when it starts which boots with a ramdisk of so many bytes.
    pub(super) fn first_kib(self, asked: Asked, ramdisk_bytes: u64) -> u64 {
        match self {
            Self::Pvh | Self::Hvm => {
                let ram_kib = asked.full_kib.saturating_sub(asked.video_kib);
                // The graphics adapter has all its memory from the start.
                pod::first_kib(ram_kib, ramdisk_bytes) + asked.full_kib - ram_kib
            }
            Self::Pv => pv::first_kib(asked.full_kib, ramdisk_bytes),
        }
    }

    /// Tells a domain before its first instruction how much memory it is to have: as much
    /// as `model`, a domain of the same guest.
    pub(super) fn tell_target(
        self,
        store: &Store,
        domid: u32,
        model: u32,
    ) -> Result<(), HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::tell_target(store, domid, model),
            // As much as it has, which libxl has told it.
            Self::Pv => Ok(()),
        }
    }

    /// Whether the guest will give memory back that the domain was built to have.
    pub(super) fn gives_back(self, store: &Store, domid: u32) -> Result<bool, HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::gives_back(store, domid),
            Self::Pv => Ok(false),
        }
    }

    /// What the domain has of the memory that its guest sees.
    pub(super) fn backing(
        self,
        control: &Control,
        store: &Store,
        domid: u32,
    ) -> Result<Backing, HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::backing(control, domid),
            Self::Pv => pv::backing(control, store, domid),
        }
    }

    /// Gives the domain memory until it has `pages`, as far as the host has them.
    pub(super) fn set_backing(
        self,
        control: &Control,
        store: &Store,
        domid: u32,
        pages: u64,
    ) -> Result<Backing, HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::set_backing(control, domid, pages),
            Self::Pv => pv::set_backing(control, store, domid, pages),
        }
    }

    /// Takes pages back that the domain has beside its RAM and does not need.
    pub(super) fn take_surplus(
        self,
        control: &Control,
        domid: u32,
        pages: u64,
    ) -> Result<(), HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::take_surplus(control, domid, pages),
            // It has nothing beside its RAM.
            Self::Pv => Ok(()),
        }
    }

    /// Pages that the domain has fewer than it was built with, because
    /// [`Kind::take_surplus`] took them: the next domain of the guest is built with all.
    pub(super) fn surplus_taken(
        self,
        control: &Control,
        domid: u32,
        pool_kib: u64,
    ) -> Result<u64, HostError> {
        match self {
            Self::Pvh | Self::Hvm => pod::surplus_taken(control, domid, pool_kib),
            Self::Pv => Ok(0),
        }
    }

    /// Sees to it that nothing is kept any more for a domain that has been told of all its
    /// memory.
    pub(super) fn end_growth(
        self,
        control: &Control,
        store: &Store,
        domid: u32,
    ) -> Result<(), HostError> {
        match self {
            Self::Pvh | Self::Hvm => Ok(()),
            Self::Pv => pv::end_growth(control, store, domid),
        }
    }
}
