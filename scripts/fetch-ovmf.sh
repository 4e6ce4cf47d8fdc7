#!/bin/sh
# Fetches Debian bookworm's OVMF, UEFI firmware for QEMU: ~/.cache/kdump-rs/ovmf/OVMF_CODE.fd and OVMF_VARS.fd.
# Does nothing where that is there already; no root is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

dest="$cache/ovmf"
[ ! -e "$dest/OVMF_VARS.fd" ] || exit 0
say "fetching ovmf of Debian bookworm"
work="$dest.$$"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root" "$work/ovmf"
(
    # The kernels' script writes the same package lists.
    mkdir -p "$cache/kernels"
    exec 9> "$cache/kernels/.lock"
    flock 9
    private_suite bookworm
    cd "$work" && private_apt get download -qq ovmf
) || die "cannot download ovmf"
dpkg -x "$work"/ovmf*.deb "$work/root"
for part in CODE VARS; do
    for name in "OVMF_$part.fd" "OVMF_${part}_4M.fd"; do
        [ -e "$work/root/usr/share/OVMF/$name" ] || continue
        cp "$work/root/usr/share/OVMF/$name" "$work/ovmf/OVMF_$part.fd"
        break
    done
    [ -e "$work/ovmf/OVMF_$part.fd" ] || die "ovmf has no OVMF_$part.fd any more"
done
rm -rf "$dest"
mv "$work/ovmf" "$dest"
