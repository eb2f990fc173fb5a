// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which pages a kdump-compressed file by makedumpfile really holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vicover::addr::Pfn;

/// Bytes of a page's descriptor (`struct page_desc`), which begins with the
/// offset of its content.
const DESCRIPTOR: usize = 24;

pub struct SelectedPages {
    bitmap: Vec<u8>,
}

impl SelectedPages {
    /// Pages in the second bitmap, without the zero pages when these were left
    /// out: makedumpfile keeps their bits, and gives all of them the content
    /// that it writes first.
    pub fn read(file: &Path, zero_left_out: bool) -> io::Result<Self> {
        let file = File::open(file)?;
        let mut header = [0; 512];
        file.read_exact_at(&mut header, 0)?;
        assert_eq!(&header[..8], b"KDUMP   ");
        // struct disk_dump_header (makedumpfile's diskdump_mod.h)
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as u64;
        let (block, sub_header_blocks, bitmap_blocks) = (word(428), word(432), word(436));
        let half = bitmap_blocks / 2 * block;
        let mut bitmap = vec![0; half as usize];
        let bitmaps = (1 + sub_header_blocks) * block;
        file.read_exact_at(&mut bitmap, bitmaps + half)?;
        let mut pages = Self { bitmap };
        if zero_left_out {
            pages.clear_zero(&file, bitmaps + bitmap_blocks * block)?;
        }
        Ok(pages)
    }

    fn clear_zero(&mut self, file: &File, descriptors: u64) -> io::Result<()> {
        let frames = self.bitmap.len() as u64 * 8;
        let held: Vec<u64> = (0..frames).filter(|&pfn| self.holds(Pfn(pfn))).collect();
        let mut bytes = vec![0; held.len() * DESCRIPTOR];
        file.read_exact_at(&mut bytes, descriptors)?;
        let offsets: Vec<u64> = bytes
            .chunks_exact(DESCRIPTOR)
            .map(|page| u64::from_le_bytes(page[..8].try_into().unwrap()))
            .collect();
        let zero = offsets.iter().min();
        for (pfn, offset) in held.iter().zip(&offsets) {
            if Some(offset) == zero {
                self.bitmap[(pfn / 8) as usize] &= !(1 << (pfn % 8));
            }
        }
        Ok(())
    }

    /// Page frames that there are bits for.
    pub fn frames(&self) -> u64 {
        self.bitmap.len() as u64 * 8
    }

    pub fn holds(&self, pfn: Pfn) -> bool {
        let byte = self.bitmap.get((pfn.0 / 8) as usize).copied();
        byte.unwrap_or(0) >> (pfn.0 % 8) & 1 != 0
    }
}
