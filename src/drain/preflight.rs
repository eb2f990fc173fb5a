// SPDX-License-Identifier: LGPL-2.1-or-later
//! What would become of a dump, looked at before anything crashes. Changes nothing.

use std::path::Path;

use crate::dump::{room_in, room_on, Error};
use crate::options::Options;
use crate::units::Size;

/// What was found of the place that a dump would go to.
#[derive(Debug)]
pub(crate) struct Place {
    /// Why there would be no dump, if so.
    pub(crate) no_dump: Option<String>,
    /// Bytes that one may have now, where that is known.
    pub(crate) room: Option<u64>,
}

/// Looks at the place that `options` and the dump directory name.
pub(crate) fn look(options: &Options, dump_dir: &Path) -> Place {
    let room = match &options.sink {
        Some(sink) => room_on(sink, options.format),
        None => room_in(dump_dir, options.reserve_bytes),
    };
    match room {
        Err(error) => Place {
            no_dump: Some(Error::chain(&error)),
            room: None,
        },
        Ok(Some(0)) => Place {
            no_dump: Some(full(options, dump_dir)),
            room: Some(0),
        },
        Ok(room) => Place {
            no_dump: None,
            room: room.into_iter().chain(options.max_dump_bytes).min(),
        },
    }
}

fn full(options: &Options, dump_dir: &Path) -> String {
    match &options.sink {
        Some(sink) => format!("{}: it has no size", sink.display()),
        None => format!(
            "{}: no room beside the {} that reserve= keeps free",
            dump_dir.display(),
            Size(options.reserve_bytes)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_with(options: &str, dump_dir: &Path) -> Place {
        look(&Options::parse(options).unwrap(), dump_dir)
    }

    #[test]
    fn what_would_keep_a_dump_from_being_written_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let fine = look_with("reserve=0", dir.path());
        assert!(fine.no_dump.is_none() && fine.room > Some(0), "{fine:?}");
        assert_eq!(
            look_with("max_dump_size=1M", dir.path()).room,
            Some(1 << 20)
        );

        let full = look_with("reserve=1000000T", dir.path());
        let why = full.no_dump.unwrap();
        assert!(
            why.ends_with("no room beside the 977 PiB that reserve= keeps free"),
            "{why}"
        );
        let nowhere = look_with("", &dir.path().join("a/b"));
        assert!(nowhere.no_dump.unwrap().contains("a/b: No such file"));
        let no_sink = look_with("sink=/dev/nope", dir.path());
        assert!(no_sink.no_dump.unwrap().contains("/dev/nope: No such file"));
    }
}
