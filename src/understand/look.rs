// SPDX-License-Identifier: LGPL-2.1-or-later
//! Looking at a guest: its registers, its kernel, and what to dump of it.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chunks::in_order;
use super::facts::facts;
use super::known::Understanding;
use super::mapped::MappedMemory;
use crate::addr::{Gfn, GfnRange};
use crate::dump::{Bitmap, Bitmaps, Changes, Zeroed};
use crate::error::{joined, panic_text, Error};
use crate::guest::arch::x86_64::Processor;
use crate::guest::doubt::Doubt;
use crate::guest::kernel::Kernel;
use crate::guest::limits::Limits;
use crate::guest::locate::{locate, Located, Way};
use crate::guest::log::{self, Log};
use crate::guest::oops::{self, Oops};
use crate::guest::paravirtual;
use crate::guest::plan::{self, Plan};
use crate::guest::verdict::{DumpLevel, Verdict};
use crate::guest::vmcoreinfo::VmcoreInfo;
use crate::host::{CrashedDomain, VcpuState};
use crate::job::JobState;
use crate::options::Options;
use crate::os::sync::thread;
use crate::os::thread::{start_in, Signals};
use crate::told::event::{ControlEvent, GuestEvent, Instead};
use crate::units::Size;

/// Reads the registers of `domain`: what can only be had while nothing is
/// changed.
pub(crate) fn read_registers(
    domain: &dyn CrashedDomain,
    job: &JobState,
) -> Result<Vec<VcpuState>, Error> {
    let vcpus = domain.vcpus().map_err(Error::host("reading registers"))?;
    let total: u64 = domain.ram().iter().map(GfnRange::len).sum();
    job.counters.total.store(total, Relaxed);
    job.log.tell(GuestEvent::Seen {
        vcpus: vcpus.len(),
        memory: Size::of_pages(total),
    });
    Ok(vcpus)
}

/// How long memory is searched for a kernel that the processors' registers do not
/// lead to. It is unlikely to be found then, and the guest is down or paused.
pub(super) const SEARCH: Duration = Duration::from_millis(250);

/// Whether somebody waits for what is found out, who would rather do without what
/// only a search of memory can find.
#[derive(Default)]
pub(crate) struct Awaited(AtomicBool);

/// Somebody waits from when this is dropped on.
pub(crate) struct AwaitedFromHere<'a>(&'a Awaited);

impl Drop for AwaitedFromHere<'_> {
    fn drop(&mut self) {
        self.0 .0.store(true, Relaxed);
    }
}

