// SPDX-License-Identifier: LGPL-2.1-or-later
//! Disk I/O policies compared on a model of dump and recovery: thousands of
//! scenarios, each under every policy and at every of a range of fixed rates.
//!
//! Writes target/bench/pacing.json:
//!
//! - `scenarios`: `parameters`; in `policies`, for each of them, `downtime_s` until
//!   the service answers and `full_service_s` until its first work is done, both
//!   since recovery runs; `best_fixed`, the rate with the shortest `full_service_s`,
//!   and `best_fixed_downtime`, that with the shortest `downtime_s`.
//! - `criterion`: how `adaptive` compares with these two, the worse of both ratios
//!   in each scenario; `passes` when it is at most [`CLOSE`] in [`MOST`] of them and
//!   never above [`NEVER`]. `deciding` are the scenarios in which some fixed rate is
//!   more than [`CLOSE`] worse than the best: in others the rate hardly matters.
//! - `sampling`: what a look of the controller costs.
//! - `calibration`: the model against the emulated host, where
//!   target/bench/pacing-host.json is there.
//!
//! Environment: DRAWS (12), how often each size, disk and load is drawn.
//! SHOW (0): so many of the worst scenarios are printed.

#[path = "../../simulator/mod.rs"]
mod simulator;

mod calibration;
mod sampling;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use serde_json::{json, Map, Value};
use simulator::scenario::{sweep, Load};
use simulator::{run, Outcome, Scenario};
use vicover::pacing::policy::Policy;

/// The fixed rates, as parts of what the disk can do.
const PARTS: [f64; 13] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
];
/// Those of them in the table.
const SHOWN: [f64; 4] = [0.01, 0.1, 0.5, 1.0];
const OTHERS: [Policy; 4] = [
    Policy::Adaptive,
    Policy::RecoveryFirst,
    Policy::Share { percent: 50 },
    Policy::Unlimited,
];
/// The ratio to the best fixed rate that is as good as it, ...
const CLOSE: f64 = 1.1;
/// ... in this part of all scenarios, ...
const MOST: f64 = 0.95;
/// ... and the one that no scenario may reach.
const NEVER: f64 = 1.3;

/// One scenario under every policy.
struct Compared {
    scenario: Scenario,
    fixed: Vec<Outcome>,
    others: Vec<Outcome>,
}

impl Compared {
    fn new(scenario: &Scenario) -> Self {
        Self {
            scenario: scenario.clone(),
            fixed: PARTS
                .iter()
                .map(|part| run(scenario, fixed(scenario, *part)))
                .collect(),
            others: OTHERS.iter().map(|policy| run(scenario, *policy)).collect(),
        }
    }

    /// Where among the fixed rates that with the least of something is.
    fn best(&self, what: impl Fn(&Outcome) -> f64) -> usize {
        (0..PARTS.len())
            .min_by(|a, b| what(&self.fixed[*a]).total_cmp(&what(&self.fixed[*b])))
            .expect("there are fixed rates")
    }

    /// How much longer than under the best fixed rate it takes, whichever of
    /// downtime and full service suffers more, each to its own best.
    fn ratio(&self, outcome: &Outcome) -> f64 {
        let down = self.fixed[self.best(|fixed| fixed.downtime_s)].downtime_s;
        let full = self.fixed[self.best(|fixed| fixed.full_service_s)].full_service_s;
        (outcome.downtime_s / down).max(outcome.full_service_s / full)
    }

    fn json(&self) -> Value {
        let mut policies = Map::new();
        let fixed_policies = PARTS.iter().map(|part| fixed(&self.scenario, *part));
        let all = fixed_policies
            .chain(OTHERS)
            .zip(self.fixed.iter().chain(&self.others));
        for (policy, outcome) in all {
            let figures = json!({
                "downtime_s": milli(outcome.downtime_s),
                "full_service_s": milli(outcome.full_service_s),
            });
            policies.insert(policy.to_string(), figures);
        }
        let name = |index: usize| fixed(&self.scenario, PARTS[index]).to_string();
        json!({
            "parameters": self.scenario,
            "policies": policies,
            "best_fixed": name(self.best(|fixed| fixed.full_service_s)),
            "best_fixed_downtime": name(self.best(|fixed| fixed.downtime_s)),
        })
    }
}

fn fixed(scenario: &Scenario, part: f64) -> Policy {
    Policy::Fixed {
        bytes_per_s: (part * scenario.disk_bytes_per_s) as u64,
    }
}

