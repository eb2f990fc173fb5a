// SPDX-License-Identifier: LGPL-2.1-or-later
//! The table of options: every key, what it takes, and what it sets.

use std::path::PathBuf;

use super::values::{AtMost, OnCrashLoop, Options, Recrash, Standby};
use crate::dump::{CodecSpec, CODECS};
use crate::pacing::policy::{self, Policy};
use crate::units::{number, size};

/// What was said so far. The format of the dump follows from three options together.
#[derive(Default)]
pub(super) struct Said {
    pub(super) options: Options,
    /// `format`: whether it is ELF.
    pub(super) elf: bool,
    /// `compress`.
    pub(super) codec: Option<&'static CodecSpec>,
    /// `compress_level`.
    pub(super) level: Option<i32>,
}

/// One row of the option table: the only place that knows a key.
pub struct OptionSpec {
    /// Name in the option text.
    pub key: &'static str,
    /// The values it takes, for people.
    pub allowed: &'static str,
    /// The default, as it would be written.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    pub(super) set: fn(&mut Said, &str) -> Option<()>,
}

/// Every option, in the order in which the documentation lists them.
pub const TABLE: &[OptionSpec] = &[
    OptionSpec {
        key: "dump_level",
        allowed: "0 to 31",
        default: "31",
        help: "Pages left out, as makedumpfile's sum: 1 zero, 2 cache, 4 private cache, 8 user, 16 free.",
        set: |said, value| {
            said.options.dump_level = number(value, 0, 31)? as u8;
            Some(())
        },
    },
    OptionSpec {
        key: "format",
        allowed: "kdump, elf",
        default: "kdump",
        help: "Format of the dump; elf is not compressed.",
        set: |said, value| {
            said.elf = one_of(value, &[("kdump", false), ("elf", true)])?;
            Some(())
        },
    },
    OptionSpec {
        key: "compress",
        allowed: "none, zlib, zstd",
        default: "zlib",
        help: "Codec of the dump.",
        set: |said, value| {
            said.codec = CODECS.iter().copied().find(|spec| spec.name == value);
            said.codec.is_some().then_some(())
        },
    },
    OptionSpec {
        key: "compress_level",
        allowed: "1 to 19 (zlib: at most 9)",
        default: "1",
        help: "The codec's own level; higher is smaller and slower.",
        set: |said, value| {
            let most = CODECS.iter().filter_map(|spec| spec.highest_level()).max()?;
            said.level = Some(number(value, 1, most.try_into().ok()?)? as i32);
            Some(())
        },
    },
    OptionSpec {
        key: "threads",
        allowed: "1 to 256",
        default: "half the online processors",
        help: "Compressing threads.",
        set: |said, value| {
            said.options.threads = Some(number(value, 1, 256)? as u16);
            Some(())
        },
    },
    OptionSpec {
        key: "buffer",
        allowed: "a size from 8M to 4G",
        default: "64M",
        help: "Memory between mapping and disk, at most.",
        set: |said, value| {
            let bytes = size(value)?;
            (8 << 20..=4 << 30).contains(&bytes).then_some(())?;
            said.options.buffer_bytes = bytes;
            Some(())
        },
    },
    OptionSpec {
        key: "max_dump_size",
        allowed: "a size; 0: what there is room for",
        default: "0",
        help: "A dump that would be larger leaves out the least useful pages: free ones, then page cache, then what programs had, then the kernel's.",
        set: |said, value| {
            said.options.max_dump_bytes = Some(size(value)?).filter(|&bytes| bytes > 0);
            Some(())
        },
    },
    OptionSpec {
        key: "reserve",
        allowed: "a size",
        default: "64M",
        help: "Space to leave free on the dump's file system.",
        set: |said, value| {
            said.options.reserve_bytes = size(value)?;
            Some(())
        },
    },
    OptionSpec {
        key: "keep",
        allowed: "1 to 9999; 0: all",
        default: "0",
        help: "Dumps of the guest that are kept after a crash; the least useful others are removed.",
        set: |said, value| {
            let dumps = number(value, 0, 9999)? as u16;
            said.options.keep = Some(dumps).filter(|&dumps| dumps > 0);
            Some(())
        },
    },
    OptionSpec {
        key: "keep_free",
        allowed: "a size",
        default: "0",
        help: "Space that is to be free on the dumps' file system after a crash; the least useful dumps of any guest are removed for it.",
        set: |said, value| {
            said.options.keep_free_bytes = size(value)?;
            Some(())
        },
    },
    OptionSpec {
        key: "sink",
        allowed: "the absolute path of a block device or FIFO",
        default: "a new file",
        help: "Where to write instead; what is on the device is lost, a FIFO gets a flattened stream.",
        set: |said, value| {
            said.options.sink = absolute(value);
            said.options.sink.is_some().then_some(())
        },
    },
    OptionSpec {
        key: "io",
        allowed: policy::ALLOWED,
        default: "adaptive",
        help: "Pace of the dump once recovery runs; it never holds up recovery's memory.",
        set: |said, value| {
            said.options.io = Policy::parse(value)?;
            Some(())
        },
    },
    OptionSpec {
        key: "on_recrash",
        allowed: "restart, queue",
        default: "restart",
        help: "Another crash while a dump is still being written: restart without a dump, or wait, then dump.",
        set: |said, value| {
            let choices = [
                ("restart", Recrash::Restart),
                ("queue", Recrash::Queue),
            ];
            said.options.on_recrash = one_of(value, &choices)?;
            Some(())
        },
    },
    OptionSpec {
        key: "max_dumps",
        allowed: "N/TIME (1 to 99 in 1s to 365d, as in 3/1h); 0: any number",
        default: "3/1h",
        help: "Dumps of the guest in a time, at most; a crash beyond that is recovered without one.",
        set: |said, value| {
            said.options.max_dumps = at_most(value)?;
            Some(())
        },
    },
    OptionSpec {
        key: "max_crashes",
        allowed: "N/TIME (1 to 99 in 1s to 365d, as in 5/10m); 0: any number",
        default: "5/10m",
        help: "Crashes of the guest in a time that are recovered; one more, and it keeps crashing (`on_crash_loop`).",
        set: |said, value| {
            said.options.max_crashes = at_most(value)?;
            Some(())
        },
    },
    OptionSpec {
        key: "on_crash_loop",
        allowed: "restart, destroy, preserve",
        default: "preserve",
        help: "What xl does, in place of a recovery, with a guest that keeps crashing: as these words mean for on_crash.",
        set: |said, value| {
            let choices = [
                ("restart", OnCrashLoop::Restart),
                ("destroy", OnCrashLoop::Destroy),
                ("preserve", OnCrashLoop::Preserve),
            ];
            said.options.on_crash_loop = one_of(value, &choices)?;
            Some(())
        },
    },
    OptionSpec {
        key: "events",
        allowed: "the absolute path of a Unix datagram socket",
        default: "nowhere",
        help: "Send each thing that happens to whoever listens there, as one JSON object; nothing waits for that.",
        set: |said, value| {
            said.options.events = absolute(value);
            said.options.events.is_some().then_some(())
        },
    },
    OptionSpec {
        key: "record",
        allowed: "0, 1",
        default: "1",
        help: "Keep what is known of the crash beside its dump, or in its place: a record, a text, the guest's log, a picture.",
        set: |said, value| {
            said.options.record = one_of(value, &[("0", false), ("1", true)])?;
            Some(())
        },
    },
    OptionSpec {
        key: "standby",
        allowed: "0, 1, booted",
        default: "0",
        help: "Keep a recovery domain beside the running guest: built (1), or booted until it waits for its disk.",
        set: |said, value| {
            let choices = [
                ("0", Standby::No),
                ("1", Standby::Built),
                ("booted", Standby::Booted),
            ];
            said.options.standby = one_of(value, &choices)?;
            Some(())
        },
    },
];

fn absolute(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

/// A limit, or none.
fn at_most(value: &str) -> Option<Option<AtMost>> {
    match value {
        "0" => Some(None),
        limit => AtMost::parse(limit).map(Some),
    }
}

/// The value that a word stands for.
fn one_of<T: Copy>(word: &str, choices: &[(&str, T)]) -> Option<T> {
    let choice = choices.iter().find(|(name, _)| *name == word);
    choice.map(|&(_, value)| value)
}
