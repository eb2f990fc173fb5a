// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writing the files about a crash, all but its dump.

use std::io;
use std::path::PathBuf;

use super::files::{Files, RECORD};
use super::picture::picture;
use super::screen::screen;
use super::value::Incident;

/// Writes the record as it is now, in all its forms, and the guest's log, when there is
/// one to be written.
///
/// # Errors
/// The first that there is, and the file that it is of: those before it are written.
pub(super) fn write_all(
    files: &Files,
    incident: &mut Incident,
    dmesg: Option<&str>,
) -> Result<(), (PathBuf, io::Error)> {
    incident.dump.look_for_sums();
    let put = |end: &str, text: &str| {
        let put = files.replace(end, text, incident.is_over || dmesg.is_some());
        put.map_err(|error| (files.path(end), error))
    };
    let record = serde_json::to_string_pretty(incident).map_err(io::Error::other);
    let record = record.map_err(|error| (files.path(RECORD), error))?;
    put(RECORD, &(record + "\n"))?;
    put("txt", &screen(incident))?;
    if let Some(dmesg) = dmesg {
        put("dmesg", dmesg)?;
    }
    match incident.is_over {
        true => put("svg", &picture(incident)),
        false => Ok(()),
    }
}
