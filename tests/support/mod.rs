// SPDX-License-Identifier: LGPL-2.1-or-later
//! What tests of the C ABI share.
// Each test is a program of its own and uses some of it.
#![allow(unreachable_pub, dead_code)]
pub mod c_program;
