// SPDX-License-Identifier: LGPL-2.1-or-later
//! Jobs by number. A number is given out once, so that a stale one is noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use once_cell::sync::Lazy;

use super::abi;
use super::status::Failure;
use crate::job::{Job, JobState, Phase};

#[derive(Default)]
struct Table {
    last: abi::vicover_job,
    jobs: HashMap<abi::vicover_job, Job>,
}

static TABLE: Lazy<Mutex<Table>> = Lazy::new(Mutex::default);

fn table() -> MutexGuard<'static, Table> {
    TABLE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn unknown(handle: abi::vicover_job) -> Failure {
    Failure::new(
        abi::VICOVER_ERR_HANDLE,
        format!("there is no job {handle} (freed already?)"),
    )
}

/// Files a job under a new number.
pub(super) fn add(job: Job) -> abi::vicover_job {
    let mut table = table();
    table.last += 1;
    let handle = table.last;
    table.jobs.insert(handle, job);
    handle
}

/// The state of a job.
pub(super) fn get(handle: abi::vicover_job) -> Result<Arc<JobState>, Failure> {
    let table = table();
    let job = table.jobs.get(&handle).ok_or_else(|| unknown(handle))?;
    Ok(job.shared.clone())
}

/// Takes a job that is done out of the table and waits for its thread's end.
pub(super) fn remove(handle: abi::vicover_job) -> Result<(), Failure> {
    let mut table = table();
    let job = table.jobs.get(&handle).ok_or_else(|| unknown(handle))?;
    if job.shared.snapshot().phase != Phase::Done {
        return Err(Failure::new(
            abi::VICOVER_ERR_BUSY,
            format!("job {handle} is still running"),
        ));
    }
    let job = table.jobs.remove(&handle);
    drop(table);
    if let Some(job) = job {
        job.join();
    }
    Ok(())
}
