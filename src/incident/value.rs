// SPDX-License-Identifier: LGPL-2.1-or-later
//! The record of a crash. docs/incident.md describes it for those who read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dump::manifest_path;
use crate::guest::oops::Oops;
use crate::job::Outcome;
use crate::units::Utc;

/// All that is known of a crash. Times are whole milliseconds since its handling began.
///
/// What a list of crashes shows comes first, down to the title of `died`: of each of ten
/// thousand records no more is read for one (`head.rs`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Incident {
    /// [`Incident::VERSION`].
    pub version: u32,
    /// What the names of its files begin with.
    pub id: String,
    /// The guest's name.
    pub guest: String,
    /// What is the same over all crashes of the guest.
    pub uuid: String,
    /// When its handling began, which is when the hypervisor had told of it.
    pub crashed_at: String,
    /// The same in seconds since 1970.
    pub crashed_s: Utc,
    /// Whether it is handled to its end; else it is being handled, or was when its process
    /// was killed or the power went.
    pub is_over: bool,
    /// How it ended for the guest.
    pub outcome: Outcome,
    /// Why the job failed, if it did; that is the dump's failure where a recovery runs.
    pub failure: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Virtual processors.
    pub vcpus: Option<usize>,
    /// The guest's memory.
    pub memory_bytes: Option<u64>,
    /// The recovery domain.
    pub recovery: RecoveryPart,
    /// The dump.
    pub dump: DumpPart,
    /// How far the dump is now, while it is written.
    pub now: Option<ProgressMark>,
    /// What the guest died of; none when its kernel does not say.
    pub died: Option<Died>,
    /// Earlier crashes of the same, on this host.
    pub earlier: Option<Earlier>,
    /// What was chosen to be dumped.
    pub plan: Option<PlanPart>,
    /// Why less was left out of the dump than was asked for.
    pub doubts: Vec<String>,
    /// Warnings and errors, the first ones.
    pub troubles: Vec<Trouble>,
    /// What happened when, without what is told again and again.
    pub steps: Vec<StepMark>,
    /// How the dump went on.
    pub progress: Vec<ProgressMark>,
    /// The end of the guest's log.
    pub log: Vec<String>,
}

/// What the guest died of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Died {
    /// The same for the same fault, 16 hexadecimal digits.
    pub signature: String,
    /// What the kernel says.
    #[serde(flatten)]
    pub oops: Oops,
}

/// Earlier crashes with the same signature whose records are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Earlier {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: EarlierCrash,
    /// The last of them.
    pub last: EarlierCrash,
}

/// A crash before this one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct EarlierCrash {
    /// When, in seconds since 1970.
    pub crashed_s: Utc,
    /// Its record.
    pub id: String,
    /// Whose it was.
    pub guest: String,
}

/// What was chosen to be dumped.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PlanPart {
    /// Pages of the guest.
    pub pages: u64,
    /// Pages to be dumped.
    pub wanted_pages: u64,
    /// The dump level that comes of it, as makedumpfile counts.
    pub dump_level: u8,
    /// How many pages have which verdict, by its name.
    pub verdicts: BTreeMap<String, u64>,
}

/// Where the guest's successor is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RecoveryPart {
    /// How far it is.
    pub state: RecoveryState,
    /// Its number in the hypervisor.
    pub domid: Option<u32>,
    /// It runs since.
    pub unpaused_ms: Option<u64>,
    /// Why there is none, or not quite an ordinary one.
    pub why: Option<String>,
    /// How often it had to wait for memory.
    pub pauses: Option<Pauses>,
}

/// How far the guest's successor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryState {
    /// There is none.
    #[default]
    None,
    /// It is built.
    Created,
    /// It runs, on part of its memory.
    Running,
    /// It is an ordinary domain.
    Settled,
    /// It ended before the dump did.
    Gone,
    /// There is none, and there will be none.
    Failed,
}

/// How often recovery was stopped until there was memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pauses {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub paused_ms: u64,
}

/// Where the dump is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DumpPart {
    /// How far it is.
    pub state: DumpState,
    /// The file, as it is called now; none for a stream.
    pub path: Option<String>,
    /// The file of its checksums, which there is for a complete dump in a file of its own.
    pub sums: Option<String>,
    /// Pages in it.
    pub pages: Option<u64>,
    /// Of these, pages of zeroes.
    pub zero_pages: Option<u64>,
    /// Of these, pages that could not be read.
    pub unreadable_pages: Option<u64>,
    /// Pages that were left out for lack of room.
    pub no_room_pages: u64,
    /// Its length.
    pub length_bytes: Option<u64>,
    /// Why there is none, or it is not complete.
    pub why: Option<String>,
    /// Commands that open it.
    pub open_with: Vec<String>,
}

/// How far a dump is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpState {
    /// It is not begun.
    #[default]
    None,
    /// It is being written.
    Written,
    /// It is complete.
    Complete,
    /// It was begun and is not complete.
    Incomplete,
    /// There is none.
    NotMade,
    /// There is none, since enough were made of late.
    NotWanted,
    /// It was there, and is removed: others were to be kept, or room was needed.
    Removed,
}

/// A warning or an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// When.
    pub at_ms: u64,
    /// "warn" or "error".
    pub level: String,
    /// As the log has it.
    pub line: String,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepMark {
    /// When.
    pub at_ms: u64,
    /// The two names of the event, such as "recovery unpaused".
    pub what: String,
}

/// How far the dump was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProgressMark {
    /// When.
    pub at_ms: u64,
    /// Pages written.
    pub dumped_pages: u64,
    /// Pages to be written; 0 before there is a dump.
    pub planned_pages: u64,
    /// Size of the dump so far.
    pub written_bytes: u64,
    /// Given back to the hypervisor so far.
    pub released_bytes: u64,
}

impl Incident {
    /// Layout of the record: another one where a member changes its meaning or goes away,
    /// the same where one is added.
    pub const VERSION: u32 = 1;

    /// Of a crash of which nothing is known yet.
    pub fn new(id: &str, guest: &str, uuid: &str, crashed: Utc) -> Self {
        Self {
            version: Self::VERSION,
            id: id.into(),
            guest: guest.into(),
            uuid: uuid.into(),
            crashed_at: crashed.to_string(),
            crashed_s: crashed,
            is_over: false,
            outcome: Outcome::Undecided,
            failure: None,
            kernel: None,
            vcpus: None,
            memory_bytes: None,
            recovery: RecoveryPart::default(),
            dump: DumpPart::default(),
            now: None,
            died: None,
            earlier: None,
            plan: None,
            doubts: Vec::new(),
            troubles: Vec::new(),
            steps: Vec::new(),
            progress: Vec::new(),
            log: Vec::new(),
        }
    }
}

impl DumpPart {
    /// Sees whether checksums are beside the dump.
    pub(super) fn look_for_sums(&mut self) {
        let sums = self.path.as_ref().map(|path| manifest_path(path.as_ref()));
        let is_complete = self.state == DumpState::Complete;
        let sums = sums.filter(|sums| is_complete && sums.exists());
        self.sums = sums.map(|sums| sums.display().to_string());
    }
}

impl ProgressMark {
    /// How far it is, whenever that was.
    pub(super) fn pages(self) -> [u64; 4] {
        [
            self.dumped_pages,
            self.planned_pages,
            self.written_bytes,
            self.released_bytes,
        ]
    }
}
