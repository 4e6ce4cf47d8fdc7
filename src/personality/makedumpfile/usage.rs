//! `--help`.

/// What is shown.
pub const HELP: &str = "\
LZO support:
  enabled
snappy support:
  enabled
zstd support:
  enabled

kdump-rs under the name of makedumpfile; it takes that one's options. See also: kdump-rs capture --help

Usage:
  makedumpfile [OPTION] VMCORE DUMPFILE                         filter and compress a dump
  makedumpfile -F [OPTION] VMCORE                               the same in the flattened form, to standard output
  makedumpfile -R DUMPFILE                                      make a DUMPFILE of that form, from standard input
  makedumpfile --split [OPTION] VMCORE DUMPFILE1 DUMPFILE2 ...  the same in several files
  makedumpfile --reassemble DUMPFILE1 DUMPFILE2 ... DUMPFILE    one DUMPFILE of several
  makedumpfile --dump-dmesg VMCORE LOGFILE                      the kernel log
  makedumpfile --mem-usage /proc/kcore                          count the running machine's pages

  -c, -l, -p, -z            compress pages by zlib, lzo, snappy, zstd; none, if not given
  -E                        an ELF core; cannot be compressed
  -d LEVEL[,LEVEL...]       what to leave out, added up: 1 zero-filled pages, 2 page cache, 4 also with private data,
                            8 memory of processes, 16 free pages. Of several each is tried when the disk was full with
                            the one before
  -f                        overwrite DUMPFILE
  -i VMCOREINFO             for a VMCORE that has none
  --num-threads N           threads that compress; one per CPU, if not given
  --dry-run                 do everything, but write nothing
  --show-stats              print counts of pages
  --message-level N         what is printed, added up: 1 progress, 2 common messages, 4 errors, 8 details, 16 counts; 7,
                            if not given
  -D                        print details, too
  --vtop ADDRESS            translate a virtual address
  --check-params            check the command line only
  -h, --help  -v

Accepted, without effect: -x VMLINUX, -e, -X, -b, --cyclic-buffer, --non-cyclic, --non-mmap, --splitblock-size, --work-dir.
Refused: -L, -g, --partial-dmesg, --config, --eppic, --diskset, and those for Xen.
";
