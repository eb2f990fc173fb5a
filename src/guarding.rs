//! Watching the recovery domain while the dump goes on: the memory guard stops it
//! while its populate-on-demand cache would run out, and the head start makes the
//! dump rest while it boots.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::handover::Handover;
use crate::host::{Backing, HostError, RecoveryDomain};
use crate::joblog::{job_log, JobLog};
use crate::pacing::guard::{look_again, Act, Guard};
use crate::pacing::headstart::HeadStart;
use crate::throttle::Pace;
use crate::units::{Size, Span};

/// What the guard had to do.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Guarded {
    /// How often the domain was stopped.
    pub pauses: u64,
    /// How long in all.
    pub paused: Duration,
    /// The smallest cache that was seen while memory was missing, in pages.
    pub lowest_cache: Option<u64>,
}

impl Guarded {
    fn note(&mut self, backing: &Backing) {
        if backing.missing() > 0 {
            let lowest = self.lowest_cache.unwrap_or(u64::MAX);
            self.lowest_cache = Some(lowest.min(backing.cache));
        }
    }

    fn end_pause(&mut self, since: &mut Option<Instant>) {
        if let Some(since) = since.take() {
            self.paused += since.elapsed();
        }
    }

    /// Says it in a line.
    pub(crate) fn tell(&self, log: &JobLog) {
        let lowest = match self.lowest_cache {
            Some(pages) => format!("lowest cache {}", Size::of_pages(pages)),
            None => "no memory was missing".into(),
        };
        job_log!(
            log,
            Info,
            "memory guard: {} pauses, {} in all, {lowest}",
            self.pauses,
            Span(self.paused)
        );
    }
}

/// Guards `recovery` until `stop` is set or it is gone. The dump rests during the
/// head start and keeps its pace afterwards, but hurries while recovery is
/// stopped, and when it is gone: what comes after it waits for the memory, too.
pub(crate) fn watch(
    recovery: &dyn RecoveryDomain,
    stop: &AtomicBool,
    pace: &Pace,
    handover: &Handover<'_>,
    log: &JobLog,
) -> Guarded {
    let began = Instant::now();
    let mut head_start = Some(HeadStart::new(Duration::ZERO));
    let mut guard = Guard::default();
    let mut guarded = Guarded::default();
    let mut paused_at = None;
    pace.hurry(false);
    while !stop.load(Relaxed) {
        let looked = recovery.backing().and_then(|backing| {
            // The cache of a domain that is destroyed is emptied: no guest in need.
            // One that has crashed may still be there, waiting for its dump.
            if !recovery.exists() {
                return Err(HostError::new("watching", "it has ended"));
            }
            guarded.note(&backing);
            give_head_start(recovery, &mut head_start, began, &backing, handover)?;
            let act = guard.look(backing.cache, backing.missing());
            match act {
                Act::Pause => recovery.pause()?,
                Act::Unpause => recovery.unpause()?,
                Act::Leave => {}
            }
            Ok((act, look_again(backing.cache, backing.missing())))
        });
        match looked {
            Ok((act, again)) => {
                match act {
                    Act::Pause => {
                        paused_at = Some(Instant::now());
                        pace.hurry(true);
                        let domid = recovery.domid();
                        job_log!(
                            log,
                            Info,
                            "recovery domain {domid} is paused until memory is there"
                        );
                    }
                    Act::Unpause => {
                        guarded.end_pause(&mut paused_at);
                        pace.hurry(false);
                    }
                    Act::Leave => {}
                }
                std::thread::sleep(again);
            }
            Err(error) => {
                pace.hurry(true);
                // It crashed or was destroyed: its own policy's turn.
                job_log!(log, Info, "memory guard ends with its domain: {error}");
                break;
            }
        }
    }
    handover.hold(false);
    if stop.load(Relaxed) && guard.is_paused() {
        if let Err(error) = recovery.unpause() {
            job_log!(
                log,
                Error,
                "recovery domain {} stays paused: {error}: run `xl unpause {}`",
                recovery.domid(),
                log.name()
            );
        }
    }
    guarded.end_pause(&mut paused_at);
    guarded.pauses = guard.pauses();
    guarded
}

