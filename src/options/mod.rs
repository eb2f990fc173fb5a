// SPDX-License-Identifier: LGPL-2.1-or-later
//! The options of a job, as an operator writes them in `vicover="key=value,..."`.
//!
//! [`TABLE`] has a row for each: name, values, default, help, and what it sets. An
//! option is added there and in [`Options`], and nowhere else.
#![forbid(unsafe_code)]

mod parse;
mod table;
mod values;

pub use parse::OptionError;
pub use table::{OptionSpec, TABLE};
pub use values::{AtMost, OnCrashLoop, Options, Recrash, Standby};
