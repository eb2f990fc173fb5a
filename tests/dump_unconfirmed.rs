// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps of guests that are not understood: what they say, and who opens them.
//!
//! Those that ask a reader are ignored unless asked for.
#![allow(missing_docs)]

mod guests;
#[path = "support/command.rs"]
mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use guests::kernels::with_32_bits;
use guests::memory::MemoryImage;
use guests::synthetic::{Guest, RELEASE};
use support::run;
use vicover::addr::{Gfn, GfnRange, GuestPhys, PAGE_SHIFT, PAGE_SIZE};
use vicover::drain::Target;
use vicover::guest::arch::x86_64::Processor;
use vicover::guest::doubt::Doubt;
use vicover::guest::kernel::Refusal;
use vicover::guest::locate::LocateError;
use vicover::guest::memory::GuestMemory;
use vicover::host::images::{Image, View};
use vicover::host::memory::{Faults, MemoryHost};
use vicover::host::VcpuState;
use vicover::job::JobState;
use vicover::options::Options;
use vicover::story::recover::dump_only;
use vicover::told::event::{Event, GuestEvent};
use vicover::told::kept::Kept;

/// Memory made by hand as the in-memory host's image.
struct HandMade {
    memory: Arc<MemoryImage>,
    vcpus: Vec<VcpuState>,
}

impl Image for HandMade {
    fn ram(&self) -> &[GfnRange] {
        self.memory.ram()
    }

    fn vcpus(&self) -> &[VcpuState] {
        &self.vcpus
    }

    fn view(&self, frames: GfnRange) -> io::Result<Box<dyn View>> {
        Ok(Box::new(HandMadeView(self.memory.clone(), frames.start)))
    }
}

struct HandMadeView(Arc<MemoryImage>, Gfn);

impl View for HandMadeView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let at = ((self.1 .0 + index as u64) << PAGE_SHIFT) + offset as u64;
        self.0.read(GuestPhys(at), into).is_ok()
    }
}

struct Dump {
    directory: tempfile::TempDir,
    log: Kept,
    /// All of memory, in a file.
    expected: PathBuf,
}

impl Dump {
    fn of(memory: MemoryImage, processor: Processor) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let expected = directory.path().join("expected");
        let mut bytes = vec![0; memory.end().0 as usize * PAGE_SIZE];
        memory.read(GuestPhys(0), &mut bytes).unwrap();
        std::fs::write(&expected, bytes).unwrap();
        let state = VcpuState {
            cr3: processor.cr3,
            cr4: processor.cr4,
            rip: processor.rip.0,
            ..VcpuState::default()
        };
        let image = HandMade {
            memory: Arc::new(memory),
            vcpus: vec![state],
        };
        let host = MemoryHost::new(Arc::new(image), 1, Faults::default());
        let log = Kept::default();
        let shared = JobState::new(log.log("guest"));
        let target = Target {
            options: Options::parse("").unwrap(),
            name: "guest".into(),
            dump_dir: directory.path().into(),
            sink: Mutex::default(),
        };
        dump_only(&host, &target, &|| (), &shared).unwrap();
        Self {
            directory,
            log,
            expected,
        }
    }

    fn path(&self) -> PathBuf {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let is_dump = |path: &PathBuf| path.extension().is_some_and(|end| end == "kdump");
        paths.find(is_dump).expect("a dump")
    }

    /// The header's names (`struct new_utsname` at 12, 65 bytes each).
    fn name(&self, index: usize) -> String {
        let bytes = std::fs::read(self.path()).unwrap();
        let field = &bytes[12 + index * 65..][..65];
        let end = field.iter().position(|&byte| byte == 0).unwrap();
        String::from_utf8(field[..end].to_vec()).unwrap()
    }

    /// Why every page is dumped.
    fn refusal(&self) -> LocateError {
        let events = self.log.events();
        let refused = events.into_iter().find_map(|event| match event {
            Event::Guest(GuestEvent::Doubted {
                doubt: Doubt::NoKernel(error),
            }) => Some(error),
            _ => None,
        });
        refused.unwrap_or_else(|| panic!("{}", self.log))
    }

    fn assert_told(&self, event: GuestEvent) {
        let event = Event::from(event);
        assert!(self.log.has(|told| *told == event), "{}", self.log);
    }

    /// drgn reads every page by physical address; the platform that it names.
    fn read_by_drgn(&self) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/check_dump.py");
        run(Command::new("/usr/bin/python3")
            .args([script.as_os_str(), "drgn".as_ref(), "--raw".as_ref()])
            .args([self.path(), self.expected.clone()]))
    }
}

/// A whole kernel, and a processor with page tables of which nothing is known.
fn not_run() -> Dump {
    let mut guest = Guest::new(0x4000);
    let processor = Processor {
        cr3: guest.new_frame(),
        cr4: 0x6f0,
        ..Processor::default()
    };
    Dump::of(guest.memory, processor)
}

fn of_32_bits() -> Dump {
    let (memory, processor, _) = with_32_bits(0x2000);
    Dump::of(memory, processor)
}

#[test]
fn a_guest_without_a_description_is_not_called_linux() {
    let mut memory = MemoryImage::new();
    assert!(memory.add_ram(GfnRange::new(Gfn(0), Gfn(0x1000))));
    let processor = Processor {
        cr3: 0x1000,
        ..Processor::default()
    };
    let dump = Dump::of(memory, processor);
    assert_eq!(dump.name(0), "(unknown)");
    assert_eq!(dump.name(2), "(unknown)");
    let nothing = LocateError::Nothing {
        pages_probed: 4096,
        whole: true,
    };
    assert_eq!(dump.refusal(), nothing);
    dump.assert_told(GuestEvent::Unconfirmed {
        release: None,
        is_32_bit: false,
    });
}

#[test]
fn what_is_not_confirmed_is_in_the_dump_and_is_told_to_be_that() {
    let dump = not_run();
    assert_eq!(
        (dump.name(0), dump.name(2)),
        ("Linux".into(), RELEASE.into())
    );
    let LocateError::Refused { refused, .. } = dump.refusal() else {
        panic!("{}", dump.log);
    };
    assert_eq!(refused[0].why, Refusal::NotRun);
    dump.assert_told(GuestEvent::Unconfirmed {
        release: Some(RELEASE.into()),
        is_32_bit: false,
    });

    let dump = of_32_bits();
    assert_eq!(dump.name(4), "i686");
    let LocateError::Refused { refused, .. } = dump.refusal() else {
        panic!("{}", dump.log);
    };
    assert_eq!(
        (refused[0].gfn, &refused[0].why),
        (Gfn(0x1fff), &Refusal::Bits32)
    );
    dump.assert_told(GuestEvent::Unconfirmed {
        release: Some("6.1.0-686-pae".into()),
        is_32_bit: true,
    });
}

#[test]
#[ignore = "needs python3-drgn"]
fn drgn_opens_dumps_of_guests_that_are_not_understood() {
    let found = not_run().read_by_drgn();
    assert!(found.contains("X86_64"), "{found}");
    let found = of_32_bits().read_by_drgn();
    assert!(found.contains("I386"), "{found}");
}
