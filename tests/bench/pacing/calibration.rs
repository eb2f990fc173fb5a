// SPDX-License-Identifier: LGPL-2.1-or-later
//! The model against the emulated host: the same parameters, the same policies.

use std::fs;

use serde_json::{json, Value};
use vicover::pacing::policy::Policy;

use crate::simulator::{run, Scenario};

/// One time that was measured, and what the model says.
struct Compared {
    name: String,
    host_s: f64,
    model_s: f64,
}

/// Compares with target/bench/pacing-host.json, when that is there and has what
/// the model needs; says so on the terminal.
pub(crate) fn compare(dir: &str) -> Value {
    let Ok(text) = fs::read_to_string(format!("{dir}/pacing-host.json")) else {
        println!("\nNot compared with the emulated host: make bench-pacing-host first.");
        return Value::Null;
    };
    let host: Value = serde_json::from_str(&text).expect("JSON of the host's benchmark");
    let scenarios = host["scenarios"].as_array().map_or(&[][..], Vec::as_slice);
    let all: Vec<Compared> = scenarios.iter().flat_map(compare_scenario).collect();
    if all.is_empty() {
        println!("\nNot compared with the emulated host: its runs do not say enough.");
        return Value::Null;
    }
    println!(
        "\nThe model against the emulated host, seconds since recovery runs; its\n\
         parameters are from the run at the slowest rate\n\n{:44}{:>10}{:>10}{:>10}",
        "", "host", "model", "error"
    );
    for one in &all {
        println!(
            "{:44}{:10.1}{:10.1}{:>9.0}%",
            one.name,
            one.host_s,
            one.model_s,
            100.0 * one.error()
        );
    }
    let mut errors: Vec<f64> = all.iter().map(|one| one.error().abs()).collect();
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    println!(
        "median error {:.0} %, worst {:.0} %",
        100.0 * median,
        100.0 * worst
    );
    let rows: Vec<Value> = all
        .iter()
        .map(|one| json!({"what": one.name, "host_s": one.host_s, "model_s": one.model_s}))
        .collect();
    json!({"times": rows, "median_error": median, "worst_error": worst})
}

impl Compared {
    fn error(&self) -> f64 {
        self.model_s / self.host_s - 1.0
    }
}

fn compare_scenario(host: &Value) -> Vec<Compared> {
    let Ok(scenario) = serde_json::from_value::<Scenario>(host["parameters"].clone()) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let policies = host["policies"].as_object().into_iter().flatten();
    for (name, figures) in policies {
        let Some(policy) = Policy::parse(name) else {
            continue;
        };
        let outcome = run(&scenario, policy);
        let figure = |name: &str| figures[name].as_f64().expect("a time");
        let since = figure("unpaused_s");
        for (what, host_s, model_s) in [
            ("service", figure("downtime_s") - since, outcome.downtime_s),
            (
                "full service",
                figure("full_service_s") - since,
                outcome.full_service_s,
            ),
        ] {
            all.push(Compared {
                name: format!("{}, {name}: {what}", scenario.load.name()),
                host_s,
                model_s,
            });
        }
    }
    all
}
