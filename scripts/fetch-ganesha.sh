#!/bin/sh
# Fetches Debian 12's user-space NFS server, nfs-ganesha, with the libraries it names: ~/.cache/kdump-rs/nfs-ganesha/root,
# from where it runs without being installed. Does nothing where that is there already; no root is needed for it, but for
# running it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

dest="$cache/nfs-ganesha"
# The server, its file system module, and the libraries that these are linked to.
packages="nfs-ganesha nfs-ganesha-vfs libntirpc4.3 libnfsidmap1 liburcu8 libwbclient0 libacl1 libblkid1 libbsd0 libc6
libcap2 libcom-err2 libdbus-1-3 libgcc-s1 libgcrypt20 libgpg-error0 libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3
libkrb5support0 liblz4-1 liblzma5 libmd0 libsystemd0 libuuid1 libzstd1"
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
    # shellcheck disable=SC2086 # a list
    (cd "$work/debs" && private_apt get download -qq $packages)
)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
[ -x "$work/root/usr/bin/ganesha.nfsd" ] || die "nfs-ganesha has no ganesha.nfsd"
rm -rf "$work/debs" "$dest"
mv "$work" "$dest"
