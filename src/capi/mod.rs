// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C ABI: translation only. Every decision is made elsewhere.

mod callbacks;
mod domains;
mod exports;
mod handles;
mod input;
mod interrupted;
mod preflight;
mod settings;
mod status;

/// Types and constants, generated from `include/vicover.h`.
#[allow(
    non_camel_case_types,
    non_upper_case_globals,
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod abi {
    include!(concat!(env!("OUT_DIR"), "/abi.rs"));
}

/// One pair for each function of the header: it does not compile when an
/// export is missing or has another signature than the header says.
#[allow(clippy::let_underscore_untyped)]
mod agreement {
    include!(concat!(env!("OUT_DIR"), "/agreement.rs"));
}
