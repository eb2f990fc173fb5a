// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a caller asks for: where the dump goes and how it is made.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::dump::Sink;
use crate::options::Options;

/// Where the dump goes and how it is made.
pub struct Target {
    /// The job's options.
    pub options: Options,
    /// The guest's name.
    pub name: String,
    /// Directory for the dump; made when it is missing.
    pub dump_dir: PathBuf,
    /// Where the dump goes instead, if anywhere; taken when the dump starts.
    pub sink: Mutex<Option<Box<dyn Sink>>>,
}
