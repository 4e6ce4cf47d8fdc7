#!/bin/sh
# Builds the disk of a Debian 13 guest: debian-guest.sh plain|kdump-tools. Prints the image's path.
#
# Debian as debootstrap installs it, with systemd, its cloud kernel and GRUB in the master boot record: the image boots
# by itself, and GRUB reads what the guest's own update-grub writes. `kdump-tools` has that package of Debian's, too.
# At each boot the guest unpacks the tar archive that is its second disk and runs the file `orders` in it, whose output
# goes to its second serial line; it needs no network. The images stay in ~/.cache/kdump-rs/guests until this file changes. Needs root (or sudo), for debootstrap.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"
PATH=$PATH:/usr/sbin:/sbin

kind=${1:-}
case $kind in
    plain) more= ;;
    kdump-tools) more="kdump-tools kexec-tools makedumpfile busybox-static" ;;
    *) die "usage: debian-guest.sh plain|kdump-tools" ;;
esac
suite=trixie
packages="systemd-sysv udev kmod initramfs-tools zstd linux-image-cloud-amd64 grub-pc"
uuid=6b64756d-702d-7265-6465-6269616e2121
# Where the one partition begins: room for GRUB before it.
first_mib=1
size_mib=1536

guests="$cache/guests"
image="$guests/$kind-$(sed /^#/d "$0" | sha256sum | cut -c1-12).img"
mkdir -p "$guests"
exec 9> "$guests/.lock"
flock 9
if [ -e "$image" ]; then echo "$image"; exit 0; fi

command -v debootstrap > /dev/null || die "needs debootstrap: apt-get install debootstrap"
if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || die "debootstrap needs root"
    # The lock goes with the descriptor that the new process does not have.
    exec 9>&-
    exec sudo XDG_CACHE_HOME="$(dirname "$cache")" "$0" "$kind"
fi
# Mounts of debootstrap and below are seen by this process and its children only.
if [ -z "${KDUMP_RS_OWN_MOUNTS:-}" ]; then
    exec 9>&-
    KDUMP_RS_OWN_MOUNTS=1 exec unshare --mount --propagation private "$0" "$kind"
fi

private_suite "$suite"
uri=$(awk '{ print $(NF - 2) }' "$apt/sources.list")
work="$guests/.work"
root="$work/root"
rm -rf "$work"
mkdir -p "$work" "$guests/debs"

say "installing Debian $suite ($kind): some minutes"
log="$guests/$kind.log"
debootstrap --variant=minbase --cache-dir="$guests/debs" "$suite" "$root" "$uri" > "$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "debootstrap has failed: $log"; }

mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
in_guest() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@" 9>&-; }
# Nothing is started in here.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
# The initramfs of this guest's disk, and no other's; the machine that builds it is not looked at.
mkdir -p "$root/etc/initramfs-tools/conf.d"
printf 'MODULES=list\n' > "$root/etc/initramfs-tools/conf.d/modules"
printf 'virtio_pci\nvirtio_blk\next4\n' > "$root/etc/initramfs-tools/modules"
in_guest debconf-set-selections << SELECTIONS
grub-pc grub-pc/install_devices_empty boolean true
grub-pc grub-pc/install_devices multiselect
kexec-tools kexec-tools/load_kexec boolean false
kdump-tools kdump-tools/use_kdump boolean true
SELECTIONS
install() {
    in_guest apt-get install -y -q --no-install-recommends -o Acquire::Languages=none \
        -o APT::Sandbox::User=root "$@" >> "$log" 2>&1 || { tail -n 20 "$log" >&2; die "apt-get has failed: $log"; }
}
mkdir -p "$root/var/cache/apt/archives/partial"
mount --bind "$guests/debs" "$root/var/cache/apt/archives"
mkdir -p "$guests/debs/partial"
# What initramfs-tools reads when the kernel is configured comes before it; modules and module lists stay as they are.
# shellcheck disable=SC2086 # lists of packages
install -o Dpkg::Options::=--force-confold $packages
# shellcheck disable=SC2086
[ -z "$more" ] || install -o Dpkg::Options::=--force-confold $more
umount "$root/var/cache/apt/archives"

