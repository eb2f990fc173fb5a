// SPDX-License-Identifier: LGPL-2.1-or-later
//! Events that are kept, for whoever looks at them afterwards or waits for one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::log::JobLog;
use crate::limits::monitor::Monitor;

/// The events of a job, in their order. Clones are one list.
#[derive(Clone, Default)]
pub struct Kept(Arc<Monitor<Vec<Event>>>);

impl Kept {
    /// A log for the guest `name` whose events are kept here.
    pub fn log(&self, name: &str) -> JobLog {
        let kept = self.clone();
        JobLog::new(
            name,
            Some(Box::new(move |told| {
                kept.0.update(|events| events.push(told.event.clone()));
            })),
        )
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().clone()
    }

    /// Whether there is an event so far that `is_it` recognises.
    pub fn has(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        self.0.lock().iter().any(is_it)
    }

    /// The first event that `is_it` recognises; waits for it at most so long.
    pub fn wait(&self, deadline: Duration, is_it: impl Fn(&Event) -> bool) -> Option<Event> {
        let missing = |events: &mut Vec<Event>| !events.iter().any(&is_it);
        let events = self.0.wait_at_most(deadline, missing);
        events.iter().find(|event| is_it(event)).cloned()
    }
}

/// One line for each event, with its level.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events();
        events
            .iter()
            .try_for_each(|event| writeln!(f, "{} {event}", event.level()))
    }
}
