#!/usr/bin/env python3
"""Prints the kernel log of a dump, read from the printk ring by its VMCOREINFO offsets.

    log.py DUMP

One line of output for each line of a record: `[seconds.microseconds] text`, as dmesg(1) prints it.

Source: kernel/printk/printk_ringbuffer.c.
"""

import struct
import sys

from dump import Dump

ID_BITS = 62
ID_MASK = (1 << ID_BITS) - 1
COMMITTED, FINALIZED = 1, 2


def records(dump):
    """Yields (nanoseconds, text) from the oldest record to the newest."""

    def offset(name):
        return dump.number("OFFSET", name)

    def size(name):
        return dump.number("SIZE", name)

    counter = offset("atomic_long_t.counter")
    ring = dump.u64(dump.symbol("prb"))  # `prb` is a pointer
    descriptors = ring + offset("printk_ringbuffer.desc_ring")
    texts = ring + offset("printk_ringbuffer.text_data_ring")

    count = 1 << dump.u32(descriptors + offset("prb_desc_ring.count_bits"))
    head = dump.u64(descriptors + offset("prb_desc_ring.head_id") + counter) & ID_MASK
    tail = dump.u64(descriptors + offset("prb_desc_ring.tail_id") + counter) & ID_MASK
    desc_size, info_size = size("prb_desc"), size("printk_info")
    descs = dump.prog.read(dump.u64(descriptors + offset("prb_desc_ring.descs")), count * desc_size)
    infos = dump.prog.read(dump.u64(descriptors + offset("prb_desc_ring.infos")), count * info_size)

    data_bits = dump.u32(texts + offset("prb_data_ring.size_bits"))
    data = dump.prog.read(dump.u64(texts + offset("prb_data_ring.data")), 1 << data_bits)

    state_at = offset("prb_desc.state_var") + counter
    block_at = offset("prb_desc.text_blk_lpos")
    begin_at = block_at + offset("prb_data_blk_lpos.begin")
    next_at = block_at + offset("prb_data_blk_lpos.next")
    time_at, length_at = offset("printk_info.ts_nsec"), offset("printk_info.text_len")

    for i in range(((head - tail) & ID_MASK) + 1):
        identity = (tail + i) & ID_MASK
        index = identity % count
        desc, info = index * desc_size, index * info_size
        (state,) = struct.unpack_from("<Q", descs, desc + state_at)
        if state & ID_MASK != identity or state >> ID_BITS not in (COMMITTED, FINALIZED):
            continue
        (begin,) = struct.unpack_from("<Q", descs, desc + begin_at)
        (following,) = struct.unpack_from("<Q", descs, desc + next_at)
        (time,) = struct.unpack_from("<Q", infos, info + time_at)
        (length,) = struct.unpack_from("<H", infos, info + length_at)
        if begin & 1 and following & 1:  # no data block
            if begin == 3 and following == 3:
                yield time, b""  # an empty line; anything else was lost
            continue
        low = (1 << data_bits) - 1
        start, end = begin & low, following & low
        if begin >> data_bits != (following - 1) >> data_bits:
            start = 0  # a block that would cross the end lies at the beginning
        elif end == 0:
            end = 1 << data_bits
        # A block is the descriptor's id, 64 bits, and the text.
        yield time, data[start + 8 : end][:length]


def main(path):
    out = sys.stdout.buffer
    for time, text in records(Dump(path)):
        stamp = b"[%5d.%06d] " % (time // 10**9, time % 10**9 // 1000)
        for line in text.split(b"\n"):
            out.write(stamp + line + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
