// SPDX-License-Identifier: LGPL-2.1-or-later
//! Programs that tests run.

use std::process::Command;

/// Runs a program and returns what it printed; when it fails, the test does, with what
/// the program said.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
