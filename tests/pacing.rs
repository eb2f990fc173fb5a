// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the pace of a dump promises: it never stalls for good and does not
//! oscillate, whatever its controllers get to see.

mod simulator;

use std::time::Duration;

use proptest::prelude::*;
use simulator::scenario::{Load, Numbers, Work};
use simulator::{observe, Outcome, Scenario, Until};
use vicover::pacing::adaptive::{MIND, QUIET};
use vicover::pacing::controller::Controller;
use vicover::pacing::headstart;
use vicover::pacing::policy::Policy;
use vicover::pacing::sample::{DiskTotals, MemoryState, Sample, WriteLimits, WriterTotals};
use vicover::pacing::speed::{LEAST_FLOOR, PIECE};

const MIB: u64 = 1 << 20;
const LOOKING: [Policy; 4] = [
    Policy::Adaptive,
    Policy::RecoveryFirst,
    Policy::Share { percent: 1 },
    Policy::Share { percent: 60 },
];

/// Any number: small ones, those of real hosts, and the largest.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0u64..100,
        0u64..1 << 40,
        Just(u64::MAX),
        any::<u64>()
    ]
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        number().prop_map(Duration::from_nanos)
    ]
}

/// Nothing in it need be true, or grow.
fn lies() -> impl Strategy<Value = Sample> {
    let disk = (number(), number(), time(), time(), number()).prop_map(
        |(sent, requests, wait, busy, in_flight)| DiskTotals {
            sent,
            requests,
            wait,
            busy,
            in_flight,
        },
    );
    let memory = (number(), number(), number()).prop_map(|(touched, left, missing)| MemoryState {
        touched,
        left,
        missing,
    });
    let dump = (number(), time()).prop_map(|(bytes, busy)| WriterTotals { bytes, busy });
    let (disk, memory) = (prop::option::of(disk), prop::option::of(memory));
    (time(), disk, dump, memory, any::<bool>()).prop_map(|(at, disk, dump, memory, stopped)| {
        Sample {
            at,
            disk,
            dump,
            memory,
            stopped,
        }
    })
}

/// A step of a host that counts as it should, and does what it likes: the time
/// that passes, in ms, requests, their ms, written KiB, memory that is touched and
/// that is freed, in MiB.
fn step() -> impl Strategy<Value = [u64; 6]> {
    [
        1u64..200,
        0u64..50,
        0u64..400,
        0u64..100_000,
        0u64..64,
        0u64..64,
    ]
}

fn samples(steps: &[[u64; 6]]) -> Vec<Sample> {
    let mut sample = Sample {
        at: Duration::ZERO,
        disk: None,
        dump: WriterTotals::default(),
        memory: None,
        stopped: false,
    };
    let (mut disk, mut memory) = (DiskTotals::default(), MemoryState::default());
    memory.left = 256 * MIB;
    memory.missing = 4096 * MIB;
    let mut all = Vec::new();
    for [ms, requests, wait, kib, touched, freed] in steps {
        let passed = Duration::from_millis(*ms);
        sample.at += passed;
        // Every other step or so recovery is quiet.
        if requests % 2 == 1 {
            disk.sent += requests;
            disk.requests += requests;
            disk.wait += Duration::from_millis(*wait);
            disk.busy += passed.min(Duration::from_millis(*wait));
        }
        sample.dump.bytes += kib << 10;
        sample.dump.busy += passed / 2;
        memory.touched += (touched * MIB).min(memory.left);
        memory.left = memory.left.saturating_sub(touched * MIB) + freed * MIB;
        memory.missing = memory.missing.saturating_sub(freed * MIB);
        sample.disk = Some(disk);
        sample.memory = Some(memory);
        all.push(sample);
    }
    all
}

/// How often within any `span` limits come that `is` holds for, after others.
fn most_changes(
    decided: &[(Duration, WriteLimits)],
    span: Duration,
    is: impl Fn(&WriteLimits) -> bool,
) -> usize {
    let changes: Vec<Duration> = decided
        .windows(2)
        .filter(|pair| !is(&pair[0].1) && is(&pair[1].1))
        .map(|pair| pair[1].0)
        .collect();
    let within = |from: &Duration| {
        changes
            .iter()
            .filter(|at| **at >= *from && **at < *from + span)
            .count()
    };
    changes.iter().map(within).max().unwrap_or(0)
}

