// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the record of a job's crash is, for whoever names other files after it.

use std::path::PathBuf;
use std::time::Duration;

use crate::limits::monitor::Monitor;

/// The record's file, which has no name yet, or is not to be, or has one.
#[derive(Default)]
pub(crate) struct RecordPlace(Monitor<Place>);

#[derive(Default)]
struct Place {
    path: Option<PathBuf>,
    is_awaited: bool,
}

impl RecordPlace {
    /// The file will have a name, or it will be said that it has none.
    pub(crate) fn expect(&self) {
        self.0.update(|place| place.is_awaited = true);
    }

    /// The file has this name.
    pub(crate) fn set(&self, path: PathBuf) {
        self.0.update(|place| {
            place.path = Some(path);
            place.is_awaited = false;
        });
    }

    /// If the file has no name yet it will have none.
    pub(crate) fn give_up(&self) {
        self.0.update(|place| place.is_awaited = false);
    }

    /// The file, if it has a name by now.
    #[cfg_attr(not(feature = "xen"), allow(dead_code))]
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.0.lock().path.clone()
    }

    /// What the names of all files about the crash begin with: waits so long for that, if it
    /// is to be known at all.
    pub(crate) fn stem(&self, most: Duration) -> Option<String> {
        let place = self.0.wait_at_most(most, |place| place.is_awaited);
        let stem = place.path.as_ref()?.file_stem()?;
        Some(stem.to_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_name_that_will_not_come() {
        const LONG: Duration = Duration::from_secs(600);
        let place = RecordPlace::default();
        assert_eq!(place.stem(LONG), None);
        place.expect();
        assert_eq!(place.stem(Duration::ZERO), None);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| place.stem(LONG));
            place.set("/d/web1-T.json".into());
            assert_eq!(waiting.join().unwrap().as_deref(), Some("web1-T"));
        });
        assert_eq!(place.path(), Some("/d/web1-T.json".into()));
        let none = RecordPlace::default();
        none.expect();
        none.give_up();
        assert_eq!((none.stem(LONG), none.path()), (None, None));
    }
}
