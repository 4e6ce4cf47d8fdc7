#!/bin/sh
# Builds the Debian package from the release build and system/: target/package/kdump-rs_VERSION_amd64.deb. `make package`.
#
# The same commit and compiler give the same package, byte for byte: times are those of the commit, or SOURCE_DATE_EPOCH.
set -eu
cd "$(dirname "$0")/.."
say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }

programs=${1:-target/x86_64-unknown-linux-gnu/release}
out=target/package
root=$out/root
doc=$root/usr/share/doc/kdump-rs
for program in kdump-rs kdump-init; do
    [ -x "$programs/$program" ] || die "$programs/$program is missing: cargo build --release --locked"
done
version=$("$programs/kdump-rs" --version | awk '{ print $2 }')
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
maintainer="${DEBFULLNAME:-The kdump-rs maintainers} <${DEBEMAIL:-kdump-rs@localhost}>"
umask 022

rm -rf "$out"
mkdir -p "$root/DEBIAN" "$root/var/crash"
put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$programs/kdump-rs" usr/sbin/kdump-rs
put 755 "$programs/kdump-init" usr/lib/kdump-rs/kdump-init
put 755 system/kernel/kernel-changed usr/lib/kdump-rs/kernel-changed
put 755 system/kernel/90-kdump-rs.install usr/lib/kernel/install.d/90-kdump-rs.install
put 755 system/kernel/postinst.d etc/kernel/postinst.d/zz-kdump-rs
put 755 system/kernel/postrm.d etc/kernel/postrm.d/zz-kdump-rs
for unit in system/systemd/*; do put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"; done
put 644 system/udev/98-kdump-rs.rules usr/lib/udev/rules.d/98-kdump-rs.rules
put 644 system/config.toml etc/kdump-rs/config.toml

# Pages and completions come from the program itself.
"$programs/kdump-rs" generate-docs "$out/docs"
for page in "$out"/docs/man/*; do put 644 "$page" "usr/share/man/man8/${page##*/}"; done
put 644 "$out/docs/kdump-rs.bash" usr/share/bash-completion/completions/kdump-rs
put 644 "$out/docs/_kdump-rs" usr/share/zsh/vendor-completions/_kdump-rs
put 644 "$out/docs/kdump-rs.fish" usr/share/fish/vendor_completions.d/kdump-rs.fish
for text in README.md docs/*.md; do put 644 "$text" "usr/share/doc/kdump-rs/${text##*/}"; done
put 644 CHANGELOG.md usr/share/doc/kdump-rs/NEWS.md
{ cat system/debian/copyright; echo "License: MIT"; sed -e 's/^$/./' -e 's/^/ /' LICENSE-MIT; } > "$doc/copyright"
cat > "$doc/changelog" << CHANGES
kdump-rs ($version) unstable; urgency=medium

  * What has changed is in NEWS.md.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
CHANGES
gzip -9n "$root"/usr/share/man/man8/* "$doc/changelog" "$doc"/*.md

for script in postinst prerm postrm; do install -m 755 "system/debian/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find etc -type f | LC_ALL=C sort | sed 's|^|/|') > "$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
size=$(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)
sed -e "s|@VERSION@|$version|" -e "s|@MAINTAINER@|$maintainer|" -e "s|@SIZE@|$size|" system/debian/control > "$root/DEBIAN/control"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

package="$out/kdump-rs_${version}_amd64.deb"
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" > /dev/null
say "$package ($(stat -c %s "$package") bytes)"
