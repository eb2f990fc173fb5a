// SPDX-License-Identifier: LGPL-2.1-or-later
//! Opening the dump's sink, making the dump fit it, and starting the engine.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use super::budget;
use super::run::Dump;
use crate::drain::Target;
use crate::dump::{make_directory, Engine, EngineConfig, FileSink, Format, Notice, OpenSink, Sink};
use crate::error::Error;
use crate::host::CrashedDomain;
use crate::job::Shared;
use crate::options::Options;
use crate::told::log::job_log;
use crate::understand::Understanding;

/// Opens where the guest's dump goes and starts the engine. Where there is not
/// room enough, `known` afterwards wants fewer pages.
pub(crate) fn start_dump(
    domain: &dyn CrashedDomain,
    target: &Target,
    known: &mut Understanding,
    shared: &Shared,
) -> Result<Dump, Error> {
    let config = config(&target.options, shared);
    let sink = open_sink(target, known.facts.timestamp_s, config.format, shared)?;
    let path = sink.path();
    match &path {
        Some(path) => job_log!(shared.log, Info, "dumping to {}", path.display()),
        None => job_log!(shared.log, Info, "dumping to the descriptor handed in"),
    }
    shared.set_place(sink.place());
    begin(domain, target, known, sink, config, shared).map_err(|error| match error {
        Error::DumpStart(source) => Error::DumpStart(source.at(path.as_deref())),
        other => other,
    })
}

/// Makes the dump fit the sink, and starts the engine.
fn begin(
    domain: &dyn CrashedDomain,
    target: &Target,
    known: &mut Understanding,
    sink: Box<dyn Sink>,
    mut config: EngineConfig,
    shared: &Shared,
) -> Result<Dump, Error> {
    let limits = [
        sink.room(target.options.reserve_bytes),
        target.options.max_dump_bytes,
    ];
    config.limit = limits.into_iter().flatten().min();
    if let Some(room) = config.limit {
        budget::fit(domain, known, config.format, room, shared)?;
    }
    shared
        .counters
        .planned
        .store(known.bitmaps.wanted_total(), Relaxed);
    Engine::start(sink, &known.facts, known.bitmaps.clone(), config).map_err(Error::DumpStart)
}

fn open_sink(
    target: &Target,
    timestamp_s: u64,
    format: Format,
    shared: &Shared,
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
                job_log!(
                    shared.log,
                    Info,
                    "made the dump directory {}",
                    dir.display()
                );
            }
            FileSink::create(dir, &target.name, timestamp_s, format)
                .map(|sink| Box::new(sink) as Box<dyn Sink>)
        }),
    };
    sink.map_err(Error::DumpStart)
}

fn config(options: &Options, shared: &Shared) -> EngineConfig {
    shared.steering.begin(options.io, &shared.pace);
    let log = shared.log.clone();
    let mut config = EngineConfig {
        format: options.format,
        notices: Some(Arc::new(move |notice| match notice {
            Notice::Stopped(_) => job_log!(log, Error, "{notice}"),
            Notice::NotSynced(_) | Notice::NotLasting(_) => job_log!(log, Warn, "{notice}"),
        })),
        buffer_bytes: usize::try_from(options.buffer_bytes).unwrap_or(usize::MAX),
        throttle: Some(shared.pace.clone()),
        cancel: shared.cancel.clone(),
        ..EngineConfig::default()
    };
    if let Some(threads) = options.threads {
        config.threads = usize::from(threads);
    }
    config
}
