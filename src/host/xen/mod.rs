//! The real host: Xen through libxl, libxenctrl and libxenforeignmemory.
//!
//! Every `unsafe` call to these libraries is in this directory. What they
//! promise, on which the SAFETY lines rest:
//! - a `libxl_ctx` may be used from any thread (`libxl.h`, "Context");
//! - `libxenctrl` and `libxenforeignmemory` handles are only a file descriptor
//!   and a locked buffer cache, and may be shared by threads as long as nobody
//!   reads the handle's own last-error record, which we never do.

mod config;
mod control;
mod destroy;
mod detach;
mod domain;
mod recovery;
mod registers;
mod store;
mod toolstack;

/// Generated from the headers of libxl, libxenforeignmemory and libxenstore.
#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unnecessary_transmutes,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod sys {
    include!(concat!(env!("OUT_DIR"), "/libraries.rs"));
}

pub use config::{CrashConfig, LibxlContext};
pub use domain::XenDomain;
pub use toolstack::XenToolstack;
