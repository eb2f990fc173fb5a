// SPDX-License-Identifier: LGPL-2.1-or-later
//! Schedulers of shuttle's at work on what is here.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::{thread, time};

/// Steps of one execution. More is a wait that does not end, however often it ends by its
/// deadline.
const MOST_STEPS: usize = 50_000;

/// Leaves the choices to another scheduler that are any.
struct Chooser<S>(S);

impl<S: Scheduler> Scheduler for Chooser<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        thread::stays();
        time::reset();
        self.0.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        yields: bool,
    ) -> Option<TaskId> {
        // Who unwinds does so at once, as far as possible: the standard library takes
        // all that runs meanwhile for panicking.
        let stays = thread::stays() || std::thread::panicking();
        let goes_on = current.filter(|current| {
            stays && !yields && runnable.iter().any(|task| task.id() == *current)
        });
        goes_on.or_else(|| self.0.next_task(runnable, current, yields))
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Runs `story` as often as `scheduler` wants; returns how often that was.
///
/// # Panics
/// When the story does, or when all of its threads wait.
pub(crate) fn run(
    scheduler: impl Scheduler + 'static,
    story: impl Fn() + Send + Sync + 'static,
) -> usize {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    // Panics that are caught are told, too.
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    Runner::new(Chooser(scheduler), config).run(story)
}
