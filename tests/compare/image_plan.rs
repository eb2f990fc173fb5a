// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the library makes of an image, for tests/compare/run and for people.
//!
//! ```text
//! image-plan show IMAGE [LEVEL]                what the plan says
//! image-plan elf IMAGE FILE                    all memory as an ELF vmcore
//! image-plan compare IMAGE LEVEL KDUMP         makedumpfile's selection and ours, as JSON
//! image-plan dump IMAGE LEVEL DIRECTORY        a dump as the library writes it; prints its path
//! image-plan selected NAME LEVEL OURS THEIRS   what two dumps of a guest hold, as JSON
//! ```

#[path = "../guests/mod.rs"]
mod guests;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use guests::image::Image;
use guests::kdump::SelectedPages;
use serde_json::json;
use vicover::addr::{Gfn, GfnRange, GuestPhys, Page, Pfn, PAGE_SIZE};
use vicover::dump::{
    Bitmap, Bitmaps, Chunk, Engine, EngineConfig, Facts, FileSink, Pages, Unreadable, Utsname,
    VcpuRegisters,
};
use vicover::guest::limits::Limits;
use vicover::guest::locate::{locate, Located};
use vicover::guest::log::Log;
use vicover::guest::memory::GuestMemory;
use vicover::guest::plan::{build, Plan};
use vicover::guest::verdict::{DumpLevel, Verdict};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let level = |text: &str| {
        let number = text.parse().ok().and_then(DumpLevel::new);
        number.unwrap_or_else(|| panic!("{text} is no dump level (0 to 31)"))
    };
    match arguments[..] {
        ["show", image] => show(&Image::open(Path::new(image))?, DumpLevel::DEFAULT),
        ["show", image, number] => show(&Image::open(Path::new(image))?, level(number)),
        ["elf", image, file] => elf(&Image::open(Path::new(image))?, Path::new(file))?,
        ["compare", image, number, kdump] => {
            let image = Image::open(Path::new(image))?;
            compare(&image, level(number), Path::new(kdump))?;
        }
        ["dump", image, number, dir] => {
            let image = Image::open(Path::new(image))?;
            dump(&Arc::new(image), level(number), Path::new(dir));
        }
        ["selected", name, number, ours, theirs] => {
            selected(name, level(number), Path::new(ours), Path::new(theirs))?;
        }
        _ => panic!("usage: image-plan show|elf|compare|dump|selected ..."),
    }
    Ok(())
}

