//! How large a dump will be, from a sample of its pages.

use super::buffer::State;
use super::codec::Compressor;
use super::elf;
use super::error::Error;
use super::facts::Facts;
use super::format::Format;
use super::kdump;
use super::notes::Notes;
use super::worker::{is_zero, store_compressed};
use crate::addr::{Page, PAGE_SIZE};

use super::bitmap::Bitmaps;

/// Bytes on disk that a dump will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Headers, notes and tables: known exactly.
    pub tables: u64,
    /// With pages like those of the sample.
    pub expected: u64,
    /// Three standard errors of the sample above that, at most what it would be
    /// if no page were zero or got smaller.
    pub likely_most: u64,
}

/// Compresses sample pages as the dump would.
pub struct Sampler {
    format: Format,
    compressor: Compressor,
    pages: u64,
    bytes: f64,
    /// Sum of the squares of the pages' sizes.
    squares: f64,
}

impl Sampler {
    /// # Errors
    /// When the codec has no such level.
    pub fn new(format: Format) -> Result<Self, Error> {
        Ok(Self {
            format,
            compressor: format.codec().compressor()?,
            pages: 0,
            bytes: 0.0,
            squares: 0.0,
        })
    }

    /// Takes one page of the sample, which should be drawn evenly from all
    /// pages to be dumped.
    pub fn add(&mut self, page: &Page) {
        let size = if is_zero(page) {
            0
        } else {
            let mut out = [0; PAGE_SIZE];
            let flag = self.format.codec().flag();
            match store_compressed(&mut self.compressor, flag, &mut out, page) {
                State::Stored { size, .. } => size,
                State::Zero | State::Unreadable => 0,
            }
        };
        let size = f64::from(size);
        self.pages += 1;
        self.bytes += size;
        self.squares += size * size;
    }

    /// The size of a dump of all wanted pages. Without a sample every page
    /// counts in full.
    ///
    /// # Errors
    /// When the format cannot hold such a dump at all.
    pub fn forecast(&self, facts: &Facts, bitmaps: &Bitmaps) -> Result<Forecast, Error> {
        let wanted = bitmaps.wanted_total();
        let notes = Notes::new(facts).bytes.len();
        let tables = match self.format {
            Format::Kdump(_) => {
                let limit = bitmaps.present().limit().0;
                kdump::Layout::new(notes, limit, wanted).pages
            }
            Format::Elf => elf::Layout::new(notes, bitmaps.present())?.notes + notes as u64,
        };
        let whole = PAGE_SIZE as f64;
        let (mean, error) = if self.pages == 0 {
            (whole, 0.0)
        } else {
            let n = self.pages as f64;
            let mean = self.bytes / n;
            let variance = (self.squares / n - mean * mean).max(0.0);
            (mean, (variance / n).sqrt())
        };
        let bytes = |per_page: f64| tables + (per_page.min(whole) * wanted as f64).ceil() as u64;
        Ok(Forecast {
            tables,
            expected: bytes(mean),
            likely_most: bytes(mean + 3.0 * error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::tests::guest::{config, Guest, CHUNK};
    use crate::dump::tests::recorder::Recorder;
    use crate::dump::{Codec, EngineConfig};

    #[test]
    fn a_sample_foretells_the_size_of_the_dump() {
        let guest = Guest {
            frames: 2000,
            seed: 4,
        };
        for codec in [Codec::None, Codec::Zlib { level: 1 }] {
            let format = Format::Kdump(codec);
            let mut sampler = Sampler::new(format).unwrap();
            let wanted = (0..guest.frames).filter(|&pfn| guest.wanted(pfn));
            wanted
                .step_by(7)
                .for_each(|pfn| sampler.add(&guest.page(pfn)));
            let facts = guest.facts();
            let forecast = sampler.forecast(&facts, &guest.bitmaps()).unwrap();
            let sink = Recorder::new(1);
            let config = EngineConfig {
                format,
                ..config(codec)
            };
            let (engine, _completed) = guest.start(sink, config);
            for chunk in guest.chunks(CHUNK) {
                engine.submit(chunk).unwrap();
            }
            let length = engine.finish().unwrap().length;
            assert!(length <= forecast.likely_most, "{length}, {forecast:?}");
            let off = length.abs_diff(forecast.expected);
            assert!(off * 10 < length, "{length}, {forecast:?}");
        }
    }

    #[test]
    fn without_a_sample_nothing_is_assumed() {
        let guest = Guest {
            frames: 2000,
            seed: 4,
        };
        let bitmaps = guest.bitmaps();
        for format in [Format::Kdump(Codec::Zstd { level: 1 }), Format::Elf] {
            let sampler = Sampler::new(format).unwrap();
            let forecast = sampler.forecast(&guest.facts(), &bitmaps).unwrap();
            let pages = bitmaps.wanted_total() * PAGE_SIZE as u64;
            assert_eq!(forecast.expected, forecast.tables + pages);
            assert_eq!(forecast.likely_most, forecast.expected);
        }
    }
}
