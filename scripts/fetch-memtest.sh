#!/bin/sh
# Fetches Debian bookworm's memtest86+, a bzImage that is no Linux: ~/.cache/kdump-rs/memtest86+/memtest86+x64.bin.
# Does nothing where that is there already; no root is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

dest="$cache/memtest86+"
[ ! -e "$dest/memtest86+x64.bin" ] || exit 0
say "fetching memtest86+ of Debian bookworm"
private_suite bookworm
work="$dest.$$"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root"
(cd "$work" && private_apt get download -qq memtest86+) || die "cannot download memtest86+"
dpkg -x "$work"/memtest86+*.deb "$work/root"
[ -e "$work/root/boot/memtest86+x64.bin" ] || die "memtest86+ has no boot/memtest86+x64.bin any more"
rm -rf "$dest"
mv "$work/root/boot" "$dest"
