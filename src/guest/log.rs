// SPDX-License-Identifier: LGPL-2.1-or-later
//! The kernel's log, from its ring buffer.
//!
//! Structures: `kernel/printk/printk_ringbuffer.h`, Linux 5.10 and later (commit
//! 896fbe20b4e2). Records are descriptors in one ring and text in another.

use std::fmt::Write;

use crate::addr::GuestVirt;

use super::kernel::Kernel;
use super::memory::GuestMemory;
use super::paging::WalkError;

/// Sizes that are believed, as powers of two: `CONFIG_LOG_BUF_SHIFT` is at most
/// 25, and a descriptor is there for each 32 bytes of text.
const MAX_COUNT_BITS: u32 = 22;
const MAX_TEXT_BITS: u32 = 27;

/// States of a descriptor, in the top two bits of its state word.
const STATE_SHIFT: u32 = 62;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;

/// A position with this bit has no text (`DATALESS_LPOS`).
const DATALESS: u64 = 1;

/// Bytes of the identifier before a record's text.
const BLOCK_HEADER: u64 = 8;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Time of the message, in nanoseconds of the guest's clock.
    pub time_ns: u64,
    /// Its text, with a dot for each byte that is not printable ASCII.
    pub text: String,
}

/// The lines of records, as dmesg(1) prints them: each with its record's time.
pub fn as_dmesg(records: &[Record]) -> String {
    let mut text = String::new();
    for Record {
        time_ns,
        text: said,
    } in records
    {
        let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1_000 % 1_000_000);
        // An empty record is a line as well.
        let lines = said.lines().chain(said.is_empty().then_some(""));
        for line in lines {
            // Writing to a text does not fail.
            let _ = writeln!(text, "[{seconds:5}.{micros:06}] {}", line.trim_end());
        }
    }
    text
}

/// Why the log cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// The description lacks something, or a value is out of range.
    #[error("{0} is missing or out of range")]
    Value(&'static str),
    /// The ring cannot be read.
    #[error("the log cannot be read: {0}")]
    Unreadable(#[from] WalkError),
}

/// Where the parts of the log are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log<'a> {
    kernel: &'a Kernel,
    count_bits: u32,
    descriptors: GuestVirt,
    infos: GuestVirt,
    head_id: u64,
    tail_id: u64,
    text_bits: u32,
    text: GuestVirt,
    descriptor_bytes: u64,
    info_bytes: u64,
}

impl<'a> Log<'a> {
    /// Finds the ring buffer.
    pub fn find(mem: &dyn GuestMemory, kernel: &'a Kernel) -> Result<Self, LogError> {
        let member = |name| offset(kernel, name);
        let size = |name| {
            let size = kernel
                .info
                .size(name)
                .filter(|size| (8..4096).contains(size));
            size.ok_or(LogError::Value("SIZE(prb_desc) or SIZE(printk_info)"))
        };
        let word = |at: u64| kernel.tables.read_u64(mem, GuestVirt(at));
        let pointer = kernel.info.symbol("prb");
        let ring = word(pointer.ok_or(LogError::Value("SYMBOL(prb)"))?.0)?;
        let records = ring.wrapping_add(member("printk_ringbuffer.desc_ring")?);
        let texts = ring.wrapping_add(member("printk_ringbuffer.text_data_ring")?);
        let of = |base: u64, name| -> Result<u64, LogError> {
            Ok(word(base.wrapping_add(member(name)?))?)
        };
        let bits = |word: u64, most: u32, name| {
            let bits = word as u32;
            let is_believed = (4..=most).contains(&bits);
            is_believed.then_some(bits).ok_or(LogError::Value(name))
        };
        Ok(Self {
            kernel,
            count_bits: bits(
                of(records, "prb_desc_ring.count_bits")?,
                MAX_COUNT_BITS,
                "prb_desc_ring.count_bits",
            )?,
            descriptors: GuestVirt(of(records, "prb_desc_ring.descs")?),
            infos: GuestVirt(of(records, "prb_desc_ring.infos")?),
            head_id: of(records, "prb_desc_ring.head_id")? & id_mask(),
            tail_id: of(records, "prb_desc_ring.tail_id")? & id_mask(),
            text_bits: bits(
                of(texts, "prb_data_ring.size_bits")?,
                MAX_TEXT_BITS,
                "prb_data_ring.size_bits",
            )?,
            text: GuestVirt(of(texts, "prb_data_ring.data")?),
            descriptor_bytes: size("prb_desc")?,
            info_bytes: size("printk_info")?,
        })
    }

