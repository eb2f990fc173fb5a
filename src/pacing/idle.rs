// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether a guest waits for something else than processors.

use std::time::Duration;

/// Judges a guest by the processor time that it uses over a span of time, so that short
/// waits (for a device, for the disk) do not count.
#[derive(Debug)]
pub struct IdleDetector {
    span: Duration,
    /// A guest that uses less than one part in so many of a processor is idle.
    part: u32,
    /// When the span began, and the guest's processor time then.
    began: (Duration, Duration),
}

impl IdleDetector {
    /// Begins at the time `now`, when the guest has used no processor time yet.
    pub fn new(now: Duration, span: Duration, part: u32) -> Self {
        Self {
            span,
            part,
            began: (now, Duration::ZERO),
        }
    }

    /// Whether the guest was idle in the span that ends at the time `now`, when it has
    /// used so much processor time in all; none within a span.
    pub fn look(&mut self, now: Duration, used: Duration) -> Option<bool> {
        let (since, before) = self.began;
        let passed = now.saturating_sub(since);
        if passed < self.span {
            return None;
        }
        self.began = (now, used);
        Some(used.saturating_sub(before) * self.part < passed)
    }
}
