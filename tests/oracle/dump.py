"""What the oracles share: a dump opened by drgn, without any debug information, and its VMCOREINFO.

Written from the formats' descriptions and from nothing in this repository: its only use is to
disagree. drgn (with libkdumpfile) does the reading of pages and the walking of page tables.

Sources: ELF gABI; makedumpfile's IMPLEMENTATION and diskdump_mod.h.
"""

import struct
import sys

import drgn

PAGE = 4096
PT_LOAD = 1
PT_NOTE = 4


class Dump:
    """A core file: `prog` to read with, `info` (VMCOREINFO as a dictionary), `ranges` of physical memory."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            magic = file.read(8)
            if magic[:4] == b"\x7fELF":
                self.kind = "elf"
                notes, self.ranges = _read_elf(file)
                text = _vmcoreinfo_of_notes(notes)
            elif magic == b"KDUMP   ":
                self.kind = "kdump"
                text, self.ranges = _read_kdump(file)
            else:
                sys.exit(f"{path}: neither an ELF core nor a kdump-compressed file")
        lines = text.decode("ascii", "replace").splitlines()
        self.info = dict(line.split("=", 1) for line in lines if "=" in line)
        self.prog = drgn.Program()
        self.prog.set_core_dump(path)

    def number(self, kind, name):
        """A decimal key such as NUMBER(PG_slab), OFFSET(page.flags); None when it is absent."""
        value = self.info.get(f"{kind}({name})")
        return None if value is None else int(value, 0)

    def symbol(self, name):
        """A SYMBOL() key, which is hexadecimal; None when it is absent."""
        value = self.info.get(f"SYMBOL({name})")
        return None if value is None else int(value, 16)

    def page(self, pfn):
        """The content of a page, or None when the dump does not hold it."""
        try:
            return self.prog.read(pfn * PAGE, PAGE, physical=True)
        except drgn.FaultError:
            return None

    def pfns(self):
        """Every page frame number that the file may hold, in ascending order."""
        for start, end in self.ranges:
            yield from range(-(-start // PAGE), end // PAGE)

    def virtual(self, address, size):
        """Kernel virtual memory, or None where it is not mapped or not in the dump."""
        try:
            return self.prog.read(address, size)
        except drgn.FaultError:
            return None

    def u64(self, address):
        return struct.unpack("<Q", self.prog.read(address, 8))[0]

    def u32(self, address):
        return struct.unpack("<I", self.prog.read(address, 4))[0]


def _merge(ranges):
    """Sorted, overlaps joined: kernel text is described twice in /proc/vmcore."""
    merged = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def _read_elf(file):
    file.seek(0)
    header = file.read(64)
    (phoff,) = struct.unpack_from("<Q", header, 32)
    phentsize, phnum = struct.unpack_from("<HH", header, 54)
    if phnum == 0xFFFF:  # PN_XNUM: the count is in sh_info of section 0
        (shoff,) = struct.unpack_from("<Q", header, 40)
        file.seek(shoff + 44)
        (phnum,) = struct.unpack("<I", file.read(4))
    notes, ranges = b"", []
    for i in range(phnum):
        file.seek(phoff + i * phentsize)
        p_type, _, offset, _, paddr, filesz, _, _ = struct.unpack("<IIQQQQQQ", file.read(56))
        if p_type == PT_NOTE:
            file.seek(offset)
            notes += file.read(filesz)
        elif p_type == PT_LOAD and filesz:
            ranges.append((paddr, paddr + filesz))
    return notes, _merge(ranges)


def _vmcoreinfo_of_notes(notes):
    at = 0
    while at + 12 <= len(notes):
        namesz, descsz, _ = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + namesz].rstrip(b"\0")
        desc = at + 12 + (namesz + 3) // 4 * 4
        if name == b"VMCOREINFO":
            return notes[desc : desc + descsz]
        at = desc + (descsz + 3) // 4 * 4
    sys.exit("no VMCOREINFO note")


def _read_kdump(file):
    # struct disk_dump_header, then struct kdump_sub_header in block 1.
    file.seek(0)
    header = file.read(PAGE)
    (block_size,) = struct.unpack_from("<i", header, 428)
    file.seek(block_size)
    sub = file.read(104)
    offset, size = struct.unpack_from("<QQ", sub, 32)  # offset_vmcoreinfo, size_vmcoreinfo
    (max_mapnr,) = struct.unpack_from("<Q", sub, 96)  # max_mapnr_64
    file.seek(offset)
    return file.read(size), [[0, max_mapnr * PAGE]]
