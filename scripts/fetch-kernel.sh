#!/bin/sh
# Fetches a Debian kernel: fetch-kernel.sh VERSION...   (5.10, 6.1, 6.12, 7.2, 7.3: the cloud flavour, small and
# quick to boot; 6.12-amd64 and so on: the generic one, which is several times as large)
#
# Leaves ~/.cache/kdump-rs/kernels/VERSION with `vmlinuz`, `modules` (the tree, with modules.dep)
# and `release` (what uname -r will say). Does nothing where that is there already. apt checks
# the packages against the archive's signed lists; no root is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

suite_of() {
    case ${1%-amd64} in
        5.10) echo bullseye ;;
        6.1) echo bookworm ;;
        6.12) echo trixie ;;
        7.2) echo sid ;;
        7.3) echo trixie-backports ;;
        *) die "no suite is known for kernel $1 (known: 5.10 6.1 6.12 7.2 7.3)" ;;
    esac
}

fetch() {
    version=$1
    dest="$cache/kernels/$version"
    if [ -e "$dest/release" ]; then return 0; fi
    suite=$(suite_of "$version")
    case $version in
        *-amd64) flavour=amd64 ;;
        *) flavour=cloud-amd64 ;;
    esac
    version=${version%-amd64}
    say "fetching the $version $flavour kernel of Debian $suite"
    private_suite "$suite"

    # 6.x: everything is in linux-image-*. From 7.2 on the image is in linux-binary-*, the modules
    # in linux-modules-*, the list of built-in ones in linux-base-*.
    # The generic flavour's release has no word more: 6.12.1+deb13-amd64, beside …-rt-amd64 and …-cloud-amd64.
    release=$(private_apt cache pkgnames "linux-image-$version" |
        sed -n "s/^linux-image-\($version[.-][^-]*\(-[0-9]*\)\{0,1\}-$flavour\)\$/\1/p" | sort -V | tail -n 1)
    [ -n "$release" ] || die "Debian $suite has no linux-image-$version*-$flavour any more"

    # In the destination's own directory, so that the rename at the end is atomic.
    work="$cache/kernels/.$version.$$"
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/debs" "$work/root" "$work/kernel/lib/modules"
    for package in image base binary modules; do
        name="linux-$package-$release"
        [ -n "$(private_apt cache pkgnames "$name" | grep -Fx "$name")" ] || continue
        (cd "$work/debs" && private_apt get download -qq "$name") || die "cannot download $name"
    done
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done

    for image in "$work/root/boot/vmlinuz-$release" "$work/root/usr/lib/modules/$release/vmlinuz"; do
        if [ -e "$image" ]; then mv "$image" "$work/kernel/vmlinuz"; break; fi
    done
    [ -e "$work/kernel/vmlinuz" ] || die "the packages of $release hold no vmlinuz"
    for tree in "$work/root/lib/modules/$release" "$work/root/usr/lib/modules/$release"; do
        if [ -d "$tree/kernel" ]; then mv "$tree" "$work/kernel/lib/modules/$release"; break; fi
    done
    [ -d "$work/kernel/lib/modules/$release/kernel" ] || die "the packages of $release hold no modules"
    depmod -b "$work/kernel" "$release"
    ln -s "lib/modules/$release" "$work/kernel/modules"
    echo "$release" > "$work/kernel/release"
    rm -rf "$dest"
    mv "$work/kernel" "$dest"
    rm -rf "$work"
    trap - EXIT
    say "$release is in $dest"
}

[ $# -gt 0 ] || die "usage: fetch-kernel.sh VERSION..."
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$cache/kernels"
exec 9> "$cache/kernels/.lock"
flock 9
for version in "$@"; do fetch "$version"; done
