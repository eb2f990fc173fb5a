// SPDX-License-Identifier: LGPL-2.1-or-later
//! Processes of this machine that others may have left, and their ends.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fd::{duplicate, read_text, Making};
use super::wait::wait_readable;

/// More than libxl gives any process.
const MOST_ARGUMENTS: u64 = 1 << 20;

/// A process that no later one with its number can be taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    /// When the process was started, in clock ticks since the machine was
    /// (proc_pid_stat(5), field 22).
    started_ticks: u64,
}

impl Process {
    /// The process that we are in.
    pub(crate) fn this() -> io::Result<Self> {
        // SAFETY: no arguments, cannot fail.
        let pid = unsafe { libc::getpid() };
        Self::numbered(pid)
    }

    /// The process that has this number now.
    pub(crate) fn numbered(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            started_ticks: started_ticks(pid)?,
        })
    }

    /// The process, when it has not ended: all of its threads count.
    pub(crate) fn living(self) -> io::Result<Option<Living>> {
        let Some(living) = Living::numbered(self.pid)? else {
            return Ok(None);
        };
        // Looked at while the descriptor keeps the number from being given to others.
        let is_same = started_ticks(self.pid).is_ok_and(|ticks| ticks == self.started_ticks);
        Ok(is_same.then_some(living))
    }
}

/// A process that had not ended when it was looked at.
pub(crate) struct Living {
    #[cfg_attr(not(feature = "xen"), allow(dead_code))]
    pid: i32,
    /// Keeps the number from being given to others.
    fd: OwnedFd,
}

// Processes that are looked at and ended are Xen's.
#[cfg_attr(not(feature = "xen"), allow(dead_code))]
impl Living {
    /// The process that has this number now, if one has and it has not ended.
    pub(crate) fn numbered(pid: i32) -> io::Result<Option<Self>> {
        let _making = Making::begin()?;
        // SAFETY: numbers only.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ESRCH | libc::EINVAL) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: a new descriptor that nobody else has; descriptors fit an int.
        let fd = unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) };
        let living = Self {
            pid,
            fd: OwnedFd::from(duplicate(fd.as_raw_fd())?),
        };
        Ok((!living.has_ended()?).then_some(living))
    }

    /// Whether the process has ended by now, all of its threads included.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        wait_readable(&[self.as_fd()], Some(0))
    }

    /// The words that the process was started with, as far as it has not written others
    /// over them; none when it has ended.
    pub(crate) fn arguments(&self) -> io::Result<Vec<String>> {
        let path = format!("/proc/{}/cmdline", self.pid);
        let text = read_text(path.as_ref(), MOST_ARGUMENTS)?;
        Ok(text.split_terminator('\0').map(String::from).collect())
    }

    /// Asks the process to end, as kill(1) does. One that has ended is not asked.
    pub(crate) fn ask_to_end(&self) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: numbers, and no structure: the kernel makes the one that kill(2) sends.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                libc::SIGTERM,
                no_info,
                0,
            )
        };
        match io::Error::last_os_error() {
            _ if sent == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }
}

/// Readable once the process has ended (pidfd_open(2)).
impl AsFd for Living {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn started_ticks(pid: i32) -> io::Result<u64> {
    let stat = read_text(format!("/proc/{pid}/stat").as_ref(), 4096)?;
    // The second field is the program's name in parentheses, whatever is in it.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let field = rest.split_whitespace().nth(22 - 3);
    field.and_then(|text| text.parse().ok()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat: {stat}"),
        )
    })
}

/// What this run of the machine's kernel is called, and no other.
pub(crate) fn boot_id() -> io::Result<String> {
    let id = read_text(Path::new("/proc/sys/kernel/random/boot_id"), 4096)?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat can be started");
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::numbered(pid).unwrap();
        let living = process.living().unwrap().expect("the child waits");
        assert!(!wait_readable(&[living.as_fd()], Some(0)).unwrap());
        let later = Process {
            started_ticks: process.started_ticks + 1,
            ..process
        };
        assert!(later.living().unwrap().is_none(), "another of that number");
        drop(child.stdin.take());
        assert!(wait_readable(&[living.as_fd()], Some(60_000)).unwrap());
        assert!(process.living().unwrap().is_none(), "not waited for yet");
        child.wait().unwrap();
        assert!(process.living().unwrap().is_none());
        assert!(Process::this().unwrap().living().unwrap().is_some());
    }
}
