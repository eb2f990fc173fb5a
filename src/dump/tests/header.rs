// SPDX-License-Identifier: LGPL-2.1-or-later
//! The bytes of a kdump-compressed dump, where makedumpfile 1.7.2 has them:
//! `disk_dump_header`, `kdump_sub_header` and `page_desc` of its `diskdump_mod.h`.

use super::guest::{config, Guest, Memory, CHUNK};
use super::recorder::Recorder;
use crate::addr::{Pfn, PAGE_SIZE};
use crate::dump::{
    Bitmap, Bitmaps, Codec, Engine, Facts, Summary, Utsname, VcpuRegisters, ZLIB, ZSTD,
};
use std::sync::Arc;

const GUEST: Guest = Guest {
    frames: 250,
    seed: 9,
};
/// One past the last frame: two blocks for each bitmap.
const LIMIT: u64 = 40_000;
/// So many that their notes end in the second block.
const VCPUS: usize = 13;

/// A complete dump of [`GUEST`], whose RAM is all at the start.
fn dump(codec: Codec) -> (Vec<u8>, Summary, (u64, u64)) {
    let facts = Facts {
        utsname: Utsname {
            sysname: "Linux".into(),
            release: "6.1.0".into(),
            ..Utsname::default()
        },
        phys_base: -0x1234_0000,
        vcpus: vec![VcpuRegisters::default(); VCPUS],
        timestamp_s: 1_700_000_000,
        dump_level: 31,
        ..GUEST.facts()
    };
    let (sink, bitmaps) = (Recorder::new(4096), GUEST.bitmaps_up_to(LIMIT));
    let (engine, _completed) =
        Engine::start(Box::new(sink.clone()), &facts, bitmaps, config(codec)).unwrap();
    for chunk in GUEST.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    let summary = engine.finish().unwrap();
    (sink.image().0, summary, sink.prepared().unwrap())
}

fn u32_at(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..][..4].try_into().unwrap())
}

fn u64_at(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..][..8].try_into().unwrap())
}

#[test]
fn the_header_says_what_the_dump_is() {
    for (codec, flag) in [
        (Codec::NONE, 0),
        (ZLIB.fastest(), 1),
        (ZSTD.fastest(), 0x20),
    ] {
        let (image, summary, _) = dump(codec);
        assert_eq!(image[..8], *b"KDUMP   ");
        assert_eq!(image[12..18], *b"Linux\0");
        assert_eq!(image[12 + 2 * 65..][..6], *b"6.1.0\0");
        assert_eq!(u64_at(&image, 408), 1_700_000_000, "tv_sec");
        assert_eq!(u64_at(&image, 416), 0, "tv_usec");
        let blocks = (summary.length / 4096) as u32;
        let pages = summary.wanted_pages as u32;
        for (what, at, right) in [
            ("header_version", 8, 6),
            ("status", 424, flag),
            ("block_size", 428, 4096),
            ("sub_hdr_size", 432, 2),
            ("bitmap_blocks", 436, 4),
            ("max_mapnr", 440, LIMIT as u32),
            ("total_ram_blocks", 444, GUEST.frames as u32),
            ("device_blocks", 448, blocks),
            ("written_blocks", 452, pages),
            ("current_cpu", 456, 0),
            ("nr_cpus", 460, VCPUS as u32),
        ] {
            assert_eq!(u32_at(&image, at), right, "{what}");
        }
    }
}

#[test]
fn the_sub_header_points_at_the_notes_and_at_vmcoreinfo() {
    let (image, _, _) = dump(Codec::NONE);
    let sub = &image[4096..];
    assert_eq!(u64_at(sub, 0) as i64, -0x1234_0000, "phys_base");
    assert_eq!((u32_at(sub, 8), u32_at(sub, 12)), (31, 0), "dump_level");
    // Of a dump in one file; nothing was erased in it.
    for (what, at, right) in [
        ("start_pfn", 16, 0),
        ("end_pfn", 24, LIMIT),
        ("offset_note", 48, 4096 + 104),
        ("offset_eraseinfo", 64, 0),
        ("size_eraseinfo", 72, 0),
        ("start_pfn_64", 80, 0),
        ("end_pfn_64", 88, LIMIT),
        ("max_mapnr_64", 96, LIMIT),
    ] {
        assert_eq!(u64_at(sub, at), right, "{what}");
    }
    // NT_PRSTATUS: header, name and registers; VMCOREINFO: header, name and text.
    let (registers, text) = (12 + 8 + 336, 12 + 12);
    let before = 4096 + 104 + VCPUS * registers;
    let vmcoreinfo = [32, 40].map(|at| u64_at(sub, at) as usize);
    assert_eq!(vmcoreinfo, [before + text, 16]);
    assert_eq!(image[vmcoreinfo[0]..][..16], *b"OSRELEASE=6.1.0\n");
    let notes = u64_at(sub, 56) as usize;
    assert_eq!(notes, VCPUS * registers + text + 16);
}

