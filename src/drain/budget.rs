// SPDX-License-Identifier: LGPL-2.1-or-later
//! Making a dump fit: how large its pages become is looked at before anything is
//! written, and where there is not room for all, the least useful are left out.

use crate::addr::{Gfn, GfnRange, Page, Pfn, PAGE_SIZE};
use crate::dump::{self, DumpSize, Format, Sizer};
use crate::error::Error;
use crate::host::{Access, CrashedDomain};
use crate::job::JobState;
use crate::told::event::DumpEvent;
use crate::understand::Understanding;
use crate::units::Size;

/// Pages looked at at first: a tenth of a second of mapping and compressing. When
/// these do not tell enough, more are.
const FIRST_LOOK: u64 = 4096;
const MORE: u64 = 4;
const LONGEST_LOOK: u64 = 65_536;
/// So many at least, of those that fit, before what they tell is believed.
const LEAST_LOOK: u64 = 64;
const MOST_LOOKS: usize = 5;
/// The part of the room that may stay empty because not every page is looked at.
/// The writer leaves out what does not fit after all.
const UNCERTAIN: u64 = 50;

/// Changes what is dumped so that it fits into `room` bytes.
pub(crate) fn fit(
    domain: &dyn CrashedDomain,
    understanding: &mut Understanding,
    format: Format,
    room: u64,
    job: &JobState,
) -> Result<(), Error> {
    let size = DumpSize::new(format, &understanding.facts, &understanding.bitmaps)
        .map_err(Error::DumpStart)?;
    let wanted = understanding.bitmaps.wanted_total();
    // Mostly it is enough to know how large pages can become.
    let most = size.of(wanted, wanted * PAGE_SIZE as u64);
    if most <= room {
        let (most, room) = (Size(most), Size(room));
        job.log.tell(DumpEvent::Fits { most, room });
        return Ok(());
    }
    let budget = Budget { size, room };
    let mut look = Look::new(domain, understanding, format, job)?;
    let sample = until_certain(wanted, &budget, |reach, step| look.sample(reach, step))?;
    let kept = sample.fitting(&budget);
    if kept == 0 {
        let least = budget
            .size
            .of(1, sample.sizes.first().map_or(0, |&size| size.into()));
        return Err(Error::DumpStart(dump::Error::NoRoom { least, room }));
    }
    let expected = budget.size.of(kept, sample.bytes(kept));
    if kept < wanted {
        understanding.keep_most_useful(kept)?;
        job.log.tell(DumpEvent::LeftOut {
            kept_pages: kept,
            wanted_pages: wanted,
            room: Size(room),
        });
    }
    let (expected, room) = (Size(expected), Size(room));
    job.log.tell(DumpEvent::Expected { expected, room });
    Ok(())
}

/// What a dump may take.
struct Budget {
    size: DumpSize,
    room: u64,
}

/// Sizes of pages: one of every `step` pages, the most useful first.
struct Sample {
    step: u64,
    /// Pages that it stands for.
    reach: u64,
    sizes: Vec<u32>,
    /// Bytes that all pages before each of `sizes` take, by the sample; one more.
    bytes_before: Vec<u64>,
    /// The square of the standard error of that.
    variance_before: Vec<f64>,
}

impl Sample {
    fn new(step: u64, reach: u64, sizes: Vec<u32>) -> Self {
        let (mut bytes, mut variance) = (0, 0.0);
        let (mut bytes_before, mut variance_before) = (vec![0], vec![0.0]);
        let step_error = step as f64 * (step - 1) as f64;
        for (index, &size) in sizes.iter().enumerate() {
            // Neighbours differ as pages between them do: half of the square of
            // their difference estimates the variance there.
            let next = sizes.get(index + 1).or(sizes.get(index.wrapping_sub(1)));
            let difference = f64::from(size) - f64::from(*next.unwrap_or(&size));
            bytes += u64::from(size) * step;
            variance += step_error * difference * difference / 2.0;
            bytes_before.push(bytes);
            variance_before.push(variance);
        }
        Self {
            step,
            reach,
            sizes,
            bytes_before,
            variance_before,
        }
    }

