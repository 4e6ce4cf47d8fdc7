#!/bin/sh
# Fetches Debian 12's user-space NFS server, nfs-ganesha, with the libraries it names: ~/.cache/kdump-rs/nfs-ganesha/root,
# from where it runs without being installed. Does nothing where that is there already; no root is needed for it, but for
# running it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

dest="$cache/nfs-ganesha"
[ ! -e "$dest/root" ] || exit 0
say "fetching nfs-ganesha of Debian 12"
mkdir -p "$cache/kernels"
work="$dest.$$"
trap 'rm -rf "$work"' EXIT
(
    # The kernels' script writes the same package lists.
    exec 9> "$cache/kernels/.lock"
    flock 9
    private_suite bookworm
    mkdir -p "$work/debs" "$work/root"
    packages=$(private_apt cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances nfs-ganesha-vfs 2> /dev/null |
        grep -oE '^(lib[a-z0-9.+-]+|zlib1g|nfs-ganesha|nfs-ganesha-vfs)$' | sort -u |
        grep -vE 'perl|debconf|systemd|pam|udev|python')
    for package in $packages; do
        (cd "$work/debs" && private_apt get download -qq "$package" 2> /dev/null) || say "without $package"
    done
)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
[ -x "$work/root/usr/bin/ganesha.nfsd" ] || die "nfs-ganesha has no ganesha.nfsd"
rm -rf "$work/debs" "$dest"
mv "$work" "$dest"
