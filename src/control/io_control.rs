// SPDX-License-Identifier: LGPL-2.1-or-later
//! The controller at work: looks at dump and recovery, and sets the dump's pace.

use std::sync::Arc;

use crate::addr::PAGE_SIZE;
use crate::control::write_pace::WritePace;
use crate::host::{Backing, RecoveryDomain};
use crate::limits::monitor::Monitor;
use crate::os::processor;
use crate::os::sync::thread::{Scope, ScopedJoinHandle};
use crate::os::thread::{start_in, Signals};
use crate::pacing::controller::{Controller, INTERVAL};
use crate::pacing::guard::LOW_PAGES;
use crate::pacing::policy::Policy;
use crate::pacing::sample::{MemoryState, Sample, WriteLimits};
use crate::told::event::{ControlEvent, Instead};
use crate::told::log::JobLog;
use crate::units::Span;

#[derive(Default)]
struct State {
    /// None until somebody has said.
    policy: Option<Policy>,
    stopped: bool,
}

/// The policy of one job, which may change while it runs.
#[derive(Default)]
pub(crate) struct IoControl {
    state: Monitor<State>,
}

impl IoControl {
    /// Follows `policy` from now on. Until somebody controls, `pace` is what the
    /// policy says without having seen anything.
    pub(crate) fn choose(&self, policy: Policy, pace: &WritePace) {
        pace.set_limits(without_a_look(policy));
        self.state.update(|state| state.policy = Some(policy));
    }

    /// Follows `policy` from now on, unless one was chosen already.
    pub(crate) fn begin(&self, policy: Policy, pace: &WritePace) {
        let choose = |state: &mut State| *state.policy.get_or_insert(policy);
        let policy = self.state.update(choose);
        pace.set_limits(without_a_look(policy));
    }

    /// Sets `pace` by the policy, in a thread of its own, until what comes back is
    /// dropped; then nothing holds the dump back. Without a recovery domain, as for
    /// one that asks for nothing. Where there cannot be a thread, the pace is what
    /// the policy says without having seen anything.
    pub(crate) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        pace: &'scope WritePace,
        recovery: Option<Arc<dyn RecoveryDomain>>,
        log: &'scope JobLog,
    ) -> Controlled<'scope> {
        let control = move || self.control(pace, recovery.as_deref(), log);
        let thread = start_in(scope, "vicover-pace", Signals::ToOthers, control)
            .inspect_err(|error| {
                log.tell(ControlEvent::NoThread {
                    instead: Instead::NoIoControl,
                    error: error.to_string(),
                });
            })
            .ok();
        Controlled {
            io_control: self,
            thread,
        }
    }

    fn control(&self, pace: &WritePace, recovery: Option<&dyn RecoveryDomain>, log: &JobLog) {
        let _free = FreeAtEnd(pace);
        let (began, used_before, mut looks) = (pace.now(), processor::used_by_this_thread(), 0u64);
        let mut followed = Policy::Unlimited;
        let mut controller = Controller::new(followed);
        let mut state = self.state.lock();
        while !state.stopped {
            let policy = state.policy.unwrap_or(followed);
            drop(state);
            if policy != followed {
                log.tell(ControlEvent::Policy { policy });
                followed = policy;
                controller = Controller::new(policy);
            }
            let limits = match &controller {
                Controller::Constant(limits) => *limits,
                _ => {
                    looks += 1;
                    controller.limits(&sample(pace, recovery))
                }
            };
            pace.set_limits(limits);
            let same = |state: &mut State| {
                !state.stopped && state.policy.is_none_or(|policy| policy == followed)
            };
            // Constant limits need no looking after.
            state = match controller.is_constant() {
                true => self.state.wait_while(same),
                false => self.state.wait_at_most(INTERVAL, same),
            };
        }
        drop(state);
        if looks > 0 {
            let used = processor::used_by_this_thread().saturating_sub(used_before);
            log.tell(ControlEvent::Looked {
                looks,
                used: Span(used),
                lasted: Span(pace.now().saturating_sub(began)),
            });
        }
    }
}

fn without_a_look(policy: Policy) -> WriteLimits {
    match Controller::new(policy) {
        Controller::Constant(limits) => limits,
        _ => WriteLimits::NONE,
    }
}

/// A dump whose pace follows the policy. Dropping it ends that.
pub(crate) struct Controlled<'scope> {
    io_control: &'scope IoControl,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl Drop for Controlled<'_> {
    fn drop(&mut self) {
        self.io_control.state.update(|state| state.stopped = true);
        // Without it the dump went on all the same.
        let _ = self.thread.take().map(ScopedJoinHandle::join);
    }
}

/// Nobody is left to change the last limits: they must not hold for ever.
struct FreeAtEnd<'a>(&'a WritePace);

impl Drop for FreeAtEnd<'_> {
    fn drop(&mut self) {
        self.0.set_limits(WriteLimits::NONE);
    }
}

