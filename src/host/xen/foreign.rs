// SPDX-License-Identifier: LGPL-2.1-or-later
//! Frames of a domain in our address space.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::handles::{closed, opened};
use super::sys;
use crate::addr::PAGE_SIZE;
use crate::host::{Access, HostError, Mapping};

/// A page of a domain as Xen's calls name it: by its gfn where Xen translates the guest's
/// memory, by its machine frame where it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameName(pub(super) u64);

struct Handle(NonNull<sys::xenforeignmemory_handle>);

// SAFETY: only a file descriptor, which libxenforeignmemory shares between threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: opened by us; mappings hold an `Arc` of this, so none is left.
        closed(|| unsafe { sys::xenforeignmemory_close(self.0.as_ptr()) });
    }
}

/// A handle with which frames of domains are mapped.
#[derive(Clone)]
pub(super) struct ForeignMemory(Arc<Handle>);

impl ForeignMemory {
    pub(super) fn open() -> Result<Self, HostError> {
        // SAFETY: a null logger is allowed (xenforeignmemory.h).
        let open = || unsafe { sys::xenforeignmemory_open(std::ptr::null_mut(), 0) };
        opened("xenforeignmemory_open", open).map(|handle| Self(Arc::new(Handle(handle))))
    }

    /// Maps frames of a domain, in this order. Where there is no name, or no such frame,
    /// the mapping has none.
    pub(super) fn map(
        &self,
        domid: u32,
        frames: &[Option<FrameName>],
        access: Access,
    ) -> Result<ForeignMapping, HostError> {
        let names: Vec<sys::xen_pfn_t> = frames.iter().flatten().map(|name| name.0).collect();
        let mut errors = vec![0; names.len()];
        let start = match names.is_empty() {
            true => None,
            false => Some(self.map_named(domid, &names, &mut errors, access)?),
        };
        let mut mapped = errors.iter().enumerate();
        let place = |frame: &Option<FrameName>| {
            let (place, error) = frame.and_then(|_| mapped.next())?;
            (*error == 0).then_some(place)
        };
        Ok(ForeignMapping {
            foreign: self.0.clone(),
            start,
            mapped: names.len(),
            places: frames.iter().map(place).collect(),
            failure: failure(&errors),
            writable: access == Access::Scrub,
        })
    }

    fn map_named(
        &self,
        domid: u32,
        names: &[sys::xen_pfn_t],
        errors: &mut [libc::c_int],
        access: Access,
    ) -> Result<NonNull<u8>, HostError> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Scrub => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: both arrays hold as many elements as we say. With an error
        // array, frames that cannot be mapped fail one by one.
        let start = unsafe {
            sys::xenforeignmemory_map(
                self.0 .0.as_ptr(),
                domid,
                protection,
                names.len(),
                names.as_ptr(),
                errors.as_mut_ptr(),
            )
        };
        NonNull::new(start.cast()).ok_or_else(|| HostError::last_os_error("xenforeignmemory_map"))
    }
}

/// Why frames that a domain may have could not be mapped, from the errors of each:
/// that there is no such frame (EINVAL), or that it is paged out (ENOENT), is no
/// failure (`relied_on::mapping_errors`).
fn failure(errors: &[libc::c_int]) -> Option<HostError> {
    let failed = |error: &&libc::c_int| !matches!(-**error, 0 | libc::EINVAL | libc::ENOENT);
    let first = -*errors.iter().find(failed)?;
    let count = errors.iter().filter(failed).count();
    let text = std::io::Error::from_raw_os_error(first);
    Some(HostError {
        call: "xenforeignmemory_map",
        what: format!("{count} of {} pages: {text}", errors.len()),
        errno: first,
    })
}

/// Frames of a domain in our address space.
pub(super) struct ForeignMapping {
    foreign: Arc<Handle>,
    /// None where nothing is mapped.
    start: Option<NonNull<u8>>,
    /// Frames behind `start`.
    mapped: usize,
    /// Which of these each frame of the mapping is.
    places: Vec<Option<usize>>,
    failure: Option<HostError>,
    writable: bool,
}

// SAFETY: the mapping is ours until it is dropped, and is only touched through
// raw copies that tolerate any content.
unsafe impl Send for ForeignMapping {}
// SAFETY: concurrent raw copies out of it are fine; scrubbing a frame while
// another thread copies it would only garble that copy, and the drain scrubs a
// frame only after it has been saved.
unsafe impl Sync for ForeignMapping {}

impl ForeignMapping {
    fn frame(&self, index: usize) -> Option<*mut u8> {
        let place = self.places.get(index).copied().flatten()?;
        // SAFETY: a place is below the number of frames mapped at `start`.
        Some(unsafe { self.start?.as_ptr().add(place * PAGE_SIZE) })
    }
}

impl Mapping for ForeignMapping {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn is_present(&self, index: usize) -> bool {
        self.places.get(index).is_some_and(Option::is_some)
    }

    fn failure(&self) -> Option<HostError> {
        self.failure.clone()
    }

    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let fits = offset
            .checked_add(into.len())
            .is_some_and(|end| end <= PAGE_SIZE);
        let Some(frame) = self.frame(index).filter(|_| fits) else {
            return false;
        };
        // SAFETY: the frame is mapped (a frame that failed to map would raise
        // SIGBUS) and the range lies inside it; source and target are distinct
        // memory. No reference to guest memory is made.
        unsafe { std::ptr::copy_nonoverlapping(frame.add(offset), into.as_mut_ptr(), into.len()) };
        true
    }

    fn scrub(&self, index: usize) {
        if let Some(frame) = self.frame(index).filter(|_| self.writable) {
            // SAFETY: mapped writable, one whole frame. `write_bytes` may be
            // elided only if the memory were dead, which the unmapping call
            // that takes the pointer prevents.
            unsafe { std::ptr::write_bytes(frame, 0, PAGE_SIZE) };
        }
    }
}

impl Drop for ForeignMapping {
    fn drop(&mut self) {
        let Some(start) = self.start else { return };
        // SAFETY: mapped by us with this length, unmapped once.
        unsafe {
            sys::xenforeignmemory_unmap(self.foreign.0.as_ptr(), start.as_ptr().cast(), self.mapped)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_no_failure_and_anything_else_is() {
        let error = |errors: &[i32]| failure(errors).map(|error| error.to_string());
        assert_eq!(error(&[0, -libc::EINVAL, -libc::ENOENT]), None);
        let text = error(&[0, -libc::EINVAL, -libc::ENOMEM, -libc::ENOMEM]).unwrap();
        assert!(text.starts_with("xenforeignmemory_map: 2 of 4 pages: Cannot allocate"));
    }
}
