// SPDX-License-Identifier: LGPL-2.1-or-later
//! What goes wrong on the in-memory host.

use std::time::Duration;

use super::Access;

/// Things that go wrong when a test says so.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// Mapping anything fails.
    pub map: bool,
    /// Devices do not let go.
    pub detach: bool,
    /// The interfaces that [`super::Toolstack::detach`] may leave do not go.
    pub interfaces: bool,
    /// The interfaces that [`super::Toolstack::detach`] may leave take so long to go.
    pub interfaces_linger: Duration,
    /// So many creations of the recovery domain fail.
    pub creations: u32,
    /// So many standbys cannot be made the recovery domain.
    pub adoptions: u32,
    /// The crashed domain cannot be destroyed.
    pub destruction: bool,
    /// The recovery domain is destroyed by others as soon as it runs.
    pub recovery_lost: bool,
    /// The recovery domain gets no memory while the crashed domain is there.
    pub growth: bool,
    /// One mapping of so many fails.
    pub map_every: Option<u64>,
    /// After so many mappings of one kind somebody else destroys the crashed domain.
    pub destroyed_after: Option<(Access, u64)>,
    /// Every frame whose number is a multiple of so many is not there.
    pub absent_every: Option<u64>,
    /// Another domain takes every free page that is not claimed, whenever the
    /// crashed domain gives back more.
    pub greedy_neighbour: bool,
}
