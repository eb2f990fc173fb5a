// SPDX-License-Identifier: LGPL-2.1-or-later
//! The flattened stream: a dump for sinks that cannot seek.
//!
//! Source: `struct makedumpfile_header` and `makedumpfile_data_header` of
//! makedumpfile 1.7.2 (`makedumpfile.h`). A header of 4096 bytes, then records
//! of offset, length and bytes, all numbers big-endian, then a record with
//! both numbers -1. `makedumpfile -R` turns it into an ordinary dump; crash and
//! libkdumpfile 0.5.3 read it as it is. Later records replace earlier ones.

use super::error::Error;
use super::sink::Sink;
use crate::limits::cancel::Cancel;
use crate::os::file::wait_writable;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use zerocopy::byteorder::big_endian::I64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `MAX_SIZE_MDF_HEADER`.
pub(super) const HEADER_SIZE: usize = 4096;
/// `MAKEDUMPFILE_SIGNATURE`, padded.
pub(super) const SIGNATURE: [u8; 16] = *b"makedumpfile\0\0\0\0";
/// `TYPE_FLAT_HEADER` and `VERSION_FLAT_HEADER`.
pub(super) const TYPE_AND_VERSION: (i64, i64) = (1, 1);
/// `END_FLAG_FLAT_HEADER`.
pub(super) const END: i64 = -1;

#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct StreamHeader {
    signature: [u8; 16],
    pub(super) kind: I64,
    pub(super) version: I64,
}

#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct StreamRecord {
    pub(super) offset: I64,
    pub(super) size: I64,
}

/// What a flattened stream goes to.
pub trait Stream: Write + Send {
    /// Called before anything else. A stream that waits for its reader gives up when
    /// the caller cancels.
    fn heed(&mut self, cancel: &Cancel) {
        let _ = cancel;
    }
}

impl Stream for File {}
impl Stream for &mut Vec<u8> {}

/// Writes a dump as a flattened stream.
pub struct FlatSink<W> {
    stream: W,
    path: Option<PathBuf>,
    started: bool,
    /// End of the dump that the records so far make.
    end: u64,
}

impl<W: Stream> FlatSink<W> {
    /// A stream that nothing has been written to yet.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            path: None,
            started: false,
            end: 0,
        }
    }

    /// The stream's own name, where it has one.
    #[must_use]
    pub fn named(self, path: Option<PathBuf>) -> Self {
        Self { path, ..self }
    }

    fn record(&mut self, offset: i64, size: i64) -> io::Result<()> {
        let record = StreamRecord {
            offset: I64::new(offset),
            size: I64::new(size),
        };
        self.stream.write_all(record.as_bytes())
    }
}

impl<W: Stream> Sink for FlatSink<W> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.started {
            let header = StreamHeader {
                signature: SIGNATURE,
                kind: I64::new(TYPE_AND_VERSION.0),
                version: I64::new(TYPE_AND_VERSION.1),
            };
            let mut block = [0; HEADER_SIZE];
            block[..size_of::<StreamHeader>()].copy_from_slice(header.as_bytes());
            self.stream.write_all(&block)?;
            self.started = true;
        }
        let signed = i64::try_from(offset).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        self.record(signed, bytes.len() as i64)?;
        self.stream.write_all(bytes)?;
        self.end = self.end.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        match length.checked_sub(1) {
            // A last byte makes the dump as long as it says it is.
            Some(last) if self.end < length => self.write_at(last, &[0]),
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.stream.flush()
    }

    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        self.record(END, END)?;
        self.stream.flush()
    }

    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn heed(&mut self, cancel: &Cancel) {
        self.stream.heed(cancel);
    }
}

/// A pipe or socket whose reader may stall, which must not stall the dump's
/// user for ever, nor for an instant once the caller has cancelled.
pub struct PatientStream {
    file: File,
    patience: Duration,
    cancel: Cancel,
}

/// How often a writer that waits for its reader looks whether it still must.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes that a pipe takes without blocking once it is writable (`PIPE_BUF`,
/// pipe(7)).
const PIPE_BUF: usize = 4096;

impl PatientStream {
    /// Writes to `file` fail once its reader has taken nothing for `patience`.
    pub fn new(file: File, patience: Duration) -> Self {
        Self {
            file,
            patience,
            cancel: Cancel::default(),
        }
    }

