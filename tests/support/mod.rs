//! What tests of the C ABI share.
#![allow(unreachable_pub)]
pub mod c_program;
