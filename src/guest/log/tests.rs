// SPDX-License-Identifier: LGPL-2.1-or-later
//! Records of the kernel's log: which count, and where their texts are.

use super::*;
use crate::guest::guests::synthetic::{Guest, KERNEL_MAP};
use crate::guest::limits::Limits;
use crate::guest::locate::locate;

/// Bytes of the ring of texts of [`Guest::add_log`].
const RING: u64 = 1024;

fn guest(texts: &[&str]) -> Guest {
    let mut guest = Guest::new(1 << 14);
    guest.add_log(texts);
    guest
}

fn kernel(guest: &mut Guest) -> Kernel {
    guest.write_description();
    let processors = guest.processors();
    let located = locate(guest, &processors, &Limits::default());
    located.expect("a kernel").kernel
}

fn records(guest: &mut Guest) -> Vec<Record> {
    let kernel = kernel(guest);
    let log = Log::find(guest, &kernel).expect("a log");
    log.tail(guest, 1 << 20)
}

fn texts(guest: &mut Guest) -> Vec<String> {
    let text = |record: Record| record.text;
    records(guest).into_iter().map(text).collect()
}

/// Where the descriptor and the facts of the record with this identifier are.
fn places(guest: &Guest, id: u64) -> (u64, u64) {
    let at = guest.log_at();
    (at + 0x100 + id % 16 * 24, at + 0x300 + id % 16 * 32)
}

fn set_state(guest: &mut Guest, id: u64, state: u64) {
    let (descriptor, _) = places(guest, id);
    guest.write_u64(descriptor, state);
}

/// Writes a record whose text is at a place in the ring.
fn put(guest: &mut Guest, id: u64, positions: (u64, u64), place: u64, text: &str) {
    let (descriptor, facts) = places(guest, id);
    guest.write_u64(descriptor, id | FINALIZED << STATE_SHIFT);
    guest.write_u64(descriptor + 8, positions.0);
    guest.write_u64(descriptor + 16, positions.1);
    guest.write_u64(facts + 8, id * 1000);
    guest.write_u64(facts + 16, 0xffff_0000 | text.len() as u64);
    let data = guest.log_at() + 0x800;
    guest.write(data + place, text.as_bytes());
}

fn set_ends(guest: &mut Guest, oldest: u64, newest: u64) {
    let at = guest.log_at();
    guest.write_u64(at + 24, newest);
    guest.write_u64(at + 0x28, oldest);
}

#[test]
fn the_parts_of_the_buffer_are_where_the_rings_say() {
    let mut guest = guest(&["one"]);
    let kernel = kernel(&mut guest);
    let log = Log::find(&guest, &kernel).unwrap();
    let at = KERNEL_MAP + guest.log_at();
    let parts = [(0x800, 1024), (0x100, 16 * 24), (0x300, 16 * 32)];
    let parts = parts.map(|(place, bytes)| (GuestVirt(at + place), bytes));
    assert_eq!(log.parts(), parts);
}

#[test]
fn records_count_when_they_are_written_and_are_what_they_should_be() {
    let mut guest = guest(&["committed", "reserved", "reusable", "another", "final"]);
    set_state(&mut guest, 0, COMMITTED << STATE_SHIFT);
    set_state(&mut guest, 1, 1);
    set_state(&mut guest, 2, 2 | 3 << STATE_SHIFT);
    set_state(&mut guest, 3, 19 | FINALIZED << STATE_SHIFT);
    let (_, facts) = places(&guest, 4);
    guest.write_u64(facts + 8, 123_456_789);
    let record = |time_ns, text: &str| Record {
        time_ns,
        text: text.to_owned(),
    };
    let written = [record(0, "committed"), record(123_456_789, "final")];
    assert_eq!(records(&mut guest), written);
}

#[test]
fn records_before_the_oldest_and_after_the_newest_do_not_count() {
    let mut guest = guest(&["zero", "one", "two", "three", "four"]);
    // What the state has of these words is no part of the identifiers.
    set_ends(&mut guest, 2 | 3 << 62, 3 | 1 << 62);
    assert_eq!(texts(&mut guest), ["two", "three"]);
    set_ends(&mut guest, 4, 4);
    assert_eq!(texts(&mut guest), ["four"]);
}

