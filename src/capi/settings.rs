// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a job is started with: a caller's options, and those of the host under them.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};

use super::abi;
use super::callbacks::listener;
use super::input::{read_struct, text};
use super::status::Failure;
use crate::drain::Target;
use crate::dump::{FileSink, OpenSink, Sink};
use crate::error::Error;
use crate::journal::{self, Notes, Past};
use crate::options::{HostOptions, HostOptionsError, Options, DUMP_DIRECTORY, FILE};
use crate::os::fd::duplicate;
use crate::told::event::JobEvent;
use crate::told::log::JobLog;
use crate::told::EventSocket;

/// What every job is started with. The sink is open already, so that a name that
/// is taken is refused before anything is done to a guest.
pub(super) struct Start {
    options: Options,
    name: String,
    dump_dir: PathBuf,
    sink: Option<Box<dyn Sink>>,
    /// Where a crash is written down. Without Xen there is none.
    #[cfg_attr(not(feature = "xen"), allow(dead_code))]
    pub(super) notes: Notes,
    log: JobLog,
}

impl Start {
    /// What the dump is made of, and the job's log.
    pub(super) fn into_target(self) -> (Target, JobLog) {
        let target = Target {
            options: self.options,
            name: self.name,
            dump_dir: self.dump_dir,
            sink: self.sink.into(),
        };
        (target, self.log)
    }
}

/// Where the journal of systemd listens.
const JOURNALD: &str = "/run/systemd/journal/socket";

/// What the options of a call say, before anything is done about it.
pub(super) struct Settings {
    pub(super) options: Options,
    /// The options as they were written, the host's among them.
    spec: String,
    /// Why the host's are not, if there are any.
    host_refused: Option<HostOptionsError>,
    name: String,
    pub(super) dump_dir: PathBuf,
    dump_file: Option<String>,
    journal_dir: PathBuf,
    raw: abi::vicover_options,
}

impl Settings {
    /// What a job that goes on with `past` is started with. It is asked for with nothing
    /// that the journal says.
    pub(super) fn going_on(self, past: &Past) -> Result<Start, Failure> {
        let raw = &self.raw;
        let given = [raw.spec, raw.name, raw.dump_dir, raw.dump_file];
        if given.iter().any(|text| !text.is_null()) || raw.flags != 0 {
            return Err(Failure::new(
                abi::VICOVER_ERR_OPTION,
                "spec, name, dump_dir, dump_file and flags are the journal's; allowed: none",
            ));
        }
        let begun = &past.begun;
        let options = Options::parse(&begun.options).map_err(Error::from)?;
        Ok(Self {
            options,
            spec: begun.options.clone(),
            name: begun.guest.clone(),
            dump_dir: begun.dump_dir.clone(),
            // They were read when the crash began to be handled.
            host_refused: None,
            ..self
        }
        .start(None))
    }

    fn start(self, sink: Option<Box<dyn Sink>>) -> Start {
        let socket = self.options.events.as_deref().map(EventSocket::to);
        let log = JobLog::with_sockets(
            &self.name,
            listener(&self.raw),
            socket,
            Some(JOURNALD.into()),
        );
        // The guest's own are enough to bring it back.
        if let Some(error) = self.host_refused {
            let error = error.to_string();
            log.tell(JobEvent::HostOptionsRefused { error });
        }
        Start {
            sink,
            log,
            options: self.options,
            name: self.name,
            dump_dir: self.dump_dir,
            notes: Notes {
                directory: self.journal_dir,
                options: self.spec,
            },
        }
    }

    /// Refuses the host's options when there is a fault in them, which keeps no job from
    /// being started.
    pub(super) fn refuse_host_options(&self) -> Result<(), Failure> {
        let refused = self.host_refused.as_ref();
        refused.map_or(Ok(()), |error| {
            Err(Failure::new(abi::VICOVER_ERR_OPTION, error.to_string()))
        })
    }

    /// Refuses what is only made when a job is started.
    pub(super) fn refuse_other_places(&self) -> Result<(), Failure> {
        if self.dump_file.is_none() && self.raw.flags == 0 {
            return Ok(());
        }
        Err(Failure::new(
            abi::VICOVER_ERR_OPTION,
            "dump_file and flags are not looked at beforehand; allowed: dump_dir, and sink= in spec",
        ))
    }
}

