// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reading what a C caller passes, and writing what it asked for.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::mem::{offset_of, size_of, MaybeUninit};
use std::os::raw::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::abi;
use super::status::{printable, Failure};

/// A struct of the ABI: plain data whose first member is its size.
///
/// # Safety
/// `struct_size: usize` is at offset 0 and all-zero bytes are a valid value.
pub(super) unsafe trait Versioned: Sized {
    const NAME: &'static str;
    /// Its size in the first version of the ABI.
    const FIRST_SIZE: usize;
}

/// All of a struct, or what came before the first member of a later version.
macro_rules! first_size {
    ($name:ident) => {
        size_of::<abi::$name>()
    };
    ($name:ident $since:ident) => {
        offset_of!(abi::$name, $since)
    };
}

macro_rules! versioned {
    ($($name:ident $(until $since:ident)?),*) => {$(
        const _: () = assert!(offset_of!(abi::$name, struct_size) == 0);
        // SAFETY: the offset is asserted above; the members are numbers, arrays
        // of numbers and nullable pointers.
        unsafe impl Versioned for abi::$name {
            const NAME: &'static str = stringify!($name);
            const FIRST_SIZE: usize = first_size!($name $($since)?);
        }
    )*};
}
versioned!(
    vicover_options until flags,
    vicover_image,
    vicover_domain,
    vicover_crash,
    vicover_interrupted,
    vicover_progress,
    vicover_preflight,
    vicover_verdict
);

fn null(what: &str) -> Failure {
    Failure::new(abi::VICOVER_ERR_NULL, format!("{what} must not be null"))
}

/// The size that the caller states, checked.
///
/// # Safety
/// `from` is null or points to a struct that starts with its size.
unsafe fn stated_size<T: Versioned>(from: *const T) -> Result<usize, Failure> {
    if from.is_null() {
        return Err(null(T::NAME));
    }
    // SAFETY: the caller vouches for the first member.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    // A page is far more than any version will have, and far less than a stray number.
    if !(T::FIRST_SIZE..=4096).contains(&size) {
        return Err(Failure::new(
            abi::VICOVER_ERR_STRUCT_SIZE,
            format!(
                "{}.struct_size is {size}; allowed: sizeof(struct {}), {} in this version",
                T::NAME,
                T::NAME,
                size_of::<T>()
            ),
        ));
    }
    Ok(size)
}

/// Copies a versioned struct in. Members that the caller does not know are
/// zero; members that we do not know must be.
///
/// # Safety
/// `from` is null or points to as many readable bytes as its first member says.
pub(super) unsafe fn read_struct<T: Versioned>(from: *const T) -> Result<T, Failure> {
    // SAFETY: passed on.
    let size = unsafe { stated_size(from)? };
    let known = size.min(size_of::<T>());
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable (caller) and fit the copy; a zeroed T
    // is valid (`Versioned`), and the caller's bytes are plain data.
    let copy = unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        copy.assume_init()
    };
    for offset in known..size {
        // SAFETY: below the size that the caller vouches for.
        let byte = unsafe { from.cast::<u8>().add(offset).read() };
        if byte != 0 {
            return Err(Failure::new(
                abi::VICOVER_ERR_STRUCT_SIZE,
                format!(
                    "{} sets a member at offset {offset} that this version does not know",
                    T::NAME
                ),
            ));
        }
    }
    Ok(copy)
}

/// Copies a versioned struct out, as much as the caller has room for.
///
/// # Safety
/// `to` is null or points to as many writable bytes as its first member says.
pub(super) unsafe fn write_struct<T: Versioned>(to: *mut T, value: &T) -> Result<(), Failure> {
    // SAFETY: passed on.
    let size = unsafe { stated_size(to)? };
    let known = size.min(size_of::<T>());
    let after_size = size_of::<usize>();
    // SAFETY: both have `known` bytes; the size member stays the caller's.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>().add(after_size),
            to.cast::<u8>().add(after_size),
            known - after_size,
        );
        to.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// Writes through an out pointer.
