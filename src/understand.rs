//! Understanding a crashed guest from its registers and memory, without
//! changing anything: what it says about itself, and which pages to dump.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::addr::{Gfn, GfnRange, GuestVirt};
use crate::dump::{Bitmap, Bitmaps, Facts, Utsname, VcpuRegisters};
use crate::error::{joined, panic_text, Error};
use crate::guest::doubt::Doubt;
use crate::guest::identity::Processor;
use crate::guest::kernel::Kernel;
use crate::guest::locate::{locate, Located, Way};
use crate::guest::plan::{self, Limits, Plan};
use crate::guest::verdict::{DumpLevel, Verdict};
use crate::guest::vmcoreinfo::VmcoreInfo;
use crate::host::{CrashedDomain, VcpuState};
use crate::job::Shared;
use crate::mapped::MappedMemory;
use crate::options::Options;
use crate::os::thread::{start_in, Signals};
use crate::told::log::job_log;
use crate::units::Size;

/// Frames of a chunk: 2 MiB. A mapping cannot be released in part, so this is
/// also what is given back at once.
const CHUNK_FRAMES: u64 = 512;

/// What is known about the guest before anything is changed.
pub(crate) struct Understanding {
    /// What the dump says beside memory.
    pub facts: Facts,
    /// Which pages there are and which to dump.
    pub bitmaps: Arc<Bitmaps>,
    /// All of RAM in pieces, in the order in which it is dumped.
    pub chunks: Vec<GfnRange>,
    /// The verdict on every page.
    pub(crate) plan: Plan,
}

impl Understanding {
    /// Pages of `range` that are to be dumped.
    pub(crate) fn wanted_in(&self, range: GfnRange) -> u64 {
        self.bitmaps
            .wanted()
            .count_range(range.start.as_pfn(), range.end.as_pfn())
    }

    /// Dumps no more than so many pages, the most useful ones. The dump's level says
    /// what kinds of pages are not all in it.
    pub(crate) fn keep_most_useful(&mut self, pages: u64) -> Result<(), Error> {
        let before = self.bitmaps.wanted();
        let mut wanted = Bitmap::new(before.limit()).map_err(Error::DumpStart)?;
        let mut level = self.plan.level();
        let mut left = usize::try_from(pages).unwrap_or(usize::MAX);
        for range in self.plan.by_usefulness() {
            let (start, end) = (range.start.as_pfn(), range.end.as_pfn());
            let kept = before.iter_range(start, end).take(left);
            let count = kept.map(|pfn| wanted.set(pfn)).count();
            left -= count;
            if before.count_range(start, end) > count as u64 {
                level = level.with(self.plan.verdict(range.start).part().unwrap_or(0));
            }
        }
        let present = self.bitmaps.present().clone();
        self.facts.dump_level = u32::from(level.get());
        self.bitmaps = Arc::new(Bitmaps::new(present, wanted).map_err(Error::DumpStart)?);
        Ok(())
    }
}

/// Reads the registers of `domain`: what can only be had while nothing is
/// changed.
pub(crate) fn read_registers(
    domain: &dyn CrashedDomain,
    shared: &Shared,
) -> Result<Vec<VcpuState>, Error> {
    let vcpus = domain.vcpus().map_err(Error::host("reading registers"))?;
    let total: u64 = domain.ram().iter().map(GfnRange::len).sum();
    shared.counters.total.store(total, Relaxed);
    job_log!(
        shared.log,
        Info,
        "guest: {} vCPU{}, {} of memory",
        vcpus.len(),
        if vcpus.len() == 1 { "" } else { "s" },
        Size::of_pages(total)
    );
    Ok(vcpus)
}

/// How long memory is searched for a kernel that the processors' registers do not
/// lead to. It is unlikely to be found then, and the guest is down or paused.
const SEARCH: Duration = Duration::from_millis(250);

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
    shared: &Shared,
) -> Result<Understanding, Error> {
    look(domain, vcpus, options, awaited, shared).decide(domain, vcpus, shared)
}

