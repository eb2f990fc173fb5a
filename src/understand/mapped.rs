// SPDX-License-Identifier: LGPL-2.1-or-later
//! The crashed domain's memory as guest introspection reads it: small windows,
//! mapped when needed.

use std::sync::{Arc, Mutex};

use crate::addr::{Gfn, GfnRange, GuestPhys, PAGE_SIZE};
use crate::guest::memory::{FaultCause, GuestMemory, ReadFault};
use crate::host::{Access, CrashedDomain, Mapping};

/// Frames of a window: 2 MiB, what one page table of ours covers.
const WINDOW: u64 = 512;
/// Windows kept. A page-table walk touches four or five places, a scan one.
const WINDOWS: usize = 16;

struct Window {
    frames: GfnRange,
    mapping: Arc<dyn Mapping>,
}

/// Reads a [`CrashedDomain`] by guest-physical address.
pub(crate) struct MappedMemory<'a> {
    domain: &'a dyn CrashedDomain,
    end: Gfn,
    /// Most recently used last.
    windows: Mutex<Vec<Window>>,
}

impl<'a> MappedMemory<'a> {
    /// Nothing is mapped until it is read.
    pub(crate) fn new(domain: &'a dyn CrashedDomain) -> Self {
        Self {
            end: domain.ram().last().map_or(Gfn(0), |range| range.end),
            domain,
            windows: Mutex::new(Vec::with_capacity(WINDOWS)),
        }
    }

    fn window(&self, gfn: Gfn) -> Result<(GfnRange, Arc<dyn Mapping>), FaultCause> {
        let mut windows = self.windows.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(at) = windows.iter().position(|w| w.frames.contains(gfn)) {
            let window = windows.remove(at);
            let found = (window.frames, window.mapping.clone());
            windows.push(window);
            return Ok(found);
        }
        let ram = self.domain.ram();
        let range = ram
            .iter()
            .find(|range| range.contains(gfn))
            .ok_or(FaultCause::NotRam)?;
        let start = (gfn.0 / WINDOW * WINDOW).max(range.start.0);
        let end = (gfn.0 / WINDOW * WINDOW + WINDOW).min(range.end.0);
        let frames = GfnRange::new(Gfn(start), Gfn(end));
        let mapping = self.domain.map(frames, Access::Read);
        let mapping: Arc<dyn Mapping> = mapping
            .map_err(|error| FaultCause::Host(error.errno))?
            .into();
        if windows.len() == WINDOWS {
            windows.remove(0);
        }
        windows.push(Window {
            frames,
            mapping: mapping.clone(),
        });
        Ok((frames, mapping))
    }
}

impl GuestMemory for MappedMemory<'_> {
    fn end(&self) -> Gfn {
        self.end
    }

    fn ram(&self) -> &[GfnRange] {
        self.domain.ram()
    }

    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault> {
        let mut at = at;
        let mut rest = into;
        while !rest.is_empty() {
            let gfn = at.gfn();
            let fault = |cause| ReadFault { gfn, cause };
            let (frames, mapping) = self.window(gfn).map_err(fault)?;
            while !rest.is_empty() && frames.contains(at.gfn()) {
                let gfn = at.gfn();
                let index = (gfn.0 - frames.start.0) as usize;
                let count = rest.len().min(PAGE_SIZE - at.page_offset());
                let (now, later) = rest.split_at_mut(count);
                if !mapping.read(index, at.page_offset(), now) {
                    let cause = FaultCause::NotPopulated;
                    return Err(ReadFault { gfn, cause });
                }
                rest = later;
                let cause = FaultCause::NotRam;
                at = at
                    .checked_add(count as u64)
                    .ok_or(ReadFault { gfn, cause })?;
            }
        }
        Ok(())
    }
}
