#!/usr/bin/env python3
"""Reads every page that a dump holds, by physical address, through drgn.

    pages.py DUMP

Prints `pages N sha256 HEX`: the number of pages, and a digest over each page's frame number (64
bits, little-endian) and content, in ascending order.
"""

import hashlib
import struct
import sys

from dump import Dump


def main(path):
    dump = Dump(path)
    digest, count = hashlib.sha256(), 0
    for pfn in dump.pfns():
        content = dump.page(pfn)
        if content is not None:
            digest.update(struct.pack("<Q", pfn))
            digest.update(content)
            count += 1
    print(f"pages {count} sha256 {digest.hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
