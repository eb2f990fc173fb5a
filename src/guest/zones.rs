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
