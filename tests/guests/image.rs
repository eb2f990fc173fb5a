// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory of a real crashed guest, as tests/images/build leaves it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vicover::addr::{Gfn, GfnRange, GuestPhys, PAGE_SHIFT, PAGE_SIZE};
use vicover::guest::arch::x86_64::Processor;
use vicover::guest::memory::{FaultCause, GuestMemory, ReadFault};
use vicover::host::qemu_registers::parse;
use vicover::host::VcpuState;

/// A directory made by tests/images/build.
pub struct Image {
    ram: File,
    ranges: Vec<GfnRange>,
    offsets: Vec<u64>,
    /// The processors' registers after the panic.
    pub processors: Vec<Processor>,
    /// All of them.
    pub registers: Vec<VcpuState>,
    /// The kernel's version.
    pub kernel: String,
}

impl Image {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut ranges = Vec::new();
        let mut offsets = Vec::new();
        for line in fs::read_to_string(dir.join("ranges"))?.lines() {
            let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            let [phys, offset, bytes] = numbers[..] else {
                panic!("ranges: {line}");
            };
            ranges.push(GfnRange::new(
                Gfn(phys >> PAGE_SHIFT),
                Gfn((phys + bytes) >> PAGE_SHIFT),
            ));
            offsets.push(offset);
        }
        let text = fs::read(dir.join("registers"))?;
        let registers = parse(&String::from_utf8_lossy(&text)).expect("registers");
        Ok(Self {
            ram: File::open(dir.join("ram"))?,
            ranges,
            offsets,
            processors: registers.iter().map(Processor::from).collect(),
            registers,
            kernel: fs::read_to_string(dir.join("kernel"))?.trim().to_owned(),
        })
    }
}

impl GuestMemory for Image {
    fn end(&self) -> Gfn {
        self.ranges.last().map_or(Gfn(0), |range| range.end)
    }

    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault> {
        let fault = |gfn| ReadFault {
            gfn,
            cause: FaultCause::NotRam,
        };
        let index = self
            .ranges
            .iter()
            .position(|range| range.contains(at.gfn()))
            .ok_or(fault(at.gfn()))?;
        let range = self.ranges[index];
        let within = at.0 - range.start.0 * PAGE_SIZE as u64;
        if into.len() as u64 > range.len() * PAGE_SIZE as u64 - within {
            return Err(fault(range.end));
        }
        self.ram
            .read_exact_at(into, self.offsets[index] + within)
            .map_err(|error| ReadFault {
                gfn: at.gfn(),
                cause: FaultCause::Host(error.raw_os_error().unwrap_or(0)),
            })
    }

    fn ram(&self) -> &[GfnRange] {
        &self.ranges
    }
}
