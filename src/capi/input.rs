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
use super::callbacks::listener;
use super::status::{printable, Failure};
use crate::drain::Target;
use crate::dump::{FileSink, OpenSink, Sink};
use crate::error::Error;
use crate::journal::{self, Notes, Past};
use crate::options::Options;
use crate::os::fd::duplicate;
use crate::told::log::JobLog;
use crate::told::EventSocket;

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

/// What every job is started with. The sink is open already, so that a name that
/// is taken is refused before anything is done to a guest.
pub(super) struct Start {
    options: Options,
    name: String,
    dump_dir: PathBuf,
    sink: Option<Box<dyn Sink>>,
    /// Where a crash is written down. Without Xen there is none.
    #[cfg_attr(not(feature = "xen"), allow(dead_code))]
    pub(super) notes: Notes,
    log: JobLog,
}

impl Start {
    /// What the dump is made of, and the job's log.
    pub(super) fn into_target(self) -> (Target, JobLog) {
        let target = Target {
            options: self.options,
            name: self.name,
            dump_dir: self.dump_dir,
            sink: self.sink.into(),
        };
        (target, self.log)
    }
}

/// Where Xen keeps dumps (`XEN_DUMP_DIR` of its build).
const DEFAULT_DUMP_DIR: &str = "/var/lib/xen/dump";

/// What the options of a call say, before anything is done about it.
pub(super) struct Settings {
    pub(super) options: Options,
    /// The options as they were written.
    spec: String,
    name: String,
    pub(super) dump_dir: PathBuf,
    dump_file: Option<String>,
    journal_dir: PathBuf,
    raw: abi::vicover_options,
}

impl Settings {
    /// What a job that goes on with `past` is started with. It is asked for with nothing
    /// that the journal says.
    pub(super) fn going_on(self, past: &Past) -> Result<Start, Failure> {
        let raw = &self.raw;
        let given = [raw.spec, raw.name, raw.dump_dir, raw.dump_file];
        if given.iter().any(|text| !text.is_null()) || raw.flags != 0 {
            return Err(Failure::new(
                abi::VICOVER_ERR_OPTION,
                "spec, name, dump_dir, dump_file and flags are the journal's; allowed: none",
            ));
        }
        let begun = &past.begun;
        let options = Options::parse(&begun.options).map_err(Error::from)?;
        Ok(Self {
            options,
            spec: begun.options.clone(),
            name: begun.guest.clone(),
            dump_dir: begun.dump_dir.clone(),
            ..self
        }
        .start(None))
    }

    fn start(self, sink: Option<Box<dyn Sink>>) -> Start {
        let socket = self.options.events.as_deref().map(EventSocket::to);
        Start {
            sink,
            log: JobLog::with_socket(&self.name, listener(&self.raw), socket),
            options: self.options,
            name: self.name,
            dump_dir: self.dump_dir,
            notes: Notes {
                directory: self.journal_dir,
                options: self.spec,
            },
        }
    }

    /// Refuses what is only made when a job is started.
    pub(super) fn refuse_other_places(&self) -> Result<(), Failure> {
        if self.dump_file.is_none() && self.raw.flags == 0 {
            return Ok(());
        }
        Err(Failure::new(
            abi::VICOVER_ERR_OPTION,
            "dump_file and flags are not looked at beforehand; allowed: dump_dir, and sink= in spec",
        ))
    }
}

/// Reads the options that every job takes.
///
/// # Safety
/// As the header says for `struct vicover_options`.
pub(super) unsafe fn read_settings(from: *const abi::vicover_options) -> Result<Settings, Failure> {
    // SAFETY: passed on, here and for the strings.
    let raw = unsafe { read_struct(from)? };
    // SAFETY: as above.
    let (spec, name, dump_dir, dump_file, journal_dir) = unsafe {
        (
            text(raw.spec, "spec")?,
            text(raw.name, "name")?,
            text(raw.dump_dir, "dump_dir")?,
            text(raw.dump_file, "dump_file")?,
            text(raw.journal_dir, "journal_dir")?,
        )
    };
    let spec = spec.unwrap_or_default();
    Ok(Settings {
        options: Options::parse(&spec).map_err(Error::from)?,
        spec,
        name: name.unwrap_or_else(|| "guest".into()),
        dump_dir: dump_dir.unwrap_or_else(|| DEFAULT_DUMP_DIR.into()).into(),
        dump_file,
        journal_dir: journal_dir
            .unwrap_or_else(|| journal::DIRECTORY.into())
            .into(),
        raw,
    })
}

/// Reads the options of a job that is to start: opens its sink, and takes the log.
///
/// # Safety
/// As the header says for `struct vicover_options`.
pub(super) unsafe fn read_start(from: *const abi::vicover_options) -> Result<Start, Failure> {
    // SAFETY: passed on.
    let settings = unsafe { read_settings(from)? };
    let raw = &settings.raw;
    let dump_file = settings.dump_file.as_deref().map(Path::new);
    let sink = read_sink(raw, dump_file, &settings.options)?;
    Ok(settings.start(sink))
}

/// The sink that the caller hands in or names, if any.
fn read_sink(
    raw: &abi::vicover_options,
    dump_file: Option<&Path>,
    options: &Options,
) -> Result<Option<Box<dyn Sink>>, Failure> {
    let refuse = |text: String| Failure::new(abi::VICOVER_ERR_OPTION, text);
    let unknown = raw.flags & !abi::VICOVER_OPTION_SINK_FD;
    if unknown != 0 {
        let text =
            format!("vicover_options.flags has {unknown:#x}, which this version does not know");
        return Err(refuse(text));
    }
    let has_descriptor = raw.flags & abi::VICOVER_OPTION_SINK_FD != 0;
    if !has_descriptor && raw.sink_fd != 0 {
        return Err(refuse(format!(
            "vicover_options.sink_fd is {}, but flags lack VICOVER_OPTION_SINK_FD",
            raw.sink_fd
        )));
    }
    let places = [
        has_descriptor.then(|| "sink_fd".into()),
        dump_file.map(|path| format!("dump_file {}", path.display())),
        (options.sink.as_ref()).map(|path| format!("sink={}", path.display())),
    ];
    let places: Vec<String> = places.into_iter().flatten().collect();
    if places.len() > 1 {
        let all = places.join(" and ");
        return Err(refuse(format!(
            "both {all} are given; allowed: one of them"
        )));
    }
    if let Some(path) = dump_file {
        let sink = FileSink::create_as(path).map_err(Error::DumpStart)?;
        return Ok(Some(Box::new(sink)));
    }
    if !has_descriptor {
        return Ok(None);
    }
    let sink = duplicate(raw.sink_fd).and_then(|file| OpenSink::from_file(file, None));
    sink.map(Some).map_err(|source| {
        let doing = format!("using descriptor {} as sink", raw.sink_fd);
        Error::Io { doing, source }.into()
    })
}