proptest! {
    /// A limit that lets the dump end: at least a mebibyte a second, of which a
    /// share of so many percent takes no more.
    #[test]
    fn no_lie_makes_a_controller_stall_the_dump(
        lies in prop::collection::vec(lies(), 1..60),
    ) {
        for policy in LOOKING {
            let part = match policy {
                Policy::Share { percent } => f64::from(percent) / 100.0,
                _ => 1.0,
            };
            let mut controller = Controller::new(policy);
            for lie in &lies {
                let limits = controller.limits(lie);
                let least = (LEAST_FLOOR * part) as u64;
                prop_assert!(limits.limit.is_none_or(|limit| limit >= least), "{limits:?}");
                let (small, large) = PIECE;
                prop_assert!(limits.piece.is_none_or(|piece| (small..=large).contains(&piece)));
            }
        }
    }

    /// Lies are forgotten: a recovery that is idle leaves the dump the disk.
    #[test]
    fn an_idle_recovery_sets_the_dump_free_whatever_was_seen_before(
        lies in prop::collection::vec(lies(), 0..30),
    ) {
        for policy in [Policy::Adaptive, Policy::RecoveryFirst] {
            let mut controller = Controller::new(policy);
            let mut sample = samples(&[[1, 1, 1, 1, 1, 1]])[0];
            for mut lie in lies.clone() {
                lie.at = sample.at;
                controller.limits(&lie);
            }
            let mut limits = controller.limits(&sample);
            for _ in 0..20 {
                sample.at += Duration::from_millis(50);
                limits = controller.limits(&sample);
            }
            prop_assert_eq!(limits, WriteLimits::NONE);
        }
    }

    #[test]
    fn adaptive_changes_its_mind_no_faster_than_it_says(
        steps in prop::collection::vec(step(), 2..300),
    ) {
        let mut controller = Controller::new(Policy::Adaptive);
        let decided: Vec<_> = samples(&steps)
            .iter()
            .map(|sample| (sample.at, controller.limits(sample)))
            .collect();
        let freed = most_changes(&decided, QUIET, |limits| *limits == WriteLimits::NONE);
        prop_assert!(freed <= 1, "set free {freed} times in {QUIET:?}");
        // Idle recovery is neither: leave those out. A mind takes twice as
        // long to come back to an opinion; a measurement a second looks the same.
        let busy: Vec<_> = decided.into_iter().filter(|(_, limits)| *limits != WriteLimits::NONE).collect();
        let urgent = most_changes(&busy, 2 * MIND, |limits| limits.limit.is_none());
        prop_assert!(urgent <= 4, "urgent {urgent} times in {:?}", 2 * MIND);
    }
}

/// Memory that is nearly gone and plenty in turn, while the disk is in use.
#[test]
fn adaptive_keeps_its_opinion_of_memory_for_a_while() {
    let mut controller = Controller::new(Policy::Adaptive);
    let mut sample = samples(&[[50, 1, 1, 1, 1, 1]])[0];
    let (mut disk, mut decided) = (DiskTotals::default(), vec![(sample.at, WriteLimits::NONE)]);
    for look in 0..400 {
        let free = decided
            .last()
            .is_some_and(|(_, limits)| limits.limit.is_none());
        sample.at += Duration::from_millis(50);
        // At its full speed the dump makes requests take twice as long.
        disk.sent += 20;
        disk.requests += 20;
        disk.wait += Duration::from_millis(if free { 200 } else { 100 });
        disk.busy += Duration::from_millis(50);
        let writing = Duration::from_millis(if free { 45 } else { 1 });
        sample.dump.busy += writing;
        sample.dump.bytes += 20_000 * writing.as_millis() as u64;
        sample.disk = Some(disk);
        sample.memory = Some(MemoryState {
            touched: (1 << 30) * look,
            left: if look % 2 == 0 { 0 } else { 1 << 60 },
            missing: 1 << 40,
        });
        decided.push((sample.at, controller.limits(&sample)));
    }
    let urgent = most_changes(&decided, 10 * MIND, |limits| limits.limit.is_none());
    // Once in two, and after each measurement, of which there is one a second.
    assert!(
        (5..=15).contains(&urgent),
        "urgent {urgent} times in {:?}",
        10 * MIND
    );
}

