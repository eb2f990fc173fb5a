// SPDX-License-Identifier: LGPL-2.1-or-later
//! A token bucket: what may be written by now at a steady rate.

use std::time::Duration;

use crate::addr::PAGE_SIZE;

/// How smooth it is: what adds up while nobody writes is at most this long's
/// worth, so another user of the disk never waits much longer for his turn.
pub const SMOOTH: Duration = Duration::from_millis(10);

const NANOS_PER_S: u128 = 1_000_000_000;

/// Grants bytes at a rate. In any span of time it grants no more than the rate
/// times the span, and [`Bucket::burst`] once.
#[derive(Clone, Debug)]
pub struct Bucket {
    bytes_per_s: u64,
    /// What must be granted at once, however slow it is.
    piece: u64,
    /// What may be granted now, in bytes times 10^9: exact, so that nothing is
    /// lost to rounding however often it is asked.
    credit: u128,
    /// When that was worked out.
    at: Duration,
}

impl Bucket {
    /// Starts full at the time `now`. A rate of zero counts as one byte a second.
    pub fn new(bytes_per_s: u64, now: Duration) -> Self {
        let mut bucket = Self {
            bytes_per_s: bytes_per_s.max(1),
            piece: 0,
            credit: 0,
            at: now,
        };
        bucket.credit = bucket.full();
        bucket
    }

    /// The most that is granted at once, in bytes: [`SMOOTH`]'s worth in whole
    /// pages, at least one, because disks take no less, and at least what
    /// [`Bucket::change`] asked for.
    pub fn burst(&self) -> u64 {
        let page = PAGE_SIZE as u128;
        let smooth = u128::from(self.bytes_per_s) * SMOOTH.as_nanos() / NANOS_PER_S;
        // A hundredth of a 64-bit number fits in one.
        ((smooth / page * page).max(page) as u64).max(self.piece)
    }

    fn full(&self) -> u128 {
        u128::from(self.burst()) * NANOS_PER_S
    }

    /// Goes on at another rate from the time `now`, with a burst of `piece` bytes
    /// at least. What was earned so far stays, up to the new [`Bucket::burst`].
    pub fn change(&mut self, bytes_per_s: u64, piece: u64, now: Duration) {
        self.earn(now);
        self.bytes_per_s = bytes_per_s.max(1);
        self.piece = piece;
        self.credit = self.credit.min(self.full());
    }

