//! Command lines of distributions' scripts, and wrong ones.

use super::*;

fn parse(line: &str) -> Result<Asked, Refused> {
    let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    Asked::parse(&args)
}

fn asked(line: &str) -> Asked {
    parse(line).unwrap_or_else(|e| panic!("{line}: {}", e.text))
}

fn bits(asked: &Asked) -> Vec<u32> {
    asked.levels.iter().map(|level| level.bits()).collect()
}

fn file(from: &str, to: &str) -> Job {
    Job::Create { from: from.into(), to: To::File(to.into()) }
}

/// As kdump-config of kdump-tools 1.10 calls it.
#[test]
fn the_lines_of_debian_are_understood() {
    let create = asked("-F -c -d 31 /proc/vmcore");
    assert_eq!(create.job, Job::Create { from: "/proc/vmcore".into(), to: To::Stdout });
    assert_eq!((create.compression, bits(&create)), (Compression::Zlib, vec![31]));
    assert!(create.voice.to_stderr, "data goes to standard output");
    let log = asked("--dump-dmesg /proc/vmcore /var/crash/1/dmesg.1");
    assert_eq!(
        log.job,
        Job::Dmesg { from: "/proc/vmcore".into(), to: To::File("/var/crash/1/dmesg.1".into()) }
    );
    assert_eq!(asked("-R vmcore").job, Job::Rearrange { to: "vmcore".into() });
}

/// As kdump.sh of kdump-utils calls it, and kdumpctl checks it.
#[test]
fn the_lines_of_red_hat_are_understood() {
    let create = asked("-l --message-level 7 -d 31 /proc/vmcore /kdumproot/var/crash/vmcore-incomplete");
    assert_eq!(create.job, file("/proc/vmcore", "/kdumproot/var/crash/vmcore-incomplete"));
    assert_eq!((create.compression, create.voice.level), (Compression::Lzo, 7));
    assert_eq!(asked("--check-params -l -d 31 a b").job, Job::Check);
    assert!(matches!(asked("-F -l --message-level 7 -d 31 /proc/vmcore").job, Job::Create { .. }));
    assert_eq!(asked("--mem-usage /proc/kcore").job, Job::MemUsage { from: "/proc/kcore".into() });
    assert_eq!(asked("-f --mem-usage /proc/kcore").job, Job::MemUsage { from: "/proc/kcore".into() });
}

/// As kdump-save of SUSE's kdump calls it.
#[test]
fn the_lines_of_suse_are_understood() {
    let create = asked("--message-level 31 --num-threads 3 -c -d 31 -X /proc/vmcore vmcore");
    assert_eq!((create.threads, create.voice.level), (NonZeroUsize::new(3), 31));
    let split = asked("-d 31 -p --split /proc/vmcore vmcore1 vmcore2 vmcore3");
    let to = To::Split(vec!["vmcore1".into(), "vmcore2".into(), "vmcore3".into()]);
    assert_eq!(split.job, Job::Create { from: "/proc/vmcore".into(), to });
    assert_eq!(split.compression, Compression::Snappy);
    assert!(asked("-E -d 31 /proc/vmcore vmcore").is_elf);
}

#[test]
fn everything_else_that_it_takes_is_taken() {
    assert_eq!(bits(&asked("-d 1,17,31 a b")), [1, 17, 31]);
    assert_eq!(bits(&asked("a b")), [0]);
    assert_eq!(bits(&asked("-d x a b")), [0], "as atoi has it");
    let all = asked(
        "-Dfz --cyclic-buffer 1024 --non-cyclic --non-mmap -b 4 --splitblock-size 8 --work-dir /tmp -e \
         --dry-run --show-stats -x vmlinux --vtop 0xffff888000000000 a b",
    );
    assert_eq!(all.voice.level, 7 | message::DEBUG | message::REPORT);
    assert!(all.is_dry && all.is_forced);
    assert_eq!((all.vmlinux, all.vtop), (Some("vmlinux".into()), Some(0xffff_8880_0000_0000)));
    assert_eq!(asked("-c -l a b").compression, Compression::Lzo, "the last one counts");
    assert_eq!(
        asked("--reassemble a b c").job,
        Job::Reassemble { from: vec!["a".into(), "b".into()], to: "c".into() }
    );
    assert_eq!(asked("-i info --dump-dmesg a b").vmcoreinfo, Some("info".into()));
    assert_eq!((asked("-h").job, asked("-v").job), (Job::Help, Job::Version));
    assert_eq!(asked("--num-threads 0 --split a b c").threads, None);
}

/// Check against the first lines of what makedumpfile 1.7.8 says to the same.
#[test]
fn what_is_wrong_is_said_as_makedumpfile_says_it() {
    for (line, says) in [
        ("", "Commandline parameter is invalid."),
        ("a", "Commandline parameter is invalid."),
        ("a b c", "Commandline parameter is invalid."),
        ("-F a b", "Commandline parameter is invalid."),
        ("-E -c a b", "Commandline parameter is invalid."),
        ("-R", "Commandline parameter is invalid."),
        ("-R -c a", "Commandline parameter is invalid."),
        ("--reassemble -d 31 a b", "Commandline parameter is invalid."),
        ("--split a b", "Commandline parameter is invalid."),
        ("-i info -x vmlinux a b", "Commandline parameter is invalid."),
        ("--frob a b", "Commandline parameter is invalid."),
        ("-d", "Commandline parameter is invalid."),
        ("-d 32 a b", "Dump_level(32) is invalid."),
        ("-d 1,-1 a b", "Dump_level(-1) is invalid."),
        ("--message-level 32 a b", "Message_level(32) is invalid."),
        ("--num-threads 2 --split a b c", "--num-threads cannot used with --split."),
        ("--num-threads 2 -E a b", "--num-threads cannot used with ELF format."),
        ("--dry-run --dump-dmesg a b", "--dry-run cannot be used with --dump-dmesg."),
        ("--dry-run --reassemble a b", "--dry-run cannot be used with --reassemble."),
        ("-e a b", "-e requires --work-dir"),
    ] {
        let refused = parse(line).unwrap_err();
        assert_eq!(refused.text.lines().next(), Some(says), "{line}");
        assert!(!refused.is_check);
    }
    assert!(parse("--check-params -d 40 a b").unwrap_err().is_check);
    assert!(parse("-F --frob a").unwrap_err().voice.to_stderr);
}

#[test]
fn what_is_not_done_is_refused_with_the_reason() {
    for (line, why) in [
        ("--eppic macro a b", "eppic macros"),
        ("--config file -x vmlinux a b", "filter file"),
        ("--diskset=a --diskset=b c d", "sadump"),
        ("--xen-syms xen-syms a b", "Xen"),
        ("-L 1G a b", "-L: the size cannot be limited"),
    ] {
        let refused = parse(line).unwrap_err();
        assert!(refused.text.contains(why), "{line}: {}", refused.text);
    }
}
