// SPDX-License-Identifier: LGPL-2.1-or-later
//! The locks of Xen's hotplug scripts.
//!
//! A lock is a file that its holder has locked with flock(2) and that is still the
//! one of its name; its holder removes it to let go (`relied_on::hotplug_locks`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::HostError;
use crate::os::{fd, file};

/// `LOCK_BASEDIR` of the scripts.
const DIRECTORY: &str = "/var/run/xen-hotplug";

/// A lock that is held; dropping it lets go.
pub(super) struct HotplugLock {
    path: PathBuf,
    /// Closing it gives up the lock on the file.
    _file: File,
}

impl HotplugLock {
    /// Waits for the lock `name`. libxl ends scripts that hold it for too long.
    pub(super) fn claim(name: &str) -> Result<Self, HostError> {
        Self::claim_in(Path::new(DIRECTORY), name)
            .map_err(|error| HostError::new("flock", format!("{DIRECTORY}/{name}: {error}")))
    }

    fn claim_in(directory: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join(name);
        loop {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .to_owned();
            let file = fd::open(&path, &options)?;
            file::lock(&file)?;
            let held = file.metadata()?;
            // Whoever held it before may have removed it.
            let named = fs::metadata(&path);
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for HotplugLock {
    fn drop(&mut self) {
        // A file that stays is locked anew by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn one_holds_it_at_a_time_though_its_file_goes_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let holders = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = HotplugLock::claim_in(directory.path(), "block").unwrap();
                        assert_eq!(holders.fetch_add(1, SeqCst), 0);
                        holders.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(!directory.path().join("block").exists());
    }
}