///
/// # Safety
/// `to` is null or writable.
pub(super) unsafe fn write_out<T>(to: *mut T, what: &str, value: T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(null(what));
    }
    // SAFETY: not null; the caller vouches for the rest.
    unsafe { to.write(value) };
    Ok(())
}

/// A C string; `None` when null.
///
/// # Safety
/// `text` is null or a terminated string.
pub(super) unsafe fn text(text: *const c_char, what: &str) -> Result<Option<String>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches for the end.
    let bytes = unsafe { CStr::from_ptr(text) };
    let text = bytes.to_str().map_err(|_| {
        Failure::new(
            abi::VICOVER_ERR_OPTION,
            format!("{what} is not UTF-8: {bytes:?}"),
        )
    })?;
    Ok(Some(text.to_owned()))
}

/// As much of a text as fits into a buffer of so many bytes with its end, cut between
/// characters.
fn cut(text: &str, size: usize) -> &str {
    let mut count = text.len().min(size.saturating_sub(1));
    while !text.is_char_boundary(count) {
        count -= 1;
    }
    &text[..count]
}

/// A number of milliseconds to wait; any that is negative means forever.
pub(super) fn timeout(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// Puts text into a member of a struct that is zero so far, cut to fit and always
/// terminated.
pub(super) fn put_text(member: &mut [c_char], text: &str) {
    let text = printable(text);
    let bytes = cut(&text, member.len()).bytes();
    for (to, from) in member.iter_mut().zip(bytes) {
        *to = from as c_char;
    }
}

/// Puts a path into a member of a struct that is zero so far, as it is and all of it.
pub(super) fn put_path(member: &mut [c_char], path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= member.len() {
        return Err(Failure::new(
            abi::VICOVER_ERR_BUFFER,
            format!(
                "a path of {} bytes; allowed: {}",
                bytes.len(),
                member.len() - 1
            ),
        ));
    }
    for (to, from) in member.iter_mut().zip(bytes) {
        *to = *from as c_char;
    }
    Ok(())
}

/// The path in a member of a struct.
pub(super) fn path_in(member: &[c_char]) -> Result<PathBuf, Failure> {
    let bytes: Vec<u8> = member.iter().map(|byte| *byte as u8).collect();
    match CStr::from_bytes_until_nul(&bytes) {
        Ok(text) if !text.is_empty() => Ok(OsStr::from_bytes(text.to_bytes()).into()),
        _ => Err(Failure::new(
            abi::VICOVER_ERR_OPTION,
            "vicover_interrupted.journal is not what vicover_find_interrupted() has filled in",
        )),
    }
}

/// Copies text into a C buffer, cut to fit and always terminated.
///
/// # Safety
/// `buffer` is null or has `size` writable bytes.
pub(super) unsafe fn write_text(
    buffer: *mut c_char,
    size: usize,
    text: &str,
) -> Result<(), Failure> {
    let text = printable(text);
    // SAFETY: passed on.
    unsafe { write_bytes(buffer, size, cut(&text, size).as_bytes()) }
}

/// Copies a path into a C buffer, as it is and all of it; nothing when there is no
/// room for that.
///
/// # Safety
/// `buffer` is null or has `size` writable bytes.
pub(super) unsafe fn write_path(
    buffer: *mut c_char,
    size: usize,
    path: &Path,
) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() < size {
        // SAFETY: passed on.
        return unsafe { write_bytes(buffer, size, bytes) };
    }
    // SAFETY: passed on.
    unsafe { write_bytes(buffer, size, b"")? };
    let needed = bytes.len() + 1;
    Err(Failure::new(
        abi::VICOVER_ERR_BUFFER,
        format!("the buffer has {size} bytes; needed: {needed}"),
    ))
}

/// Copies what is known to fit, and terminates it where there is room for that.
///
/// # Safety
/// `buffer` is null or has `size` writable bytes.
unsafe fn write_bytes(buffer: *mut c_char, size: usize, bytes: &[u8]) -> Result<(), Failure> {
    if buffer.is_null() {
        return Err(null("buffer"));
    }
    if size > bytes.len() {
        // SAFETY: one byte more than there are is at most `size`.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer, bytes.len());
            buffer.add(bytes.len()).write(0);
        }
    }
    Ok(())
}
