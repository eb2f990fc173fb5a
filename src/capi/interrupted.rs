// SPDX-License-Identifier: LGPL-2.1-or-later
//! Crashes whose process was killed: finding them, and going on.
#![allow(unsafe_code)]
#![allow(unreachable_pub)] // reached by C, not by Rust

use std::os::raw::c_char;
use std::path::Path;

use super::domains::{self, Given};
use super::input;
use super::settings::read_settings;
use super::status::{answer, Failure};
use super::{abi, handles};
use crate::error::Error;
use crate::journal::{self, TakeOver};

/// Waits until there is a crash whose process has ended.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_find_interrupted(
    journal_dir: *const c_char,
    guest: *const c_char,
    timeout_ms: i64,
    found: *mut abi::vicover_interrupted,
) -> abi::vicover_status {
    answer(|| {
        // SAFETY: the caller passes null or terminated strings.
        let (directory, guest) = unsafe {
            (
                input::text(journal_dir, "journal_dir")?,
                input::text(guest, "guest")?,
            )
        };
        let directory = directory.unwrap_or_else(|| journal::DIRECTORY.into());
        let timeout = input::timeout(timeout_ms);
        let crash = journal::find(Path::new(&directory), guest.as_deref(), timeout);
        let crash = crash.map_err(|source| Error::Io {
            doing: format!("looking for journals in {directory}"),
            source,
        })?;
        let crash = crash.ok_or_else(|| {
            Failure::new(abi::VICOVER_ERR_TIMEOUT, "there is no crash to go on with")
        })?;
        let mut answer = abi::vicover_interrupted {
            struct_size: size_of::<abi::vicover_interrupted>(),
            domid: crash.domid,
            reserved: 0,
            guest: [0; 256],
            journal: [0; 1024],
        };
        input::put_text(&mut answer.guest, &crash.guest);
        input::put_path(&mut answer.journal, &crash.journal)?;
        // SAFETY: the caller passes a struct as the header says.
        unsafe { input::write_struct(found, &answer) }
    })
}

/// Goes on with a crash whose process has ended.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_resume(
    options: *const abi::vicover_options,
    interrupted: *const abi::vicover_interrupted,
    crash: *const abi::vicover_crash,
    job: *mut abi::vicover_job,
) -> abi::vicover_status {
    answer(|| {
        // SAFETY: the caller passes structs as the header says.
        let (settings, interrupted, crash) = unsafe {
            (
                read_settings(options)?,
                input::read_struct(interrupted)?,
                input::read_struct(crash)?,
            )
        };
        // SAFETY: passed on; zero marks "no job" until there is one.
        unsafe { input::write_out(job, "job", 0)? };
        let given = Given::crash(&crash);
        given.check()?;
        let zero = [
            crash.standby != 0,
            crash.flags != 0,
            interrupted.reserved != 0,
        ];
        if crash.domid != interrupted.domid || zero.contains(&true) {
            return Err(Failure::new(
                abi::VICOVER_ERR_OPTION,
                "vicover_crash.domid must be that of interrupted, standby, flags and reserved zero",
            ));
        }
        let path = input::path_in(&interrupted.journal)?;
        let taken = journal::take_over(&path).map_err(|source| Error::Io {
            doing: format!("taking over {}", path.display()),
            source,
        })?;
        let (past, file) = match taken {
            TakeOver::Taken(past, file) => (*past, file),
            TakeOver::NotNeeded => {
                let path = path.display();
                let text = format!("{path}: a process handles that crash, or it is over");
                return Err(Error::Busy(text).into());
            }
            TakeOver::PutAside(why) => {
                return Err(Error::Unsupported(format!("{}: {why}", path.display())).into());
            }
        };
        let start = settings.going_on(&past)?;
        // SAFETY: both pointers are to libxl objects, as the header demands.
        let started = unsafe { domains::resume(start, &given, past, file)? };
        // SAFETY: looked at above.
        unsafe { input::write_out(job, "job", handles::add(started)) }
    })
}