/// A service that goes on reading at the same rate for as long as anybody looks.
fn steady(clients: u32, compute_s: f64, read_bytes: u64, disk_bytes_per_s: f64) -> Scenario {
    let serve = Work {
        clients,
        items: 1 << 40,
        compute_s,
        read_bytes,
        touch_bytes: 0,
    };
    Scenario {
        // Memory enough for all that is read, and the rest to be dumped.
        backed_bytes: 62 << 30,
        head_start: false,
        dump_bytes_per_s: 4e9,
        disk_seek_s: 0.0,
        disk_latency_s: 0.0003,
        dumped_share: 0.9,
        compressed_to: 1.0,
        boot: Work { items: 1, ..serve },
        serve,
        ..Scenario::draw(64 << 30, disk_bytes_per_s, Load::Reads, 1)
    }
}

/// Bytes of the dump that were written in each second but the first ten.
fn seconds(outcome: &Outcome) -> Vec<f64> {
    let mut seconds = Vec::new();
    let mut last = 0;
    for (at, sample, _) in &outcome.looks {
        if *at >= 10.0 + seconds.len() as f64 {
            seconds.push((sample.dump.bytes - last) as f64);
            last = sample.dump.bytes;
        }
    }
    // The first has all from the beginning, the last may have ended early.
    seconds.split_off(1.min(seconds.len()))
}

#[test]
fn under_a_steady_load_the_pace_is_steady() {
    let mut looked = 0;
    for (clients, compute_s, read_bytes, disk) in [
        (1, 0.002, 64 << 10, 50e6),
        (4, 0.01, 64 << 10, 50e6),
        (8, 0.05, 256 << 10, 100e6),
        (2, 0.02, 1 << 20, 50e6),
        (16, 0.03, 16 << 10, 20e6),
        (3, 0.001, 256 << 10, 100e6),
    ] {
        let scenario = steady(clients, compute_s, read_bytes, disk);
        let lens = Box::new(|sample| sample);
        let outcome = observe(&scenario, Policy::Adaptive, Until::DumpComplete, lens);
        let seconds = seconds(&outcome);
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        for (index, five) in seconds.chunks_exact(5).enumerate() {
            looked += 1;
            let rate = five.iter().sum::<f64>() / 5.0;
            assert!(
                rate > mean / 2.0 && rate < mean + disk / 4.0,
                "{rate} after {index} times five seconds, {mean} on average: {scenario:?}"
            );
        }
    }
    assert!(looked >= 100, "only {looked} times five seconds");
}

/// Distorts what the controller sees: latencies by up to `noise` times either way,
/// and now and then nothing is known of disks or memory.
fn distort(noise: f64, seed: u64) -> impl FnMut(Sample) -> Sample {
    let mut numbers = Numbers(seed);
    let (mut seen, mut told) = (Duration::ZERO, Duration::ZERO);
    move |mut sample| {
        if let Some(disk) = &mut sample.disk {
            let factor = (1.0 + noise).powf(2.0 * numbers.next() - 1.0);
            told += disk.wait.saturating_sub(seen).mul_f64(factor);
            seen = disk.wait;
            disk.wait = told;
        }
        if numbers.next() < 0.05 {
            sample.disk = None;
        }
        if numbers.next() < 0.05 {
            sample.memory = None;
        }
        sample
    }
}

