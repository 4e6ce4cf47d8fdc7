#!/bin/sh
# Builds the module that crashes guests for fetched kernels: build-guest-module.sh VERSION...
#
# Leaves ~/.cache/kdump-rs/kernels/VERSION/kdump_trigger.ko, and does nothing where it is there and
# its source has not changed. The kernel's headers, and the compiler and tools that they ask for,
# come from the kernel's own suite and run in a directory of their own: a module wants the compiler
# that its kernel was built with, which this machine need not have. No root is needed where users
# may make namespaces.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"
source="$here/../tests/guest"

suite_of() {
    case $1 in
        5.10) echo bullseye ;;
        6.1) echo bookworm ;;
        6.12) echo trixie ;;
        7.2) echo sid ;;
        7.3) echo trixie trixie-backports ;;
        *) die "no suite is known for kernel $1 (known: 5.10 6.1 6.12 7.2 7.3)" ;;
    esac
}

# Runs a command in the directory $root as if it were /, with this machine's /dev and /proc.
inside() {
    enter='mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"'
    if [ "$(id -u)" = 0 ]; then
        unshare --mount sh -c "$enter" "$root" "$@"
    else
        unshare --map-root-user --mount sh -c "$enter" "$root" "$@"
    fi
}

build() {
    version=$1
    dest="$cache/kernels/$version"
    [ -e "$dest/release" ] || die "$dest is missing: run scripts/fetch-kernel.sh $version"
    digest=$(cat "$source/kdump_trigger.c" "$source/Makefile" "$dest/release" | sha256sum | cut -d ' ' -f 1)
    if [ -e "$dest/kdump_trigger.ko" ] && [ "$(cat "$dest/kdump_trigger.source")" = "$digest" ]; then return 0; fi
    release=$(cat "$dest/release")
    suites=$(suite_of "$version")
    say "building the guests' module for $release with the tools of Debian $suites"
    private_suite $suites

    work="$cache/kernels/.module.$version.$$"
    root="$work/root"
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$root" "$work/archives/partial"
    # What the headers need but the kernel itself, which they name too.
    needed=$(private_apt cache depends --no-recommends --no-suggests "linux-headers-$release" |
        sed -n 's/^ *|\{0,1\}Depends: \(linux-headers-\|linux-kbuild-\|linux-compiler-\|gcc-\)\(.*\)$/\1\2/p' | sort -u)
    [ -n "$needed" ] || die "Debian $suites has no linux-headers-$release any more"
    : > "$work/nothing-installed"
    # Unquoted: several packages.
    private_apt get install -qq -y --download-only --no-install-recommends \
        -o Dir::State::status="$work/nothing-installed" -o Dir::Cache::archives="$work/archives" -o Debug::NoLocking=true \
        base-files base-passwd bash binutils coreutils dash diffutils findutils grep kmod make mawk perl-base sed $needed \
        > "$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; die "cannot download the headers of $release"; }
    (cd "$work/archives" && private_apt get download -qq "linux-headers-$release") || die "cannot download the headers of $release"
    # base-files first: it has the links from /bin and /lib, where the suite has them.
    for deb in "$work"/archives/base-files_*.deb "$work"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --no-same-owner
    done
    [ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
    [ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
    mkdir -p "$root/build" "$root/dev" "$root/proc" "$root/tmp"
    cp "$source/kdump_trigger.c" "$source/Makefile" "$root/build"
    inside make -C "/usr/src/linux-headers-$release" M=/build modules > "$work/make.log" 2>&1 ||
        { cat "$work/make.log" >&2; die "the module does not build for $release"; }
    cp "$root/build/kdump_trigger.ko" "$work/kdump_trigger.ko"
    mv "$work/kdump_trigger.ko" "$dest/kdump_trigger.ko"
    echo "$digest" > "$dest/kdump_trigger.source"
    rm -rf "$work"
    trap - EXIT
    say "it is in $dest"
}

[ $# -gt 0 ] || die "usage: build-guest-module.sh VERSION..."
PATH=$PATH:/usr/sbin:/sbin
exec 9> "$cache/kernels/.lock"
flock 9
for version in "$@"; do build "$version"; done
