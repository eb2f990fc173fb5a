// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a job's messages go: the caller's callback, or the `log` crate.

use std::fmt;
use std::sync::{Arc, Mutex};

/// Takes one message, a line without its end.
pub type Sink = Box<dyn FnMut(log::Level, &str) + Send>;

/// The log of one job. Messages from its threads arrive one at a time; clones are
/// the same log.
#[derive(Clone)]
pub struct JobLog(Arc<Inner>);

struct Inner {
    sink: Option<Mutex<Sink>>,
    name: String,
}

impl JobLog {
    /// A log for the guest `name`; without a sink, messages go to the `log`
    /// crate's logger, which is nobody unless the program has set one.
    pub fn new(name: &str, sink: Option<Sink>) -> Self {
        Self(Arc::new(Inner {
            sink: sink.map(Mutex::new),
            name: name.to_owned(),
        }))
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Writes one message. A sink that panicked before is used again: losing
    /// the log of a crash would be worse.
    pub fn write(&self, level: log::Level, message: fmt::Arguments<'_>) {
        match &self.0.sink {
            Some(sink) => {
                let mut sink = sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                sink(level, &message.to_string());
            }
            None => log::log!(target: "vicover", level, "{}: {message}", self.name()),
        }
    }
}

macro_rules! job_log {
    ($log:expr, $level:ident, $($message:tt)+) => {
        $log.write(log::Level::$level, format_args!($($message)+))
    };
}
pub(crate) use job_log;
