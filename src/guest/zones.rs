// SPDX-License-Identifier: LGPL-2.1-or-later
//! The guest's own count of its free pages, to check the walker's against.

use crate::addr::GuestVirt;

use super::kernel::Kernel;
use super::memory::GuestMemory;
use super::paging::WalkError;

/// Nodes and zones that are looked at, at most (`MAX_NUMNODES` is 1024 in
/// distributions' kernels, `MAX_NR_ZONES` at most 6).
const MAX_NODES: u64 = 4096;
const MAX_ZONES: u64 = 8;

/// Why the guest's count is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ZonesError {
    /// The description lacks something, or a value is out of range.
    #[error("{0} is missing or out of range")]
    Value(&'static str),
    /// The zones cannot be read.
    #[error("the zones cannot be read: {0}")]
    Unreadable(#[from] WalkError),
}

/// Where the count of each order is in the zones of a node.
struct ZoneLayout {
    zones: u64,
    number: u64,
    zone_bytes: u64,
    free_area: u64,
    orders: u64,
    area_bytes: u64,
    count: u64,
}

impl ZoneLayout {
    fn new(kernel: &Kernel) -> Result<Self, ZonesError> {
        let info = &kernel.info;
        let up_to = |value: Option<u64>, most: u64, name| {
            value
                .filter(|&value| value <= most)
                .ok_or(ZonesError::Value(name))
        };
        let offset = |name| up_to(info.offset(name), 1 << 24, name);
        let length = |name, most| up_to(info.length(name), most, name);
        let lists = length("free_area.free_list", 64)?;
        let list = up_to(info.size("list_head"), 64, "SIZE(list_head)")?;
        Ok(Self {
            zones: offset("pglist_data.node_zones")?,
            number: offset("pglist_data.nr_zones")?,
            zone_bytes: up_to(info.size("zone"), 1 << 20, "SIZE(zone)")?,
            free_area: offset("zone.free_area")?,
            orders: length("zone.free_area", 20)?,
            area_bytes: up_to(info.size("free_area"), 4096, "SIZE(free_area)")?,
            // `nr_free` follows the lists (include/linux/mmzone.h).
            count: offset("free_area.free_list")? + lists * list,
        })
    }
}

/// Pages on the buddy allocator's lists, as its zones count them. Pages on the
/// processors' own lists are not among them, in the zones or in descriptors.
pub fn free_pages(mem: &dyn GuestMemory, kernel: &Kernel) -> Result<u64, ZonesError> {
    let layout = ZoneLayout::new(kernel)?;
    let info = &kernel.info;
    let nodes = info
        .symbol("node_data")
        .ok_or(ZonesError::Value("SYMBOL(node_data)"))?;
    let number = info
        .length("node_data")
        .filter(|&number| number <= MAX_NODES)
        .ok_or(ZonesError::Value("LENGTH(node_data)"))?;
    let word = |at: u64| kernel.tables.read_u64(mem, GuestVirt(at));
    let mut total: u64 = 0;
    for node in 0..number {
        let node = word(nodes.0.wrapping_add(node * 8))?;
        if node == 0 {
            continue;
        }
        let zones = word(node.wrapping_add(layout.number))? & 0xffff_ffff;
        if zones > MAX_ZONES {
            return Err(ZonesError::Value("pglist_data.nr_zones"));
        }
        for zone in 0..zones {
            let zone = node.wrapping_add(layout.zones + zone * layout.zone_bytes);
            for order in 0..layout.orders {
                let area = layout.free_area + order * layout.area_bytes;
                let blocks = word(zone.wrapping_add(area + layout.count))?;
                total = total.saturating_add(blocks.saturating_mul(1 << order));
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::guests::synthetic::{self as made, Guest};
    use crate::guest::limits::Limits;
    use crate::guest::locate::locate;

    const ZONES_AT: u64 = 0x40;
    const NUMBER_AT: u64 = 0xff8;
    const ZONE_BYTES: u64 = 0x1d0;
    const AREAS_AT: u64 = 0x20;
    const AREA_BYTES: u64 = 0x68;
    const COUNT_AT: u64 = 0x10 + 3 * 16;

    /// A guest with an array of nodes, of which some are not there.
    fn guest(nodes: u64) -> (Guest, u64) {
        let mut guest = Guest::new(1 << 14);
        let array = guest.new_frame();
        let symbol = format!("{:x}", made::DIRECT_MAP + array);
        guest.line("SYMBOL(node_data)", symbol);
        for (key, value) in [
            ("LENGTH(node_data)", nodes),
            ("OFFSET(pglist_data.node_zones)", ZONES_AT),
            ("OFFSET(pglist_data.nr_zones)", NUMBER_AT),
            ("SIZE(zone)", ZONE_BYTES),
            ("OFFSET(zone.free_area)", AREAS_AT),
            ("LENGTH(zone.free_area)", 4),
            ("SIZE(free_area)", AREA_BYTES),
            ("OFFSET(free_area.free_list)", 0x10),
            ("LENGTH(free_area.free_list)", 3),
        ] {
            guest.line(key, value);
        }
        (guest, array)
    }

    /// Adds a node whose zones have so many free blocks of each order.
    fn add_node(guest: &mut Guest, entry: u64, zones: &[[u64; 4]]) -> u64 {
        let node = guest.new_frame();
        guest.write_u64(entry, made::DIRECT_MAP + node);
        // Another member follows in the same word.
        guest.write_u64(node + NUMBER_AT, 7 << 32 | zones.len() as u64);
        for (zone, orders) in (0..).zip(zones) {
            for (order, blocks) in (0..).zip(orders) {
                let area = node + ZONES_AT + zone * ZONE_BYTES + AREAS_AT + order * AREA_BYTES;
                guest.write_u64(area + COUNT_AT, *blocks);
            }
        }
        node
    }

    fn count(guest: &mut Guest) -> Result<u64, ZonesError> {
        guest.write_description();
        let processors = guest.processors();
        let located = locate(guest, &processors, &Limits::default()).expect("a kernel");
        free_pages(guest, &located.kernel)
    }

    #[test]
    fn free_blocks_are_added_up_over_orders_zones_and_nodes() {
        let (mut guest, array) = guest(4);
        assert_eq!(count(&mut guest), Ok(0));
        add_node(&mut guest, array, &[[1, 0, 0, 0], [0, 10, 0, 0]]);
        assert_eq!(count(&mut guest), Ok(21));
        // The second node is not there.
        let all = [[0, 0, 0, 1000]; MAX_ZONES as usize];
        let third = add_node(&mut guest, array + 2 * 8, &all);
        assert_eq!(count(&mut guest), Ok(21 + 8 * 8000));
        add_node(&mut guest, array + 3 * 8, &[[0, 0, 100_000, 0]]);
        assert_eq!(count(&mut guest), Ok(21 + 64_000 + 400_000));
        guest.write_u64(third + NUMBER_AT, MAX_ZONES + 1);
        let zones = ZonesError::Value("pglist_data.nr_zones");
        assert_eq!(count(&mut guest), Err(zones));
    }

    #[test]
    fn counts_that_no_memory_holds_do_not_overflow() {
        let (mut guest, array) = guest(1);
        add_node(&mut guest, array, &[[u64::MAX, 1, 0, u64::MAX]]);
        assert_eq!(count(&mut guest), Ok(u64::MAX));
    }

    #[test]
    fn nodes_that_no_kernel_has_are_not_counted() {
        let (mut guest, array) = guest(MAX_NODES);
        // All that there are, in pages in a row, lead to the same node.
        for _ in 1..(MAX_NODES * 8) >> 12 {
            guest.new_frame();
        }
        let node = add_node(&mut guest, array, &[[1, 0, 0, 0]]);
        for index in 1..MAX_NODES {
            guest.write_u64(array + index * 8, made::DIRECT_MAP + node);
        }
        assert_eq!(count(&mut guest), Ok(MAX_NODES));
        guest.line("LENGTH(node_data)", MAX_NODES + 1);
        let nodes = ZonesError::Value("LENGTH(node_data)");
        assert_eq!(count(&mut guest), Err(nodes));
    }
}
