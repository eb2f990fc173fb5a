// SPDX-License-Identifier: LGPL-2.1-or-later
//! Made guests that lie, for tests in memory and on the emulated host.

use super::synthetic::Guest;

/// A guest of so many frames that has a page table, in the kernel's half, of which every
/// entry leads back to it.
pub fn circular(frames: u64) -> Guest {
    let mut guest = Guest::new(frames);
    guest.set_free(0x4000, 10);
    guest.write_description();
    let table = guest.new_frame();
    for entry in 0..512 {
        guest.write_u64(table + entry * 8, table | 0x63);
    }
    let root = guest.root();
    guest.write_u64(root + 300 * 8, table | 0x63);
    guest
}
