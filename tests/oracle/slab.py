#!/usr/bin/env python3
"""Looks for slab pages that a filtered dump lost.

    slab.py WHOLE FILTERED

WHOLE holds all pages (dump level 0 or 1) of the moment that FILTERED was made from. Every page of
WHOLE is classified by its struct page, with what VMCOREINFO says and nothing else; heads of
compound slabs bring all their tails. Prints

    slab N zero Z lost L

N slab pages; of them Z hold only zeros, which any level but 0 may leave out; L are none of these
and cannot be read from FILTERED. The exit status is 1 when L is not 0.

Sources: include/linux/page-flags.h, include/linux/mm_types.h, include/linux/mmzone.h.
"""

import struct
import sys

from dump import PAGE, Dump

CHUNK = 512  # struct pages read at a time
SECTION_FLAGS = 0xFFF  # what section_mem_map carries below the pointer


def vmemmap_base(dump):
    """Where the array of struct page begins: exported since 6.9, before that any present section tells."""
    base = dump.symbol("vmemmap")
    if base is not None:
        return base
    roots = dump.symbol("mem_section")
    entry_size = dump.number("SIZE", "mem_section")
    for root in range(dump.number("LENGTH", "mem_section")):
        table = dump.virtual(roots + 8 * root, 8)
        table = struct.unpack("<Q", table)[0] if table else 0
        if not table:
            continue
        for entry in range(PAGE // entry_size):
            at = table + entry * entry_size + dump.number("OFFSET", "mem_section.section_mem_map")
            word = dump.u64(at)
            if word & 3 == 3:  # present, and has a map
                # The encoded pointer is that of page 0, whatever the section.
                return word & ~SECTION_FLAGS & (2**64 - 1)
    sys.exit("no section of memory is present")


class Classifier:
    def __init__(self, dump):
        self.size = dump.number("SIZE", "page")
        self.flags_at = dump.number("OFFSET", "page.flags")
        self.type_at = dump.number("OFFSET", "page._mapcount")
        self.head_mask = dump.number("NUMBER", "PG_head_mask")
        self.slab_bit = dump.number("NUMBER", "PG_slab")
        slab_type = dump.number("NUMBER", "PAGE_SLAB_MAPCOUNT_VALUE")
        self.slab_type = None if slab_type is None else slab_type & 0xFFFFFFFF
        if self.slab_bit is None and self.slab_type is None:
            sys.exit("VMCOREINFO does not tell how slab pages are marked")
        # The word that marks a tail page: bit 0 set.
        self.tail_at = dump.number("OFFSET", "page.compound_head")
        if self.tail_at is None:
            self.tail_at = dump.number("OFFSET", "page.compound_info")
        # The order is in the first tail's struct page.
        self.order_at = dump.number("OFFSET", "page.compound_order")
        folio_order = dump.number("OFFSET", "folio._folio_order")
        if self.order_at is None and folio_order is not None:
            self.order_at = folio_order - self.size
        if self.order_at is None:
            self.order_at = self.flags_at  # low byte of the first tail's flags

    def is_slab(self, page):
        """Whether a struct page is one of a slab, as head or alone."""
        (tail,) = struct.unpack_from("<Q", page, self.tail_at)
        if tail & 1:
            return False  # comes with its head
        if self.slab_type is not None:
            (word,) = struct.unpack_from("<I", page, self.type_at)
            if self.slab_type & 0xFFFFFF == 0:  # since 6.12 the top byte is the type
                return word >> 24 == self.slab_type >> 24
            return word == self.slab_type
        (flags,) = struct.unpack_from("<Q", page, self.flags_at)
        return bool(flags >> self.slab_bit & 1)

    def is_compound(self, page):
        (flags,) = struct.unpack_from("<Q", page, self.flags_at)
        return bool(flags & self.head_mask)

    def order(self, first_tail):
        return first_tail[self.order_at]


def slab_pages(dump):
    """Page frame numbers of all slab pages."""
    kind, base = Classifier(dump), vmemmap_base(dump)
    found, pfns = set(), sorted(dump.pfns())
    at = 0
    while at < len(pfns):
        first = pfns[at] - pfns[at] % CHUNK
        chunk = dump.virtual(base + first * kind.size, CHUNK * kind.size)
        while at < len(pfns) and pfns[at] < first + CHUNK:
            pfn = pfns[at]
            at += 1
            if chunk is None:
                page = dump.virtual(base + pfn * kind.size, kind.size)
            else:
                page = chunk[(pfn - first) * kind.size :][: kind.size]
            if page is None or not kind.is_slab(page):
                continue
            pages = 1
            if kind.is_compound(page):
                pages = 1 << kind.order(dump.prog.read(base + (pfn + 1) * kind.size, kind.size))
                if pages > 1024 or pfn % pages:
                    sys.exit(f"page {pfn:#x}: a slab of {pages} pages is not believed")
            found.update(range(pfn, pfn + pages))
    return sorted(found)


def main(whole, filtered):
    whole, filtered = Dump(whole), Dump(filtered)
    pages = slab_pages(whole)
    zero, lost = 0, []
    for pfn in pages:
        content = whole.page(pfn)
        copy = filtered.page(pfn)
        if content is None or not any(content):
            zero += 1
        elif copy is None or (copy != content and not any(copy)):
            lost.append(pfn)  # in an ELF core, drgn reads what was left out as zeros
        elif copy != content:
            sys.exit(f"page {pfn:#x}: the dumps are not of the same moment")
    for pfn in lost[:10]:
        print(f"lost: page {pfn:#x}", file=sys.stderr)
    print(f"slab {len(pages)} zero {zero} lost {len(lost)}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