fn sample(pace: &WritePace, recovery: Option<&dyn RecoveryDomain>) -> Sample {
    let backing = recovery.and_then(|recovery| recovery.backing().ok());
    Sample {
        at: pace.now(),
        disk: recovery.and_then(RecoveryDomain::disk_totals),
        dump: pace.written(),
        memory: backing.as_ref().map(memory),
        stopped: pace.is_urgent(),
    }
}

fn memory(backing: &Backing) -> MemoryState {
    let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE as u64);
    MemoryState {
        touched: bytes(backing.total.saturating_sub(backing.spare)),
        left: bytes(backing.spare.saturating_sub(LOW_PAGES)),
        missing: bytes(backing.missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Pacer;
    use crate::host::HostError;
    use crate::os::sync::thread;
    use crate::pacing::sample::DiskTotals;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::mpsc;
    use std::time::Duration;

    /// Longer than any of these tests may take.
    const NEVER: Duration = Duration::from_secs(20);

    /// A recovery domain with all its memory, that asks its disk for something
    /// whenever it is looked at.
    #[derive(Default)]
    struct Busy {
        looks: AtomicU64,
    }

    impl RecoveryDomain for Busy {
        fn domid(&self) -> u32 {
            7
        }
        fn exists(&self) -> bool {
            true
        }
        fn processor_time(&self) -> Result<Duration, HostError> {
            Ok(Duration::ZERO)
        }
        fn backing(&self) -> Result<Backing, HostError> {
            Ok(Backing::default())
        }
        fn grow(&self, _pages: u64) -> Result<Backing, HostError> {
            self.backing()
        }
        fn pause(&self) -> Result<(), HostError> {
            Ok(())
        }
        fn unpause(&self) -> Result<(), HostError> {
            Ok(())
        }
        fn disk_totals(&self) -> Option<DiskTotals> {
            let looks = self.looks.fetch_add(1, Relaxed) + 1;
            Some(DiskTotals {
                sent: 100 * looks,
                requests: 100 * looks,
                wait: Duration::from_millis(looks),
                busy: Duration::from_millis(looks),
                in_flight: 1,
            })
        }
    }

    fn quiet() -> JobLog {
        JobLog::new("test", Some(Box::new(|_| {})))
    }

    /// Controls `pace` while `story` goes on.
    fn controlled(
        recovery: Option<Arc<dyn RecoveryDomain>>,
        story: impl FnOnce(&IoControl, &WritePace),
    ) {
        let (io_control, pace, log) = (IoControl::default(), WritePace::default(), quiet());
        thread::scope(|scope| {
            let _controlled = io_control.start(scope, &pace, recovery, &log);
            story(&io_control, &pace);
        });
        assert_eq!(pace.limits(), WriteLimits::NONE, "nobody controls any more");
    }

    fn wait_for(pace: &WritePace, wanted: impl Fn(WriteLimits) -> bool) {
        let since = pace.now();
        while !wanted(pace.limits()) {
            assert!(pace.now() - since < NEVER, "{:?}", pace.limits());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_waiting_writer_is_freed_by_another_policy() {
        controlled(None, |io_control, pace| {
            io_control.choose(Policy::Fixed { bytes_per_s: 1024 }, pace);
            wait_for(pace, |limits| limits.limit == Some(1024));
            thread::scope(|scope| {
                let (done, granted) = mpsc::channel();
                scope.spawn(move || {
                    (0..2).for_each(|_| done.send(pace.acquire(1 << 20)).unwrap());
                });
                assert_eq!(granted.recv_timeout(NEVER), Ok(4096), "the burst");
                let early = granted.recv_timeout(Duration::from_millis(20));
                assert!(early.is_err(), "the writer was not held back");
                io_control.choose(Policy::Unlimited, pace);
                assert_eq!(granted.recv_timeout(NEVER), Ok(1 << 20));
            });
        });
    }

    #[test]
    fn what_was_chosen_before_the_dump_began_stands() {
        let (io_control, pace) = (IoControl::default(), WritePace::default());
        io_control.choose(Policy::Fixed { bytes_per_s: 1024 }, &pace);
        io_control.begin(Policy::Unlimited, &pace);
        assert_eq!(pace.limits().limit, Some(1024));
    }

    #[test]
    fn the_dump_gives_way_to_a_busy_recovery_and_has_the_disk_of_an_idle_one() {
        for policy in [Policy::Adaptive, Policy::RecoveryFirst] {
            controlled(Some(Arc::new(Busy::default())), |io_control, pace| {
                io_control.choose(policy, pace);
                wait_for(pace, |limits| limits.yields && limits.limit.is_some());
            });
            controlled(None, |io_control, pace| {
                io_control.choose(Policy::Fixed { bytes_per_s: 1024 }, pace);
                wait_for(pace, |limits| limits.limit == Some(1024));
                io_control.choose(policy, pace);
                wait_for(pace, |limits| limits.limit.is_none());
            });
        }
    }
}
