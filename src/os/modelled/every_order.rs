// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every order of the steps of threads with so many preemptions at most, one after the
//! other. A preemption is a thread that is made to wait though it could go on; who takes
//! the next step when one has to wait, or has ended, is free. Nothing is left out by any
//! other rule: an execution repeats the choices of the one before up to the last that can
//! be made differently, makes that one so, and then the first there is.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// Those who may take a step, first the one that was going if it can go on, and which does.
struct Choice {
    threads: Vec<TaskId>,
    now: usize,
}

/// Tries every order.
#[derive(Default)]
pub(crate) struct EveryOrder {
    /// Where more than one could take a step.
    choices: Vec<Choice>,
    began: bool,
    /// How many of the choices are behind this execution.
    made: usize,
    preemptions: usize,
    most_preemptions: usize,
}

impl EveryOrder {
    /// With so many preemptions at most.
    pub(crate) fn new(most_preemptions: usize) -> Self {
        Self {
            most_preemptions,
            ..Self::default()
        }
    }
}

impl Scheduler for EveryOrder {
    fn new_execution(&mut self) -> Option<Schedule> {
        if std::mem::replace(&mut self.began, true) {
            assert_eq!(self.made, self.choices.len(), "it went another way");
            let is_open = |choice: &Choice| choice.now + 1 < choice.threads.len();
            let open = self.choices.iter().rposition(is_open)?;
            self.choices.truncate(open + 1);
            self.choices[open].now += 1;
        }
        (self.made, self.preemptions) = (0, 0);
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _yields: bool,
    ) -> Option<TaskId> {
        let mut threads: Vec<_> = runnable.iter().map(|task| task.id()).collect();
        let going = threads.iter().position(|thread| Some(*thread) == current);
        threads.swap(0, going.unwrap_or(0));
        let goes_on = going.is_some();
        if goes_on && self.preemptions == self.most_preemptions {
            threads.truncate(1);
        }
        if threads.len() == 1 {
            return Some(threads[0]);
        }
        if self.made == self.choices.len() {
            self.choices.push(Choice { threads, now: 0 });
        } else {
            assert_eq!(
                self.choices[self.made].threads, threads,
                "it went another way"
            );
        }
        let choice = &self.choices[self.made];
        self.made += 1;
        self.preemptions += usize::from(goes_on && choice.now > 0);
        Some(choice.threads[choice.now])
    }

    /// Nothing here is left to chance.
    fn next_u64(&mut self) -> u64 {
        0
    }
}