impl Awaited {
    /// Somebody will wait as soon as what this returns is dropped, also by a panic.
    pub(crate) fn when_dropped(&self) -> AwaitedFromHere<'_> {
        AwaitedFromHere(self)
    }

    fn is(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Reads the memory of `domain` and decides what to dump. Whatever goes wrong,
/// the answer is to dump more.
pub(crate) fn understand(
    domain: &dyn CrashedDomain,
    vcpus: &[VcpuState],
    options: &Options,
    awaited: &Awaited,
    job: &JobState,
) -> Result<Understanding, Error> {
    look(domain, vcpus, options, awaited, job).decide(domain, vcpus, job)
}

/// What was seen of a guest.
pub(crate) struct Seen {
    kernel: Option<Kernel>,
    plan: Plan,
    /// In what the dump will not be what the guest's memory is.
    changes: Changes,
}

/// Reads the memory of `domain`. After a cancel, what it returns is of no use but to
/// give all memory back.
pub(crate) fn look(
    domain: &dyn CrashedDomain,
    vcpus: &[VcpuState],
    options: &Options,
    awaited: &Awaited,
    job: &JobState,
) -> Seen {
    let asked = DumpLevel::new(options.dump_level).unwrap_or(DumpLevel::ALL_PAGES);
    // The windows of this view are unmapped before anything is released.
    let memory = MappedMemory::new(domain);
    let is_paravirtual = domain.is_paravirtual();
    let looking = AssertUnwindSafe(|| {
        let (kernel, plan) = make_plan(&memory, vcpus, asked, awaited, job);
        let zeroed = match is_paravirtual {
            true => hidden_from_crash(&memory, kernel.as_ref(), job),
            false => None,
        };
        (kernel, plan, zeroed)
    });
    let (kernel, plan, zeroed) = catch_unwind(looking).unwrap_or_else(|panic| {
        let doubt = Doubt::Failed(panic_text(&*panic));
        (None, Plan::everything(&memory, asked, doubt), None)
    });
    Seen {
        kernel,
        plan,
        changes: Changes {
            translated_tables: is_paravirtual,
            zeroed: zeroed.into_iter().collect(),
        },
    }
}

/// What must be zero in the dump of a PV guest, whose page tables look there like any
/// other's: else crash does not believe it.
fn hidden_from_crash(
    memory: &MappedMemory<'_>,
    kernel: Option<&Kernel>,
    job: &JobState,
) -> Option<Zeroed> {
    let mark = kernel.map(|kernel| paravirtual::mark(memory, kernel))?;
    let not_for_crash = mark.as_ref().err().map(ToString::to_string);
    job.log.tell(GuestEvent::TablesTranslated { not_for_crash });
    let at = mark.ok()?;
    Some(Zeroed {
        pfn: at.gfn().as_pfn().0,
        offset: at.page_offset(),
        bytes: paravirtual::MARK_BYTES,
    })
}

impl Seen {
    /// Decides what to dump.
    pub(crate) fn decide(
        self,
        domain: &dyn CrashedDomain,
        vcpus: &[VcpuState],
        job: &JobState,
    ) -> Result<Understanding, Error> {
        let Self {
            kernel,
            plan,
            changes,
        } = self;
        let ram = domain.ram();
        let end = ram.last().map_or(Gfn(0), |range| range.end);
        let mut present = Bitmap::new(end.as_pfn()).map_err(Error::DumpStart)?;
        for range in ram {
            present.set_range(range.start.as_pfn(), range.end.as_pfn());
        }
        let wanted = match job.is_dump_wanted() {
            true => wanted(&present, &plan),
            false => Bitmap::new(end.as_pfn()).map_err(Error::DumpStart)?,
        };
        let bitmaps = Bitmaps::new(present, wanted).map_err(Error::DumpStart)?;
        tell_plan(&plan, &bitmaps, job);
        Ok(Understanding {
            facts: facts(kernel.as_ref(), vcpus, &plan, changes),
            bitmaps: Arc::new(bitmaps),
            chunks: in_order(ram, &plan),
            plan,
            before: None,
        })
    }
}

/// Of the pages that are there, those to be dumped.
fn wanted(present: &Bitmap, plan: &Plan) -> Bitmap {
    let mut wanted = present.clone();
    for range in plan.excluded() {
        wanted.clear_range(range.start.as_pfn(), range.end.as_pfn());
    }
    wanted
}

/// As [`understand`], in a thread of its own while `meanwhile` is done; where there
/// cannot be one, afterwards.
pub(crate) fn understand_beside<T>(
    domain: &dyn CrashedDomain,
    vcpus: &[VcpuState],
    options: &Options,
    job: &JobState,
    meanwhile: impl FnOnce() -> T,
) -> (Result<Understanding, Error>, T) {
    let awaited = Awaited::default();
    let look = || understand(domain, vcpus, options, &awaited, job);
    thread::scope(|scope| {
        let looking = start_in(scope, "vicover-look", Signals::ToOthers, look);
        let waits = awaited.when_dropped();
        let done = meanwhile();
        drop(waits);
        let known = match looking {
            Ok(looking) => joined(looking).and_then(|known| known),
            Err(error) => {
                job.log.tell(ControlEvent::NoThread {
                    instead: Instead::ReadAfterwards,
                    error: error.to_string(),
                });
                look()
            }
        };
        (known, done)
    })
}

/// Finds the guest's kernel and gives every page its verdict. Any doubt makes
/// the plan keep more.
fn make_plan(
    memory: &MappedMemory<'_>,
    vcpus: &[VcpuState],
    asked: DumpLevel,
    awaited: &Awaited,
    job: &JobState,
) -> (Option<Kernel>, Plan) {
    let processors = processors(vcpus);
    let since = Instant::now();
    let limits = Limits {
        give_up: &|| job.is_cancelled(),
        // Where no register is known, nothing but a search can find the kernel.
        end_search: &|| awaited.is() || !processors.is_empty() && since.elapsed() > SEARCH,
    };
    let located = match locate(memory, &processors, &limits) {
        Ok(located) => located,
        Err(error) => {
            let doubt = Doubt::NoKernel(error);
            return (None, Plan::everything(memory, asked, doubt));
        }
    };
    tell_kernel(&located, job);
    tell_death(memory, &located.kernel, job);
    let plan = plan::build(memory, &located, &processors, asked, &limits);
    (Some(located.kernel), plan)
}

/// What leads from the processors to the kernel. An image without registers has
/// processors of zeroes.
pub(super) fn processors(vcpus: &[VcpuState]) -> Vec<Processor> {
    let all = vcpus.iter().map(Processor::from);
    all.filter(|processor| processor.cr3 != 0).collect()
}

fn tell_kernel(located: &Located, job: &JobState) {
    let release = located.kernel.name.release.clone();
    job.log.tell(GuestEvent::Kernel { release });
    job.log.tell(GuestEvent::Vmcoreinfo {
        gfns: located.copies.iter().map(|copy| copy.gfn.0).collect(),
        by_search: located.by == Way::Search,
        pages_probed: located.pages_probed,
    });
}

/// Bytes of the guest's log that are kept, at most: Linux has 128 KiB to 1 MiB, unless it
/// is started with another `log_buf_len`.
const MOST_LOG_BYTES: usize = 1 << 20;

/// Says what the guest died of, before anything else is found out about it, and then all
/// that its log has.
fn tell_death(memory: &MappedMemory<'_>, kernel: &Kernel, job: &JobState) {
    let Ok(log) = Log::find(memory, kernel) else {
        return;
    };
    let records = log.tail(memory, MOST_LOG_BYTES);
    if let Some(oops) = Oops::in_log(oops::at_end(&records)) {
        let (signature, oops) = (oops.signature(), Box::new(oops));
        job.log.tell(GuestEvent::Died { oops, signature });
    }
    let text = log::as_dmesg(&records);
    job.log.tell(GuestEvent::LogRead {
        lines: text.lines().count(),
        text: text.into(),
    });
}

fn tell_plan(plan: &Plan, bitmaps: &Bitmaps, job: &JobState) {
    let log = &job.log;
    for doubt in plan.doubts() {
        let doubt = doubt.clone();
        log.tell(GuestEvent::Doubted { doubt });
    }
    for doubt in plan.doubts() {
        if let Doubt::NoKernel(error) = doubt {
            let info = error.unconfirmed();
            log.tell(GuestEvent::Unconfirmed {
                release: info.map(|info| info.release().to_owned()),
                is_32_bit: info.is_some_and(VmcoreInfo::is_32_bit),
            });
        }
    }
    for what in plan.noticed() {
        let what = what.clone();
        log.tell(GuestEvent::Noticed { what });
    }
    log.tell(GuestEvent::Planned {
        pages: plan.pages(),
        wanted_pages: bitmaps.wanted_total(),
        dump_level: plan.level().get(),
    });
    let counts = Verdict::ALL
        .into_iter()
        .map(|verdict| (verdict, plan.count_of(verdict)));
    log.tell(GuestEvent::Verdicts {
        pages: counts.filter(|(_, pages)| *pages > 0).collect(),
    });
}
