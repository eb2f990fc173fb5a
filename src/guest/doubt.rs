// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reasons for not believing a guest, and what follows from each.

use super::layout::LayoutError;
use super::locate::LocateError;
use super::sections::SectionsError;
use super::verdict::DumpLevel;
use super::zones::ZonesError;

/// Everything that descriptors decide: all but pages of zeroes.
const BY_DESCRIPTORS: u8 =
    DumpLevel::CACHE | DumpLevel::PRIVATE_CACHE | DumpLevel::USER | DumpLevel::FREE;

/// Why less is left out of a dump than was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// The kernel was not found.
    #[error("every page is dumped: {0}")]
    NoKernel(LocateError),
    /// The layout of page descriptors is not known.
    #[error("every page is dumped, page descriptors are not understood: {0}")]
    Layout(LayoutError),
    /// The page descriptors were not found.
    #[error("every page is dumped, page descriptors were not found: {0}")]
    Sections(SectionsError),
    /// The caller's limit was met.
    #[error("every page is dumped: the time for looking at page descriptors is over")]
    GaveUp,
    /// Looking at the guest went wrong; a bug of ours.
    #[error("every page is dumped: looking at the guest failed: {0}")]
    Failed(String),
    /// The kernel's page tables are larger than can be, or lead in circles.
    #[error("every page is dumped: the kernel's page tables have no end")]
    PageTables,
    /// The plan would take too much memory.
    #[error("every page is dumped: kinds of pages alternate too often")]
    TooFragmented,
    /// The guest's own count of free pages is not known.
    #[error("free pages are dumped, the guest's own count of them is not known: {0}")]
    Zones(ZonesError),
    /// The guest's own count of free pages is another one.
    #[error("free pages are dumped: {found} were found, but the guest counts {counted}")]
    FreePages {
        /// Pages in free blocks.
        found: u64,
        /// The guest's count.
        counted: u64,
    },
}

impl Doubt {
    /// The parts of a dump level that are not used because of this.
    pub fn distrusted(&self) -> u8 {
        match self {
            Self::Zones(_) | Self::FreePages { .. } => DumpLevel::FREE,
            Self::NoKernel(_)
            | Self::Layout(_)
            | Self::Sections(_)
            | Self::GaveUp
            | Self::Failed(_)
            | Self::PageTables
            | Self::TooFragmented => BY_DESCRIPTORS,
        }
    }
}
