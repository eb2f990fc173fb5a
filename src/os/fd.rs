// SPDX-License-Identifier: LGPL-2.1-or-later
//! Descriptors: every one of the library's is made here, and none is below 3. A
//! program may have closed its standard input, output or error; what it prints must
//! not go into whatever of ours would get that number.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
#[cfg(any(feature = "xen", test))]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
#[cfg(any(feature = "xen", test))]
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The first number that is not a standard stream's.
const FIRST: RawFd = 3;

/// What stands in the numbers below that are free, while somebody makes a descriptor.
#[derive(Default)]
struct Standing {
    makers: usize,
    fillers: Vec<OwnedFd>,
}

static STANDING: Mutex<Standing> = Mutex::new(Standing {
    makers: 0,
    fillers: Vec::new(),
});

fn standing() -> MutexGuard<'static, Standing> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this lives, no descriptor that is made gets a number below [`FIRST`]. It is
/// for an instant: what the program prints meanwhile is as lost as before.
pub(crate) struct Making(());

impl Making {
    /// Fills the free numbers below [`FIRST`].
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub(crate) fn begin() -> io::Result<Self> {
        let mut standing = standing();
        if standing.makers == 0 {
            standing.fillers = fillers()?;
        }
        standing.makers += 1;
        Ok(Self(()))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut standing = standing();
        standing.makers -= 1;
        if standing.makers == 0 {
            standing.fillers.clear();
        }
    }
}

/// One descriptor for each free number below [`FIRST`], of something that can neither
/// be read nor written (epoll_create(2)) and needs no file system.
fn fillers() -> io::Result<Vec<OwnedFd>> {
    let mut fillers = Vec::new();
    loop {
        // SAFETY: epoll_create1 takes no pointer, and what it returns is a new
        // descriptor that nobody else has.
        let filler = unsafe {
            match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                new => OwnedFd::from_raw_fd(new),
            }
        };
        if filler.as_raw_fd() >= FIRST {
            return Ok(fillers);
        }
        fillers.push(filler);
    }
}

/// Opens a file.
#[allow(clippy::disallowed_methods)] // here it is raised
pub(crate) fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let _making = Making::begin()?;
    raised(options.open(path)?)
}

/// What was just made, with a number that is no standard stream's.
fn raised<T: AsRawFd + From<OwnedFd>>(made: T) -> io::Result<T> {
    match made.as_raw_fd() < FIRST {
        // The program closed that number after it had been looked at.
        true => duplicate(made.as_raw_fd()).map(|file| OwnedFd::from(file).into()),
        false => Ok(made),
    }
}

/// Opens a file to be read.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true))
}

/// A socket to send datagrams from to a path, which does not block.
#[allow(clippy::disallowed_methods)] // here it is raised
pub(crate) fn datagram_socket() -> io::Result<UnixDatagram> {
    let _making = Making::begin()?;
    let socket = raised(UnixDatagram::unbound()?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A stream to whoever listens at a path.
///
/// # Errors
/// Also when others wait there to be listened to, and there is no room for one more:
/// nobody says how long that would take.
#[cfg(any(feature = "xen", test))]
pub(crate) fn stream_to(path: &Path) -> io::Result<UnixStream> {
    let address = address_of(path)?;
    let _making = Making::begin()?;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes no pointer, and what it returns is a new descriptor that
    // nobody else has.
    let socket = unsafe {
        match libc::socket(libc::AF_UNIX, kind, 0) {
            -1 => return Err(io::Error::last_os_error()),
            new => OwnedFd::from_raw_fd(new),
        }
    };
    let stream = UnixStream::from(raised(socket)?);
    let bytes = std::mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is ours, and as long as is said.
    let connected =
        unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), bytes) };
    if connected == -1 {
        return Err(io::Error::last_os_error());
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A path as sockets name it (unix(7)); the rest of the name is zeroes, which end it.
#[cfg(any(feature = "xen", test))]
fn address_of(path: &Path) -> io::Result<libc::sockaddr_un> {
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    let name = path.as_os_str().as_bytes();
    if name.is_empty() || name.contains(&0) || name.len() >= address.sun_path.len() {
        let why = "not the path of a socket: it has 1 to 107 bytes, none of them zero";
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

/// What a file says that is at most `most` bytes long.
///
/// # Errors
/// When it cannot be read, is longer, or is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let file = open_to_read(path)?;
    file.take(most.saturating_add(1))
        .read_to_string(&mut text)?;
    match text.len() as u64 > most {
        true => Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("more than {most} bytes"),
        )),
        false => Ok(text),
    }
}

/// The paths of what is in a directory.
#[allow(clippy::disallowed_methods)] // nothing is ever written to it
pub(crate) fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let _making = Making::begin()?;
    let entries = std::fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// A descriptor of our own for what a number stands for that somebody handed in
/// (F_DUPFD_CLOEXEC): it stays open whatever they do with theirs.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<File> {
    // SAFETY: a number that is not an open descriptor is an error of fcntl, and
    // what it returns is a new descriptor that nobody else has.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FIRST) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(File::from_raw_fd(new)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_who_does_not_listen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let mut waiting = Vec::new();
        let refused = loop {
            match stream_to(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error.kind(),
            }
            assert!(waiting.len() < 10, "there is always room");
        };
        assert_eq!(refused, ErrorKind::WouldBlock);
        // Whoever came waits for what is said.
        let mut heard = listener.accept().unwrap().0;
        let saying = std::thread::spawn(move || std::io::Write::write_all(&mut heard, b"hello"));
        let mut said = [0; 5];
        waiting[0].read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
        saying.join().unwrap().unwrap();
        for path in ["", "a\0b", &"x".repeat(108)] {
            let refused = stream_to(Path::new(path)).map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        let error = read_text(&path, 4).unwrap_err();
        assert_eq!(error.to_string(), "more than 4 bytes");
        // It would never end.
        assert!(read_text(Path::new("/dev/zero"), 4096).is_err());
    }
}
