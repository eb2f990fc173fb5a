// SPDX-License-Identifier: LGPL-2.1-or-later
//! How long the caller lets a guest be looked at.

/// Bounds on the work, beside those that are built in.
pub struct Limits<'a> {
    /// Asked time and again; true makes what is going on stop, and the plan keep
    /// everything.
    pub give_up: &'a dyn Fn() -> bool,
    /// Asked while memory is searched because processors lead nowhere; true ends
    /// the search.
    pub end_search: &'a dyn Fn() -> bool,
}

impl Default for Limits<'_> {
    fn default() -> Self {
        Self {
            give_up: &|| false,
            end_search: &|| false,
        }
    }
}
