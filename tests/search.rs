// SPDX-License-Identifier: LGPL-2.1-or-later
//! Searching memory for a kernel: who waits for it, and who does not.
#![allow(missing_docs)]

mod guests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use guests::synthetic::{Guest, RELEASE};
use vicover::addr::{GfnRange, GuestPhys, PAGE_SIZE};
use vicover::drain::Target;
use vicover::dump::Sink;
use vicover::guest::doubt::Doubt;
use vicover::guest::locate::LocateError;
use vicover::guest::memory::GuestMemory;
use vicover::host::images::{FileImage, Image, View};
use vicover::host::memory::{Faults, HostEvent, MemoryHost};
use vicover::host::VcpuState;
use vicover::job::{Job, JobState, Phase};
use vicover::options::Options;
use vicover::story::recover::{dump_only, recover};
use vicover::told::event::{self as told, DumpEvent, GuestEvent};
use vicover::told::kept::Kept;

/// What a wait for an event may take before the test has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Pages that a search has looked at when it certainly goes on.
const BEGUN: u64 = 4096;

/// An image in which only a search reads single words of pages, which are counted.
struct Watched {
    image: FileImage,
    vcpus: Vec<VcpuState>,
    probes: Arc<Probes>,
}

#[derive(Default)]
struct Probes {
    number: AtomicU64,
    begun: Mutex<bool>,
    changed: Condvar,
    /// Asked when the search has begun; the search waits until it is true.
    goes_on: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Probes {
    fn count(&self) {
        if self.number.fetch_add(1, Relaxed) != BEGUN {
            return;
        }
        *self.begun.lock().unwrap() = true;
        self.changed.notify_all();
        let since = Instant::now();
        while self.goes_on.as_ref().is_some_and(|goes_on| !goes_on()) {
            assert!(
                since.elapsed() < DEADLINE,
                "nothing that a search waits for"
            );
            std::thread::yield_now();
        }
    }

    fn wait_begun(&self) {
        let begun = self.begun.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(begun, DEADLINE, |begun| !*begun);
        assert!(*waited.unwrap().0, "no search has begun");
    }
}

impl Image for Watched {
    fn ram(&self) -> &[GfnRange] {
        self.image.ram()
    }

    fn vcpus(&self) -> &[VcpuState] {
        &self.vcpus
    }

    fn view(&self, frames: GfnRange) -> io::Result<Box<dyn View>> {
        let view = self.image.view(frames)?;
        Ok(Box::new(WatchedView(view, self.probes.clone())))
    }
}

struct WatchedView(Box<dyn View>, Arc<Probes>);

impl View for WatchedView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        if into.len() < 64 {
            self.1.count();
        }
        self.0.read(index, offset, into)
    }
}

/// A guest without a single byte in it.
fn empty(dir: &Path, bytes: u64, vcpus: Vec<VcpuState>, probes: &Arc<Probes>) -> Watched {
    let path = dir.join("ram");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    Watched {
        image: FileImage::open(&path).unwrap(),
        vcpus,
        probes: probes.clone(),
    }
}

/// A processor whose page tables have nothing in them.
fn lost() -> Vec<VcpuState> {
    vec![VcpuState {
        cr3: 0x1000,
        cr4: 0x6f0,
        ..VcpuState::default()
    }]
}

/// Waits until why every page is dumped is told.
fn wait_doubt(kept: &Kept) -> Doubt {
    let doubted =
        |event: &told::Event| matches!(event, told::Event::Guest(GuestEvent::Doubted { .. }));
    match kept.wait(DEADLINE, doubted) {
        Some(told::Event::Guest(GuestEvent::Doubted { doubt })) => doubt,
        _ => panic!("nothing is doubted:\n{kept}"),
    }
}

/// The search was ended before all of memory was looked at.
fn assert_search_ended(kept: &Kept) {
    let doubt = wait_doubt(kept);
    let ended = matches!(
        &doubt,
        Doubt::NoKernel(LocateError::Nothing { whole: false, .. })
    );
    assert!(ended, "{doubt:?}");
}

fn target(dir: &Path) -> Target {
    Target {
        options: Options::parse("compress=none,threads=1").unwrap(),
        name: "guest".into(),
        dump_dir: dir.into(),
        sink: Mutex::default(),
    }
}

fn start(image: Watched, dir: &Path, kept: &Kept) -> Job {
    start_into(image, dir, None, kept)
}

fn start_into(image: Watched, dir: &Path, sink: Option<Box<dyn Sink>>, kept: &Kept) -> Job {
    let host = MemoryHost::new(Arc::new(image), 1, Faults::default());
    let target = Target {
        sink: Mutex::new(sink),
        ..target(dir)
    };
    Job::start(kept.log("guest"), move |shared| {
        dump_only(&host, &target, &|| (), shared)
    })
    .unwrap()
}

fn cancel(job: Job, within: Duration) {
    job.shared.cancel();
    let since = Instant::now();
    let done = job.shared.wait(Some(DEADLINE), |s| s.phase == Phase::Done);
    let took = since.elapsed();
    assert!(done && took < within, "{took:?} from cancel to the end");
    let why = job
        .shared
        .with_failure(|failure| failure.map(|f| f.chain()));
    assert_eq!(why.as_deref(), Some("cancelled by the caller"));
    job.join();
}

#[test]
fn a_search_of_a_tebibyte_is_over_within_a_second_of_its_cancel() {
    let dir = tempfile::tempdir().unwrap();
    let probes = Arc::new(Probes::default());
    let kept = Kept::default();
    let job = start(
        empty(dir.path(), 1 << 40, Vec::new(), &probes),
        dir.path(),
        &kept,
    );
    probes.wait_begun();
    assert_eq!(job.shared.snapshot().phase, Phase::Understand);
    cancel(job, Duration::from_secs(1));
}