    /// Waits until the reader takes something.
    fn wait(&self) -> io::Result<()> {
        let since = Instant::now();
        loop {
            if self.cancel.is_asked() {
                return Err(io::Error::other(Error::Cancelled));
            }
            let left = self.patience.saturating_sub(since.elapsed());
            let step = left.min(LOOK_AGAIN).as_millis();
            if wait_writable(&self.file, step as i32)? {
                return Ok(());
            }
            if left.is_zero() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("the reader took nothing for {:?}", self.patience),
                ));
            }
        }
    }
}

impl Stream for PatientStream {
    fn heed(&mut self, cancel: &Cancel) {
        self.cancel = cancel.clone();
    }
}

impl Write for PatientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait()?;
        match self.file.write(&bytes[..bytes.len().min(PIPE_BUF)]) {
            // Of a descriptor that does not block: `write_all` tries again.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(ErrorKind::Interrupted.into())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_big_endian_and_end_with_minus_one() {
        let mut stream = Vec::new();
        let mut sink = FlatSink::new(&mut stream);
        sink.write_at(0x1234, b"abc").unwrap();
        sink.set_length(0x2000).unwrap();
        sink.publish(None).unwrap();
        assert_eq!(&stream[..16], b"makedumpfile\0\0\0\0");
        assert_eq!(
            stream[16..32],
            [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(
            stream[4096..4112],
            [0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 3]
        );
        assert_eq!(&stream[4112..4115], b"abc");
        assert_eq!(
            stream[4115..4131],
            [0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(stream[4132..], [0xff; 16]);
    }

    #[test]
    fn a_reader_that_stalls_or_leaves_is_an_error() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut stream = PatientStream::new(file, Duration::from_millis(1));
        let error = stream.write_all(&vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(reader);
        let error = stream.write_all(&[0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_stream_has_no_more_records_than_it_takes() {
        let mut stream = Vec::new();
        let mut sink = FlatSink::new(&mut stream);
        let length = |sink: &FlatSink<&mut Vec<u8>>| sink.stream.len();
        sink.write_at(7, &[]).unwrap();
        sink.set_length(0).unwrap();
        assert_eq!(length(&sink), 0);
        sink.write_at(10, b"abc").unwrap();
        sink.write_at(0, b"d").unwrap();
        let before = length(&sink);
        // It is as long as that already.
        sink.set_length(13).unwrap();
        assert_eq!(length(&sink), before);
        sink.set_length(14).unwrap();
        assert_eq!(length(&sink), before + 17);
        assert_eq!(stream[before..][..8], [0, 0, 0, 0, 0, 0, 0, 13]);
    }

    #[test]
    fn what_a_stream_cannot_do_it_says() {
        let mut stream = Vec::new();
        let name = PathBuf::from("a pipe");
        let mut sink = FlatSink::new(&mut stream).named(Some(name.clone()));
        let error = sink.write_at(1 << 63, b"a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(!sink.is_seekable() && !sink.read_back(0, &mut [0]).unwrap());
        assert_eq!((sink.room(0), sink.block()), (None, 1));
        assert!(sink.doubt().is_none());
        assert_eq!(
            (sink.place().path(), sink.path()),
            (Some(name.clone()), Some(name))
        );
    }

    #[test]
    fn a_caller_who_cancels_does_not_wait_for_a_reader() {
        let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut sink = FlatSink::new(PatientStream::new(file, Duration::from_secs(3600)));
        let cancel = Cancel::default();
        sink.heed(&cancel);
        let asks = std::thread::spawn(move || {
            std::thread::yield_now();
            cancel.ask();
        });
        // More than is taken without a reader.
        let error = sink.write_at(0, &vec![0; 1 << 20]).unwrap_err();
        asks.join().unwrap();
        assert_eq!(error.to_string(), "cancelled by the caller");
    }

    /// A stream that counts how often it was to hold nothing back.
    struct Flushed(usize);

    impl Write for Flushed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0 += 1;
            Ok(())
        }
    }

    impl Stream for Flushed {}

    #[test]
    fn a_stream_holds_nothing_back_once_a_dump_is_to_be_safe() {
        let mut sink = FlatSink::new(Flushed(0));
        sink.write_at(0, b"a").unwrap();
        assert_eq!(sink.stream.0, 0);
        sink.sync().unwrap();
        assert_eq!(sink.stream.0, 1);
        sink.publish(None).unwrap();
        assert_eq!(sink.stream.0, 2);
    }
}