/// Reads the options that every job takes.
///
/// # Safety
/// As the header says for `struct vicover_options`.
pub(super) unsafe fn read_settings(from: *const abi::vicover_options) -> Result<Settings, Failure> {
    // SAFETY: passed on, here and for the strings.
    let raw = unsafe { read_struct(from)? };
    // SAFETY: as above.
    let (spec, name, dump_dir, dump_file, journal_dir, conf_file) = unsafe {
        (
            text(raw.spec, "spec")?,
            text(raw.name, "name")?,
            text(raw.dump_dir, "dump_dir")?,
            text(raw.dump_file, "dump_file")?,
            text(raw.journal_dir, "journal_dir")?,
            text(raw.conf_file, "conf_file")?,
        )
    };
    let conf_file = conf_file.as_deref().map_or(Path::new(FILE), Path::new);
    let (mut host, mut host_refused) = (HostOptions::default(), None);
    match HostOptions::read(conf_file) {
        Ok(read) => host = read,
        Err(error) => host_refused = Some(error),
    }
    // Who says where this dump goes says it in the place of the host.
    if dump_file.is_some() || raw.flags & abi::VICOVER_OPTION_SINK_FD != 0 {
        host = host.without("sink");
    }
    let spec = host.under(&spec.unwrap_or_default());
    let host_dir = host.directory().unwrap_or(Path::new(DUMP_DIRECTORY));
    Ok(Settings {
        options: Options::parse(&spec).map_err(Error::from)?,
        spec,
        host_refused,
        name: name.unwrap_or_else(|| "guest".into()),
        dump_dir: dump_dir.map_or_else(|| host_dir.into(), PathBuf::from),
        dump_file,
        journal_dir: journal_dir
            .unwrap_or_else(|| journal::DIRECTORY.into())
            .into(),
        raw,
    })
}

/// Reads the options of a job that is to start: opens its sink, and takes the log.
///
/// # Safety
/// As the header says for `struct vicover_options`.
pub(super) unsafe fn read_start(from: *const abi::vicover_options) -> Result<Start, Failure> {
    // SAFETY: passed on.
    let settings = unsafe { read_settings(from)? };
    let raw = &settings.raw;
    let dump_file = settings.dump_file.as_deref().map(Path::new);
    let sink = read_sink(raw, dump_file, &settings.options)?;
    Ok(settings.start(sink))
}

/// The sink that the caller hands in or names, if any.
fn read_sink(
    raw: &abi::vicover_options,
    dump_file: Option<&Path>,
    options: &Options,
) -> Result<Option<Box<dyn Sink>>, Failure> {
    let refuse = |text: String| Failure::new(abi::VICOVER_ERR_OPTION, text);
    let unknown = raw.flags & !abi::VICOVER_OPTION_SINK_FD;
    if unknown != 0 {
        let text =
            format!("vicover_options.flags has {unknown:#x}, which this version does not know");
        return Err(refuse(text));
    }
    let has_descriptor = raw.flags & abi::VICOVER_OPTION_SINK_FD != 0;
    if !has_descriptor && raw.sink_fd != 0 {
        return Err(refuse(format!(
            "vicover_options.sink_fd is {}, but flags lack VICOVER_OPTION_SINK_FD",
            raw.sink_fd
        )));
    }
    let places = [
        has_descriptor.then(|| "sink_fd".into()),
        dump_file.map(|path| format!("dump_file {}", path.display())),
        (options.sink.as_ref()).map(|path| format!("sink={}", path.display())),
    ];
    let places: Vec<String> = places.into_iter().flatten().collect();
    if places.len() > 1 {
        let all = places.join(" and ");
        return Err(refuse(format!(
            "both {all} are given; allowed: one of them"
        )));
    }
    if let Some(path) = dump_file {
        let sink = FileSink::create_as(path).map_err(Error::DumpStart)?;
        return Ok(Some(Box::new(sink)));
    }
    if !has_descriptor {
        return Ok(None);
    }
    let sink = duplicate(raw.sink_fd).and_then(|file| OpenSink::from_file(file, None));
    sink.map(Some).map_err(|source| {
        let doing = format!("using descriptor {} as sink", raw.sink_fd);
        Error::Io { doing, source }.into()
    })
}