    /// Bytes that the first so many pages take.
    fn bytes(&self, pages: u64) -> u64 {
        let (whole, part) = ((pages / self.step) as usize, pages % self.step);
        let size = self.sizes.get(whole).map_or(0, |&size| u64::from(size));
        self.bytes_before[whole] + size * part
    }

    /// Three standard errors of that.
    fn error(&self, pages: u64) -> u64 {
        let variance = self.variance_before[pages.div_ceil(self.step) as usize];
        (3.0 * variance.sqrt()) as u64
    }

    /// How many pages fit, of those that the sample stands for.
    fn fitting(&self, budget: &Budget) -> u64 {
        let fits = |pages: u64| {
            let error = self.error(pages).min(budget.room / UNCERTAIN);
            budget.size.of(pages, self.bytes(pages) + error) <= budget.room
        };
        let (mut fitting, mut too_many) = (0, self.reach + 1);
        while fitting + 1 < too_many {
            let middle = fitting + (too_many - fitting) / 2;
            match fits(middle) {
                true => fitting = middle,
                false => too_many = middle,
            }
        }
        fitting
    }
}

/// Takes larger samples (of one page of every so many of the most useful ones), of no more
/// pages than may fit, until it is certain enough how many of the `wanted` pages do.
fn until_certain(
    wanted: u64,
    budget: &Budget,
    mut sample: impl FnMut(u64, u64) -> Result<Sample, Error>,
) -> Result<Sample, Error> {
    let (mut reach, mut pages) = (wanted, FIRST_LOOK);
    let mut looks = 0;
    loop {
        let sample = sample(reach, reach.div_ceil(pages).max(1))?;
        looks += 1;
        let kept = sample.fitting(budget);
        let within = kept < reach || reach == wanted;
        let certain =
            kept >= LEAST_LOOK * sample.step && sample.error(kept) <= budget.room / UNCERTAIN;
        if within && (certain || sample.step == 1) || looks == MOST_LOOKS {
            return Ok(sample);
        }
        reach = wanted.min(2 * (kept + sample.step));
        pages = LONGEST_LOOK.min(pages * MORE);
    }
}

/// Looks at pages that are to be dumped.
struct Look<'a> {
    domain: &'a dyn CrashedDomain,
    understanding: &'a Understanding,
    job: &'a JobState,
    sizer: Sizer,
}

impl<'a> Look<'a> {
    fn new(
        domain: &'a dyn CrashedDomain,
        understanding: &'a Understanding,
        format: Format,
        job: &'a JobState,
    ) -> Result<Self, Error> {
        Ok(Self {
            domain,
            understanding,
            job,
            sizer: Sizer::new(format).map_err(Error::DumpStart)?,
        })
    }

    /// The sizes of one page of every `step` of the `reach` most useful ones. Which
    /// one is left to chance: much in memory is regular.
    fn sample(&mut self, reach: u64, step: u64) -> Result<Sample, Error> {
        let wanted = self.understanding.bitmaps.wanted();
        let mut sizes = Vec::with_capacity(reach.div_ceil(step) as usize);
        let mut seen = 0;
        let mut next = chosen(0, step, reach);
        for run in self.understanding.plan.by_usefulness() {
            let (start, end) = (run.start.as_pfn(), run.end.as_pfn());
            let count = wanted.count_range(start, end);
            if seen + count <= next {
                seen += count;
                continue;
            }
            let (mut from, after) = (start, seen + count);
            while let Some(pfn) = wanted.nth_in_range(from, end, next - seen) {
                if self.job.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                sizes.push(self.size_of(pfn));
                (from, seen) = (Pfn(pfn.0 + 1), next + 1);
                next = chosen(sizes.len() as u64, step, reach);
            }
            if next >= reach {
                break;
            }
            seen = after;
        }
        Ok(Sample::new(step, reach, sizes))
    }