/// What was seen of a guest.
pub(crate) struct Seen {
    kernel: Option<Kernel>,
    plan: Plan,
}

/// Reads the memory of `domain`. After a cancel, what it returns is of no use but to
/// give all memory back.
pub(crate) fn look(
    domain: &dyn CrashedDomain,
    vcpus: &[VcpuState],
    options: &Options,
    awaited: &Awaited,
    shared: &Shared,
) -> Seen {
    let asked = DumpLevel::new(options.dump_level).unwrap_or(DumpLevel::ALL_PAGES);
    // The windows of this view are unmapped before anything is released.
    let memory = MappedMemory::new(domain);
    let looking = AssertUnwindSafe(|| make_plan(&memory, vcpus, asked, awaited, shared));
    let (kernel, plan) = catch_unwind(looking).unwrap_or_else(|panic| {
        let doubt = Doubt::Failed(panic_text(&*panic));
        (None, Plan::everything(&memory, asked, doubt))
    });
    Seen { kernel, plan }
}

impl Seen {
    /// Decides what to dump.
    pub(crate) fn decide(
        self,
        domain: &dyn CrashedDomain,
        vcpus: &[VcpuState],
        shared: &Shared,
    ) -> Result<Understanding, Error> {
        let Self { kernel, plan } = self;
        let ram = domain.ram();
        let end = ram.last().map_or(Gfn(0), |range| range.end);
        let mut present = Bitmap::new(end.as_pfn()).map_err(Error::DumpStart)?;
        for range in ram {
            present.set_range(range.start.as_pfn(), range.end.as_pfn());
        }
        let mut wanted = present.clone();
        for range in plan.excluded() {
            wanted.clear_range(range.start.as_pfn(), range.end.as_pfn());
        }
        let bitmaps = Bitmaps::new(present, wanted).map_err(Error::DumpStart)?;
        tell_plan(&plan, &bitmaps, shared);
        Ok(Understanding {
            facts: facts(kernel.as_ref(), vcpus, &plan),
            bitmaps: Arc::new(bitmaps),
            chunks: in_order(ram, &plan),
            plan,
        })
    }
}

