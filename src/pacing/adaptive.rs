// SPDX-License-Identifier: LGPL-2.1-or-later
//! The policy that tunes itself.
//!
//! It watches how long recovery waits for its disks because of the dump. Where
//! that is a small part of recovery's time, the dump goes faster; where it is
//! more, slower. What recovery would wait without the dump is measured, not
//! assumed: whenever recovery's requests change, and every few seconds, the dump
//! all but rests for a moment, unless recovery is short of memory. When recovery
//! does not use its disks, the dump has them; when recovery is on its way to run
//! out of memory, waiting for the disk is the lesser harm, and the dump has it,
//! too.
//!
//! It does not stall: no limit is ever under the floor, [`LEAST_FLOOR`] or
//! [`FLOOR_SHARE`] of the disk's speed, whichever is more. It does not oscillate,
//! whatever is seen while recovery is not stopped: the dump is set wholly free no
//! more often than every [`QUIET`], changes its mind about memory no more often
//! than every [`MIND`], and begins to rest for a measurement no more often than
//! every [`PROBE_SOON`]; between these the rate changes by a factor from [`FALL`] to
//! [`RISE`] a look. Under a load that stays the same, no five seconds bring less
//! than half of the mean, nor more than the mean and a quarter of the disk's speed.
//!
//! [`LEAST_FLOOR`]: super::speed::LEAST_FLOOR

use std::time::Duration;

use super::sample::{MemoryState, Sample, WriteLimits, WriterTotals};
use super::speed::{is_active, limit, Speed, FLOOR_SHARE, PIECE};

/// The part of its time that recovery may lose to the dump. Half of a tenth: so
/// much less than what anybody notices that errors of measurement do not matter.
const HARM: f64 = 0.05;
/// How much the rate rises in a step without any harm. From the floor to the
/// whole disk it takes 15 steps, less than a second.
pub const RISE: f64 = 1.3;
/// How much it falls in a step at most. Faster than it rises, because recovery
/// pays for a rate that is too high.
pub const FALL: f64 = 0.5;

/// A latency is the mean of so many requests at least, which took so long
/// together, because the kernel counts whole milliseconds, ...
const ENOUGH: u64 = 8;
const ENOUGH_WAIT: Duration = Duration::from_millis(10);
/// ... or of those in this time.
const LONG_ENOUGH: Duration = Duration::from_millis(200);
/// What took less than the kernel counts took so many seconds: half of it.
const LEAST_WAIT: f64 = 0.0005;
/// Recovery that asks for nothing in this time is idle: a request takes far less.
pub const QUIET: Duration = Duration::from_millis(100);

/// Up to this part of its speed the dump does not count as a load on the disk.
const LIGHT: f64 = 2.0 * FLOOR_SHARE;
/// The unloaded latency is measured again after this long, ...
pub const PROBE_SOON: Duration = Duration::from_secs(1);
/// ... and less and less often when it stays as it was.
const PROBE_LATE: Duration = Duration::from_secs(8);
/// By how much it may differ and be as it was.
const SAME: f64 = 0.25;

/// Before it was seen what the dump does to recovery's requests: at full speed
/// it makes them take twice as long.
const USUAL_DRAG: f64 = 1.0;
/// By how much the case for the dump's full speed must be better or worse than
/// the one against it for a change of mind.
const CLEAR: f64 = 0.1;
/// A change of mind holds for so long, whatever is seen: the loads that matter
/// last longer, and the next opinion is one on what the last has changed.
pub const MIND: Duration = Duration::from_secs(1);
/// How fast recovery takes memory is a mean over about so many seconds.
const TAKING_MEMORY_S: f64 = 2.0;
/// A dump that writes less than this part of what it may has nothing to write.
const SUPPLIED: f64 = 0.8;

/// What the dump may do now.
#[derive(Clone, Debug, Default)]
pub struct Adaptive {
    last: Option<Sample>,
    /// Where the requests begin of which the latency is being taken.
    window: Option<Sample>,
    speed: Speed,
    /// The limit while recovery uses its disks and has memory.
    rate: f64,
    /// When recovery was last seen to use its disks.
    active_at: Option<Duration>,
    /// Recovery's latency without the dump, in seconds, and when it was taken.
    unloaded: Option<(f64, Duration)>,
    probing: bool,
    probe_after: Duration,
    /// How many times longer recovery waits at the dump's full speed, less one.
    drag: Option<f64>,
    /// The part of the disk's speed at which the dump has something to write.
    reach: Option<f64>,
    /// The limit that held until this look.
    limit: Option<u64>,
    /// The dump is to free memory, whatever recovery waits.
    urgent: bool,
    /// When that last changed.
    minded_at: Option<Duration>,
    taken: Taken,
}

