// SPDX-License-Identifier: LGPL-2.1-or-later
//! What earlier crashes of a guest mean for the next one. The first ones are dumped;
//! then the guest is recovered without a dump, which nobody wants a tenth time; and when
//! it keeps crashing, it is what its operator has said for that.

use std::path::PathBuf;
use std::time::Duration;

use crate::journal::History;
use crate::options::{AtMost, OnCrashLoop, Options};

/// What is done about a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// A dump, and recovery.
    Dump,
    /// Recovery only.
    WithoutDump {
        /// Dumps that were made of late.
        dumps: usize,
        /// So many are.
        limit: AtMost,
        /// Where the last one is, if it has a path.
        last: Option<PathBuf>,
    },
    /// Neither.
    GiveUp {
        /// Crashes of late, this one among them.
        crashes: usize,
        /// So many are recovered.
        limit: AtMost,
        /// What is done instead.
        action: OnCrashLoop,
    },
}

/// Of times in ms, how many lie within `limit` before `now`.
pub(crate) fn of_late(times_ms: &[u64], limit: AtMost, now: Duration) -> usize {
    let is_late = |at: &&u64| now.saturating_sub(Duration::from_millis(**at)) < limit.within;
    times_ms.iter().filter(is_late).count()
}

/// What is done about the last crash of `history`.
pub fn treat(history: &History, now: Duration, options: &Options) -> Treatment {
    if let Some(limit) = options.max_crashes {
        let crashes = of_late(&history.crashes_ms, limit, now);
        if crashes > limit.count {
            return Treatment::GiveUp {
                crashes,
                limit,
                action: options.on_crash_loop,
            };
        }
    }
    if let Some(limit) = options.max_dumps {
        let dumps = of_late(&history.dumps_ms, limit, now);
        if dumps >= limit.count {
            return Treatment::WithoutDump {
                dumps,
                limit,
                last: history.last_dump.clone(),
            };
        }
    }
    Treatment::Dump
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn history(crashes: &[u64], dumps: &[u64]) -> History {
        let mut history = History::default();
        let crashes = crashes.iter().map(|&second| at(second));
        crashes.for_each(|now| history.add_crash(now));
        let dumps = dumps.iter().map(|&second| at(second));
        dumps.for_each(|now| history.add_dump(now, Some("/d/last.kdump".into())));
        history
    }

    fn limit(count: usize, seconds: u64) -> AtMost {
        let within = at(seconds);
        AtMost { count, within }
    }

    fn treated(options: &str, crashes: &[u64], dumps: &[u64]) -> Treatment {
        let now = at(*crashes.last().unwrap());
        let options = Options::parse(options).unwrap();
        treat(&history(crashes, dumps), now, &options)
    }

    #[test]
    fn a_guest_that_crashes_at_every_boot_is_dumped_recovered_and_left() {
        let (mut crashes, mut dumps, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=7 {
            crashes.push(number * 10);
            let treatment = treated("", &crashes, &dumps);
            kinds.push(match treatment {
                Treatment::Dump => 'd',
                Treatment::WithoutDump { .. } => 'r',
                Treatment::GiveUp { .. } => 'g',
            });
            if treatment == Treatment::Dump {
                dumps.push(number * 10 + 5);
            }
        }
        assert_eq!(kinds.iter().collect::<String>(), "dddrrgg");
    }

    #[test]
    fn without_a_dump_it_is_known_how_many_there_are_and_where_the_last_one_is() {
        let expected = Treatment::WithoutDump {
            dumps: 1,
            limit: limit(1, 60),
            last: Some("/d/last.kdump".into()),
        };
        assert_eq!(treated("max_dumps=1/1m", &[10, 70], &[11]), expected);
        // A minute after the last one there is the next.
        assert_eq!(treated("max_dumps=1/1m", &[10, 71], &[11]), Treatment::Dump);
        // Of a crash whose dump did not succeed there is none.
        assert_eq!(treated("max_dumps=1/1m", &[10, 20], &[]), Treatment::Dump);
    }

    #[test]
    fn crashes_are_counted_for_as_long_as_the_operator_says() {
        let options = "max_crashes=2/1m,on_crash_loop=destroy";
        let expected = Treatment::GiveUp {
            crashes: 3,
            limit: limit(2, 60),
            action: OnCrashLoop::Destroy,
        };
        assert_eq!(treated(options, &[10, 20, 69], &[]), expected);
        assert_eq!(treated(options, &[10, 20, 70], &[]), Treatment::Dump);
    }

    #[test]
    fn without_limits_every_crash_is_dumped() {
        let crashes: Vec<u64> = (0..90).collect();
        let options = "max_crashes=0,max_dumps=0";
        assert_eq!(treated(options, &crashes, &crashes), Treatment::Dump);
    }

    #[test]
    fn a_time_to_come_is_not_long_ago() {
        let options = Options::parse("max_crashes=1/1m").unwrap();
        let treated = treat(&history(&[10, 20], &[]), at(5), &options);
        assert!(matches!(treated, Treatment::GiveUp { .. }), "{treated:?}");
    }
}
