// SPDX-License-Identifier: LGPL-2.1-or-later
//! The socket that events are sent to: one datagram each, which nobody waits for.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::event::JobEvent;
use super::record::Told;
use crate::os::fd::datagram_socket;

/// Sends events to whoever listens at a path.
pub(crate) struct EventSocket {
    socket: io::Result<UnixDatagram>,
    path: PathBuf,
    /// That an event was not taken has been said.
    is_told: bool,
}

impl EventSocket {
    /// Events go to `path`, from the first that somebody listens to on.
    pub(crate) fn to(path: &Path) -> Self {
        Self {
            socket: datagram_socket(),
            path: path.into(),
            is_told: false,
        }
    }

    /// Sends an event. Says, the first time, that it was not taken: nobody listens,
    /// or whoever does is too slow. A job does not wait for that.
    pub(crate) fn send(&mut self, told: &Told<'_>) -> Option<JobEvent> {
        let record = told.record();
        let sent = match &self.socket {
            Ok(socket) => socket.send_to(record.as_bytes(), &self.path).map(|_| ()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let error = sent.err()?;
        let path = self.path.clone();
        (!std::mem::replace(&mut self.is_told, true)).then(|| JobEvent::EventsNotTaken {
            path,
            error: error.to_string(),
        })
    }
}
