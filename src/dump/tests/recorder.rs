// SPDX-License-Identifier: LGPL-2.1-or-later
//! A sink in memory that remembers every call in order, and can fail.

use crate::dump::reader::Source;
use crate::dump::Sink;
use crate::limits::cancel::Cancel;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub(in crate::dump) enum Call {
    Write { offset: u64, bytes: Vec<u8> },
    Sync,
    Publish,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    image: Vec<u8>,
    length: Option<u64>,
    prepared: Option<(u64, u64)>,
    pages: Vec<(u64, u64)>,
}

/// A handle; the engine gets a clone of it.
#[derive(Clone)]
pub(in crate::dump) struct Recorder {
    state: Arc<Mutex<State>>,
    block: usize,
    /// Bytes that still fit, `ENOSPC` after.
    pub(in crate::dump) room: Option<u64>,
    /// Panic instead.
    pub(in crate::dump) panics: bool,
    /// Syncs that succeed, if not all.
    pub(in crate::dump) syncs: Option<u32>,
    /// The sync of this number, from 1 on, during which the caller cancels.
    pub(in crate::dump) cancelled_at: Option<(usize, Cancel)>,
}

impl Recorder {
    pub(in crate::dump) fn new(block: usize) -> Self {
        Self {
            state: Arc::default(),
            block,
            room: None,
            panics: false,
            syncs: None,
            cancelled_at: None,
        }
    }

    /// What is in the sink now.
    pub(in crate::dump) fn image(&self) -> Image {
        Image(self.state.lock().unwrap().image.clone())
    }

    pub(in crate::dump) fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(in crate::dump) fn length(&self) -> Option<u64> {
        self.state.lock().unwrap().length
    }

    /// Bytes of tables and of all that the sink was prepared for.
    pub(in crate::dump) fn prepared(&self) -> Option<(u64, u64)> {
        self.state.lock().unwrap().prepared
    }

    #[cfg(not(shuttle))]
    /// Where page data was written that may go past a cache, and how much.
    pub(in crate::dump) fn pages(&self) -> Vec<(u64, u64)> {
        self.state.lock().unwrap().pages.clone()
    }
}

/// Applies a write to bytes in memory.
pub(in crate::dump) fn apply(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    let end = start + bytes.len();
    image.resize(image.len().max(end), 0);
    image[start..end].copy_from_slice(bytes);
}

impl Sink for Recorder {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let room = self.room.unwrap_or(u64::MAX);
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut state = self.state.lock().unwrap();
        apply(&mut state.image, offset, &bytes[..fits]);
        let bytes = bytes.to_vec();
        let all = fits == bytes.len();
        state.calls.push(Call::Write { offset, bytes });
        drop(state);
        self.room = self.room.map(|room| room - fits as u64);
        if all {
            return Ok(());
        }
        assert!(!self.panics, "the sink's own bug");
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let block = self.block as u64;
        assert_eq!(offset % block, 0, "unaligned offset");
        assert_eq!(bytes.len() as u64 % block, 0, "unaligned length");
        assert!(
            block == 1 || bytes.as_ptr() as usize % 4096 == 0,
            "unaligned memory"
        );
        let place = (offset, bytes.len() as u64);
        self.state.lock().unwrap().pages.push(place);
        self.write_at(offset, bytes)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.prepared = Some((tables, whole));
        state.image.resize(whole as usize, 0);
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.length = Some(length);
        state.image.resize(length as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(Call::Sync);
        let is_sync = |call: &&Call| matches!(call, Call::Sync);
        let number = state.calls.iter().filter(is_sync).count();
        drop(state);
        if let Some((_, cancel)) = self.cancelled_at.as_ref().filter(|(at, _)| *at == number) {
            cancel.ask();
        }
        match self.syncs.as_mut() {
            Some(0) => return Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(syncs) => *syncs -= 1,
            None => {}
        }
        Ok(())
    }

    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        self.state.lock().unwrap().calls.push(Call::Publish);
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}

/// A dump in memory.
#[derive(Clone)]
pub(in crate::dump) struct Image(pub(in crate::dump) Vec<u8>);

impl Source for Image {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
        Ok(())
    }
}
