// SPDX-License-Identifier: LGPL-2.1-or-later
//! A sink whose writes wait for leave.

use super::recorder::Recorder;
use crate::dump::Sink;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for any write on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A sink whose every write but the header's waits for leave once the gate is closed.
pub(super) struct Gated {
    inner: Recorder,
    closed: Arc<AtomicBool>,
    arrived: Sender<u64>,
    leave: Receiver<()>,
}

/// Lets a [`Gated`] sink write.
pub(super) struct Gate {
    closed: Arc<AtomicBool>,
    arrivals: Receiver<u64>,
    leave: Sender<()>,
}

impl Gated {
    /// A sink, and its gate, which is open.
    pub(super) fn new() -> (Self, Gate) {
        let closed = Arc::new(AtomicBool::new(false));
        let (arrived, arrivals) = mpsc::channel();
        let (leave, leave_in) = mpsc::channel();
        let gated = Self {
            inner: Recorder::new(1),
            closed: Arc::clone(&closed),
            arrived,
            leave: leave_in,
        };
        let gate = Gate {
            closed,
            arrivals,
            leave,
        };
        (gated, gate)
    }

    /// Where its writes go to in the end.
    pub(super) fn inner(&self) -> Recorder {
        self.inner.clone()
    }
}

impl Gate {
    /// Waits until the sink is no more.
    pub(super) fn wait_gone(&self) {
        let gone = self.arrivals.recv_timeout(DEADLINE);
        assert_eq!(gone, Err(mpsc::RecvTimeoutError::Disconnected));
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Waits for the next write; returns where it goes to.
    pub(super) fn wait_arrival(&self) -> u64 {
        self.arrivals.recv_timeout(DEADLINE).expect("a write")
    }

    /// Lets the write through that has arrived.
    pub(super) fn let_through(&self) {
        self.leave.send(()).unwrap();
    }
}

impl Sink for Gated {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // The header is no chunk's, and comes when the tables are on disk.
        if offset != 0 && self.closed.load(Ordering::SeqCst) {
            self.arrived.send(offset).unwrap();
            self.leave.recv().unwrap();
        }
        self.inner.write_at(offset, bytes)
    }

    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()> {
        self.inner.prepare(tables, whole)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()
    }

    fn publish(&mut self, manifest: Option<&str>) -> io::Result<()> {
        self.inner.publish(manifest)
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}
