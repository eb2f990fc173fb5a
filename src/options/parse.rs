// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reading the options of a job, as an operator writes them.

use std::borrow::Cow;

use super::table::{Said, TABLE};
use super::values::{Options, DEFAULT_CODEC};
use crate::dump::{CodecSpec, Format, CODECS};
use crate::pacing::policy::{self, Policy};

/// An option text that was refused; says what was allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No option has this name.
    #[error("unknown option '{key}'; allowed: {allowed}")]
    Unknown {
        /// The name that was given.
        key: String,
        /// Every name there is.
        allowed: String,
    },
    /// The option exists, its value does not.
    #[error("option '{key}': bad value '{value}'; allowed: {allowed}")]
    BadValue {
        /// The option.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// What it could have been.
        allowed: Cow<'static, str>,
    },
    /// The option stands there twice.
    #[error("option '{key}' given twice")]
    Twice {
        /// The option.
        key: &'static str,
    },
    /// An item without `=`.
    #[error("'{item}': expected key=value")]
    NoValue {
        /// The item as written.
        item: String,
    },
}

impl OptionError {
    /// The option that is refused, or what stands in its place.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Unknown { key, .. } => key,
            Self::BadValue { key, .. } | Self::Twice { key } => key,
            Self::NoValue { item } => item,
        }
    }
}

impl Options {
    /// Reads `key=value,key=value`. White space around items is ignored; an
    /// empty text gives the defaults.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let mut said = Said::default();
        let mut seen: Vec<&str> = Vec::new();
        for item in text.split(',').map(str::trim).filter(|i| !i.is_empty()) {
            let Some((key, value)) = item.split_once('=') else {
                return Err(OptionError::NoValue { item: item.into() });
            };
            let (key, value) = (key.trim(), value.trim());
            let spec = TABLE.iter().find(|s| s.key == key).ok_or_else(|| {
                let names: Vec<&str> = TABLE.iter().map(|s| s.key).collect();
                OptionError::Unknown {
                    key: key.into(),
                    allowed: names.join(", "),
                }
            })?;
            if seen.contains(&spec.key) {
                return Err(OptionError::Twice { key: spec.key });
            }
            seen.push(spec.key);
            (spec.set)(&mut said, value).ok_or_else(|| OptionError::BadValue {
                key: spec.key,
                value: value.into(),
                allowed: spec.allowed.into(),
            })?;
        }
        said.together()
    }

    /// Reads a value of the option `io` alone.
    pub fn policy(value: &str) -> Result<Policy, OptionError> {
        Policy::parse(value).ok_or_else(|| OptionError::BadValue {
            key: "io",
            value: value.into(),
            allowed: policy::ALLOWED.into(),
        })
    }
}

impl Said {
    /// All that was said, together: values may be allowed, but not with each other.
    fn together(self) -> Result<Options, OptionError> {
        let options = &self.options;
        let keeps = [
            ("keep", options.keep.is_some()),
            ("keep_free", options.keep_free_bytes > 0),
        ];
        if let Some((key, _)) = keeps.iter().find(|(_, is_on)| *is_on && !options.record) {
            // Which crash a dump is of is in its record.
            return Err(OptionError::BadValue {
                key: "record",
                value: "0".into(),
                allowed: format!("1 with {key}").into(),
            });
        }
        let format = match self.elf {
            true => self.elf_format()?,
            false => self.kdump_format()?,
        };
        Ok(Options {
            format,
            ..self.options
        })
    }

    fn elf_format(&self) -> Result<Format, OptionError> {
        let packs = |spec: &&CodecSpec| **spec != *CodecSpec::NONE;
        if self.codec.as_ref().is_some_and(packs) {
            let packing = CODECS.iter().copied().filter(packs);
            let packing: Vec<_> = packing
                .map(|spec| format!("compress={}", spec.name))
                .collect();
            return Err(OptionError::BadValue {
                key: "format",
                value: "elf".into(),
                allowed: format!("kdump with {}", packing.join(" or ")).into(),
            });
        }
        match self.level {
            Some(level) => Err(OptionError::BadValue {
                key: "compress_level",
                value: level.to_string(),
                allowed: "none with format=elf".into(),
            }),
            None => Ok(Format::Elf),
        }
    }