    /// Bytes that a page takes; none when it cannot be read.
    fn size_of(&mut self, pfn: Pfn) -> u32 {
        let mut page: Page = [0; PAGE_SIZE];
        let one = GfnRange::new(Gfn(pfn.0), Gfn(pfn.0 + 1));
        match self.domain.map(one, Access::Read) {
            Ok(mapping) if mapping.copy(0, &mut page) => self.sizer.size_of(&page),
            _ => 0,
        }
    }
}

/// The page that is taken of the piece number `index`, of `step` pages each; no page
/// below `reach` when there is none.
fn chosen(index: u64, step: u64, reach: u64) -> u64 {
    let first = index * step;
    if first >= reach {
        return u64::MAX;
    }
    // SplitMix64: the same pages every time.
    let mut mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    first + (mixed ^ mixed >> 31) % step.min(reach - first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{Bitmap, Bitmaps, Codec, Facts};

    /// A budget of so many bytes for pages of a dump whose tables are small.
    fn room_for(data: u64) -> Budget {
        room_of(1000, data)
    }

    /// A budget of so many pages that take so many bytes.
    fn room_of(pages: u64, data: u64) -> Budget {
        let mut all = Bitmap::new(Pfn(1000)).unwrap();
        all.set_range(Pfn(0), Pfn(1000));
        let bitmaps = Bitmaps::new(all.clone(), all).unwrap();
        let format = Format::Kdump(Codec::NONE);
        let size = DumpSize::new(format, &Facts::default(), &bitmaps).unwrap();
        let room = size.of(pages, data);
        Budget { size, room }
    }

    /// What is looked at, reach and step of each look, of pages whose sizes depend on the
    /// look's number and on which sample of it they are.
    fn looks(wanted: u64, budget: &Budget, sizes: fn(usize, u64) -> u32) -> Vec<(u64, u64)> {
        let mut looks = Vec::new();
        until_certain(wanted, budget, |reach, step| {
            let number = looks.len();
            looks.push((reach, step));
            let all = (0..reach.div_ceil(step)).map(|index| sizes(number, index));
            Ok(Sample::new(step, reach, all.collect()))
        })
        .unwrap();
        looks
    }

    #[test]
    fn one_look_is_enough_where_it_is_certain() {
        let wanted = 10 * FIRST_LOOK;
        let all = room_of(wanted, wanted * 100);
        assert_eq!(looks(wanted, &all, |_, _| 100), [(wanted, 10)]);
        // Hardly uncertain: by far less than what may stay empty.
        let half = room_of(wanted / 2, wanted / 2 * 4001);
        let nearly = |_, index| 4000 + (index % 2) as u32;
        assert_eq!(looks(wanted, &half, nearly), [(wanted, 10)]);
    }

    #[test]
    fn where_few_fit_those_are_looked_at_once_more_and_each_of_them() {
        let wanted = 100 * FIRST_LOOK;
        let few = room_of(700, 700 * 4000);
        let kept = Sample::new(1, 1000, vec![4000; 1000]).fitting(&few);
        assert!(kept < LEAST_LOOK * 100);
        let again = (2 * (kept + 100), 1);
        assert_eq!(looks(wanted, &few, |_, _| 4000), [(wanted, 100), again]);
    }

    #[test]
    fn looks_go_further_while_all_they_see_fits_but_not_for_ever() {
        let wanted = 100 * FIRST_LOOK;
        let budget = room_of(wanted, 1 << 20);
        // The first look sees pages that are large, all others none such.
        let seen = looks(
            wanted,
            &budget,
            |look, _| if look == 0 { 1 << 30 } else { 0 },
        );
        let reaches = seen.iter().map(|(reach, _)| *reach);
        assert_eq!(seen.len(), MOST_LOOKS, "{seen:?}");
        assert!(reaches.clone().skip(1).is_sorted(), "{seen:?}");
        assert!(reaches.skip(1).all(|reach| reach < wanted), "{seen:?}");
        assert_eq!((seen[0], seen[1]), ((wanted, 100), (200, 1)));
    }

    #[test]
    fn where_every_page_is_looked_at_nothing_is_uncertain() {
        let sample = Sample::new(1, 4, vec![100, 0, 4096, 7]);
        let bytes = [0, 1, 2, 3, 4].map(|pages| sample.bytes(pages));
        assert_eq!(bytes, [0, 100, 100, 4196, 4203]);
        assert_eq!([0, 2, 4].map(|pages| sample.error(pages)), [0; 3]);
    }

    #[test]
    fn a_page_stands_for_those_beside_it() {
        let sample = Sample::new(10, 25, vec![100, 200, 300]);
        let bytes = [0, 5, 10, 15, 20, 25].map(|pages| sample.bytes(pages));
        assert_eq!(bytes, [0, 500, 1000, 2000, 3000, 4500]);
    }

    #[test]
    fn the_more_neighbours_differ_the_less_certain_their_sum_is() {
        let alike = Sample::new(10, 30, vec![100; 3]);
        assert_eq!(alike.error(30), 0);
        // 10 pages of a piece, of which one is known: 10 * 9 times the variance, which
        // is half of 100 squared. Three times the root of it, of one piece and of two.
        let sample = Sample::new(10, 20, vec![100, 200]);
        let errors = [0, 1, 10, 11, 20].map(|pages| sample.error(pages));
        assert_eq!(errors, [0, 2012, 2012, 2846, 2846]);
    }

    #[test]
    fn as_many_pages_fit_as_there_is_room_for() {
        let whole = Sample::new(1, 1000, vec![4096; 1000]);
        for pages in [0, 1, 2, 500, 999, 1000] {
            let budget = room_for(pages * 4096);
            let fitting = whole.fitting(&budget);
            // Descriptors of pages that are left out make room, too.
            assert!((pages..pages + 8).contains(&fitting), "{pages}: {fitting}");
            assert!(budget.size.of(fitting, fitting * 4096) <= budget.room);
            let next = budget.size.of(fitting + 1, (fitting + 1) * 4096);
            assert!(fitting == 1000 || next > budget.room, "{pages}: {fitting}");
        }
    }

    #[test]
    fn what_is_uncertain_is_kept_free_but_no_more_than_a_part_of_the_room() {
        let sizes = |odd: u32| (0..100).map(move |index| if index % 2 == 0 { 4000 } else { odd });
        let sure = Sample::new(10, 1000, sizes(4000).collect());
        let unsure = Sample::new(10, 1000, sizes(3990).collect());
        let wild = Sample::new(10, 1000, sizes(1).collect());
        let budget = room_for(500 * 4000);
        let bytes = Sample::bytes;
        let with = |pages, data| budget.size.of(pages, data);
        let fitting = sure.fitting(&budget);
        assert!(with(fitting + 1, bytes(&sure, fitting + 1)) > budget.room);
        let fitting = unsure.fitting(&budget);
        let error = unsure.error(fitting);
        assert!(error > 0 && with(fitting, bytes(&unsure, fitting) + error) <= budget.room);
        let next = bytes(&unsure, fitting + 1) + unsure.error(fitting + 1);
        assert!(with(fitting + 1, next) > budget.room);
        let fitting = wild.fitting(&budget);
        let free = budget.room - with(fitting, bytes(&wild, fitting));
        let most = budget.room / UNCERTAIN;
        assert!(wild.error(fitting) > most);
        assert!((most..most + 3 * 4096).contains(&free), "{free} of {most}");
    }

    #[test]
    fn one_page_is_chosen_of_every_piece_and_not_always_the_same_one() {
        let step = 7;
        // The last piece is one page to all of a piece.
        for (whole, last) in (0..20).flat_map(|whole| (1..=step).map(move |last| (whole, last))) {
            let reach = whole * step + last;
            for index in 0..=whole {
                let page = chosen(index, step, reach);
                let first = index * step;
                let end = reach.min(first + step);
                assert!((first..end).contains(&page), "{index} of {reach}: {page}");
            }
            assert_eq!(chosen(whole + 1, step, reach), u64::MAX);
        }
        let chosen = |index| chosen(index, step, 101 * step);
        let places: Vec<u64> = (0..=100).map(|index| chosen(index) % step).collect();
        for place in 0..step {
            assert!(places.contains(&place), "{place}");
        }
    }
}
