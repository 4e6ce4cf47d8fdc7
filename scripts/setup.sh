#!/bin/sh
# Installs what the build, the rehearsals and the tests need, where it is missing (Debian 12 and
# later). Asks apt only when something is missing; then needs root, or sudo. Programs named as arguments are needed, too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"
PATH=$PATH:/usr/sbin:/sbin

missing=
# need PACKAGE PROGRAM: notes the package unless the program is there.
need() { command -v "$2" > /dev/null 2>&1 || missing="$missing $1"; }
need qemu-system-x86 qemu-system-x86_64
need e2fsprogs mkfs.ext4
need e2fsprogs debugfs
need xfsprogs mkfs.xfs                         # file systems that dumps go to
need btrfs-progs mkfs.btrfs
need dosfstools mkfs.vfat
need mtools mcopy
need kmod depmod
need gcc cc                                    # zstd-sys compiles C
need util-linux flock
need python3 python3
for program in "$@"; do need "$program" "$program"; done
# SeaBIOS and the boot loader of `qemu -kernel` come with recommended packages only.
[ -e /usr/share/seabios/bios-256k.bin ] || [ -e /usr/share/qemu/bios-256k.bin ] || missing="$missing seabios"
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
python3 -c 'import venv, ensurepip' 2> /dev/null || missing="$missing python3-venv"
# Debian 12's first keyring does not know the keys of Debian 13.
[ -e "$keyring" ] && [ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] ||
    missing="$missing debian-archive-keyring"

if [ -n "$missing" ]; then
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || die "needs root to install:$missing"
        as_root=sudo
    fi
    say "installing:$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
fi

command -v cargo > /dev/null || die "no cargo: install Rust 1.95 or later (https://rustup.rs)"
for tool in fmt clippy; do
    cargo "$tool" --version > /dev/null 2>&1 || die "no cargo $tool, which \`make test\` runs: rustup component add rustfmt clippy"
done