/// Where the bitmaps and the descriptors of [`dump`] are: after three blocks of headers
/// and notes, and after four of bitmaps.
const BITMAPS: usize = 3 * 4096;
const DESCRIPTORS: usize = BITMAPS + 4 * 4096;

#[test]
fn bitmaps_have_a_bit_for_each_frame_there_is_and_each_that_is_dumped() {
    let (image, _, _) = dump(Codec::NONE);
    let bit = |bitmap: usize, pfn: u64| {
        let at = BITMAPS + bitmap * 2 * 4096 + (pfn / 8) as usize;
        image[at] >> (pfn % 8) & 1 == 1
    };
    for pfn in 0..2 * 4096 * 8 {
        let is_there = pfn < GUEST.frames;
        let found = [bit(0, pfn), bit(1, pfn)];
        let right = [is_there, is_there && GUEST.wanted(pfn)];
        assert_eq!(found, right, "frame {pfn}");
    }
}

#[test]
fn descriptors_lead_to_the_pages_in_the_order_of_frames() {
    for codec in [Codec::NONE, ZLIB.fastest()] {
        let (image, summary, prepared) = dump(codec);
        let table = summary.wanted_pages as usize * 24;
        let zero_page = (DESCRIPTORS + table).next_multiple_of(4096);
        let tables = zero_page as u64 + 4096;
        assert_eq!(prepared, (tables, tables));
        let wanted = (0..GUEST.frames).filter(|&pfn| GUEST.wanted(pfn));
        for (at, pfn) in (DESCRIPTORS..).step_by(24).zip(wanted) {
            let (offset, page_flags) = (u64_at(&image, at), u64_at(&image, at + 16));
            let [size, flags] = [8, 12].map(|field| u32_at(&image, at + field));
            let page = GUEST.page(pfn);
            if GUEST.unreadable(pfn) {
                assert_eq!(
                    (offset, size, flags, page_flags),
                    (0, 0, 0, 0),
                    "frame {pfn}"
                );
                continue;
            }
            let data = &image[offset as usize..][..size as usize];
            if page == [0; PAGE_SIZE] {
                let shared = (zero_page as u64, PAGE_SIZE as u32, 0, 0);
                assert_eq!((offset, size, flags, page_flags), shared, "frame {pfn}");
            } else {
                assert!(offset as usize >= zero_page + PAGE_SIZE, "frame {pfn}");
                // Ours: "vcrc" and the data's checksum, which no reader looks at.
                let sum = u64::from(crc32fast::hash(data));
                assert_eq!(page_flags, 0x7663_7263 << 32 | sum, "frame {pfn}");
            }
            match flags {
                0 => assert!(data == page, "frame {pfn}"),
                flags => {
                    assert!(flags == 1 && codec != Codec::NONE, "frame {pfn}");
                    let mut unpacked = [0; PAGE_SIZE];
                    let mut zlib = libdeflater::Decompressor::new();
                    zlib.zlib_decompress(data, &mut unpacked).unwrap();
                    assert!(unpacked == page, "frame {pfn}");
                }
            }
        }
    }
}

#[test]
fn bitmaps_that_are_written_in_parts_are_whole() {
    // Three parts: 512 Ki frames are in one.
    let frames = [0, 600_000, 1_199_999];
    let mut present = Bitmap::new(Pfn(1_200_000)).unwrap();
    frames.iter().for_each(|&pfn| present.set(Pfn(pfn)));
    let bitmaps = Arc::new(Bitmaps::new(present.clone(), present).unwrap());
    let sink = Recorder::new(1);
    let facts = Facts::default();
    let engine =
        Engine::<Memory>::start(Box::new(sink.clone()), &facts, bitmaps, config(Codec::NONE));
    drop(engine.unwrap());
    let image = sink.image().0;
    let blocks = 1_200_000_usize.div_ceil(8 * 4096);
    for bitmap in 0..2 {
        let bits = &image[(2 + bitmap * blocks) * 4096..][..blocks * 4096];
        let set = (0..).zip(bits).filter(|(_, &byte)| byte != 0);
        let right = frames.map(|pfn| (pfn / 8, 1 << (pfn % 8)));
        assert_eq!(set.map(|(at, &byte)| (at, byte)).collect::<Vec<_>>(), right);
    }
}
