#!/usr/bin/env python3
"""Checks a dump directory's manifest against the file it describes.

    manifest.py DIRECTORY [FACT...]

The pieces must cover the file without gap or overlap, their digests must be those of its bytes,
and the dump must be complete: no page lost, no trouble, and no fact missing from VMCOREINFO but
those named. Prints `pages N`.
"""

import hashlib
import json
import os
import sys


def main(directory, *facts):
    with open(os.path.join(directory, "manifest.json")) as file:
        manifest = json.load(file)
    problems = []

    def expect(what, found, wanted):
        if found != wanted:
            problems.append(f"{what} is {found!r}, not {wanted!r}")

    dump = os.path.join(directory, manifest["file"])
    expect("file", manifest["file"], "vmcore")
    expect("bytes", manifest["bytes"], os.path.getsize(dump))
    at = 0
    with open(dump, "rb") as file:
        for piece in manifest["digests"]:
            expect("offset of a piece", piece["offset"], at)
            content = file.read(piece["length"])
            expect(f"sha256 of the piece at {at}", piece["sha256"], hashlib.sha256(content).hexdigest())
            at += len(content)
    expect("end of the last piece", at, manifest["bytes"])
    expect("complete", manifest["complete"], True)
    expect("lost pages", (manifest["lost"], manifest["pages"]["lost"]), ([], 0))
    expect("missing facts", [m["fact"] for m in manifest["missing_facts"]], list(facts))
    expect("troubles", manifest["troubles"], [])
    for problem in problems:
        print(f"{dump}: {problem}", file=sys.stderr)
    print("pages", manifest["pages"]["written"])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