    /// The parts of the buffer: where each begins, and its length in bytes.
    pub fn parts(&self) -> [(GuestVirt, u64); 3] {
        [
            (self.text, 1 << self.text_bits),
            (self.descriptors, self.descriptor_bytes << self.count_bits),
            (self.infos, self.info_bytes << self.count_bits),
        ]
    }

    /// The last records whose texts take no more than `max_bytes` together,
    /// oldest first. A record that cannot be read is left out.
    pub fn tail(&self, mem: &dyn GuestMemory, max_bytes: usize) -> Vec<Record> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let count = 1u64 << self.count_bits;
        for back in 0..count {
            let id = self.head_id.wrapping_sub(back) & id_mask();
            if let Ok(Some(record)) = self.record(mem, id) {
                bytes += record.text.len();
                if bytes > max_bytes {
                    break;
                }
                records.push(record);
            }
            if id == self.tail_id {
                break;
            }
        }
        records.reverse();
        records
    }

    fn record(&self, mem: &dyn GuestMemory, id: u64) -> Result<Option<Record>, LogError> {
        let index = id & ((1 << self.count_bits) - 1);
        let tables = &self.kernel.tables;
        let element = |base: GuestVirt, bytes: u64, name| -> Result<GuestVirt, LogError> {
            let start = base.0.wrapping_add(index * bytes);
            Ok(GuestVirt(start.wrapping_add(offset(self.kernel, name)?)))
        };
        let in_descriptor = |name| element(self.descriptors, self.descriptor_bytes, name);
        let in_info = |name| element(self.infos, self.info_bytes, name);

        let state = tables.read_u64(mem, in_descriptor("prb_desc.state_var")?)?;
        let is_written = matches!(state >> STATE_SHIFT, COMMITTED | FINALIZED);
        if !is_written || state & id_mask() != id {
            return Ok(None);
        }
        let lpos = in_descriptor("prb_desc.text_blk_lpos")?;
        let position = |name| -> Result<u64, LogError> {
            let at = lpos.0.wrapping_add(offset(self.kernel, name)?);
            Ok(tables.read_u64(mem, GuestVirt(at))?)
        };
        let begin = position("prb_data_blk_lpos.begin")?;
        let next = position("prb_data_blk_lpos.next")?;
        let time_ns = tables.read_u64(mem, in_info("printk_info.ts_nsec")?)?;
        let mut length = [0; 2];
        tables.read(mem, in_info("printk_info.text_len")?, &mut length)?;
        let length = u64::from(u16::from_le_bytes(length));

        let Some((start, room)) = self.block(begin, next) else {
            return Ok(None);
        };
        let mut text = vec![0; length.min(room) as usize];
        tables.read(mem, GuestVirt(self.text.0.wrapping_add(start)), &mut text)?;
        let printable = |byte: &u8| match byte {
            b' '..=b'~' | b'\n' | b'\t' => char::from(*byte),
            _ => '.',
        };
        Ok(Some(Record {
            time_ns,
            text: text.iter().map(printable).collect(),
        }))
    }

    /// Where in the ring a record's text begins, and how long it can be.
    /// A block that would pass the end is at the ring's start.
    fn block(&self, begin: u64, next: u64) -> Option<(u64, u64)> {
        if begin & DATALESS != 0 {
            return None;
        }
        let size = 1u64 << self.text_bits;
        let (start, end) = (begin & (size - 1), next & (size - 1));
        let wraps = begin >> self.text_bits != next >> self.text_bits;
        let (start, end) = match (wraps, end) {
            (true, 0) => (start, size),
            (true, _) => (0, end),
            (false, _) => (start, end),
        };
        let text = start.checked_add(BLOCK_HEADER)?;
        (text <= end).then(|| (text, end - text))
    }
}

fn id_mask() -> u64 {
    (1 << STATE_SHIFT) - 1
}

fn offset(kernel: &Kernel, name: &'static str) -> Result<u64, LogError> {
    kernel
        .info
        .offset(name)
        .filter(|&offset| offset < 1 << 16)
        .ok_or(LogError::Value(name))
}

#[cfg(test)]
mod tests;
