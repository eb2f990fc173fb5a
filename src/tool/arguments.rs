// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the program's arguments ask for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lexopt::Arg::{Long, Short, Value};
use lexopt::{Parser, ValueExt};

use super::failure::Failure;
use crate::options::{HostOptions, DUMP_DIRECTORY, FILE};

pub(super) const HELP: &str = "\
vicover: crashes of Xen guests, their records and dumps

  vicover list [-n N] [-r] [GUEST]   crashes, the last one at the end
  vicover info [ID|GUEST]            one crash, on one screen: the last one
  vicover status [-w] [GUEST]        crashes that are being handled; -w follows
  vicover metrics                    all crashes in figures, for Prometheus
  vicover verify DUMP...             whether dumps are what was written
  vicover mend DUMP...               make dumps that were cut off safe to open
  vicover help, vicover version

  -D, --directory DIR   where the records are, unless /etc/xen/vicover.conf
                        says it: /var/lib/xen/dump
  -n, --lines N         of the list, the last N crashes
  -r, --reverse         of the list, the last crash first
  -w, --watch           go on until no crash is being handled
      --json            for programs: an object for each crash, one in a line

A crash is called by its id, GUEST-TIME, which its files' names begin with; a
guest stands for its last crash. Status 0: done; 1: there is none, or a dump is
not sound; 2: not understood, or not possible.
";

/// What is asked for.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) command: Command,
}

#[derive(Debug)]
pub(super) enum Command {
    Help,
    Version,
    List(List),
    Info(Info),
    Status(Status),
    Metrics(Metrics),
    Verify(Vec<PathBuf>),
    Mend(Vec<PathBuf>),
}

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) directory: PathBuf,
}

#[derive(Debug)]
pub(super) struct List {
    pub(super) directory: PathBuf,
    pub(super) guest: Option<String>,
    pub(super) most: Option<usize>,
    pub(super) is_reverse: bool,
    pub(super) is_json: bool,
}

#[derive(Debug)]
pub(super) struct Info {
    pub(super) directory: PathBuf,
    pub(super) crash: Option<String>,
    pub(super) is_json: bool,
}

#[derive(Debug)]
pub(super) struct Status {
    pub(super) directory: PathBuf,
    pub(super) guest: Option<String>,
    pub(super) is_watch: bool,
    pub(super) is_json: bool,
}

/// All that any command may be given.
#[derive(Default)]
struct Given {
    directory: Option<PathBuf>,
    most: Option<usize>,
    is_reverse: bool,
    is_watch: bool,
    is_json: bool,
    is_help: bool,
    values: Vec<OsString>,
}

/// Options, by the names that they have in messages.
const OPTIONS: [&str; 5] = ["--directory", "--lines", "--reverse", "--watch", "--json"];

fn usage(error: impl ToString) -> Failure {
    Failure::Usage(error.to_string())
}

/// Where this host's dumps go.
fn host_directory() -> Result<PathBuf, Failure> {
    let host = HostOptions::read(Path::new(FILE));
    let host = host.map_err(|error| Failure::Refused(error.to_string()))?;
    Ok(host.directory().unwrap_or(Path::new(DUMP_DIRECTORY)).into())
}

impl Arguments {
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut given = Given::parse(arguments)?;
        if given.is_help || given.values.is_empty() {
            let command = Command::Help;
            return Ok(Self { command });
        }
        let name = given.values.remove(0).string().map_err(usage)?;
        let command = given.command(&name)?;
        Ok(Self { command })
    }
}

impl Given {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut given = Self::default();
        let mut parser = Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(usage)? {
            match argument {
                Short('D') | Long("directory") => {
                    given.directory = Some(parser.value().map_err(usage)?.into());
                }
                Short('n') | Long("lines") => {
                    let most = parser.value().and_then(|value| value.parse());
                    given.most = Some(most.map_err(usage)?);
                }
                Short('r') | Long("reverse") => given.is_reverse = true,
                Short('w') | Long("watch") => given.is_watch = true,
                Short('h') | Long("help") => given.is_help = true,
                Long("json") => given.is_json = true,
                Value(value) => given.values.push(value),
                other => return Err(usage(other.unexpected())),
            }
        }
        Ok(given)
    }

    fn command(mut self, name: &str) -> Result<Command, Failure> {
        let directory = self.directory.take();
        let of = || directory.clone().map_or_else(host_directory, Ok);
        // In the order of OPTIONS.
        let has = [
            directory.is_some(),
            self.most.is_some(),
            self.is_reverse,
            self.is_watch,
            self.is_json,
        ];
        let (takes, command): ([bool; 5], Command) = match name {
            "help" => ([false; 5], Command::Help),
            "version" => ([false; 5], Command::Version),
            "list" => (
                [true, true, true, false, true],
                Command::List(List {
                    directory: of()?,
                    guest: self.one_value("one guest")?,
                    most: self.most,
                    is_reverse: self.is_reverse,
                    is_json: self.is_json,
                }),
            ),
            "info" => (
                [true, false, false, false, true],
                Command::Info(Info {
                    directory: of()?,
                    crash: self.one_value("one crash or guest")?,
                    is_json: self.is_json,
                }),
            ),
            "status" => (
                [true, false, false, true, true],
                Command::Status(Status {
                    directory: of()?,
                    guest: self.one_value("one guest")?,
                    is_watch: self.is_watch,
                    is_json: self.is_json,
                }),
            ),
            "metrics" => {
                self.no_value()?;
                let takes = [true, false, false, false, false];
                (takes, Command::Metrics(Metrics { directory: of()? }))
            }
            "verify" => ([false; 5], Command::Verify(self.paths()?)),
            "mend" => ([false; 5], Command::Mend(self.paths()?)),
            _ => return Err(usage(format!("unknown command '{name}'"))),
        };
        let mut unknown = OPTIONS.iter().zip(has.iter().zip(takes));
        match unknown.find(|(_, (&has, takes))| has && !takes) {
            Some((option, _)) => Err(usage(format!("'{name}' takes no {option}"))),
            None => Ok(command),
        }
    }

    /// The one value that there may be.
    fn one_value(&mut self, what: &str) -> Result<Option<String>, Failure> {
        if self.values.len() > 1 {
            let values = self.values.len();
            return Err(usage(format!("{values} names; allowed: {what}")));
        }
        let value = self.values.pop();
        value.map(|value| value.string().map_err(usage)).transpose()
    }

    fn no_value(&self) -> Result<(), Failure> {
        match self.values.len() {
            0 => Ok(()),
            values => Err(usage(format!("{values} names; allowed: none"))),
        }
    }

    fn paths(&mut self) -> Result<Vec<PathBuf>, Failure> {
        match self.values.is_empty() {
            true => Err(usage("which dumps?")),
            false => Ok(self.values.drain(..).map(PathBuf::from).collect()),
        }
    }
}
