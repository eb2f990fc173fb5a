// SPDX-License-Identifier: LGPL-2.1-or-later
//! The real host: Xen through libxl, libxenctrl and libxenforeignmemory.
//!
//! Every `unsafe` call to these libraries is in this directory. What they
//! promise, on which the SAFETY lines rest:
//! - a `libxl_ctx` may be used from any thread (`libxl.h`, "Context");
//! - a `libxenforeignmemory` handle is only a file descriptor, and may be used by
//!   several threads at once; a `libxenctrl` handle by one at a time.
//!
//! What holds for one kind of guest only is in `kind`, for memory that Xen does not
//! translate in `pv`, for one backend of disks in `disk`; what no interface promises is in
//! `relied_on`.

mod allowed;
mod attach;
mod background;
mod build;
mod bus;
mod claim;
mod claimant;
mod config;
mod control;
mod destroy;
mod detach;
mod device_model;
mod devices;
mod disk;
mod domain;
mod foreign;
mod handles;
mod hotplug_lock;
mod kind;
mod libxl;
mod linked;
mod look;
mod own_memory;
mod past;
mod pv;
mod recovery;
mod refusal;
mod relied_on;
mod settle;
mod standby;
mod store;
mod sys;
mod toolstack;
mod uuid;
mod view;

pub use config::CrashConfig;
pub use domain::XenDomain;
pub use libxl::LibxlContext;
pub use linked::{other_libxl, BUILT_FOR};
pub use standby::XenStandbyHost;
pub use toolstack::XenToolstack;
