// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory images: where the pages of an in-memory guest come from.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::qemu_registers::{parse, MAX_TEXT};
use super::VcpuState;
use crate::addr::{Gfn, GfnRange, Page, PAGE_SIZE};
use crate::limits::bounded::{within, MOST_FRAMES};
use crate::os::fd::{open, open_to_read, read_text};
use crate::os::map::FileMap;

/// Where the pages of an in-memory guest come from.
pub trait Image: Send + Sync {
    /// Where there is RAM, ascending.
    fn ram(&self) -> &[GfnRange];
    /// The processors' registers; empty when they are not known.
    fn vcpus(&self) -> &[VcpuState] {
        &[]
    }
    /// A view of consecutive frames that are RAM.
    ///
    /// # Errors
    /// When the image does not have them.
    fn view(&self, frames: GfnRange) -> io::Result<Box<dyn View>>;
}

/// Some frames of an image. Reading takes no lock and no system call.
pub trait View: Send + Sync {
    /// Fills `into` with bytes of the frame number `index` of the view; false
    /// when they are not in one frame of it.
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool;

    /// Gives up what the view has of this process's own memory, as nobody reads for a
    /// while. Reading brings it back.
    fn forget(&self) {}
}

/// Ranges of an image; a PVH guest has two.
const MOST_RANGES: u64 = 1024;
/// Bytes of a file that names so many.
const MOST_RANGES_BYTES: u64 = 128 * MOST_RANGES;

/// Guest frames and where in a file their bytes are.
#[derive(Clone, Copy)]
struct Stretch {
    frames: GfnRange,
    offset: u64,
}

/// A guest's memory in a file.
pub struct FileImage {
    file: File,
    ram: Vec<GfnRange>,
    /// One for each range of RAM.
    stretches: Vec<Stretch>,
    vcpus: Vec<VcpuState>,
}

impl FileImage {
    /// Opens an image: a file that is the guest's memory from address 0 on, of
    /// which a last partial page is ignored; or a directory with a file `ram`
    /// and a file `ranges`, whose lines say where its parts belong: guest
    /// address, offset in `ram`, length, all decimal and multiples of a page. A file
    /// `registers` beside them, if there is one, holds the processors' registers as
    /// QEMU's monitor prints them (`info registers -a`).
    ///
    /// # Errors
    /// When that is not what is there, or holds no page at all.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            let (file, length) = open_ram(&path.join("ram"))?;
            let text = read_text(&path.join("ranges"), MOST_RANGES_BYTES)
                .map_err(|error| io::Error::new(error.kind(), format!("ranges: {error}")))?;
            let stretches = parse_ranges(&text, length)?;
            return Self::of(file, stretches, read_registers(path)?);
        }
        let (file, length) = open_ram(path)?;
        let frames = length / PAGE_SIZE as u64;
        let all = Stretch {
            frames: GfnRange::new(Gfn(0), Gfn(frames)),
            offset: 0,
        };
        Self::of(file, vec![all], Vec::new())
    }

    fn of(file: File, stretches: Vec<Stretch>, vcpus: Vec<VcpuState>) -> io::Result<Self> {
        let ram: Vec<GfnRange> = stretches.iter().map(|stretch| stretch.frames).collect();
        if ram.iter().all(GfnRange::is_empty) {
            return Err(invalid("shorter than one page"));
        }
        let end = ram.last().map_or(0, |range| range.end.0);
        within("page frames", end, MOST_FRAMES).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            file,
            ram,
            stretches,
            vcpus,
        })
    }
}

/// The registers in an image's directory; none when there is no such file.
fn read_registers(dir: &Path) -> io::Result<Vec<VcpuState>> {
    let file = match open_to_read(&dir.join("registers")) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // One more than is allowed, so that the parser sees it.
    file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    // The monitor's echo has control characters, and may have others.
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).map_err(|error| invalid(error.to_string()))
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// Opens what holds a guest's memory; says how long it is.
fn open_ram(path: &Path) -> io::Result<(File, u64)> {
    // A FIFO is refused, not waited for.
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .to_owned();
    let file = open(path, &options)?;
    let found = file.metadata()?;
    match found.is_file() {
        true => Ok((file, found.len())),
        false => Err(invalid("not a regular file")),
    }
}

fn parse_ranges(text: &str, length: u64) -> io::Result<Vec<Stretch>> {
    let page = PAGE_SIZE as u64;
    let mut stretches: Vec<Stretch> = Vec::new();
    let lines = text.lines().count();
    within("lines", lines as u64, MOST_RANGES)
        .map_err(|error| invalid(format!("ranges: {error}")))?;
    for line in text.lines() {
        let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
        let Some(&[start, offset, bytes]) = numbers.as_deref() else {
            return Err(invalid(format!("ranges: '{line}' is not three numbers")));
        };
        let aligned = [start, offset, bytes].iter().all(|n| n % page == 0);
        let end = start.checked_add(bytes);
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= length);
        let (Some(end), true, true) = (end, aligned, inside) else {
            return Err(invalid(format!("ranges: '{line}' is not in the file")));
        };
        let frames = GfnRange::new(Gfn(start / page), Gfn(end / page));
        if stretches
            .last()
            .is_some_and(|s| s.frames.end > frames.start)
        {
            return Err(invalid(format!("ranges: '{line}' is not above the last")));
        }
        stretches.push(Stretch { frames, offset });
    }
    Ok(stretches)
}

impl Image for FileImage {
    fn ram(&self) -> &[GfnRange] {
        &self.ram
    }

    fn vcpus(&self) -> &[VcpuState] {
        &self.vcpus
    }