#[test]
fn no_more_text_is_returned_than_was_asked_for() {
    let mut guest = guest(&["[one]", "[two]", "[three]"]);
    let kernel = kernel(&mut guest);
    let log = Log::find(&guest, &kernel).unwrap();
    let number = |most| log.tail(&guest, most).len();
    let most = [0, 6, 7, 11, 12, 16, 17];
    assert_eq!(most.map(number), [0, 0, 1, 1, 2, 2, 3]);
}

#[test]
fn identifiers_and_texts_go_round_their_rings() {
    let mut guest = guest(&["one"]);
    let lap = 5 * RING;
    put(&mut guest, 30, (lap + 16, lap + 40), 24, "in the middle");
    // A text that would pass the end is at the start, one that meets it is not.
    put(
        &mut guest,
        31,
        (lap + 900, lap + RING + 32),
        8,
        "at the start",
    );
    put(&mut guest, 32, (lap + 1000, lap + RING), 1008, "to the end");
    put(&mut guest, 33, (RING, RING + 8), 8, "");
    set_ends(&mut guest, 30, 33);
    let record = |id: u64, text: &str| Record {
        time_ns: id * 1000,
        text: text.to_owned(),
    };
    assert_eq!(
        records(&mut guest),
        [
            record(30, "in the middle"),
            record(31, "at the start"),
            record(32, "to the end"),
            record(33, ""),
        ]
    );
}

#[test]
fn a_text_is_no_longer_than_its_block_and_no_block_is_where_none_can_be() {
    let mut guest = guest(&["one"]);
    put(&mut guest, 16, (0, 16), 8, "cut short here");
    // Blocks without room for an identifier, of less than nothing, and none.
    put(&mut guest, 17, (64, 68), 72, "no room");
    put(&mut guest, 18, (128, 96), 136, "backwards");
    put(&mut guest, 19, (1, 1), 300, "failed");
    put(&mut guest, 20, (3, 64), 400, "empty line");
    put(&mut guest, 21, (192, 208), 200, "\ta\n\u{1}\u{7f}\u{e9}~");
    set_ends(&mut guest, 16, 21);
    assert_eq!(texts(&mut guest), ["cut shor", "\ta\n....~"]);
}

#[test]
fn sizes_and_offsets_beyond_any_kernels_are_refused() {
    let found = |change: &dyn Fn(&mut Guest)| {
        let mut guest = guest(&["one"]);
        change(&mut guest);
        let kernel = kernel(&mut guest);
        Log::find(&guest, &kernel).map(|log| log.parts().map(|(_, bytes)| bytes))
    };
    let count = "prb_desc_ring.count_bits";
    let bits = |place: u64, bits: u32| {
        // Other members follow, in the same word.
        let word = 0xffff_ffff << 32 | u64::from(bits);
        found(&move |guest: &mut Guest| guest.write_u64(guest.log_at() + place, word))
    };
    assert_eq!(bits(0, 3), Err(LogError::Value(count)));
    assert_eq!(bits(0, 22), Ok([1024, 24 << 22, 32 << 22]));
    assert_eq!(bits(0, 23), Err(LogError::Value(count)));
    let size = "prb_data_ring.size_bits";
    assert_eq!(bits(0x30, 3), Err(LogError::Value(size)));
    assert_eq!(bits(0x30, 27), Ok([1 << 27, 24 << 4, 32 << 4]));
    assert_eq!(bits(0x30, 28), Err(LogError::Value(size)));
    let line = |key: &str, value: u64| found(&|guest: &mut Guest| guest.line(key, value));
    let sizes = LogError::Value("SIZE(prb_desc) or SIZE(printk_info)");
    assert_eq!(line("SIZE(prb_desc)", 7), Err(sizes.clone()));
    assert_eq!(line("SIZE(prb_desc)", 4096), Err(sizes));
    let data = "OFFSET(prb_data_ring.data)";
    let beyond = LogError::Value("prb_data_ring.data");
    assert_eq!(line(data, 1 << 16), Err(beyond));
    assert_eq!(line(data, (1 << 16) - 1), Ok([1024, 24 << 4, 32 << 4]));
    let missing = found(&|guest: &mut Guest| guest.forget("SYMBOL(prb)"));
    assert_eq!(missing, Err(LogError::Value("SYMBOL(prb)")));
}
