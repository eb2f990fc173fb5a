//! Making a dump fit: its size is forecast before anything is written. When
//! there is not room enough, the dump level rises step by step, and when even
//! that is not enough, the most useful pages are kept and the rest is not.

use crate::addr::{Gfn, GfnRange, Page, PAGE_SIZE};
use crate::dump::{self, Forecast, Format, Sampler};
use crate::error::Error;
use crate::guest::verdict::DumpLevel;
use crate::host::{Access, CrashedDomain};
use crate::job::Shared;
use crate::joblog::job_log;
use crate::understand::Understanding;
use crate::units::Size;

/// Pages looked at for one forecast: some milliseconds of mapping and
/// compressing, and a standard error of some percent.
const SAMPLE: u64 = 1024;
/// Forecasts of a dump of fewer pages, each with pages of that dump.
const CUTS: u32 = 8;

/// What is left out beside what was asked for, one kind after the other: what
/// nobody used, what is on the disk as well, and last what programs had. Pages
/// of zeroes are no step: they take no space at any level.
const STEPS: [u8; 4] = {
    let free = DumpLevel::ZERO | DumpLevel::FREE;
    let cache = free | DumpLevel::CACHE;
    let private_cache = cache | DumpLevel::PRIVATE_CACHE;
    [free, cache, private_cache, private_cache | DumpLevel::USER]
};

/// Changes what is dumped so that it is forecast to fit into `room` bytes.
pub(crate) fn fit(
    domain: &dyn CrashedDomain,
    known: &mut Understanding,
    format: Format,
    room: u64,
    shared: &Shared,
) -> Result<(), Error> {
    // Without a sample every page counts in full: mostly that is enough to know.
    let most = forecast_of(Sampler::new(format), known)?.likely_most;
    if most <= room {
        job_log!(
            shared.log,
            Info,
            "dump: at most {}, {} free",
            Size(most),
            Size(room)
        );
        return Ok(());
    }
    let mut now = sampled(domain, known, format)?;
    let asked = known.plan.level();
    for step in STEPS {
        if now.likely_most <= room {
            break;
        }
        let before = known.bitmaps.wanted_total();
        known.raise_level(step)?;
        if known.bitmaps.wanted_total() < before {
            now = sampled(domain, known, format)?;
        }
    }
    let level = known.plan.level();
    if level != asked {
        job_log!(
            shared.log,
            Warn,
            "dump: no room for level {} in {}, level raised to {}",
            asked.get(),
            Size(room),
            level.get()
        );
    }
    let useful = known.bitmaps.wanted_total();
    for _ in 0..CUTS {
        if now.likely_most <= room {
            break;
        }
        let wanted = u128::from(known.bitmaps.wanted_total());
        let fewer = wanted * u128::from(room) / u128::from(now.likely_most);
        known.keep_most_useful(fewer as u64)?;
        now = sampled(domain, known, format)?;
    }
    if now.likely_most > room {
        let least = now.tables;
        return Err(Error::DumpStart(dump::Error::NoRoom { least, room }));
    }
    let kept = known.bitmaps.wanted_total();
    if kept < useful {
        job_log!(
            shared.log,
            Warn,
            "dump: no room for level {} in {}, the most useful {kept} of {useful} pages are kept",
            level.get(),
            Size(room)
        );
    }
    job_log!(
        shared.log,
        Info,
        "dump: {} expected, hardly more than {}, {} free",
        Size(now.expected),
        Size(now.likely_most),
        Size(room)
    );
    Ok(())
}

/// The forecast from pages spread evenly over those that are to be dumped.
fn sampled(
    domain: &dyn CrashedDomain,
    known: &Understanding,
    format: Format,
) -> Result<Forecast, Error> {
    let mut sampler = Sampler::new(format).map_err(Error::DumpStart)?;
    let wanted = known.bitmaps.wanted();
    let step = (known.bitmaps.wanted_total() / SAMPLE).max(1);
    // How many pages to pass over before the next is taken.
    let mut pass = step / 2;
    let mut page: Page = [0; PAGE_SIZE];
    for (start, end) in wanted.runs() {
        let length = end.0 - start.0;
        while pass < length {
            let gfn = Gfn(start.0 + pass);
            let one = GfnRange::new(gfn, Gfn(gfn.0 + 1));
            if let Ok(mapping) = domain.map(one, Access::Read) {
                if mapping.copy(0, &mut page) {
                    sampler.add(&page);
                }
            }
            pass += step;
        }
        pass -= length;
    }
    forecast_of(Ok(sampler), known)
}

fn forecast_of(
    sampler: Result<Sampler, dump::Error>,
    known: &Understanding,
) -> Result<Forecast, Error> {
    sampler
        .and_then(|sampler| sampler.forecast(&known.facts, &known.bitmaps))
        .map_err(Error::DumpStart)
}
