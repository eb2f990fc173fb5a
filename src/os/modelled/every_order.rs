// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every order of the steps of threads, one after the other. What differs only in steps
//! that do not meet leads to a state that was seen before: it is left there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use super::trace;

/// A state, those who can take a step there, and which of them does so now.
struct Choice {
    threads: Vec<TaskId>,
    now: usize,
}

/// Preemptions so far, and who could go on.
type Spent = (usize, Option<usize>);

/// Tries every order.
#[derive(Default)]
pub(crate) struct EveryOrder {
    choices: Vec<Choice>,
    /// Choices made in this execution.
    made: usize,
    /// States, and what of the bound was left there, where there is one.
    seen: HashSet<(u64, Option<Spent>)>,
    /// Threads that could go on and were made to wait, in this execution.
    preemptions: usize,
    /// How many of these there may be, where that is bounded.
    most: Option<usize>,
    /// What follows in this execution was tried.
    is_known: bool,
    began: bool,
    /// States in which somebody had a choice.
    pub(crate) states: Arc<AtomicUsize>,
}

impl EveryOrder {
    /// With so many preemptions at most, where that is bounded.
    pub(crate) fn new(most: Option<usize>) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }
}

impl Scheduler for EveryOrder {
    fn new_execution(&mut self) -> Option<Schedule> {
        if std::mem::replace(&mut self.began, true) {
            while let Some(last) = self.choices.last_mut() {
                last.now += 1;
                if last.now < last.threads.len() {
                    break;
                }
                self.choices.pop();
            }
            if self.choices.is_empty() {
                return None;
            }
        }
        (self.made, self.is_known, self.preemptions) = (0, false, 0);
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _yields: bool,
    ) -> Option<TaskId> {
        let first = runnable.first()?.id();
        if runnable.len() == 1 || self.is_known {
            return Some(first);
        }
        let going = current.filter(|current| runnable.iter().any(|task| task.id() == *current));
        if self.made == self.choices.len() {
            let bound = self
                .most
                .map(|_| (self.preemptions, going.map(usize::from)));
            if !self.seen.insert((trace::fingerprint(), bound)) {
                self.is_known = true;
                return Some(first);
            }
            self.states.fetch_add(1, Relaxed);
            let threads = match going {
                Some(going) if self.most.is_some_and(|most| self.preemptions >= most) => {
                    vec![going]
                }
                _ => runnable.iter().map(|task| task.id()).collect(),
            };
            self.choices.push(Choice { threads, now: 0 });
        }
        let choice = &self.choices[self.made];
        self.made += 1;
        let next = choice.threads[choice.now];
        self.preemptions += usize::from(going.is_some_and(|going| going != next));
        Some(next)
    }

    /// Nothing here is left to chance.
    fn next_u64(&mut self) -> u64 {
        0
    }
}
