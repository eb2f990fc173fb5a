// SPDX-License-Identifier: LGPL-2.1-or-later
//! The caller's functions that are told what happens.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::os::raw::c_void;

use super::abi;
use super::status::line;
use crate::told::log::Listener;

struct UserPointer(*mut c_void);
// SAFETY: the header says that the callbacks are called from the job's threads; the
// caller vouches that its pointers are good there.
unsafe impl Send for UserPointer {}

impl UserPointer {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// What calls the functions that the options name; none when they name none.
pub(super) fn listener(raw: &abi::vicover_options) -> Option<Listener> {
    let (log, event) = (raw.log, raw.event);
    if log.is_none() && event.is_none() {
        return None;
    }
    let (log_user, event_user) = (UserPointer(raw.log_user), UserPointer(raw.event_user));
    Some(Box::new(move |told| {
        let message = line(&told.event.to_string());
        let level = level_number(told.event.level());
        if let Some(event) = event {
            let (about, name) = told.event.names();
            let [about, name, record] = [about, name, told.record()].map(|text| line(&text));
            let happened = abi::vicover_event {
                struct_size: size_of::<abi::vicover_event>(),
                level,
                reserved: 0,
                elapsed_ms: told.at_ms(),
                about: about.as_ptr(),
                event: name.as_ptr(),
                message: message.as_ptr(),
                record: record.as_ptr(),
            };
            // SAFETY: the caller's function and pointer, called as the header
            // promises: one at a time, with terminated texts that outlive the call.
            unsafe { event(event_user.get(), &raw const happened) };
        }
        if let Some(log) = log {
            // SAFETY: as above.
            unsafe { log(log_user.get(), level, message.as_ptr()) };
        }
    }))
}

fn level_number(level: log::Level) -> abi::vicover_level {
    let number = match level {
        log::Level::Error => abi::VICOVER_LOG_ERROR,
        log::Level::Warn => abi::VICOVER_LOG_WARN,
        log::Level::Info => abi::VICOVER_LOG_INFO,
        log::Level::Debug | log::Level::Trace => abi::VICOVER_LOG_DEBUG,
    };
    number as abi::vicover_level
}