fn find(image: &Image) -> Located {
    locate(image, &image.processors, &Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn plan(image: &Image, located: &Located, level: DumpLevel) -> Plan {
    build(image, located, &image.processors, level, &Limits::default())
}

fn show(image: &Image, level: DumpLevel) {
    let start = Instant::now();
    let located = find(image);
    println!("kernel           {}", located.kernel.info.release());
    println!("copies           {:?}", located.copies);
    println!("pages probed     {}", located.pages_probed);
    println!("time to find     {:?}", start.elapsed());
    let start = Instant::now();
    let plan = plan(image, &located, level);
    println!("time to plan     {:?}", start.elapsed());
    println!("plan's memory    {} bytes", plan.bytes());
    println!(
        "level            {} of {}",
        plan.level().get(),
        plan.asked().get()
    );
    for doubt in plan.doubts() {
        println!("doubt            {doubt}");
    }
    println!("oddities         {:?}", plan.oddities());
    println!("guest's free     {:?}", plan.guest_free_pages());
    println!("pages            {}", plan.pages());
    println!("excluded         {}", plan.excluded_pages());
    for verdict in Verdict::ALL {
        println!("  {:<14} {}", verdict.name(), plan.count_of(verdict));
    }
    for (part, ranges) in plan.first_parts() {
        let pages: u64 = ranges.iter().map(GfnRange::len).sum();
        println!("first: {part:?}, {pages} pages in {} runs", ranges.len());
    }
    let log = Log::find(image, &located.kernel).unwrap_or_else(|error| panic!("{error}"));
    for record in log.tail(image, 600) {
        println!("log: [{:.6}] {}", record.time_ns as f64 / 1e9, record.text);
    }
}

/// makedumpfile knows a tail by a member that Linux 7.1 renamed (commit
/// d50569612c29); releases before that took no notice of the new name and left
/// out pages that matter. The old name beside the new one helps them.
fn note_text(located: &Located) -> Vec<u8> {
    let info = &located.kernel.info;
    let mut text = info.text().to_vec();
    if let (Some(offset), None) = (
        info.offset("page.compound_info"),
        info.offset("page.compound_head"),
    ) {
        text.extend(format!("OFFSET(page.compound_head)={offset}\n").bytes());
    }
    text
}

fn elf(image: &Image, file: &Path) -> io::Result<()> {
    let located = find(image);
    let direct_map = located.kernel.direct_map.expect("the direct mapping");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    let ranges = image.ram();
    let note = guests::elf::note(b"VMCOREINFO", 0, &note_text(&located));
    out.write_all(&guests::elf::start(ranges, direct_map, &note))?;
    let mut chunk = vec![0; 256 * PAGE_SIZE];
    for range in ranges {
        let mut next = range.start;
        while next < range.end {
            let number = (range.end.0 - next.0).min(256);
            let part = &mut chunk[..number as usize * PAGE_SIZE];
            image.read(address(next), part).expect("RAM");
            out.write_all(part)?;
            next = Gfn(next.0 + number);
        }
    }
    out.flush()
}

fn address(gfn: Gfn) -> GuestPhys {
    gfn.as_pfn().address().expect("a small frame number")
}

fn compare(image: &Image, level: DumpLevel, kdump: &Path) -> io::Result<()> {
    let theirs = SelectedPages::read(kdump, level.excludes_zero())?;
    let located = find(image);
    let plan = plan(image, &located, level);
    let (mut both, mut only_we, mut only_they) = (0u64, 0u64, 0u64);
    let mut kept_because = std::collections::BTreeMap::<&str, u64>::new();
    let mut wrong = Vec::new();
    let mut page = [0; PAGE_SIZE];
    for gfn in image.ram().iter().flat_map(GfnRange::iter) {
        let mut ours = plan.is_excluded(gfn);
        if !ours && level.excludes_zero() {
            image.read(address(gfn), &mut page).expect("RAM");
            ours = page.iter().all(|&byte| byte == 0);
        }
        match (ours, !theirs.holds(gfn.as_pfn())) {
            (true, true) => both += 1,
            (true, false) => {
                only_we += 1;
                if wrong.len() < 20 {
                    wrong.push(format!("{gfn} {}", plan.verdict(gfn)));
                }
            }
            (false, true) => {
                only_they += 1;
                *kept_because.entry(plan.verdict(gfn).name()).or_default() += 1;
            }
            (false, false) => {}
        }
    }
    let row = json!({
        "kernel": image.kernel,
        "level": level.get(),
        "level_used": plan.level().get(),
        "pages": plan.pages(),
        "both_exclude": both,
        "only_we_exclude": only_we,
        "only_they_exclude": only_they,
        "kept_because": kept_because,
        "wrongly_excluded": wrong,
    });
    println!("{row}");
    let reasons: Vec<String> = kept_because
        .iter()
        .map(|(verdict, pages)| format!("{verdict} {pages}"))
        .collect();
    let excluded = [both, only_we, only_they];
    print_for_people(image, level, &plan, excluded, &reasons.join(", "));
    // The promise: nothing that makedumpfile would keep is lost, and hardly
    // anything that it leaves out is kept.
    let agree = only_we == 0 && only_they * 200 < (both + only_they).max(1);
    if !agree {
        eprintln!("selections differ: {row}");
        std::process::exit(1);
    }
    Ok(())
}

/// Compares what our dump of a guest and makedumpfile's hold, of the same level.
fn selected(name: &str, level: DumpLevel, ours: &Path, theirs: &Path) -> io::Result<()> {
    let [ours, theirs] =
        [ours, theirs].map(|dump| SelectedPages::read(dump, level.excludes_zero()));
    let (ours, theirs) = (ours?, theirs?);
    let frames = ours.frames().max(theirs.frames());
    let count = |which: fn(bool, bool) -> bool| {
        let held = |pfn: &u64| which(ours.holds(Pfn(*pfn)), theirs.holds(Pfn(*pfn)));
        (0..frames).filter(held).count() as u64
    };
    let both = count(|ours, theirs| ours && theirs);
    let only_we = count(|ours, theirs| !ours && theirs);
    let only_they = count(|ours, theirs| ours && !theirs);
    let row = json!({
        "guest": name,
        "level": level.get(),
        "both_hold": both,
        "only_we_leave_out": only_we,
        "only_they_leave_out": only_they,
    });
    println!("{row}");
    eprintln!(
        "{name:<21} {:>5} {both:>9} {only_we:>8} {only_they:>9}",
        level.get()
    );
    if only_we > 0 || only_they * 200 >= frames {
        eprintln!("selections differ: {row}");
        std::process::exit(1);
    }
    Ok(())
}

/// The row as a line; `excluded` is what both leave out, only we, and only they.
fn print_for_people(
    image: &Image,
    level: DumpLevel,
    plan: &Plan,
    excluded: [u64; 3],
    kept_because: &str,
) {
    let [both, only_we, only_they] = excluded;
    let line = format!(
        "{:<21} {:>5} {:>8} {both:>8} {only_we:>7} {only_they:>9}  {kept_because}",
        image.kernel,
        level.get(),
        plan.pages(),
    );
    eprintln!("{}", line.trim_end());
}

/// Some of the image's pages, for the dump writer.
struct Part {
    image: Arc<Image>,
    first: Gfn,
}

impl Pages for Part {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let at = address(Gfn(self.first.0 + index as u64));
        self.image.read(at, into).map_err(|_| Unreadable)
    }
}

fn dump(image: &Arc<Image>, level: DumpLevel, dir: &Path) {
    const CHUNK: u64 = 512;
    let located = find(image);
    let plan = plan(image, &located, level);
    let end = image.end().as_pfn();
    let mut present = Bitmap::new(end).unwrap();
    let mut wanted = present.clone();
    for range in image.ram() {
        present.set_range(range.start.as_pfn(), range.end.as_pfn());
        wanted.set_range(range.start.as_pfn(), range.end.as_pfn());
    }
    for range in plan.excluded() {
        wanted.clear_range(range.start.as_pfn(), range.end.as_pfn());
    }
    let kernel = &located.kernel;
    let facts = Facts {
        vmcoreinfo: kernel.info.text().to_vec(),
        utsname: Utsname {
            sysname: kernel.name.sysname.clone(),
            nodename: kernel.name.nodename.clone(),
            release: kernel.name.release.clone(),
            version: kernel.name.version.clone(),
            machine: kernel.name.machine.clone(),
            domainname: kernel.name.domainname.clone(),
        },
        phys_base: kernel.phys_base,
        vcpus: image.registers.iter().map(VcpuRegisters::from).collect(),
        timestamp_s: 1_700_000_000,
        dump_level: u32::from(plan.level().get()),
        changes: Default::default(),
    };
    let bitmaps = Bitmaps::new(present, wanted).expect("wanted pages are present");
    let config = EngineConfig::default();
    let sink = FileSink::create(dir, "image", facts.timestamp_s, config.format).expect("a file");
    let (engine, completed) =
        Engine::start(Box::new(sink), &facts, Arc::new(bitmaps), config).expect("a dump");
    drop(completed);
    for range in image.ram() {
        for first in (range.start.0..range.end.0).step_by(CHUNK as usize) {
            let chunk = Chunk {
                first: Gfn(first).as_pfn(),
                count: CHUNK.min(range.end.0 - first) as usize,
                pages: Part {
                    image: Arc::clone(image),
                    first: Gfn(first),
                },
            };
            engine.submit(chunk).expect("the chunk is taken");
        }
    }
    let path = engine.finish().expect("a whole dump").path;
    println!("{}", path.expect("a file").display());
}
