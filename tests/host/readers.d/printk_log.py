# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel log of a Linux 5.10 or later dump, read through VMCOREINFO alone.

The structures are those of kernel/printk/printk_ringbuffer.h (Linux 6.1); every
offset and size comes from the dump's own VMCOREINFO. Nothing here knows how a
dump is stored: `read(address, size)` gives bytes at a kernel virtual address.
"""

import struct

# Bits 62 and 63 of state_var hold a descriptor's state (DESC_STATE).
STATE_SHIFT = 62
COMMITTED, FINALIZED = 1, 2
ID_MASK = (1 << STATE_SHIFT) - 1


class Vmcoreinfo:
    """VMCOREINFO's text by key, the parentheses being part of the key."""

    def __init__(self, text: str):
        lines = (line.split("=", 1) for line in text.splitlines() if "=" in line)
        self._values = dict(lines)

    def text(self, key: str) -> str:
        """A plain value such as OSRELEASE; KeyError when it is not there."""
        return self._values[key]

    def symbol(self, name: str) -> int:
        """Kernel virtual address."""
        return int(self._values[f"SYMBOL({name})"], 16)

    def offset(self, name: str) -> int:
        """Bytes."""
        return int(self._values[f"OFFSET({name})"])

    def size(self, name: str) -> int:
        """Bytes."""
        return int(self._values[f"SIZE({name})"])


def kernel_log(info: Vmcoreinfo, read) -> list:
    """The log's records as text, oldest first."""

    def number(address: int, form: str = "<Q") -> int:
        return struct.unpack(form, read(address, struct.calcsize(form)))[0]

    ring = number(info.symbol("prb"))
    descs = ring + info.offset("printk_ringbuffer.desc_ring")
    texts = ring + info.offset("printk_ringbuffer.text_data_ring")
    counter = info.offset("atomic_long_t.counter")
    count = 1 << number(descs + info.offset("prb_desc_ring.count_bits"), "<I")
    desc_array = number(descs + info.offset("prb_desc_ring.descs"))
    info_array = number(descs + info.offset("prb_desc_ring.infos"))
    tail = number(descs + info.offset("prb_desc_ring.tail_id") + counter)
    head = number(descs + info.offset("prb_desc_ring.head_id") + counter)
    text_size = 1 << number(texts + info.offset("prb_data_ring.size_bits"), "<I")
    text_data = number(texts + info.offset("prb_data_ring.data"))
    lpos = info.offset("prb_desc.text_blk_lpos")
    records = []
    for step in range(count):
        wanted = (tail + step) & ID_MASK
        desc = desc_array + wanted % count * info.size("prb_desc")
        state = number(desc + info.offset("prb_desc.state_var") + counter)
        if state & ID_MASK == wanted and state >> STATE_SHIFT in (COMMITTED, FINALIZED):
            begin = number(desc + lpos + info.offset("prb_data_blk_lpos.begin"))
            following = number(desc + lpos + info.offset("prb_data_blk_lpos.next"))
            record = info_array + wanted % count * info.size("printk_info")
            length = number(record + info.offset("printk_info.text_len"), "<H")
            # Odd positions mark records without text.
            if not begin & 1:
                records.append(
                    _text(read, text_data, text_size, begin, following, length)
                )
        if wanted == head & ID_MASK:
            break
    return records


def _text(read, data: int, size: int, begin: int, following: int, length: int) -> str:
    """A data block's text; a block that would wrap starts at the ring's start."""
    start, end = begin % size, following % size
    if begin // size != following // size and end != 0:
        start = 0
    block = (end or size) - start
    length = min(length, block - 8)
    return read(data + start + 8, length).decode("utf-8", "replace")


def release(info: Vmcoreinfo, read) -> str:
    """The release in the kernel's own memory (init_uts_ns), as VMCOREINFO places it.

    struct new_utsname is six fields of 65 bytes; release is the third.
    """
    start = info.symbol("init_uts_ns") + 2 * 65
    try:
        start += info.offset("uts_namespace.name")
    except KeyError:
        pass  # the name comes first in the structure since 5.11
    return read(start, 65).split(b"\0")[0].decode()
