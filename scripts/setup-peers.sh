#!/bin/sh
# Fetches what `make bench` compares with, into the cache: makedumpfile and crash of Debian sid
# (run by sid's own loader and libraries, nothing is installed), its kexec-tools, drgn 0.3.0, and the debug symbols
# of the 6.12 kernel that drgn and crash cannot do without (a download of some 330 MB). With `programs`, makedumpfile and
# crash only.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

peers="$cache/peers"
mkdir -p "$peers"

if [ ! -x "$peers/crash" ] || [ ! -x "$peers/makedumpfile" ]; then
    say "fetching makedumpfile and crash of Debian sid"
    private_suite sid
    work="$peers/.work.$$"
    trap 'rm -rf "$work"' EXIT
    rm -rf "$peers/sid"
    mkdir -p "$work"
    # Libraries only: the programs' other dependencies are configuration tools.
    packages=$(private_apt cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances makedumpfile crash 2> /dev/null |
        grep -oE '^(lib[a-z0-9.+-]+|zlib1g|makedumpfile|crash)$' | sort -u |
        grep -vE 'perl|debconf|systemd|pam|udev|gcrypt|nss|python|gdbm|db5|selinux.*-dev')
    for package in $packages; do
        (cd "$work" && private_apt get download -qq "$package" 2> /dev/null) || say "without $package"
    done
    for deb in "$work"/*.deb; do dpkg -x "$deb" "$peers/sid"; done
    libs="$peers/sid/usr/lib/x86_64-linux-gnu:$peers/sid/lib/x86_64-linux-gnu"
    loader=$(find "$peers/sid" -name ld-linux-x86-64.so.2 | head -n 1)
    [ -n "$loader" ] || die "sid's libc6 holds no loader"
    for program in makedumpfile crash; do
        binary=$(find "$peers/sid" -path "*bin/$program" -type f | head -n 1)
        [ -n "$binary" ] || die "sid's package of $program holds no program"
        printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$loader" "$libs" "$binary" > "$peers/$program"
        chmod +x "$peers/$program"
        "$peers/$program" -v > /dev/null 2>&1 || "$peers/$program" --version > /dev/null 2>&1 ||
            die "$program of sid does not start here"
    done
    rm -rf "$work"
fi
trap - EXIT
[ "${1:-}" = programs ] && exit

"$here/fetch-kexec-tools.sh"

release=$(cat "$cache/kernels/6.12/release")
if [ ! -e "$peers/vmlinux-$release" ]; then
    say "fetching the debug symbols of $release"
    private_suite trixie
    work="$peers/.work.$$"
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"
    (cd "$work" && private_apt get download -qq "linux-image-$release-dbg") ||
        die "Debian has no debug symbols of $release any more: remove $cache/kernels/6.12 and try again"
    dpkg --fsys-tarfile "$work"/*.deb | tar -x -C "$work" --no-same-owner --wildcards '*/vmlinux*'
    vmlinux=$(find "$work" -name 'vmlinux*' -type f -size +10M | head -n 1)
    [ -n "$vmlinux" ] || die "linux-image-$release-dbg holds no vmlinux"
    mv "$vmlinux" "$peers/vmlinux-$release"
    rm -rf "$work"
fi
trap - EXIT
"$here/setup-oracle.sh" > /dev/null