fn milli(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

fn main() -> ExitCode {
    let number = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let scenarios = sweep(number("DRAWS", 12) as u64);
    let began = Instant::now();
    let all = compare_all(&scenarios);
    let seconds = began.elapsed().as_secs_f64();

    let ratios: Vec<f64> = all.iter().map(|one| one.ratio(&one.others[0])).collect();
    let close = share(&ratios, CLOSE);
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    let passes = close >= MOST && worst < NEVER;
    let deciding: Vec<f64> = all
        .iter()
        .zip(&ratios)
        .filter(|(one, _)| one.fixed.iter().any(|fixed| one.ratio(fixed) > CLOSE))
        .map(|(_, ratio)| *ratio)
        .collect();
    print_table(&all);
    print_worst(&all, &ratios, number("SHOW", 0));
    println!(
        "\n{} scenarios, {} runs of the model in {seconds:.0} s\n\
         adaptive: within 10 % in {:.1} % of them (asked: {:.0} %), worst {worst:.2}\n\
         (asked: under {NEVER}): {}\n\
         in {} of them some fixed rate is more than 10 % worse than the best; adaptive\n\
         is within 10 % in {:.1} % of these",
        all.len(),
        all.len() * (PARTS.len() + OTHERS.len()),
        100.0 * close,
        100.0 * MOST,
        if passes { "as asked" } else { "NOT as asked" },
        deciding.len(),
        100.0 * share(&deciding, CLOSE),
    );
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let dir = format!("{target}/bench");
    let result = json!({
        "scenarios": all.iter().map(Compared::json).collect::<Vec<_>>(),
        "criterion": {
            "within_10_percent": close,
            "worst_ratio": worst,
            "passes": passes,
            "deciding": deciding.len(),
            "within_10_percent_of_deciding": share(&deciding, CLOSE),
        },
        "sampling": sampling::measure(),
        "calibration": calibration::compare(&dir),
    });
    fs::create_dir_all(&dir).expect("a directory for results");
    let text = serde_json::to_string(&result).expect("JSON");
    fs::write(format!("{dir}/pacing.json"), text + "\n").expect("the result is written");
    match passes {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn compare_all(scenarios: &[Scenario]) -> Vec<Compared> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Relaxed);
            let Some(scenario) = scenarios.get(index) else {
                return done;
            };
            done.push((index, Compared::new(scenario)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no panic"));
        done.collect::<Vec<_>>()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, compared)| compared).collect()
}

/// The part of them that is at most so large.
fn share(ratios: &[f64], most: f64) -> f64 {
    ratios.iter().filter(|ratio| **ratio <= most).count() as f64 / ratios.len() as f64
}

fn print_table(all: &[Compared]) {
    println!(
        "Time to service and to full service against the best fixed rate of each\n\
         scenario, whichever is worse: percent of scenarios within 10 %, and the worst\n\n\
         {:22}{:>8}{:>8}{:>8}{:>8}{:>10}{:>10}",
        "policy", "reads", "memory", "both", "all", "median", "worst"
    );
    let row = |name: String, outcome: &dyn Fn(&Compared) -> &Outcome| {
        let of = |load: Option<Load>| -> Vec<f64> {
            all.iter()
                .filter(|one| load.is_none_or(|load| one.scenario.load == load))
                .map(|one| one.ratio(outcome(one)))
                .collect()
        };
        let mut ratios = of(None);
        ratios.sort_by(f64::total_cmp);
        print!("{name:22}");
        for load in Load::ALL.map(Some).into_iter().chain([None]) {
            print!("{:8.1}", 100.0 * share(&of(load), CLOSE));
        }
        println!(
            "{:10.2}{:10.2}",
            ratios[ratios.len() / 2],
            ratios[ratios.len() - 1]
        );
    };
    for (index, policy) in OTHERS.iter().enumerate() {
        row(policy.to_string(), &move |one| &one.others[index]);
    }
    for part in SHOWN {
        let index = PARTS.iter().position(|one| *one == part).expect("a part");
        row(
            format!("fixed: {:.0} % of disk", 100.0 * part),
            &move |one| &one.fixed[index],
        );
    }
}

fn print_worst(all: &[Compared], ratios: &[f64], count: usize) {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| ratios[*b].total_cmp(&ratios[*a]));
    for index in order.into_iter().take(count) {
        let one = &all[index];
        let (down, full) = (
            one.best(|fixed| fixed.downtime_s),
            one.best(|fixed| fixed.full_service_s),
        );
        let adaptive = &one.others[0];
        println!(
            "\n{:.2}: {:?}\n    adaptive {:.2} {:.2}, best fixed {:.2} at {} and {:.2} at {}, \
             unlimited {:.2} {:.2}",
            ratios[index],
            one.scenario,
            adaptive.downtime_s,
            adaptive.full_service_s,
            one.fixed[down].downtime_s,
            PARTS[down],
            one.fixed[full].full_service_s,
            PARTS[full],
            one.others[3].downtime_s,
            one.others[3].full_service_s,
        );
    }
}
