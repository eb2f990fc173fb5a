// SPDX-License-Identifier: LGPL-2.1-or-later
//! The functions of `vicover.h`: null and size checks, a panic boundary, one
//! call into the library.
#![allow(unsafe_code)]
#![allow(unreachable_pub)] // reached by C, not by Rust

use std::os::raw::c_char;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use super::domains::{self, Given};
use super::input::Versioned;
pub use super::interrupted::{vicover_find_interrupted, vicover_resume};
pub use super::preflight::vicover_check_domain;
use super::settings::{read_start, Start};
use super::status::{answer, last_error, status_of, Failure};
use super::{abi, handles, input};
use crate::addr::PAGE_SIZE;
use crate::dump::{mend, verify, Finding, Report};
use crate::error::Error;
use crate::host::images::{FileImage, Image, SyntheticImage};
use crate::host::memory::{Faults, MemoryHost};
use crate::job::{Job, JobState, Outcome, Phase};
use crate::limits::bounded::{MOST_FRAMES, MOST_VCPUS};
use crate::options::{OnCrashLoop, Options};
use crate::story::recover;

/// Version of the ABI.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_abi_version() -> u32 {
    abi::VICOVER_ABI_VERSION
}

/// Version of the library.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The Xen that the library was built for; zero when it was built without.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_xen_version() -> u32 {
    #[cfg(feature = "xen")]
    let version = crate::host::xen::BUILT_FOR;
    #[cfg(not(feature = "xen"))]
    let version = 0;
    version
}

/// Text of this thread's last failure.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_last_error() -> *const c_char {
    last_error()
}

/// Checks an option text.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_check_options(spec: *const c_char) -> abi::vicover_status {
    answer(|| {
        // SAFETY: the caller passes null or a terminated string.
        let spec = unsafe { input::text(spec, "spec")? };
        Options::parse(spec.as_deref().unwrap_or("")).map_err(Error::from)?;
        Ok(())
    })
}

/// The frame of every call that starts a job: both structs are read and "no job"
/// is marked before `start` does anything; it may decide that there is to be none.
///
/// # Safety
/// The pointers are as the header says.
unsafe fn starting<T: Versioned>(
    options: *const abi::vicover_options,
    given: *const T,
    job: *mut abi::vicover_job,
    start: impl FnOnce(Start, T) -> Result<Option<Job>, Failure>,
) -> abi::vicover_status {
    answer(|| {
        // SAFETY: passed on.
        let (begin, given) = unsafe { (read_start(options)?, input::read_struct(given)?) };
        // SAFETY: passed on; zero marks "no job" until there is one.
        unsafe { input::write_out(job, "job", 0)? };
        match start(begin, given)? {
            // SAFETY: checked above.
            Some(started) => unsafe { input::write_out(job, "job", handles::add(started)) },
            None => Ok(()),
        }
    })
}

/// Dumps memory that is not in Xen.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_dump_image(
    options: *const abi::vicover_options,
    image: *const abi::vicover_image,
    job: *mut abi::vicover_job,
) -> abi::vicover_status {
    let dump = |start: Start, image: abi::vicover_image| {
        if image.reserved != 0 {
            return Err(Failure::new(
                abi::VICOVER_ERR_STRUCT_SIZE,
                "vicover_image.reserved must be zero",
            ));
        }
        if image.vcpus > MOST_VCPUS {
            return Err(Failure::new(
                abi::VICOVER_ERR_OPTION,
                format!(
                    "vicover_image.vcpus is {}; allowed: 0 (for one) to {MOST_VCPUS}",
                    image.vcpus
                ),
            ));
        }
        // SAFETY: null or a terminated string.
        let path = unsafe { input::text(image.path, "path")? };
        let pages: Arc<dyn Image> = match path {
            Some(path) => Arc::new(FileImage::open(path.as_ref()).map_err(|source| Error::Io {
                doing: format!("opening image {path}"),
                source,
            })?),
            None => Arc::new(synthetic(image.memory_bytes)?),
        };
        let host = MemoryHost::new(pages, image.vcpus.max(1), Faults::default());
        let (target, log) = start.into_target();
        let started = Job::start(log, move |shared| {
            recover::dump_only(&host, &target, &|| (), shared)
        })?;
        Ok(Some(started))
    };
    // SAFETY: passed on.
    unsafe { starting(options, image, job, dump) }
}

fn synthetic(bytes: u64) -> Result<SyntheticImage, Failure> {
    let page = PAGE_SIZE as u64;
    let most = MOST_FRAMES * page;
    if bytes < page || bytes > most {
        return Err(Failure::new(
            abi::VICOVER_ERR_OPTION,
            format!(
                "vicover_image.memory_bytes is {bytes}; allowed: {page} to {most} ({} TiB)",
                most >> 40
            ),
        ));
    }
    Ok(SyntheticImage::new(bytes / page))
}