/// What is known of how recovery takes memory, and of what the dump gives.
#[derive(Clone, Debug, Default)]
struct Taken {
    /// When recovery was first seen.
    first: Option<(MemoryState, WriterTotals)>,
    /// When it was seen last.
    last: Option<(MemoryState, Duration)>,
    /// Bytes that recovery touches in a second.
    rate: f64,
}

impl Taken {
    fn note(&mut self, memory: MemoryState, sample: &Sample) {
        self.first.get_or_insert((memory, sample.dump));
        let Some((last, at)) = self.last.replace((memory, sample.at)) else {
            return;
        };
        let passed = sample.at.saturating_sub(at).as_secs_f64();
        // While it stands still it shows nothing.
        if passed > 0.0 && !sample.stopped {
            let rate = memory.touched.saturating_sub(last.touched) as f64 / passed;
            self.rate += (rate - self.rate) * passed / (passed + TAKING_MEMORY_S);
        }
    }

    /// Bytes that recovery has touched since it was first seen.
    fn touched(&self, memory: MemoryState) -> f64 {
        let first = self.first.map_or(memory, |(first, _)| first);
        memory.touched.saturating_sub(first.touched) as f64
    }

    /// Bytes of memory that a byte of the dump gives: one at least, and more where
    /// it is compressed.
    fn freed_by_byte(&self, memory: MemoryState, dump: WriterTotals) -> f64 {
        let Some((first, written)) = self.first else {
            return 1.0;
        };
        let freed = first.missing.saturating_sub(memory.missing) as f64;
        let written = dump.bytes.saturating_sub(written.bytes) as f64;
        (freed / written.max(1.0)).max(1.0)
    }
}

/// What was seen of recovery's requests in a window.
struct Seen {
    latency: f64,
    /// The part of the time with a request on its way.
    busy: f64,
    /// The dump's part of what it can write.
    load: f64,
}

impl Adaptive {
    pub(super) fn limits(&mut self, sample: &Sample) -> WriteLimits {
        self.speed.note(sample.dump);
        let last = self.last.replace(*sample).unwrap_or(*sample);
        if is_active(&last, sample) {
            self.active_at = Some(sample.at);
        }
        let idle = self
            .active_at
            .is_none_or(|at| sample.at.saturating_sub(at) >= QUIET);
        if let Some(memory) = sample.memory {
            self.taken.note(memory, sample);
        }
        if idle || sample.stopped {
            self.window = None;
            self.limit = None;
            return WriteLimits::NONE;
        }
        if let Some(seen) = self.seen(sample) {
            self.learn(&seen, sample.at);
        }
        self.weigh(sample);
        let rate = match (self.probing, self.urgent) {
            (_, true) => None,
            (true, false) => limit(self.speed.floor()),
            (false, false) => limit(self.rate.max(self.speed.floor())),
        };
        self.limit = rate;
        WriteLimits {
            limit: rate,
            piece: Some(self.piece()),
            yields: !self.urgent,
        }
    }

    /// A write that takes as long as a request of recovery's own: where requests
    /// are slow because the disk has to move, smaller writes would only make it
    /// move more often; where they are quick, larger ones would keep them waiting.
    fn piece(&self) -> u64 {
        let bytes = match (self.speed.best(), self.unloaded) {
            (Some(speed), Some((latency, _))) => speed * latency,
            _ => 0.0,
        };
        (bytes as u64).clamp(PIECE.0, PIECE.1)
    }

    /// Closes the window when enough is in it.
    fn seen(&mut self, sample: &Sample) -> Option<Seen> {
        let now = sample.disk?;
        let window = *self.window.get_or_insert(*sample);
        let before = window.disk.unwrap_or_default();
        let passed = sample.at.saturating_sub(window.at);
        let requests = now.requests.saturating_sub(before.requests);
        let wait = now.wait.saturating_sub(before.wait);
        let enough = requests >= ENOUGH && wait >= ENOUGH_WAIT;
        if passed.is_zero() || !enough && passed < LONG_ENOUGH {
            return None;
        }
        self.window = Some(*sample);
        let seconds = passed.as_secs_f64();
        let (latency, busy) = match requests {
            // What is on its way takes at least that long.
            0 if now.in_flight > 0 => (seconds, 1.0),
            0 => return None,
            _ => {
                let wait = wait.as_secs_f64().max(LEAST_WAIT);
                let busy = now.busy.saturating_sub(before.busy).as_secs_f64();
                // The kernel counts busy time in ticks, of which a short request
                // takes a whole one; together requests take no less.
                (wait / requests as f64, busy.min(wait) / seconds)
            }
        };
        let written = sample.dump.bytes.saturating_sub(window.dump.bytes) as f64;
        Some(Seen {
            latency,
            busy: busy.min(1.0),
            load: written / seconds / self.speed.best().unwrap_or(f64::INFINITY),
        })
    }

