// SPDX-License-Identifier: LGPL-2.1-or-later
//! The program vicover(1): looks at crashes, their records and dumps, on the host where
//! they happened or wherever their files were carried to. It needs no Xen.
#![forbid(unsafe_code)]

mod arguments;
mod check;
mod failure;
mod info;
mod list;
mod metrics;
mod status;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use arguments::{Arguments, Command, HELP};
use failure::Failure;

pub use table::Terminal;

/// Does what the program's arguments say. Without a terminal lines are as long as they
/// are. Status 0: done; 1: there is nothing, or a dump is not sound; 2: not understood,
/// or not possible.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    terminal: Option<Terminal>,
    to: &mut dyn Write,
    about: &mut dyn Write,
) -> ExitCode {
    let done = Arguments::parse(arguments).and_then(|arguments| work(&arguments, terminal, to));
    // Where nobody reads any more there is nobody to tell.
    let done = done.and_then(|code| to.flush().map(|()| code).map_err(Failure::from));
    match done {
        Ok(code) => code,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(about, "vicover: {failure}");
            match failure {
                Failure::Nothing(_) => ExitCode::from(1),
                _ => ExitCode::from(2),
            }
        }
    }
}

fn work(
    arguments: &Arguments,
    terminal: Option<Terminal>,
    to: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Help => to.write_all(HELP.as_bytes())?,
        Command::Version => writeln!(to, "vicover {}", env!("CARGO_PKG_VERSION"))?,
        Command::List(list) => list::print(list, terminal, to)?,
        Command::Info(info) => info::print(info, to)?,
        Command::Status(status) => status::print(status, terminal, to)?,
        Command::Metrics(metrics) => metrics::print(metrics, to)?,
        Command::Verify(dumps) => return check::verify_all(dumps, to),
        Command::Mend(dumps) => check::mend_all(dumps, to)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
