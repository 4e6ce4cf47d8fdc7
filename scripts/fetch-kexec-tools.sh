#!/bin/sh
# Fetches kexec-tools of Debian sid (2.0.32 or later) for a guest: ~/.cache/kdump-rs/kexec-tools holds `version`, and
# in `root` the program and the libraries it names, nothing else. Does nothing where that is there already; no root is
# needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

dest="$cache/kexec-tools"
[ ! -e "$dest/version" ] || exit 0
say "fetching kexec-tools of Debian sid"
mkdir -p "$cache"
work="$dest.$$"
trap 'rm -rf "$work"' EXIT
(
    # The kernels' script writes the same package lists.
    mkdir -p "$cache/kernels"
    exec 9> "$cache/kernels/.lock"
    flock 9
    private_suite sid
    mkdir -p "$work/debs" "$work/tree"
    # Libraries only: the program's other dependencies are configuration tools.
    packages=$(private_apt cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances kexec-tools 2> /dev/null |
        grep -oE '^(lib[a-z0-9.+-]+|zlib1g|kexec-tools)$' | sort -u | grep -vE 'perl|debconf|systemd|pam|udev|python')
    for package in $packages; do
        (cd "$work/debs" && private_apt get download -qq "$package" 2> /dev/null) || say "without $package"
    done
)
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/tree"; done
program=$(find "$work/tree" -path '*sbin/kexec' -type f | head -n 1)
[ -n "$program" ] || die "kexec-tools of sid holds no kexec"
loader=$(find "$work/tree" -name ld-linux-x86-64.so.2 -type f | head -n 1)
[ -n "$loader" ] || die "libc6 of sid holds no loader"
libs="$work/root/lib/x86_64-linux-gnu"
mkdir -p "$work/root/sbin" "$work/root/lib64" "$libs"
cp "$program" "$work/root/sbin/kexec"
cp "$loader" "$work/root/lib64/ld-linux-x86-64.so.2"
# Names that the program has in it, then names that those have.
need="$work/root/sbin/kexec"
while [ -n "$need" ]; do
    next=
    for file in $need; do
        for name in $(LC_ALL=C grep -aoE 'lib[A-Za-z0-9_.+-]+\.so(\.[0-9]+)*' "$file" | sort -u); do
            [ ! -e "$libs/$name" ] || continue
            found=$(find "$work/tree" -path "*x86_64-linux-gnu/$name" | head -n 1)
            [ -n "$found" ] || continue
            cp -L "$found" "$libs/$name"
            next="$next $libs/$name"
        done
    done
    need=$next
done
"$loader" --library-path "$libs" "$program" --version > "$work/version" || die "kexec of sid does not start here"
rm -rf "$dest"
mkdir "$dest"
mv "$work/root" "$work/version" "$dest"