# What an installer would have written. The mirror's name is no business of the image.
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/apt/sources.list" "$root"/var/lib/apt/lists/*_*
echo "UUID=$uuid / ext4 errors=remount-ro 0 1" > "$root/etc/fstab"
echo debian > "$root/etc/hostname"
rm -f "$root/etc/resolv.conf"
in_guest passwd -d root >> "$log" 2>&1
sed -i -e 's/^GRUB_TIMEOUT=.*/GRUB_TIMEOUT=0/' \
    -e 's/^GRUB_CMDLINE_LINUX_DEFAULT=.*/GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0,115200"/' "$root/etc/default/grub"
echo 'GRUB_DISABLE_OS_PROBER=true' >> "$root/etc/default/grub"
cat > "$root/etc/systemd/system/orders.service" << 'UNIT'
[Unit]
Description=Orders from the second disk
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mkdir -p /run/orders && tar -x -f /dev/vdb -C /run/orders && exec sh /run/orders/orders'
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS1
TimeoutStartSec=infinity

[Install]
WantedBy=orders.target
UNIT
# A target of its own: ordered after multi-user.target, it cannot be wanted by that.
cat > "$root/etc/systemd/system/orders.target" << 'UNIT'
[Unit]
Description=The system, and orders
Requires=multi-user.target
After=multi-user.target
AllowIsolate=yes
UNIT
in_guest systemctl enable orders.service >> "$log" 2>&1
in_guest systemctl set-default orders.target >> "$log" 2>&1
# One writer on the serial line.
in_guest systemctl mask serial-getty@ttyS0.service getty@tty1.service getty-static.service apt-daily.timer apt-daily-upgrade.timer \
    e2scrub_all.timer fstrim.timer dpkg-db-backup.timer systemd-firstboot.service >> "$log" 2>&1

# GRUB's files; its first configuration, until the guest's update-grub writes another.
mkdir -p "$root/boot/grub/i386-pc"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root/boot/grub/i386-pc/"
release=$(basename "$root"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
[ -e "$root/boot/initrd.img-$release" ] || die "the guest's kernel has no initramfs: $log"
cat > "$root/boot/grub/grub.cfg" << CONFIG
search --no-floppy --fs-uuid --set=root $uuid
linux /boot/vmlinuz-$release root=UUID=$uuid ro console=ttyS0,115200
initrd /boot/initrd.img-$release
boot
CONFIG
in_guest grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /boot/grub/i386-pc/core.img biosdisk part_msdos ext2
core="$root/boot/grub/i386-pc/core.img"
[ "$(stat -c %s "$core")" -le $((first_mib * 1048576 - 512)) ] || die "core.img does not fit before the partition"
umount "$root/dev" "$root/proc"

disk="$work/disk.img"
truncate -s "${size_mib}M" "$disk"
# One active Linux partition, then GRUB: the boot sector reads core.img from the sector after it.
python3 - "$disk" "$root/usr/lib/grub/i386-pc/boot.img" "$core" "$first_mib" "$size_mib" << 'PYTHON'
import struct, sys
disk, boot, core = sys.argv[1:4]
first, size = (int(n) * 2048 for n in sys.argv[4:6])
entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", first, size - first)
with open(disk, "r+b") as f:
    f.write(open(boot, "rb").read()[:440] + b"kdmp\0\0" + entry + bytes(48) + b"\x55\xaa")
    f.write(open(core, "rb").read())
PYTHON
mkfs.ext4 -q -F -U "$uuid" -E "offset=$((first_mib * 1048576))" -d "$root" "$disk" "$((size_mib - first_mib))M" >> "$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "mkfs.ext4 has failed: $log"; }
rm -f "$guests/$kind"-*.img
mv "$disk" "$image"
rm -rf "$work"
say "the guest is in $image"
echo "$image"