#[test]
fn every_dump_ends_even_when_what_is_seen_is_wrong() {
    let mut numbers = Numbers(7);
    for seed in 0..24 {
        let disk = 50e6 * 20f64.powf(numbers.next());
        let load = Load::ALL[seed as usize % 3];
        let mut scenario = Scenario::draw(1 << 30, disk, load, seed);
        // The guest never rests.
        scenario.serve.items = 1 << 40;
        for noise in [0.0, 1.0, 10.0] {
            let lens = Box::new(distort(noise, seed));
            let outcome = observe(&scenario, Policy::Adaptive, Until::DumpComplete, lens);
            let done = outcome.dump_s.expect("the dump ended");
            let bytes = scenario.dump_bytes() as f64;
            let most = bytes / LEAST_FLOOR
                + bytes / scenario.dump_bytes_per_s
                + scenario.unwanted_bytes() as f64 / scenario.release_bytes_per_s
                + headstart::LONGEST.as_secs_f64()
                + 1.0;
            assert!(done <= most, "{done} s, {most} s are allowed: {scenario:?}");
        }
    }
}

/// The model is worth something only if it is sound where the answer is known.
#[test]
fn the_model_agrees_with_arithmetic() {
    let mut scenario = steady(1, 0.01, MIB, 100e6);
    scenario.serve.items = 200;
    // One client: computing, reading and the latency follow each other. Boot is one
    // item; computing varies evenly by half.
    let fixed = Policy::Fixed {
        bytes_per_s: 1 << 20,
    };
    let outcome = simulator::run(&scenario, fixed);
    let item = 0.01 + MIB as f64 / 100e6 + 0.0003;
    let alone = 201.0 * item;
    let part = outcome.full_service_s / alone;
    assert!((0.97..1.08).contains(&part), "{part}");
    // An unlimited dump has the disk whenever the guest computes, and a block of
    // it, as long as a read, may be before each read.
    let shared = simulator::run(&scenario, Policy::Unlimited).full_service_s;
    assert!(
        shared > alone * 1.2 && shared < alone * 1.6,
        "{shared} against {alone}"
    );
}

/// A look at a recovery that reads steadily: `n` of them, 50 ms apart, with a dump
/// that has so far written `dump`.
fn reading(n: u32, memory: Option<MemoryState>, dump: WriterTotals) -> Sample {
    let requests = 10 * u64::from(n);
    let wait = Duration::from_millis(2) * 10 * n;
    Sample {
        at: Duration::from_millis(50) * n,
        disk: Some(DiskTotals {
            sent: requests,
            requests,
            wait,
            busy: wait,
            in_flight: 1,
        }),
        memory,
        dump,
        stopped: false,
    }
}

#[test]
fn a_disk_that_is_done_with_a_little_at_once_still_gets_more() {
    let mut controller = Controller::new(Policy::Adaptive);
    let mut dump = WriterTotals::default();
    let mut limit = 0;
    for look in 1..=200 {
        limit = controller.limits(&reading(look, None, dump)).limit.unwrap();
        // The disk takes 5 GB a second: far less than a look's time is spent.
        let bytes = limit / 20;
        dump.bytes += bytes;
        dump.busy += Duration::from_secs_f64(bytes as f64 / 5e9);
    }
    assert!(
        limit > 100 * MIB,
        "{limit} bytes a second after ten seconds"
    );
}

#[test]
fn a_recovery_that_is_short_of_memory_is_not_made_to_wait_for_a_measurement() {
    let mut controller = Controller::new(Policy::Adaptive);
    let mut dump = WriterTotals::default();
    let mut held = Vec::new();
    for look in 1..=1200 {
        let touched = u64::from(look) * 10 * MIB;
        let memory = MemoryState {
            touched,
            left: 20 * MIB,
            missing: (100_000 * MIB).saturating_sub(touched),
        };
        let limits = controller.limits(&reading(look, Some(memory), dump));
        if limits.limit.is_some() {
            held.push(look);
        }
        let bytes = limits.limit.map_or(5 * MIB, |limit| limit / 20);
        dump.bytes += bytes;
        dump.busy += Duration::from_secs_f64(bytes as f64 / (100 * MIB) as f64);
    }
    let late = held.iter().filter(|look| **look > 60).count();
    assert_eq!(late, 0, "held at looks {held:?}");
}