/// Dumps a domain that may be running.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_dump_domain(
    options: *const abi::vicover_options,
    domain: *const abi::vicover_domain,
    job: *mut abi::vicover_job,
) -> abi::vicover_status {
    let dump = |start: Start, domain: abi::vicover_domain| {
        // SAFETY: both point to libxl objects, as the header demands.
        unsafe { domains::dump(start, Given::domain(&domain)) }.map(Some)
    };
    // SAFETY: passed on.
    unsafe { starting(options, domain, job, dump) }
}

/// Keeps a standby for a running domain.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_keep_standby(
    options: *const abi::vicover_options,
    domain: *const abi::vicover_domain,
    job: *mut abi::vicover_job,
) -> abi::vicover_status {
    let keep = |start: Start, domain: abi::vicover_domain| {
        // SAFETY: both point to libxl objects, as the header demands.
        unsafe { domains::keep(start, Given::domain(&domain)) }
    };
    // SAFETY: passed on.
    unsafe { starting(options, domain, job, keep) }
}

/// Dumps a crashed domain and recovers it.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_recover(
    options: *const abi::vicover_options,
    crash: *const abi::vicover_crash,
    job: *mut abi::vicover_job,
) -> abi::vicover_status {
    let recover = |start: Start, crash: abi::vicover_crash| {
        let keeper = match crash.standby {
            0 => None,
            standby => Some(handles::get(standby)?),
        };
        let given = Given::crash(&crash);
        // SAFETY: both point to libxl objects, as the header demands.
        unsafe { domains::recover(start, given, keeper) }.map(Some)
    };
    // SAFETY: passed on.
    unsafe { starting(options, crash, job, recover) }
}

/// A snapshot of a job.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_poll(
    job: abi::vicover_job,
    progress: *mut abi::vicover_progress,
) -> abi::vicover_status {
    answer(|| {
        let shared = handles::get(job)?;
        // SAFETY: the caller passes a struct as the header says.
        unsafe { input::write_struct(progress, &progress_of(&shared)) }
    })
}

fn progress_of(shared: &JobState) -> abi::vicover_progress {
    let snapshot = shared.snapshot();
    let counters = &shared.counters;
    abi::vicover_progress {
        struct_size: size_of::<abi::vicover_progress>(),
        phase: phase_number(snapshot.phase),
        outcome: outcome_number(snapshot.outcome),
        status: shared.with_failure(|failure| failure.map_or(0, status_of)),
        recovery_domid: snapshot.recovery_domid,
        pages_total: counters.total.load(Relaxed),
        pages_planned: counters.planned.load(Relaxed),
        pages_dumped: counters.dumped.load(Relaxed),
        pages_released: counters.released.load(Relaxed),
        dump_bytes: counters.dump_bytes.load(Relaxed),
        elapsed_ms: u64::try_from(snapshot.elapsed.as_millis()).unwrap_or(u64::MAX),
    }
}

fn phase_number(phase: Phase) -> abi::vicover_phase {
    let number = match phase {
        Phase::Starting => abi::VICOVER_PHASE_STARTING,
        Phase::Understand => abi::VICOVER_PHASE_UNDERSTAND,
        Phase::Detach => abi::VICOVER_PHASE_DETACH,
        Phase::Seed => abi::VICOVER_PHASE_SEED,
        Phase::Recover => abi::VICOVER_PHASE_RECOVER,
        Phase::Drain => abi::VICOVER_PHASE_DRAIN,
        Phase::Close => abi::VICOVER_PHASE_CLOSE,
        Phase::Done => abi::VICOVER_PHASE_DONE,
    };
    number as abi::vicover_phase
}

fn outcome_number(outcome: Outcome) -> abi::vicover_outcome {
    let number = match outcome {
        Outcome::Undecided => abi::VICOVER_OUTCOME_UNDECIDED,
        Outcome::Adopted => abi::VICOVER_OUTCOME_ADOPTED,
        Outcome::Untouched => abi::VICOVER_OUTCOME_UNTOUCHED,
        Outcome::Dirty => abi::VICOVER_OUTCOME_DIRTY,
        Outcome::GivenUp(OnCrashLoop::Restart) => abi::VICOVER_OUTCOME_RESTART,
        Outcome::GivenUp(OnCrashLoop::Destroy) => abi::VICOVER_OUTCOME_DESTROY,
        Outcome::GivenUp(OnCrashLoop::Preserve) => abi::VICOVER_OUTCOME_PRESERVE,
    };
    number as abi::vicover_outcome
}