/// As [`understand`], in a thread of its own while `meanwhile` is done; where there
/// cannot be one, afterwards.
pub(crate) fn understand_beside<T>(
    domain: &dyn CrashedDomain,
    vcpus: &[VcpuState],
    options: &Options,
    shared: &Shared,
    meanwhile: impl FnOnce() -> T,
) -> (Result<Understanding, Error>, T) {
    let awaited = Awaited::default();
    let look = || understand(domain, vcpus, options, &awaited, shared);
    std::thread::scope(|scope| {
        let looking = start_in(scope, "vicover-look", Signals::ToOthers, look);
        let waits = awaited.when_dropped();
        let done = meanwhile();
        drop(waits);
        let known = match looking {
            Ok(looking) => joined(looking).and_then(|known| known),
            Err(error) => {
                job_log!(
                    shared.log,
                    Warn,
                    "cannot start a thread, memory is read after the devices have gone: {error}"
                );
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
    shared: &Shared,
) -> (Option<Kernel>, Plan) {
    // An image without registers has processors of zeroes.
    let processors: Vec<Processor> = vcpus
        .iter()
        .map(Processor::from)
        .filter(|processor| processor.cr3 != 0)
        .collect();
    let since = Instant::now();
    let limits = Limits {
        give_up: &|| shared.is_cancelled(),
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
    tell_kernel(&located, shared);
    let plan = plan::build(memory, &located, &processors, asked, &limits);
    (Some(located.kernel), plan)
}

fn tell_kernel(located: &Located, shared: &Shared) {
    let copies = located.copies.iter();
    let places: Vec<String> = copies.map(|copy| copy.gfn.to_string()).collect();
    let by = match located.by {
        Way::Processor => "the processors",
        Way::Search => "a search",
    };
    let release = &located.kernel.name.release;
    job_log!(shared.log, Info, "guest runs Linux {release}");
    job_log!(
        shared.log,
        Debug,
        "VMCOREINFO at gfn {}, found by {by} in {} pages",
        places.join(", "),
        located.pages_probed
    );
}

fn tell_plan(plan: &Plan, bitmaps: &Bitmaps, shared: &Shared) {
    for doubt in plan.doubts() {
        job_log!(shared.log, Warn, "{doubt}");
        if let Doubt::NoKernel(error) = doubt {
            tell_unconfirmed(error.unconfirmed(), shared);
        }
    }
    for noticed in plan.noticed() {
        job_log!(shared.log, Info, "{noticed}");
    }
    job_log!(
        shared.log,
        Info,
        "plan: {} pages, {} to dump, level {}",
        plan.pages(),
        bitmaps.wanted_total(),
        plan.level().get()
    );
    let verdicts: Vec<String> = Verdict::ALL
        .into_iter()
        .filter(|verdict| plan.count_of(*verdict) > 0)
        .map(|verdict| format!("{} {}", verdict.name(), plan.count_of(verdict)))
        .collect();
    job_log!(shared.log, Debug, "verdicts: {}", verdicts.join(", "));
}

/// What a dump of a guest that is not understood is good for.
fn tell_unconfirmed(info: Option<&VmcoreInfo>, shared: &Shared) {
    let help = match info {
        // As tried with drgn 0.0.22 and makedumpfile 1.7.2.
        Some(info) if info.is_32_bit() => "drgn reads it by physical address, others refuse it",
        _ => "readers may need help to open it",
    };
    match info {
        Some(info) => job_log!(
            shared.log,
            Warn,
            "the dump repeats what Linux {} says of itself, which is not confirmed: {help}",
            info.release()
        ),
        None => job_log!(
            shared.log,
            Warn,
            "the dump does not say which kernel it is of: {help}"
        ),
    }
}

/// Places of memory that chunks are taken from in turn.
const PLACES: usize = 16;

/// All chunks of RAM: those with the pages to dump first, in the plan's order; then
/// the others with pages to dump, from all over memory, since much of it is alike: a
/// disk would have nothing to do while pages of zeroes are found, and then too much;
/// then the rest.
fn in_order(ram: &[GfnRange], plan: &Plan) -> Vec<GfnRange> {
    let all: Vec<GfnRange> = ram.iter().flat_map(|range| chunks_of(*range)).collect();
    let chunk_of = |gfn: Gfn| all.partition_point(|chunk| chunk.end <= gfn);
    let chunks_with = |range: &GfnRange| match range.is_empty() {
        true => 0..0,
        false => chunk_of(range.start)..chunk_of(Gfn(range.end.0 - 1)) + 1,
    };
    let mut taken = vec![false; all.len()];
    let mut not_taken = |index: &usize| !std::mem::replace(&mut taken[*index], true);

    let first = plan.first_parts().iter().flat_map(|(_, ranges)| ranges);
    let mut order: Vec<usize> = first.flat_map(chunks_with).filter(&mut not_taken).collect();
    let others: Vec<usize> = plan
        .kept()
        .flat_map(|range| chunks_with(&range))
        .filter(&mut not_taken)
        .collect();
    order.extend(in_turn(&others, PLACES));
    order.extend((0..all.len()).filter(not_taken));
    order.into_iter().map(|index| all[index]).collect()
}

/// The same, one from each of so many equal parts in turn.
fn in_turn(items: &[usize], parts: usize) -> impl Iterator<Item = usize> + '_ {
    let length = items.len().div_ceil(parts).max(1);
    (0..length).flat_map(move |step| {
        let parts = items.chunks(length);
        parts.filter_map(move |part| part.get(step).copied())
    })
}

impl From<&VcpuState> for Processor {
    fn from(state: &VcpuState) -> Self {
        Self {
            cr3: state.cr3,
            cr4: state.cr4,
            rip: GuestVirt(state.rip),
            rsp: GuestVirt(state.rsp),
            gs_base: GuestVirt(state.gs_base),
        }
    }
}

/// Cuts a range at multiples of the chunk size.
fn chunks_of(range: GfnRange) -> impl Iterator<Item = GfnRange> {
    let first = range.start.0 / CHUNK_FRAMES;
    let last = range.end.0.div_ceil(CHUNK_FRAMES);
    (first..last).map(move |chunk| {
        let start = (chunk * CHUNK_FRAMES).max(range.start.0);
        let end = (chunk * CHUNK_FRAMES + CHUNK_FRAMES).min(range.end.0);
        GfnRange::new(Gfn(start), Gfn(end))
    })
}

fn facts(kernel: Option<&Kernel>, vcpus: &[VcpuState], plan: &Plan) -> Facts {
    let timestamp_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let unconfirmed = plan.doubts().iter().find_map(|doubt| match doubt {
        Doubt::NoKernel(error) => error.unconfirmed(),
        _ => None,
    });
    let info = kernel.map(|kernel| &kernel.info).or(unconfirmed);
    let utsname = match (kernel, unconfirmed) {
        (Some(kernel), _) => known_name(kernel),
        (None, Some(info)) => claimed_name(info),
        (None, None) => Utsname::default(),
    };
    Facts {
        vmcoreinfo: info.map_or_else(Vec::new, |info| info.text().to_vec()),
        utsname,
        phys_base: kernel.map_or(0, |kernel| kernel.phys_base),
        vcpus: vcpus.iter().map(VcpuRegisters::from).collect(),
        timestamp_s,
        dump_level: u32::from(plan.level().get()),
    }
}

fn known_name(kernel: &Kernel) -> Utsname {
    Utsname {
        sysname: kernel.name.sysname.clone(),
        nodename: kernel.name.nodename.clone(),
        release: kernel.name.release.clone(),
        version: kernel.name.version.clone(),
        machine: kernel.name.machine.clone(),
        domainname: kernel.name.domainname.clone(),
    }
}

/// What a description says that is in the dump, although it is not confirmed.
fn claimed_name(info: &VmcoreInfo) -> Utsname {
    Utsname {
        sysname: "Linux".into(),
        release: info.release().into(),
        machine: if info.is_32_bit() { "i686" } else { "x86_64" }.into(),
        ..Utsname::default()
    }
}

impl From<&VcpuState> for VcpuRegisters {
    fn from(state: &VcpuState) -> Self {
        let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi] =
            state.general;
        let [cs, ss, ds, es, fs, gs] = state.selectors;
        Self {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            // Not in a system call, as far as a dump's reader is concerned.
            orig_rax: u64::MAX,
            rip: state.rip,
            cs,
            eflags: state.rflags,
            rsp: state.rsp,
            ss,
            fs_base: state.fs_base,
            gs_base: state.gs_base,
            ds,
            es,
            fs,
            gs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_in_turn_is_taken_once_and_from_everywhere() {
        for count in [0, 1, 5, 16, 17, 100] {
            let items: Vec<usize> = (0..count).collect();
            let mut order: Vec<usize> = in_turn(&items, 4).collect();
            if count == 100 {
                assert_eq!(order[..5], [0, 25, 50, 75, 1]);
            }
            order.sort_unstable();
            assert_eq!(order, items);
        }
    }

    #[test]
    fn chunks_cover_a_range_exactly_once() {
        let range = GfnRange::new(Gfn(100), Gfn(1500));
        let chunks: Vec<GfnRange> = chunks_of(range).collect();
        assert_eq!(chunks.first().unwrap().start, range.start);
        assert_eq!(chunks.last().unwrap().end, range.end);
        assert!(chunks.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(chunks.len(), 3);
    }
}