#[test]
fn a_dump_of_a_tebibyte_is_over_soon_after_its_cancel_wherever_it_is() {
    let is_told = |event: &told::Event, begun: bool| match event {
        told::Event::Guest(GuestEvent::Planned { .. }) => !begun,
        told::Event::Dump(DumpEvent::Started { .. }) => begun,
        _ => false,
    };
    // At the plan; when the dump has been begun, and it is looked at how much of it will
    // fit; and when pages have been written.
    for (begun, pages) in [(false, 0), (true, 0), (true, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::default();
        let image = empty(dir.path(), 1 << 40, lost(), &Arc::default());
        let sink = (pages > 0).then(|| Box::new(Endless) as Box<dyn Sink>);
        let job = start_into(image, dir.path(), sink, &kept);
        let waited = kept.wait(DEADLINE, |event| is_told(event, begun));
        assert!(waited.is_some(), "{kept}");
        let since = Instant::now();
        while job.shared.counters.dumped.load(Relaxed) < pages {
            assert!(since.elapsed() < DEADLINE, "nothing is dumped:\n{kept}");
            std::thread::yield_now();
        }
        cancel(job, Duration::from_secs(2));
    }
}

/// A disk with room for everything, so that nothing has to be left out.
struct Endless;

impl Sink for Endless {
    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        Ok(())
    }
    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        unreachable!("it is not complete")
    }
    fn path(&self) -> Option<PathBuf> {
        None
    }
}

#[test]
fn a_search_in_spite_of_registers_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let probes = Arc::new(Probes::default());
    let kept = Kept::default();
    let job = start(
        empty(dir.path(), 1 << 35, lost(), &probes),
        dir.path(),
        &kept,
    );
    assert_search_ended(&kept);
    let unnamed = told::Event::from(GuestEvent::Unconfirmed {
        release: None,
        is_32_bit: false,
    });
    let told = kept.wait(DEADLINE, |event| *event == unnamed);
    assert!(told.is_some(), "{kept}");
    cancel(job, DEADLINE);
}

#[test]
fn recovery_does_not_wait_for_a_search() {
    let dir = tempfile::tempdir().unwrap();
    // The search stands still until the devices are gone, then goes on.
    let host: Arc<Mutex<Option<MemoryHost>>> = Arc::default();
    let watched = host.clone();
    let probes = Arc::new(Probes {
        goes_on: Some(Box::new(move || {
            let host = watched.lock().unwrap();
            let events = host.as_ref().map(MemoryHost::events).unwrap_or_default();
            events.contains(&HostEvent::Detached)
        })),
        ..Probes::default()
    });
    let bytes = 1 << 28;
    // Without registers: nothing else ends it.
    let image = empty(dir.path(), bytes, Vec::new(), &probes);
    let crashed = MemoryHost::new(Arc::new(image), 1, Faults::default());
    *host.lock().unwrap() = Some(crashed.clone());
    let kept = Kept::default();
    let shared = JobState::new(kept.log("guest"));
    let toolstack = Box::new(crashed.clone());
    recover(&crashed, toolstack, None, &target(dir.path()), &shared).unwrap();
    assert_search_ended(&kept);
    let pages = bytes / PAGE_SIZE as u64;
    let probed = probes.number.load(Relaxed);
    assert!(probed < pages, "{probed} of {pages} pages");
    assert!(crashed.events().contains(&HostEvent::Unpaused));
    assert_eq!(crashed.violations(), Vec::<String>::new());
}

#[test]
fn registers_beside_an_image_lead_to_its_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest::new(0x4000);
    let mut ram = vec![0; 0x4000 * PAGE_SIZE];
    guest.read(GuestPhys(0), &mut ram).unwrap();
    fs::write(dir.path().join("ram"), &ram).unwrap();
    fs::write(dir.path().join("ranges"), format!("0 0 {}\n", ram.len())).unwrap();
    let general = ["RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP"];
    let numbered = ["R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"];
    let mut text = String::from("CPU#0\n");
    for name in general.iter().chain(&numbered) {
        text += &format!("{name}=0 ");
    }
    text += "\nRIP=ffffffff81000000 RFL=2\n";
    for name in ["ES", "CS", "SS", "DS", "FS", "GS"] {
        text += &format!("{name} =0010 0\n");
    }
    text += &format!("CR3={:x} CR4=000006f0\n", guest.root());
    fs::write(dir.path().join("registers"), text).unwrap();

    let kept = Kept::default();
    let image = FileImage::open(dir.path()).unwrap();
    let host = MemoryHost::new(Arc::new(image), 3, Faults::default());
    dump_only(
        &host,
        &target(dir.path()),
        &|| (),
        &JobState::new(kept.log("guest")),
    )
    .unwrap();
    let told = |right: &dyn Fn(&GuestEvent) -> bool| {
        let right = |event: &told::Event| matches!(event, told::Event::Guest(seen) if right(seen));
        assert!(kept.has(right), "{kept}");
    };
    told(&|seen| matches!(seen, GuestEvent::Kernel { release } if release == RELEASE));
    told(&|seen| {
        let expected = (false, 514);
        matches!(seen, GuestEvent::Vmcoreinfo { by_search, pages_probed, .. }
            if (*by_search, *pages_probed) == expected)
    });
    // The image's own.
    told(&|seen| matches!(seen, GuestEvent::Seen { vcpus: 1, .. }));
}
