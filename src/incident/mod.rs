// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is kept of a crash for people and programs, beside its dump, or without one.
//!
//! A crash's files begin with one name, `GUEST-TIME`: `.json` is the record, an
//! [`Incident`], for programs; `.txt` the same on one screen; `.dmesg` the guest's log;
//! `.svg` a picture of what happened when. The dump, if there is one, is `.kdump` or
//! `.elf`.
//!
//! An [`Incident`] is what the events of a job come to (`fold`), so it says nothing that
//! the log does not. `keep` has a thread write it, early and again whenever there is more
//! to say: nobody waits for that until the job is over. `head` lists records by their
//! beginnings, `earlier` looks among them for crashes that were of the same; `screen` and
//! `picture` are for people; `files` names the files, `write` writes them all; `retention`
//! removes dumps when there are more than are to be kept; `journald` tells the journal of
//! systemd.
#![forbid(unsafe_code)]

mod earlier;
mod files;
mod fold;
mod head;
mod journald;
mod keep;
mod open_with;
mod picture;
mod retention;
mod screen;
mod value;
mod write;

pub use files::read;
pub use head::{list, Head};
pub use keep::kept;
pub(crate) use screen::printable;
pub use screen::screen;
pub use value::{
    Died, DumpPart, DumpState, Earlier, EarlierCrash, Incident, Pauses, PlanPart, ProgressMark,
    RecoveryPart, RecoveryState, StepMark, Trouble,
};
