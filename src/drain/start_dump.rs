// SPDX-License-Identifier: LGPL-2.1-or-later
//! Opening the dump's sink, making the dump fit it, and starting the engine.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::budget;
use super::run::Dump;
use crate::drain::Target;
use crate::dump::{
    make_directory, Engine, EngineConfig, FileSink, Format, Notice, OpenSink, Sink, Unfinished,
};
use crate::error::Error;
use crate::host::CrashedDomain;
use crate::job::JobState;
use crate::journal::Entry;
use crate::options::Options;
use crate::told::event::DumpEvent;
use crate::understand::Understanding;

/// How long a dump waits for the name of the crash's record, to have the same: both are
/// in one directory, which does not answer when it takes longer.
const NAME_DEADLINE: Duration = Duration::from_millis(500);

/// Opens where the guest's dump goes and starts the engine. Where there is not
/// room enough, `understanding` afterwards wants fewer pages.
pub(crate) fn start_dump(
    domain: &dyn CrashedDomain,
    target: &Target,
    understanding: &mut Understanding,
    job: &JobState,
) -> Result<Dump, Error> {
    let config = config(&target.options, job);
    let sink = open_sink(target, understanding.facts.timestamp_s, config.format, job)?;
    let path = sink.path();
    job.note(&Entry::DumpBegun {
        path: path.clone(),
        changes: understanding.facts.changes.clone(),
    });
    job.log.tell(DumpEvent::Started { path: path.clone() });
    job.set_place(sink.place());
    begin(domain, target, understanding, sink, config, job).map_err(|error| match error {
        Error::DumpStart(source) => Error::DumpStart(source.at(path.as_deref())),
        other => other,
    })
}

/// Starts the engine to go on with a dump that another process has begun.
pub(crate) fn go_on(
    unfinished: Unfinished,
    target: &Target,
    job: &JobState,
) -> Result<Dump, Error> {
    let mut config = config(&target.options, job);
    config.limit = limit(unfinished.room(target.options.reserve_bytes), target);
    let (path, place) = (unfinished.sink().path(), unfinished.sink().place());
    let (stored, wanted) = (
        unfinished.stored().count(),
        unfinished.bitmaps().wanted_total(),
    );
    job.log.tell(DumpEvent::GoneOn {
        path,
        stored_pages: stored,
        wanted_pages: wanted,
    });
    job.set_place(place);
    job.counters.planned.store(wanted, Relaxed);
    Engine::resume(unfinished, config).map_err(Error::DumpStart)
}

/// Bytes that a dump may have for which there is so much room, if that is limited.
fn limit(room: Option<u64>, target: &Target) -> Option<u64> {
    let limits = [room, target.options.max_dump_bytes];
    limits.into_iter().flatten().min()
}

/// Makes the dump fit the sink, and starts the engine.
fn begin(
    domain: &dyn CrashedDomain,
    target: &Target,
    understanding: &mut Understanding,
    sink: Box<dyn Sink>,
    mut config: EngineConfig,
    job: &JobState,
) -> Result<Dump, Error> {
    config.limit = limit(sink.room(target.options.reserve_bytes), target);
    if let Some(room) = config.limit {
        budget::fit(domain, understanding, config.format, room, job)?;
    }
    job.counters
        .planned
        .store(understanding.bitmaps.wanted_total(), Relaxed);
    Engine::start(
        sink,
        &understanding.facts,
        understanding.bitmaps.clone(),
        config,
    )
    .map_err(Error::DumpStart)
}

fn open_sink(
    target: &Target,
    timestamp_s: u64,
    format: Format,
    job: &JobState,
) -> Result<Box<dyn Sink>, Error> {
    let mut given = target.sink.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sink) = given.take() {
        return Ok(sink);
    }
    let sink = match &target.options.sink {
        Some(path) => OpenSink::open(path),
        None => make_directory(&target.dump_dir).and_then(|made| {
            let dir = &target.dump_dir;
            if made {
                let path = dir.clone();
                job.log.tell(DumpEvent::DirectoryMade { path });
            }
            let created = match job.record.stem(NAME_DEADLINE) {
                Some(stem) => FileSink::create_beside(dir, &stem, format),
                None => FileSink::create(dir, &target.name, timestamp_s, format),
            };
            created.map(|sink| Box::new(sink) as Box<dyn Sink>)
        }),
    };
    sink.map_err(Error::DumpStart)
}

fn config(options: &Options, job: &JobState) -> EngineConfig {
    job.io_control.begin(options.io, &job.pace);
    let log = job.log.clone();
    let mut config = EngineConfig {
        format: options.format,
        notices: Some(Arc::new(move |notice| {
            log.tell(match notice {
                Notice::Stopped(error) => DumpEvent::Stopped { why: error.chain() },
                Notice::NotSynced(error) => DumpEvent::NotSynced { why: error.chain() },
                Notice::NotLasting(error) => DumpEvent::NotLasting { why: error.chain() },
            });
        })),
        buffer_bytes: usize::try_from(options.buffer_bytes).unwrap_or(usize::MAX),
        pacer: Some(job.pace.clone()),
        cancel: job.cancel.clone(),
        ..EngineConfig::default()
    };
    if let Some(threads) = options.threads {
        config.threads = usize::from(threads);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump;
    use crate::told::event::Event;
    use crate::told::kept::Kept;

    #[test]
    fn the_engine_is_as_the_options_say_and_has_the_jobs_pace_cancel_and_log() {
        let kept = Kept::default();
        let job = JobState::new(kept.log("test"));
        let options = Options::parse("format=elf,threads=3,buffer=128M").unwrap();
        let config = config(&options, &job);
        assert!(matches!(config.format, Format::Elf));
        assert_eq!((config.threads, config.buffer_bytes), (3, 128 << 20));
        assert!(config.pacer.is_some() && !config.cancel.is_asked());
        job.cancel.ask();
        assert!(config.cancel.is_asked());
        let tell = config.notices.expect("somebody hears");
        let why = dump::Error::Closed;
        let said = why.chain();
        tell(Notice::NotSynced(why));
        let told = Event::Dump(DumpEvent::NotSynced { why: said });
        assert_eq!(kept.events(), [told]);
    }
}
