// SPDX-License-Identifier: LGPL-2.1-or-later
//! File systems of their own, for root.

use std::path::PathBuf;
use std::process::Command;

use crate::command::run;

/// A file system in a file, mounted until this is dropped.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Made as the arguments of mkfs.ext4 say, of so many bytes.
    pub(crate) fn new(kind: &[&str], bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("at"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m0"])
            .args(kind)
            .arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &at]));
        Self(dir)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("at")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.path()));
    }
}
