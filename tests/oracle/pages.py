#!/usr/bin/env python3
"""Reads every page that a dump holds, by physical address, through drgn.

    pages.py DUMP [WHOLE]

Prints `pages N sha256 HEX`: the number of pages, and a digest over each page's frame number (64
bits, little-endian) and content, in ascending order. With WHOLE, a dump of the same moment with
fewer pages left out, each page of DUMP must have the same content there; a page that WHOLE does
not hold must be zero-filled.
"""

import hashlib
import struct
import sys

from dump import PAGE, Dump


def main(path, whole=None):
    dump, whole = Dump(path), Dump(whole) if whole else None
    digest, count = hashlib.sha256(), 0
    for pfn in dump.pfns():
        content = dump.page(pfn)
        if content is not None:
            digest.update(struct.pack("<Q", pfn))
            digest.update(content)
            count += 1
            if whole and content != (whole.page(pfn) or bytes(PAGE)):
                sys.exit(f"page {pfn:#x} differs from the one in {whole.path}")
    print(f"pages {count} sha256 {digest.hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
