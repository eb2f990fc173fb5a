// SPDX-License-Identifier: LGPL-2.1-or-later
//! The program vicover(1): crashes, records and dumps, on a Xen host or off it.

use std::io::{stderr, stdout, IsTerminal};
use std::process::ExitCode;

use vicover::tool::{run, Terminal};

fn main() -> ExitCode {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.parse().ok());
    let terminal = stdout().is_terminal().then(|| Terminal {
        columns: columns.unwrap_or(80),
    });
    let arguments = std::env::args_os().skip(1);
    run(
        arguments,
        terminal,
        &mut stdout().lock(),
        &mut stderr().lock(),
    )
}
