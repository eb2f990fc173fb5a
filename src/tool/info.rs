// SPDX-License-Identifier: LGPL-2.1-or-later
//! `vicover info`: one crash on one screen, by what its record says now.

use std::io::Write;
use std::path::Path;

use super::arguments::Info;
use super::failure::Failure;
use super::list::{crashes, none};
use crate::incident::{self, screen, Head};

pub(super) fn print(asked: &Info, to: &mut dyn Write) -> Result<(), Failure> {
    let head = find(&asked.directory, asked.crash.as_deref())?;
    let read = incident::read(&asked.directory, &head.id);
    let record = read.map_err(|error| {
        let path = asked.directory.join(format!("{}.json", head.id));
        Failure::Refused(format!("{}: {error}", path.display()))
    })?;
    match asked.is_json {
        true => {
            let text = serde_json::to_string(&record).map_err(std::io::Error::other)?;
            writeln!(to, "{text}")?;
        }
        false => to.write_all(screen(&record).as_bytes())?,
    }
    Ok(())
}

/// The crash that is meant: by its id, or the last one of a guest, or of all.
fn find(directory: &Path, named: Option<&str>) -> Result<Head, Failure> {
    let heads = crashes(directory, None)?;
    let is_it = |head: &&Head| match named {
        None | Some("last") => true,
        Some(name) => head.id == name || head.guest == name,
    };
    let by_id = heads.iter().find(|head| named == Some(&head.id));
    let found = by_id.or_else(|| heads.iter().rev().find(is_it));
    found.cloned().ok_or_else(|| none(directory, named))
}