    fn view(&self, frames: GfnRange) -> io::Result<Box<dyn View>> {
        let holds = |s: &&Stretch| s.frames.start <= frames.start && frames.end <= s.frames.end;
        let stretch = self.stretches.iter().find(holds);
        let stretch = stretch.ok_or_else(|| invalid("frames that are not in the image"))?;
        let first = frames.start.0 - stretch.frames.start.0;
        let offset = stretch.offset + first * PAGE_SIZE as u64;
        let map = FileMap::new(&self.file, offset, frames.len() as usize * PAGE_SIZE)?;
        Ok(Box::new(FileView(map)))
    }
}

struct FileView(FileMap);

impl View for FileView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        in_one_page(offset, into) && self.0.read(index * PAGE_SIZE + offset, into)
    }

    fn forget(&self) {
        self.0.forget();
    }
}

fn in_one_page(offset: usize, into: &[u8]) -> bool {
    offset
        .checked_add(into.len())
        .is_some_and(|end| end <= PAGE_SIZE)
}

/// A guest of any size whose pages are computed: every fourth page is zero,
/// the others hold text that names their frame.
pub struct SyntheticImage {
    ram: [GfnRange; 1],
}

/// Bytes of a line of a synthetic page.
const LINE: usize = 32;

impl SyntheticImage {
    /// A synthetic guest of so many frames.
    pub fn new(frames: u64) -> Self {
        Self {
            ram: [GfnRange::new(Gfn(0), Gfn(frames))],
        }
    }

    /// The whole content of a frame.
    pub fn page(gfn: Gfn) -> Page {
        let mut page = [0; PAGE_SIZE];
        if gfn.0 % 4 != 0 {
            let text = format!("frame {:#015x} line 0000\n", gfn.0);
            for (index, line) in page.chunks_exact_mut(LINE).enumerate() {
                line.copy_from_slice(text.as_bytes());
                for (digit, power) in line[LINE - 5..LINE - 1].iter_mut().zip([1000, 100, 10, 1]) {
                    *digit += (index / power % 10) as u8;
                }
            }
        }
        page
    }
}

impl Image for SyntheticImage {
    fn ram(&self) -> &[GfnRange] {
        &self.ram
    }

    fn view(&self, frames: GfnRange) -> io::Result<Box<dyn View>> {
        Ok(Box::new(SyntheticView(frames.start)))
    }
}

struct SyntheticView(Gfn);

impl View for SyntheticView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        if !in_one_page(offset, into) {
            return false;
        }
        let page = SyntheticImage::page(Gfn(self.0 .0 + index as u64));
        into.copy_from_slice(&page[offset..offset + into.len()]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synthetic_page_names_its_frame_in_every_line() {
        let page = SyntheticImage::page(Gfn(0xabc1));
        let lines: Vec<_> = page.chunks_exact(LINE).collect();
        assert_eq!(lines[0], b"frame 0x000000000abc1 line 0000\n");
        assert_eq!(lines[127], b"frame 0x000000000abc1 line 0127\n");
        assert_eq!(SyntheticImage::page(Gfn(8)), [0; PAGE_SIZE]);
    }

    #[test]
    fn an_image_with_a_hole_is_read_where_its_ranges_say() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..4u8).flat_map(|page| [page; PAGE_SIZE]).collect();
        std::fs::write(dir.path().join("ram"), bytes).unwrap();
        let ranges = |text: &str| std::fs::write(dir.path().join("ranges"), text).unwrap();
        ranges("0 4096 4096\n40960 8192 8192\n");
        let image = FileImage::open(dir.path()).unwrap();
        let ram = [
            GfnRange::new(Gfn(0), Gfn(1)),
            GfnRange::new(Gfn(10), Gfn(12)),
        ];
        assert_eq!(image.ram(), ram);
        let view = image.view(ram[1]).unwrap();
        let mut byte = [0; 2];
        assert!(view.read(1, 4094, &mut byte) && byte == [3, 3]);
        assert!(!view.read(1, 4095, &mut byte) && !view.read(2, 0, &mut byte));
        assert!(image.view(GfnRange::new(Gfn(0), Gfn(11))).is_err());
        assert_eq!(image.vcpus(), []);
        std::fs::write(dir.path().join("registers"), "CPU#0\n").unwrap();
        let error = FileImage::open(dir.path()).err().unwrap();
        assert_eq!(error.to_string(), "registers: CPU#0 has no EBP");
        std::fs::remove_file(dir.path().join("registers")).unwrap();
        for wrong in [
            // Beyond any guest's memory.
            "9223372036854771712 0 4096\n",
            "17592186044416 0 4096\n",
            &"0 0 0\n".repeat(1025),
            "0 0\n",
            "0 0 4095\n",
            "0 8192 12288\n",
            "4096 0 4096\n0 0 4096\n",
            "",
        ] {
            ranges(wrong);
            assert!(FileImage::open(dir.path()).is_err(), "{wrong:?}");
        }
        std::fs::remove_file(dir.path().join("ranges")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("ranges")).unwrap();
        let error = FileImage::open(dir.path()).err().unwrap().to_string();
        assert_eq!(error, "ranges: more than 131072 bytes");
    }

    #[test]
    fn an_image_larger_than_any_guest_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let most = MOST_FRAMES * PAGE_SIZE as u64;
        // Not every file system has files of that size.
        if file.as_file().set_len(most + PAGE_SIZE as u64).is_ok() {
            let error = FileImage::open(file.path()).err().unwrap().to_string();
            assert!(error.contains("4294967296 are allowed"), "{error}");
        }
        let error = FileImage::open(Path::new("/dev/null")).err().unwrap();
        assert_eq!(error.to_string(), "not a regular file");
    }
}
