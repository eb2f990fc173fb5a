// SPDX-License-Identifier: LGPL-2.1-or-later
//! The options of a host: those of every guest that says nothing else.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::parse::OptionError;
use super::values::Options;
use crate::os::fd::read_text;

/// Where they are kept.
pub const FILE: &str = "/etc/xen/vicover.conf";

/// Where dumps go when neither a caller nor the host says it: where Xen keeps them
/// (`XEN_DUMP_DIR` of its build).
pub const DUMP_DIRECTORY: &str = "/var/lib/xen/dump";

/// The key that options of a guest do not have: where dumps go.
const DIRECTORY: &str = "directory";
/// A file of options is shorter.
const MOST_BYTES: u64 = 64 << 10;

/// The options of a host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostOptions {
    /// Each as it is written: `key=value`.
    items: Vec<String>,
    directory: Option<PathBuf>,
}

/// Why a host's options are not taken.
#[derive(Debug, thiserror::Error)]
pub enum HostOptionsError {
    /// The file is there and cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of it is refused.
    #[error("{}: line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it, and what is allowed.
        why: String,
    },
}

impl HostOptions {
    /// Reads the file at `path`; one that is not there says nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read, or a line of it is refused.
    pub fn read(path: &Path) -> Result<Self, HostOptionsError> {
        let path = path.to_owned();
        match read_text(&path, MOST_BYTES) {
            Ok(text) => {
                Self::parse(&text).map_err(|(line, why)| HostOptionsError::Line { path, line, why })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(HostOptionsError::Read { path, source }),
        }
    }

    /// Reads `key = value` lines; empty ones and those that begin with `#` say nothing.
    /// Gives the number of the line that is refused, and why.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut host = Self::default();
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |why: &str| (number, format!("'{line}': {why}"));
            let (key, value) = line
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(_, value)| !value.contains(','))
                .ok_or_else(|| refuse("expected one key=value"))?;
            if key != DIRECTORY {
                host.items.push(format!("{key}={value}"));
                lines.push((key, number));
                continue;
            }
            if host.directory.is_some() {
                return Err((number, OptionError::Twice { key: DIRECTORY }.to_string()));
            }
            let path = Some(PathBuf::from(value)).filter(|path| path.is_absolute());
            host.directory = Some(path.ok_or_else(|| refuse("allowed: an absolute path"))?);
        }
        // All together: whether a value is allowed may depend on another line.
        match Options::parse(&host.items.join(",")) {
            Ok(_) => Ok(host),
            Err(error) => {
                let of_it = |(key, _): &&(&str, usize)| *key == error.key();
                let line = lines.iter().rev().find(of_it);
                Err((line.map_or(1, |&(_, number)| number), error.to_string()))
            }
        }
    }

    /// Where dumps go, if the host says so.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The host's options but the one called `key`.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        let is_it = |item: &String| item.split('=').next() == Some(key);
        self.items.retain(|item| !is_it(item));
        self
    }

    /// The options `spec` of a guest with those of the host that do not contradict them.
    /// What is not allowed in `spec` stays in it.
    pub fn under(&self, spec: &str) -> String {
        let with = |text: &str, items: &[String]| {
            let said = Some(text).filter(|text| !text.trim().is_empty());
            let items = items.iter().map(String::as_str);
            items.chain(said).collect::<Vec<_>>().join(",")
        };
        let all = with(spec, &self.items);
        if Options::parse(&all).is_ok() {
            return all;
        }
        let mut text = spec.to_owned();
        let mut left = self.items.clone();
        // One may be allowed only with another that comes after it.
        loop {
            let before = left.len();
            left.retain(|item| {
                let more = with(&text, std::slice::from_ref(item));
                let is_refused = Options::parse(&more).is_err();
                if !is_refused {
                    text = more;
                }
                is_refused
            });
            if left.len() == before {
                return text;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "\
# of this host
directory = /srv/dumps

compress_level=12
compress = zstd
 keep=3
keep_free=10G
";

    fn refused(text: &str) -> (usize, String) {
        HostOptions::parse(text).unwrap_err()
    }

    #[test]
    fn what_a_guest_says_goes_before_what_its_host_does() {
        let host = HostOptions::parse(CONF).unwrap();
        assert_eq!(host.directory(), Some(Path::new("/srv/dumps")));
        let all = "compress_level=12,compress=zstd,keep=3,keep_free=10G";
        for (spec, expected) in [
            ("", all.to_owned()),
            (" ", all.into()),
            ("io=unlimited", format!("{all},io=unlimited")),
            (
                "keep=7",
                "keep_free=10G,compress_level=12,compress=zstd,keep=7".into(),
            ),
            // With nothing that the guest's own excludes.
            ("format=elf", "keep_free=10G,keep=3,format=elf".into()),
            ("compress=zlib", "keep_free=10G,keep=3,compress=zlib".into()),
            (
                "record=0",
                "compress_level=12,compress=zstd,record=0".into(),
            ),
            // Whoever reads it is told of the guest's fault, not of the host's.
            ("no=such", "no=such".into()),
        ] {
            let got = host.under(spec);
            let sorted = |text: &str| {
                let mut items: Vec<String> = text.split(',').map(Into::into).collect();
                items.sort();
                items
            };
            assert_eq!(sorted(&got), sorted(&expected), "{spec}: {got}");
        }
        let nothing = HostOptions::default();
        assert_eq!(nothing.under("keep=7"), "keep=7");
        let kept = host.without("keep");
        assert_eq!(
            kept.under(""),
            "compress_level=12,compress=zstd,keep_free=10G"
        );
    }

    #[test]
    fn a_line_that_is_refused_is_named_with_what_is_allowed() {
        for (text, line, why) in [
            ("keep=3\n\nkeep=x", 3, "option 'keep' given twice"),
            (
                "\nkeep=x",
                2,
                "option 'keep': bad value 'x'; allowed: 1 to 9999; 0: all",
            ),
            ("# a\nkeep", 2, "'keep': expected one key=value"),
            (
                "keep=1,io=adaptive",
                1,
                "'keep=1,io=adaptive': expected one key=value",
            ),
            (
                "compress_level=12\nkeep=1",
                1,
                "option 'compress_level': bad value '12'; allowed: 1 to 9 with compress=zlib",
            ),
            (
                "directory=dumps",
                1,
                "'directory=dumps': allowed: an absolute path",
            ),
            (
                "directory=/a\ndirectory=/b",
                2,
                "option 'directory' given twice",
            ),
        ] {
            assert_eq!(refused(text), (line, why.to_owned()), "{text}");
        }
        let (line, why) = refused("io=adaptive\nnosuch=1");
        assert_eq!(line, 2);
        assert!(
            why.starts_with("unknown option 'nosuch'; allowed: dump_level,"),
            "{why}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_and_one_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vicover.conf");
        assert_eq!(HostOptions::read(&path).unwrap(), HostOptions::default());
        std::fs::write(&path, CONF).unwrap();
        assert_eq!(HostOptions::read(&path).unwrap().items.len(), 4);
        std::fs::write(&path, "keep").unwrap();
        let error = HostOptions::read(&path).unwrap_err().to_string();
        let expected = format!("{}: line 1: 'keep': expected one key=value", path.display());
        assert_eq!(error, expected);
        std::fs::write(&path, "#".repeat(MOST_BYTES as usize + 1)).unwrap();
        for path in [path.as_path(), directory.path()] {
            let error = HostOptions::read(path).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{}: ", path.display())),
                "{error}"
            );
        }
    }
}