    fn kdump_format(&self) -> Result<Format, OptionError> {
        let spec = self.codec.unwrap_or(DEFAULT_CODEC);
        let Some(level) = self.level else {
            return Ok(Format::Kdump(spec.fastest()));
        };
        let most = spec.highest_level().unwrap_or(level);
        let codec = spec.at(level).ok_or_else(|| OptionError::BadValue {
            key: "compress_level",
            value: level.to_string(),
            allowed: format!("1 to {most} with compress={}", spec.name).into(),
        })?;
        Ok(Format::Kdump(codec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::ZSTD;
    use crate::options::{AtMost, OnCrashLoop, Recrash, Standby};
    use std::time::Duration;

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(Options::parse("").unwrap(), Options::default());
        assert_eq!(Options::parse(" , ").unwrap(), Options::default());
    }

    #[test]
    fn values_arrive() {
        let options = Options::parse(
            "compress=zstd, compress_level=3,threads=4,buffer=128M,dump_level=17,\
                            max_dump_size=3G,reserve=0,keep=7,keep_free=5G,sink=/dev/vg/dump,io=fixed:80M,\
             on_recrash=queue,events=/run/events,standby=booted,max_dumps=1/30s,max_crashes=0,\
             on_crash_loop=destroy",
        )
        .unwrap();
        assert_eq!(
            options,
            Options {
                threads: Some(4),
                buffer_bytes: 128 << 20,
                dump_level: 17,
                format: Format::Kdump(ZSTD.at(3).unwrap()),
                max_dump_bytes: Some(3 << 30),
                reserve_bytes: 0,
                keep: Some(7),
                keep_free_bytes: 5 << 30,
                sink: Some("/dev/vg/dump".into()),
                io: Policy::Fixed {
                    bytes_per_s: 80 << 20,
                },
                on_recrash: Recrash::Queue,
                max_dumps: Some(AtMost {
                    count: 1,
                    within: Duration::from_secs(30),
                }),
                max_crashes: None,
                on_crash_loop: OnCrashLoop::Destroy,
                events: Some("/run/events".into()),
                record: true,
                standby: Standby::Booted,
            }
        );
    }

    #[test]
    fn every_refusal_names_key_value_and_what_is_allowed() {
        let text = |spec: &str| Options::parse(spec).unwrap_err().to_string();
        assert_eq!(
            text("compres=zlib"),
            "unknown option 'compres'; allowed: dump_level, format, compress, compress_level, \
             threads, buffer, max_dump_size, reserve, keep, keep_free, sink, io, on_recrash, \
             max_dumps, max_crashes, on_crash_loop, events, record, standby"
        );
        assert_eq!(
            text("compress=lzma"),
            "option 'compress': bad value 'lzma'; allowed: none, zlib, zstd"
        );
        assert_eq!(
            text("format=vmcore"),
            "option 'format': bad value 'vmcore'; allowed: kdump, elf"
        );
        assert_eq!(
            text("max_dump_size=lots"),
            "option 'max_dump_size': bad value 'lots'; allowed: a size; 0: what there is room for"
        );
        assert_eq!(
            text("sink=dump"),
            "option 'sink': bad value 'dump'; allowed: the absolute path of a block device or FIFO"
        );
        assert_eq!(
            text("compress=zlib,format=elf"),
            "option 'format': bad value 'elf'; allowed: kdump with compress=zlib or compress=zstd"
        );
        assert_eq!(
            text("compress_level=1,format=elf"),
            "option 'compress_level': bad value '1'; allowed: none with format=elf"
        );
        assert_eq!(
            text("io=fast"),
            "option 'io': bad value 'fast'; allowed: unlimited, fixed:RATE (bytes a second, 1K \
             to 1T), share:PERCENT (1 to 100), recovery-first, adaptive"
        );
        assert_eq!(text("threads=2,threads=3"), "option 'threads' given twice");
        assert_eq!(text("zstd"), "'zstd': expected key=value");
        assert_eq!(
            text("compress_level=12"),
            "option 'compress_level': bad value '12'; allowed: 1 to 9 with compress=zlib"
        );
        assert_eq!(
            text("keep=3,record=0"),
            "option 'record': bad value '0'; allowed: 1 with keep"
        );
        assert_eq!(
            text("record=0,keep_free=1G"),
            "option 'record': bad value '0'; allowed: 1 with keep_free"
        );
    }

    #[test]
    fn numbers_and_sizes_out_of_range_are_refused() {
        for bad in [
            "threads=0",
            "threads=-1",
            "threads=+1",
            "threads=",
            "threads=999999999999999999999",
            "buffer=1M",
            "buffer=5G",
            "buffer=M",
            "buffer=64Q",
            "buffer=99999999999999G",
            "dump_level=32",
            "reserve=-1",
            "max_dump_size=",
            "keep=-1",
            "keep=10000",
            "keep_free=",
            "io=",
            "io=80M",
            "io=share:0",
            "on_recrash=preserve",
            "max_dumps=3",
            "max_dumps=0/1h",
            "max_dumps=100/1h",
            "max_crashes=/10m",
            "max_crashes=5/",
            "max_crashes=5/10",
            "max_crashes=5/0m",
            "max_crashes=5/366d",
            "max_crashes=5/99999999999999999999d",
            "max_crashes=+5/1h",
            "on_crash_loop=coredump-restart",
            "standby=yes",
        ] {
            assert!(
                matches!(Options::parse(bad), Err(OptionError::BadValue { .. })),
                "{bad} was accepted"
            );
        }
    }

    #[test]
    fn the_stated_defaults_are_the_real_ones() {
        for spec in TABLE
            .iter()
            .filter(|s| !["threads", "sink", "events"].contains(&s.key))
        {
            let stated = Options::parse(&format!("{}={}", spec.key, spec.default)).unwrap();
            assert_eq!(stated, Options::default(), "{}", spec.key);
        }
    }

    /// Documentation has the same texts, so they are written out.
    #[test]
    fn the_table_says_of_codecs_what_their_rows_do() {
        let allowed = |key| TABLE.iter().find(|spec| spec.key == key).unwrap().allowed;
        let names: Vec<&str> = CODECS.iter().map(|spec| spec.name).collect();
        assert_eq!(allowed("compress"), names.join(", "));
        let levels = |spec: &&CodecSpec| Some((spec.name, spec.highest_level()?));
        let levels: Vec<_> = CODECS
            .iter()
            .copied()
            .filter_map(|spec| levels(&spec))
            .collect();
        let most = levels.iter().map(|&(_, level)| level).max().unwrap();
        let fewer = levels.iter().filter(|&&(_, level)| level < most);
        let fewer: Vec<_> = fewer
            .map(|(name, level)| format!("{name}: at most {level}"))
            .collect();
        let text = format!("1 to {most} ({})", fewer.join(", "));
        assert_eq!(allowed("compress_level"), text);
    }

    #[test]
    fn a_level_belongs_to_the_codec_that_is_named_or_to_the_default_one() {
        let format = |text: &str| Options::parse(text).unwrap().format;
        assert_eq!(
            format("compress=none,compress_level=5"),
            format("compress=none")
        );
        assert_eq!(
            format("compress_level=9,compress=zstd"),
            format("compress=zstd,compress_level=9")
        );
        assert!(Options::parse("compress_level=10").is_err());
        assert!(Options::parse("compress=zstd,compress_level=19").is_ok());
        assert!(Options::parse("compress=zstd,compress_level=20").is_err());
        assert!(Options::parse("compress=zstd,compress_level=0").is_err());
        assert_eq!(format("format=elf,compress=none"), Format::Elf);
    }
}