/// Makes the drain rest while recovery boots, until that is over.
fn give_head_start(
    recovery: &dyn RecoveryDomain,
    head_start: &mut Option<HeadStart>,
    began: Instant,
    backing: &Backing,
    handover: &Handover<'_>,
) -> Result<(), HostError> {
    let Some(start) = head_start else {
        return Ok(());
    };
    let (now, used) = (began.elapsed(), recovery.processor_time()?);
    handover.hold(start.look(now, used, backing.cache, backing.missing()));
    if start.is_over(now) {
        *head_start = None;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Throttle;
    use crate::host::images::SyntheticImage;
    use crate::host::memory::{Faults, MemoryHost};
    use crate::pacing::sample::Order;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::thread;

    const MIB: u64 = 256;
    const PAGE: u64 = 4096;

    /// A recovery domain that goes through a list of caches, stays at the last
    /// one, and is gone where the list says so.
    #[derive(Default)]
    struct Scripted {
        caches: Mutex<VecDeque<Option<u64>>>,
        calls: Mutex<Vec<&'static str>>,
        dying: AtomicBool,
    }

    impl Scripted {
        fn push(&self, cache: Option<u64>) {
            self.caches.lock().unwrap().push_back(cache);
        }

        fn call(&self, name: &'static str) -> Result<(), HostError> {
            self.calls.lock().unwrap().push(name);
            Ok(())
        }
    }

    impl RecoveryDomain for Scripted {
        fn domid(&self) -> u32 {
            7
        }
        fn exists(&self) -> bool {
            !self.dying.load(Relaxed)
        }
        fn processor_time(&self) -> Result<Duration, HostError> {
            Ok(Duration::ZERO)
        }
        fn backing(&self) -> Result<Backing, HostError> {
            let mut caches = self.caches.lock().unwrap();
            let next = match caches.len() {
                1 => caches[0],
                _ => caches.pop_front().expect("a script has an entry"),
            };
            let cache = next.ok_or_else(|| HostError::new("backing", "no such domain"))?;
            Ok(Backing {
                total: cache,
                cache,
                outstanding: 512 * MIB,
            })
        }
        fn grow(&self, _pages: u64) -> Result<Backing, HostError> {
            self.backing()
        }
        fn pause(&self) -> Result<(), HostError> {
            self.call("pause")
        }
        fn unpause(&self) -> Result<(), HostError> {
            self.call("unpause")
        }
    }

    struct Story {
        domain: Arc<Scripted>,
        pace: Arc<Pace>,
        stop: Arc<AtomicBool>,
        log: Arc<Mutex<Vec<String>>>,
        guard: thread::JoinHandle<Guarded>,
    }

    /// Starts a guard over `domain` while the dump may write one page an hour.
    fn start(caches: &[Option<u64>]) -> Story {
        let domain = Arc::new(Scripted::default());
        caches.iter().for_each(|cache| domain.push(*cache));
        let pace = Arc::new(Pace::default());
        pace.obey(Order {
            limit: Some(1),
            ..Order::FREE
        });
        let stop = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (guarded, paced, until) = (domain.clone(), pace.clone(), stop.clone());
        let lines = log.clone();
        let guard = thread::spawn(move || {
            let sink = Box::new(move |_, line: &str| lines.lock().unwrap().push(line.into()));
            let log = JobLog::new("test", Some(sink));
            let crashed = MemoryHost::new(Arc::new(SyntheticImage::new(1)), 1, Faults::default());
            let handover = Handover::new(&crashed, &log);
            watch(&*guarded, &until, &paced, &handover, &log)
        });
        Story {
            domain,
            pace,
            stop,
            log,
            guard,
        }
    }

    #[test]
    fn a_guest_short_of_memory_makes_the_dump_hurry_until_it_runs_again() {
        let story = start(&[Some(100 * MIB), Some(MIB)]);
        // So much is granted only because the guard makes the dump hurry.
        while story.pace.acquire(PAGE * 1000) < PAGE * 1000 {
            thread::yield_now();
        }
        story.domain.push(Some(200 * MIB));
        while *story.domain.calls.lock().unwrap() != ["pause", "unpause"] {
            thread::yield_now();
        }
        while story.pace.hurries() {
            thread::yield_now();
        }
        story.stop.store(true, Relaxed);
        let guarded = story.guard.join().unwrap();
        assert_eq!(guarded.pauses, 1);
        assert_eq!(guarded.lowest_cache, Some(MIB));
        assert!(guarded.paused > Duration::ZERO);
    }

    #[test]
    fn a_domain_that_is_gone_ends_the_guard_and_lets_the_dump_hurry() {
        let story = start(&[Some(MIB), None]);
        let guarded = story.guard.join().unwrap();
        assert_eq!(guarded.pauses, 1);
        assert_eq!(*story.domain.calls.lock().unwrap(), ["pause"]);
        assert!(story.pace.hurries());
        let log = story.log.lock().unwrap();
        assert!(
            log.iter().any(|line| line.contains("no such domain")),
            "{log:?}"
        );
    }

    #[test]
    fn a_dying_domain_is_not_taken_for_one_in_need() {
        let story = start(&[Some(200 * MIB)]);
        story.domain.dying.store(true, Relaxed);
        story.domain.push(Some(0));
        let guarded = story.guard.join().unwrap();
        assert_eq!(guarded.pauses, 0);
        assert_ne!(guarded.lowest_cache, Some(0));
        assert!(story.pace.hurries());
    }

    #[test]
    fn a_guard_that_is_stopped_lets_its_domain_run() {
        let story = start(&[Some(MIB)]);
        while story.domain.calls.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        story.stop.store(true, Relaxed);
        story.guard.join().unwrap();
        assert_eq!(*story.domain.calls.lock().unwrap(), ["pause", "unpause"]);
    }
}