    fn earn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_nanos();
        let earned = passed.saturating_mul(u128::from(self.bytes_per_s));
        self.credit = self.credit.saturating_add(earned).min(self.full());
        self.at = self.at.max(now);
    }

    /// Grants at the time `now` all of `wanted` bytes, or whole pages of them
    /// when that is more than [`Bucket::burst`]. Refused, it says how long it
    /// takes until the same request is granted.
    ///
    /// # Errors
    /// That time.
    pub fn take(&mut self, now: Duration, wanted: u64) -> Result<u64, Duration> {
        self.earn(now);
        let part = wanted.min(self.burst());
        let price = u128::from(part) * NANOS_PER_S;
        match self.credit.checked_sub(price) {
            Some(rest) => {
                self.credit = rest;
                Ok(part)
            }
            None => {
                let nanos = (price - self.credit).div_ceil(u128::from(self.bytes_per_s));
                Err(Duration::from_nanos(
                    u64::try_from(nanos).unwrap_or(u64::MAX),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    /// Grants as (time, bytes) to a writer that always wants `wanted` bytes and
    /// comes back `late` after it was told to.
    fn grants(rate: u64, wanted: u64, late: &[Duration]) -> (Bucket, Vec<(Duration, u64)>) {
        let mut now = Duration::ZERO;
        let mut bucket = Bucket::new(rate, now);
        let mut grants = Vec::new();
        for late in late {
            match bucket.take(now, wanted) {
                Ok(bytes) => grants.push((now, bytes)),
                Err(wait) => now += wait,
            }
            now += *late;
        }
        (bucket, grants)
    }

    #[test]
    fn a_steady_writer_gets_the_rate_in_small_pieces() {
        let (bucket, grants) = grants(80 * MIB, MIB, &[Duration::ZERO; 1000]);
        let piece = bucket.burst();
        assert!(piece <= 80 * MIB / 100, "{piece} bytes are more than 10 ms");
        assert!(grants.iter().all(|(_, bytes)| *bytes == piece));
        let (end, last) = *grants.last().unwrap();
        let total: u64 = grants.iter().map(|(_, bytes)| bytes).sum();
        let rate = (total - last) as f64 / end.as_secs_f64();
        assert!((rate / (80 * MIB) as f64 - 1.0).abs() < 0.01, "{rate}");
    }

    #[test]
    fn a_wait_is_long_enough_and_not_longer() {
        let mut bucket = Bucket::new(4096, Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO, 4096), Ok(4096));
        assert_eq!(
            bucket.take(Duration::ZERO, 4096),
            Err(Duration::from_secs(1))
        );
        let early = Duration::from_millis(999);
        assert_eq!(bucket.take(early, 4096), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(Duration::from_secs(1), 4096), Ok(4096));
    }

    #[test]
    fn small_writes_are_granted_whole_and_large_ones_in_pages() {
        let mut bucket = Bucket::new(100 * MIB, Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO, 17), Ok(17));
        let mut bucket = Bucket::new(100 * MIB, Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO, MIB + 17), Ok(MIB));
        assert_eq!(bucket.burst() % PAGE_SIZE as u64, 0);
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let mut bucket = Bucket::new(4096, Duration::from_secs(5));
        assert_eq!(bucket.take(Duration::from_secs(5), 4096), Ok(4096));
        assert!(bucket.take(Duration::from_secs(1), 4096).is_err());
        assert!(bucket.take(Duration::from_secs(5), 4096).is_err());
    }

    #[test]
    fn another_rate_keeps_what_was_earned_and_gives_nothing_extra() {
        let mut bucket = Bucket::new(100 * MIB, Duration::ZERO);
        let burst = bucket.burst();
        assert_eq!(bucket.take(Duration::ZERO, burst), Ok(burst));
        bucket.change(200 * MIB, 0, Duration::ZERO);
        assert!(bucket.take(Duration::ZERO, 1).is_err());
        bucket.change(100 * MIB, 0, Duration::from_millis(5));
        let half = Duration::from_millis(5);
        assert_eq!(bucket.take(half, MIB), Ok(MIB));
        bucket.change(MIB, 0, Duration::from_millis(20));
        let slow = bucket.burst();
        assert_eq!(bucket.take(Duration::from_millis(20), MIB), Ok(slow));
        assert!(bucket.take(Duration::from_millis(20), 1).is_err());
    }

    #[test]
    fn a_slow_bucket_saves_up_for_a_piece() {
        let mut bucket = Bucket::new(MIB, Duration::ZERO);
        bucket.change(MIB, MIB / 2, Duration::ZERO);
        assert_eq!(bucket.burst(), MIB / 2);
        assert!(bucket.take(Duration::from_millis(400), MIB / 2).is_err());
        assert_eq!(
            bucket.take(Duration::from_millis(500), MIB / 2),
            Ok(MIB / 2)
        );
    }

    proptest! {
        /// The promise, for every window that begins at a grant: others hold
        /// no more than the one that begins at their first grant.
        #[test]
        fn no_window_holds_more_than_rate_and_burst(
            rate in 1024u64..1 << 40,
            wanted in 1u64..8 << 20,
            late in prop::collection::vec(0u64..50_000_000, 1..200),
        ) {
            let late: Vec<_> = late.into_iter().map(Duration::from_nanos).collect();
            let (bucket, grants) = grants(rate, wanted, &late);
            for (first, (begin, _)) in grants.iter().enumerate() {
                let mut sum = 0u128;
                for (at, bytes) in &grants[first..] {
                    sum += u128::from(*bytes);
                    let span = (*at - *begin).as_nanos();
                    let most = u128::from(rate) * span / NANOS_PER_S + u128::from(bucket.burst());
                    prop_assert!(sum <= most + 1, "{sum} bytes in {span} ns, allowed {most}");
                }
            }
        }

        /// The same when the rate changes all the time: in no second is more
        /// granted than the rates of its parts and the largest burst in it.
        #[test]
        fn no_second_holds_more_than_its_rates_and_a_burst(
            orders in prop::collection::vec(
                (1024u64..1 << 36, 0u64..1 << 20, 0u64..300_000_000), 1..40),
            wanted in 4096u64..4 << 20,
        ) {
            let mut bucket = Bucket::new(orders[0].0, Duration::ZERO);
            let mut now = Duration::ZERO;
            // Each stretch of one rate: begin, rate, burst; and each grant.
            let (mut stretches, mut grants) = (Vec::new(), Vec::new());
            for (rate, piece, nanos) in orders {
                bucket.change(rate, piece, now);
                let end = now + Duration::from_nanos(nanos);
                stretches.push((now, end, rate, bucket.burst()));
                for _ in 0..50 {
                    match bucket.take(now, wanted) {
                        Ok(bytes) => grants.push((now, bytes)),
                        Err(wait) if now + wait <= end => now += wait,
                        Err(_) => break,
                    }
                }
                now = end;
            }
            for (first, (begin, _)) in grants.iter().enumerate() {
                let mut sum = 0u128;
                let in_second = |at: &Duration| *at <= *begin + Duration::from_secs(1);
                for (at, bytes) in grants[first..].iter().filter(|(at, _)| in_second(at)) {
                    sum += u128::from(*bytes);
                    let within = stretches.iter().filter(|(from, to, ..)| from <= at && to >= begin);
                    let (mut earned, mut burst) = (0, 0);
                    for (from, to, rate, most) in within {
                        let part = (*to).min(*at).saturating_sub((*from).max(*begin));
                        earned += u128::from(*rate) * part.as_nanos();
                        burst = burst.max(u128::from(*most));
                    }
                    let allowed = earned / NANOS_PER_S + burst + 1;
                    prop_assert!(sum <= allowed, "{sum} bytes from {begin:?} to {at:?}, allowed {allowed}");
                }
            }
        }

        /// Whoever waits as long as he was told is served.
        #[test]
        fn a_wait_is_never_in_vain(rate in 1024u64..1 << 40, wanted in 1u64..8 << 20) {
            let mut now = Duration::ZERO;
            let mut bucket = Bucket::new(rate, now);
            for _ in 0..20 {
                if let Err(wait) = bucket.take(now, wanted) {
                    now += wait;
                    prop_assert!(bucket.take(now, wanted).is_ok());
                }
            }
        }
    }
}
