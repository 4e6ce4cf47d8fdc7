# What a user does, boot by boot: install the package, reserve memory, reboot; then the machine panics and comes back.
cd /run/orders
say() { echo "== $*"; }
boot=$(cat /var/lib/boots 2> /dev/null || echo 0)
echo $((boot + 1)) > /var/lib/boots
say "boot $boot"
# Arms counted in the journal of this boot.
arms() { journalctl -b -u kdump-rs.service -o cat | grep -c '^armed in'; }
# Waits until no reload is due or under way.
settle() {
    udevadm settle
    sleep 1
    while [ "$(systemctl is-active kdump-rs-reload.timer)" = active ] || systemctl list-jobs | grep -q kdump-rs; do sleep 1; done
}
# Takes some memory offline and back: events as of memory that goes and comes.
blocks() {
    taken=0
    for block in /sys/devices/system/memory/memory*; do
        timeout 20 sh -c "echo offline > $block/state" 2> /dev/null && echo online > "$block/state" && taken=$((taken + 1))
        [ "$taken" = "$1" ] && break
    done
    say "memory blocks gone and back: $taken"
}

case $boot in
0)
    dpkg -i kdump-rs.deb || say "dpkg failed"
    say "enabled: $(systemctl is-enabled kdump-rs.service)"
    say "active without a reservation: $(systemctl is-active kdump-rs.service)"
    systemctl start kdump-rs.service
    say "active when started without a reservation: $(systemctl is-active kdump-rs.service)"
    systemd-analyze --man=no verify kdump-rs.service kdump-rs-reload.timer kdump-rs-reload.service && say "units verified"
    udevadm verify /usr/lib/udev/rules.d/98-kdump-rs.rules && say "rules verified"
    say "exposure: $(systemd-analyze security --no-pager kdump-rs.service | tail -n 1)"
    say "page: $(zcat /usr/share/man/man8/kdump-rs-arm.8.gz | grep -c '^\\fB\\-\\-target')"
    kdump-rs reserve --apply || say "reserve failed"
    grep -o 'crashkernel=[^ ]*' /boot/grub/grub.cfg | sort -u
    systemctl --no-block reboot
    ;;
1)
    cat /proc/cmdline
    say "active: $(systemctl is-active kdump-rs.service)"
    kdump-rs status
    say "status: $?"
    stamp() { systemctl show -P "$2" "$1"; }
    armed=$(stamp kdump-rs.service ActiveEnterTimestampMonotonic)
    basic=$(stamp basic.target ActiveEnterTimestampMonotonic)
    [ "$armed" -lt "$basic" ] && say "armed before basic.target"
    say "failed units: $(systemctl --failed --no-legend | wc -l)"
    journalctl -b -u kdump-rs.service -o cat | grep '^armed in'

    say "crash_hotplug of cpu, memory: $(cat /sys/devices/system/cpu/crash_hotplug /sys/devices/system/memory/crash_hotplug | xargs)"
    before=$(arms)
    blocks 3
    settle
    say "arms where the kernel updates elfcorehdr: $(($(arms) - before))"
    # As on a kernel that does not: the rule without its test for that.
    mkdir -p /run/udev/rules.d
    sed /crash_hotplug/d /usr/lib/udev/rules.d/98-kdump-rs.rules > /run/udev/rules.d/98-kdump-rs.rules
    udevadm control --reload
    udevadm trigger --subsystem-match=cpu --subsystem-match=memory --action=online
    settle
    say "arms after udevadm trigger: $(($(arms) - before))"
    blocks 3
    settle
    say "arms after a burst of memory: $(($(arms) - before))"
    rm /run/udev/rules.d/98-kdump-rs.rules
    udevadm control --reload

    before=$(arms)
    run-parts --arg=6.99.0-amd64 --arg=/boot/vmlinuz-6.99.0-amd64 /etc/kernel/postinst.d --regex='^zz-kdump-rs$'
    settle
    say "arms after another kernel came: $(($(arms) - before))"
    run-parts --arg="$(uname -r)" --arg=/boot/vmlinuz-"$(uname -r)" /etc/kernel/postinst.d --regex='^zz-kdump-rs$'
    settle
    say "arms after the running kernel came anew: $(($(arms) - before))"
    /usr/lib/kernel/install.d/90-kdump-rs.install add "$(uname -r)" /boot/entry /boot/vmlinuz-"$(uname -r)"
    settle
    say "arms after kernel-install: $(($(arms) - before))"

    before=$(arms)
    echo 'level = "thirty"' >> /etc/kdump-rs/config.toml
    systemctl reload kdump-rs.service || say "a wrong configuration is refused"
    say "still armed: $(cat /sys/kernel/kexec_crash_loaded), $(systemctl is-active kdump-rs.service)"
    sed -i '/thirty/d' /etc/kdump-rs/config.toml

    dpkg -i kdump-rs.deb
    say "arms after an upgrade: $(($(arms) - before)), $(systemctl is-active kdump-rs.service)"
    sync
    say "panic"
    sleep 1
    echo c > /proc/sysrq-trigger
    ;;
2)
    say "active after the crash: $(systemctl is-active kdump-rs.service)"
    ls -l /var/crash /var/crash/*
    say "report"
    kdump-rs analyze /var/crash/*/vmcore
    say "analyze: $?"
    dpkg -r kdump-rs
    say "loaded after removal: $(cat /sys/kernel/kexec_crash_loaded)"
    dpkg -P kdump-rs
    left=$(find / -xdev -name '*kdump-rs*' -not -path '/var/log/*' | xargs)
    say "left after purge: ${left:-nothing}"
    say "dumps: $(ls /var/crash | wc -l)"
    systemctl --no-block poweroff
    ;;
*)
    say "one boot too many"
    systemctl --no-block poweroff
    ;;
esac
