// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which Xen this library was built for, and which libxl it calls.
//!
//! A program that has another libxl than the one built for would share structures
//! with us that are not laid out alike: its libxl comes first in the search for
//! symbols, so our calls go there, too.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;

use super::sys;

/// The Xen whose headers the library was built with: major number in the high 16
/// bits, minor number in the low ones.
pub const BUILT_FOR: u32 = match u32::from_str_radix(env!("VICOVER_XEN_VERSION"), 10) {
    Ok(version) => version,
    Err(_) => panic!("build.rs states a number"),
};

/// Says so when the libxl of this process is of another Xen.
pub fn other_libxl() -> Option<String> {
    refusal(&file_of_libxl()?, BUILT_FOR)
}

fn refusal(libxl: &str, built_for: u32) -> Option<String> {
    (version_in(libxl)? != built_for).then(|| {
        format!(
            "libvicover is for Xen {}.{}, this program uses {libxl}",
            built_for >> 16,
            built_for & 0xffff
        )
    })
}

/// The file that libxl was loaded from.
fn file_of_libxl() -> Option<String> {
    let function = sys::libxl_ctx_alloc as *const ();
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is only looked up; the struct is zeroed, which is valid,
    // and the name in it is null or terminated and lives as long as the library,
    // which is loaded while we are.
    unsafe {
        if libc::dladdr(function.cast(), found.as_mut_ptr()) == 0 {
            return None;
        }
        let name = found.assume_init().dli_fname;
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The version in a libxl's file name, as [`BUILT_FOR`]; none when it is linked into
/// something else.
fn version_in(file: &str) -> Option<u32> {
    let (_, version) = file.rsplit_once("libxenlight.so.")?;
    let mut numbers = version.split('.').map(|part| part.parse::<u16>().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some(u32::from(major) << 16 | u32::from(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libxl_that_was_built_with_is_the_one_that_is_called() {
        let file = file_of_libxl().unwrap();
        assert_eq!(version_in(&file), Some(BUILT_FOR), "{file}");
        assert_eq!(other_libxl(), None);
    }

    #[test]
    fn a_libxl_of_another_xen_is_refused() {
        let said = refusal("/usr/lib/libxenlight.so.4.20", 4 << 16 | 17).unwrap();
        assert_eq!(
            said,
            "libvicover is for Xen 4.17, this program uses /usr/lib/libxenlight.so.4.20"
        );
        assert_eq!(refusal("/lib/libxenlight.so.4.17.0", 4 << 16 | 17), None);
        assert_eq!(refusal("/usr/sbin/xl", 4 << 16 | 17), None);
    }
}
