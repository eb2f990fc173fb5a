// SPDX-License-Identifier: LGPL-2.1-or-later
//! `vicover verify` and `vicover mend`: dumps, looked at again, and made safe to open.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::Failure;
use crate::dump::{mend, verify, Finding};
use crate::incident::printable;
use crate::units::Size;

/// Says of each dump what it is worth; status 1 when one is not sound.
pub(super) fn verify_all(dumps: &[PathBuf], to: &mut dyn Write) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for dump in dumps {
        let report = verify(dump).map_err(|error| Failure::Refused(error.chain()))?;
        let finding = match &report.finding {
            Finding::Complete => "complete".to_owned(),
            Finding::Incomplete(why) => format!("incomplete: {why}"),
            Finding::Damaged(what) => format!("DAMAGED: {what}"),
        };
        if report.finding != Finding::Complete {
            code = ExitCode::from(1);
        }
        let sums = match report.with_manifest {
            true => "",
            false => ", no checksums beside it",
        };
        let path = printable(&dump.display().to_string());
        writeln!(
            to,
            "{path}: {}, {} of {} pages, {}{sums}",
            printable(&finding),
            report.wanted_pages - report.lost_pages,
            report.wanted_pages,
            Size(report.length)
        )?;
    }
    Ok(code)
}

/// Mends each dump, and says what it has lost.
pub(super) fn mend_all(dumps: &[PathBuf], to: &mut dyn Write) -> Result<(), Failure> {
    for dump in dumps {
        let lost = mend(dump).map_err(|error| Failure::Refused(error.chain()))?;
        let path = printable(&dump.display().to_string());
        match lost {
            0 => writeln!(to, "{path}: nothing was cut off")?,
            lost => writeln!(to, "{path}: opens, without {lost} pages that were cut off")?,
        }
    }
    Ok(())
}