/// Waits for a decision or for the end.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_wait(
    job: abi::vicover_job,
    until: abi::vicover_until,
    timeout_ms: i64,
) -> abi::vicover_status {
    answer(|| {
        let shared = handles::get(job)?;
        let decided = match u32::try_from(until) {
            Ok(abi::VICOVER_UNTIL_DECIDED) => true,
            Ok(abi::VICOVER_UNTIL_DONE) => false,
            _ => {
                return Err(Failure::new(
                    abi::VICOVER_ERR_OPTION,
                    format!("until is {until}; allowed: VICOVER_UNTIL_DECIDED, VICOVER_UNTIL_DONE"),
                ))
            }
        };
        let reached = shared.wait(input::timeout(timeout_ms), |s| {
            s.phase == Phase::Done || (decided && s.outcome != Outcome::Undecided)
        });
        reached.then_some(()).ok_or_else(|| {
            Failure::new(
                abi::VICOVER_ERR_TIMEOUT,
                format!("job {job} is not there after {timeout_ms} ms"),
            )
        })
    })
}

/// Asks a job to stop dumping.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_cancel(job: abi::vicover_job) -> abi::vicover_status {
    answer(|| {
        handles::get(job)?.cancel();
        Ok(())
    })
}

/// Changes a job's disk I/O policy.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_set_io(
    job: abi::vicover_job,
    policy: *const c_char,
) -> abi::vicover_status {
    answer(|| {
        let shared = handles::get(job)?;
        // SAFETY: the caller passes null or a terminated string.
        let policy = unsafe { input::text(policy, "policy")? }
            .ok_or_else(|| Failure::new(abi::VICOVER_ERR_NULL, "policy must not be null"))?;
        shared.set_io(Options::policy(&policy).map_err(Error::from)?);
        Ok(())
    })
}

/// Why a job's dump failed.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_job_error(
    job: abi::vicover_job,
    buffer: *mut c_char,
    size: usize,
) -> abi::vicover_status {
    answer(|| {
        let shared = handles::get(job)?;
        let text = shared.with_failure(|failure| failure.map_or_else(String::new, Error::chain));
        // SAFETY: the caller passes a buffer of `size` bytes.
        unsafe { input::write_text(buffer, size, &text) }
    })
}

/// Path of a job's dump.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_dump_path(
    job: abi::vicover_job,
    buffer: *mut c_char,
    size: usize,
) -> abi::vicover_status {
    answer(|| {
        let path = handles::get(job)?.dump_path().unwrap_or_default();
        // SAFETY: the caller passes a buffer of `size` bytes.
        unsafe { input::write_path(buffer, size, &path) }
    })
}

/// Checks a dump.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_verify(
    path: *const c_char,
    verdict: *mut abi::vicover_verdict,
) -> abi::vicover_status {
    answer(|| {
        // SAFETY: the caller passes null or a terminated string.
        let path = unsafe { input::text(path, "path")? };
        let path =
            path.ok_or_else(|| Failure::new(abi::VICOVER_ERR_NULL, "path must not be null"))?;
        let report = verify(path.as_ref())
            .map_err(|error| Failure::new(abi::VICOVER_ERR_IO, error.chain()))?;
        // SAFETY: the caller passes a struct as the header says.
        unsafe { input::write_struct(verdict, &verdict_of(&report)) }
    })
}

/// Makes a dump that was cut off safe to open.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_mend(
    path: *const c_char,
    cut_off: *mut u64,
) -> abi::vicover_status {
    answer(|| {
        // SAFETY: the caller passes null or a terminated string.
        let path = unsafe { input::text(path, "path")? };
        let path =
            path.ok_or_else(|| Failure::new(abi::VICOVER_ERR_NULL, "path must not be null"))?;
        let pages = mend(path.as_ref())
            .map_err(|error| Failure::new(abi::VICOVER_ERR_IO, error.chain()))?;
        if !cut_off.is_null() {
            // SAFETY: not null, and writable as the header says.
            unsafe { input::write_out(cut_off, "cut_off", pages)? };
        }
        Ok(())
    })
}

fn verdict_of(report: &Report) -> abi::vicover_verdict {
    let (state, why) = match &report.finding {
        Finding::Complete => (abi::VICOVER_DUMP_COMPLETE, ""),
        Finding::Incomplete(why) => (abi::VICOVER_DUMP_INCOMPLETE, why.as_str()),
        Finding::Damaged(what) => (abi::VICOVER_DUMP_DAMAGED, what.as_str()),
    };
    let mut verdict = abi::vicover_verdict {
        struct_size: size_of::<abi::vicover_verdict>(),
        state: state as abi::vicover_dump_state,
        with_manifest: report.with_manifest.into(),
        wanted_pages: report.wanted_pages,
        stored_pages: report.stored_pages,
        zero_pages: report.zero_pages,
        lost_pages: report.lost_pages,
        length: report.length,
        ..Default::default()
    };
    input::put_text(&mut verdict.reason, why);
    verdict
}

/// Forgets a finished job.
///
/// # Safety
/// None is asked for: the header declares every function so.
#[no_mangle]
pub unsafe extern "C" fn vicover_free(job: abi::vicover_job) -> abi::vicover_status {
    answer(|| handles::remove(job))
}