    fn learn(&mut self, seen: &Seen, at: Duration) {
        if seen.load <= LIGHT {
            let latency = match self.unloaded {
                Some((old, _)) if !self.probing => (old + seen.latency) / 2.0,
                Some((old, _)) if (seen.latency / old - 1.0).abs() < SAME => {
                    self.probe_after = (self.probe_after * 2).min(PROBE_LATE);
                    (old + seen.latency) / 2.0
                }
                _ => {
                    self.probe_after = PROBE_SOON;
                    seen.latency
                }
            };
            self.unloaded = Some((latency, at));
            self.probing = false;
        }
        let Some((unloaded, since)) = self.unloaded else {
            self.probing = true;
            return;
        };
        // Not while recovery needs memory: then its latency does not matter.
        if at.saturating_sub(since) >= self.probe_after && !self.urgent {
            self.probing = true;
        }
        if seen.latency < unloaded {
            self.unloaded = Some((seen.latency, since));
        }
        let harm = seen.busy * (1.0 - unloaded / seen.latency).max(0.0);
        if seen.load > LIGHT && harm < 1.0 {
            let drag = harm / (1.0 - harm) / seen.load.min(1.0);
            self.drag = Some((self.drag.unwrap_or(drag) + drag) / 2.0);
        }
        self.note_reach(seen.load);
        let step = 1.0 + (RISE - 1.0) * (HARM - harm) / HARM;
        let most = 2.0 * self.speed.best().unwrap_or(0.0);
        let floor = self.speed.floor();
        self.rate = (self.rate * step.clamp(FALL, RISE)).clamp(floor, most.max(floor));
    }

    /// What the dump can write when nothing holds it back.
    fn note_reach(&mut self, load: f64) {
        let allowed = self.limit.map_or(f64::INFINITY, |limit| {
            limit as f64 / self.speed.best().unwrap_or(f64::INFINITY)
        });
        if load <= 0.0 || self.probing {
            return;
        }
        let reach = self.reach.unwrap_or(1.0);
        self.reach = match load < SUPPLIED * allowed.min(1.0) {
            true => Some((reach + load) / 2.0),
            false => Some(reach.max(load).min(1.0)),
        };
    }

    /// Decides whether memory is worth more to recovery than its disk.
    ///
    /// A second of the dump at full speed saves recovery a second of standing still
    /// later, if it comes to need the memory. It costs now what it makes recovery
    /// wait. How likely the need is, nobody knows; a guest that has touched so much
    /// is taken to be as likely to touch as much again as not (Lindy's law: the
    /// chance to touch `left` more is `touched / (touched + left)`).
    ///
    /// Nothing is urgent as long as the dump could still write as much as is then
    /// needed before recovery has touched what is left: the same second costs the
    /// same later, and more is known by then.
    fn weigh(&mut self, sample: &Sample) {
        let Some(memory) = sample.memory else { return };
        let touched = self.taken.touched(memory);
        let left = memory.left as f64;
        let chance = match memory.missing {
            0 => 0.0,
            _ => touched / (touched + left).max(1.0),
        };
        let reach = self.reach.unwrap_or(1.0);
        let drag = self.drag.unwrap_or(USUAL_DRAG) * reach;
        let cost = drag / (1.0 + drag);
        let freed = self.taken.freed_by_byte(memory, sample.dump)
            * reach
            * self.speed.best().unwrap_or(0.0);
        let needed = touched.min(memory.missing as f64);
        // Is `left / rate` shorter than `needed / freed`?
        let soon = left * freed < needed * self.taken.rate;
        let urgent = match self.urgent {
            true => chance > cost - CLEAR && memory.missing > 0,
            false => chance > cost && soon,
        };
        let may_change = self
            .minded_at
            .is_none_or(|at| sample.at.saturating_sub(at) >= MIND);
        if urgent != self.urgent && may_change {
            self.urgent = urgent;
            self.minded_at = Some(sample.at);
        }
    }
}
