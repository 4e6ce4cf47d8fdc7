# Debian's own kdump-tools, unmodified, with kdump-rs in the place of kexec-tools' programs and makedumpfile; and systemctl kexec with it.
cd /run/orders
say() { echo "== $*"; }
boot=$(cat /var/lib/boots 2> /dev/null || echo 0)
echo $((boot + 1)) > /var/lib/boots
say "boot $boot"
# Who loaded this kernel, as it says in boot_params: 7 GRUB, d kexec.
say "loaded by $(od -An -tx1 -j528 -N1 /sys/kernel/boot_params/data | cut -c2)"

case $boot in
0)
    install -m 755 kdump-rs /usr/local/sbin/kdump-rs
    dpkg-divert --local --rename --divert /usr/sbin/kexec.kexec-tools --add /usr/sbin/kexec
    ln -s /usr/local/sbin/kdump-rs /usr/sbin/kexec
    kexec --version
    for program in /usr/bin/makedumpfile /usr/sbin/vmcore-dmesg; do
        dpkg-divert --local --rename --divert "$program.debian" --add "$program"
        ln -s /usr/local/sbin/kdump-rs "$program"
    done
    say "makedumpfile: $(makedumpfile -v | tail -n 2 | xargs)"
    # With its crashkernel=, which the package has put into /etc/default/grub.d.
    update-grub
    systemctl --no-block reboot
    ;;
1)
    say "modified files of kdump-tools: $(dpkg -V kdump-tools | wc -l)"
    # Generating its initramfs at the first start takes a while, and is part of the start.
    say "active: $(systemctl is-active kdump-tools.service)"
    kdump-config show
    kdump-config status
    kdump-config unload
    say "loaded after unload: $(cat /sys/kernel/kexec_crash_loaded)"
    say "kexec -l"
    kexec -l /vmlinuz --initrd=/initrd.img --reuse-cmdline && say "loaded: $(cat /sys/kernel/kexec_loaded)"
    systemctl --no-block kexec
    ;;
2)
    say "active: $(systemctl is-active kdump-tools.service)"
    kdump-config status
    kdump-rs status
    say "pages"
    makedumpfile --mem-usage /proc/kcore
    say "mem-usage: $?"
    kdump-rs capture --estimate
    say "estimate: $?"
    sync
    say "panic"
    sleep 1
    echo c > /proc/sysrq-trigger
    ;;
3)
    ls -l /var/crash /var/crash/2*
    dump=$(ls /var/crash/2*/dump.*)
    say "dump: ${dump##*/dump.}"
    # kdump-tools writes makedumpfile's flattened format.
    makedumpfile.debian -R /var/crash/vmcore < "$dump" > /dev/null && say "Debian's makedumpfile -R: done"
    makedumpfile -R /var/crash/ours < "$dump" && cmp /var/crash/vmcore /var/crash/ours && say "ours is the same"
    say "log: $(grep -c 'sysrq: Trigger a crash' /var/crash/2*/dmesg.*)"
    vmcore-dmesg /var/crash/vmcore | tail -n 3
    makedumpfile.debian --dump-dmesg /var/crash/vmcore /var/crash/dmesg > /dev/null
    cmp /var/crash/dmesg /var/crash/2*/dmesg.* && say "the log is as Debian's makedumpfile has it"
    makedumpfile.debian -d 31 -z /var/crash/vmcore /var/crash/again > /dev/null && say "Debian's makedumpfile reads it"
    rm -f /var/crash/ours /var/crash/again
    say "report"
    kdump-rs analyze /var/crash/vmcore
    say "analyze: $?"
    systemctl --no-block poweroff
    ;;
*)
    say "one boot too many"
    systemctl --no-block poweroff
    ;;
esac
