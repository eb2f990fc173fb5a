// SPDX-License-Identifier: LGPL-2.1-or-later
//! The options of a job, as an operator writes them in `vicover="key=value,..."`.
//!
//! [`TABLE`] has a row for each: name, values, default, help, and what it sets. An
//! option is added there and in [`Options`], and nowhere else. [`HostOptions`] are those of
//! all guests of a host that say nothing else.
#![forbid(unsafe_code)]

mod host;
mod parse;
mod table;
mod values;

pub use host::{HostOptions, HostOptionsError, DUMP_DIRECTORY, FILE};
pub use parse::OptionError;
pub use table::{OptionSpec, TABLE};
pub use values::{AtMost, OnCrashLoop, Options, Recrash, Standby};
