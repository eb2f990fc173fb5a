// SPDX-License-Identifier: LGPL-2.1-or-later
//! Generated from the headers of libxl, libxenforeignmemory and libxenstore.
#![allow(
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

include!(concat!(env!("OUT_DIR"), "/libraries.rs"));
