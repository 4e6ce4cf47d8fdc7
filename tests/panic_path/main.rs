//! The panic path under real panics, with what it finds damaged from outside: memory edited in the guest's
//! memory file between arming and the crash, failures provoked inside the program itself.
//!
//! Each case is a row: what is damaged, how the guest was armed, what the console must say, how it must end.
//! A guest that hangs reaches its time limit and fails its test. Needs QEMU and the kernels; `make test` sees to
//! both and runs these tests, a plain `cargo test` lists them as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod consoles;

use case::{Case, Damage, End};

/// Protected by parity, one bit of it flipped.
const ONE_BIT: Case = Case {
    damage: &[Damage::Bit("bzImage", 0x45_6789)],
    says: &["region bzImage: 1 page rebuilt from parity, at ", "sha256 ok after repair"],
    end: End::Captured { repaired: &[("bzImage", 1)] },
    ..Case::NEW
};

const ONE_PAGE: Case = Case {
    damage: &[Damage::Bytes("initramfs", 0x4000, 4096)],
    says: &["region initramfs: 1 page rebuilt"],
    end: End::Captured { repaired: &[("initramfs", 1)] },
    ..Case::NEW
};

/// The run begins in the middle of a page, so it touches one page more than it has.
const ONE_MIB: Case = Case {
    damage: &[Damage::Bytes("bzImage", 0x30_0800, 1 << 20)],
    says: &["region bzImage: 257 pages rebuilt"],
    end: End::Captured { repaired: &[("bzImage", 257)] },
    ..Case::NEW
};

const HANDOFF: Case = Case {
    damage: &[Damage::BytesBeforeEnd("panic-kernel", 4096, 4096)],
    says: &["handoff DAMAGED: magic is ", "handoff taken from the copy at "],
    end: End::Captured { repaired: &[] },
    ..Case::NEW
};

const PROGRAM: Case = Case {
    damage: &[Damage::Bit("panic-kernel", 0x2345)],
    says: &[" DAMAGED, running from the copy at ", "region panic-kernel: 1 page rebuilt"],
    end: End::Captured { repaired: &[("panic-kernel", 1)] },
    ..Case::NEW
};

/// The kernel before the one that all other cases are run on.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn damage_ends_the_same_on_linux_6_1() {
    for case in [ONE_BIT, ONE_PAGE, ONE_MIB, HANDOFF, PROGRAM] {
        Case { kernel: "6.1", ..case }.run();
    }
}

/// The newest, which leaves a GDT and an IDT of its own at the entry.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn damage_ends_the_same_on_linux_7_3() {
    for case in [ONE_BIT, ONE_PAGE, ONE_MIB, HANDOFF, PROGRAM] {
        Case { kernel: "7.3", ..case }.run();
    }
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn one_bit_of_the_kernel_image_is_rebuilt() {
    ONE_BIT.run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn one_page_of_the_initramfs_is_rebuilt() {
    ONE_PAGE.run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_mib_in_a_row_is_rebuilt() {
    ONE_MIB.run();
}

/// Over the end of the initramfs and the whole digest table, by which the initramfs is judged.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_run_across_initramfs_and_digest_table_is_rebuilt() {
    Case {
        damage: &[Damage::BytesBeforeEnd("digests", 1 << 20, 1 << 20)],
        says: &[
            "region initramfs ",
            "region digests: ",
            " pages rebuilt",
            "region initramfs: ",
            "ok after repair",
        ],
        end: End::Captured { repaired: &[("initramfs", 0), ("digests", 0)] },
        ..Case::NEW
    }
    .run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn two_mib_in_a_row_are_beyond_repair_and_reset() {
    Case {
        damage: &[Damage::Bytes("bzImage", 0x30_0000, 2 << 20)],
        says: &[
            "region bzImage 11.",
            " sha256 MISMATCH: expected ",
            "damaged pages cannot be rebuilt",
            "regions damaged, policy is reset",
            "kdump-rs panic-kernel: resetting",
        ],
        end: End::Reset,
        ..Case::NEW
    }
    .run();
}

/// Beyond repair again, but the damage lies where the capture kernel does not miss it: booted by policy, and the
/// report says so.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn without_parity_the_policy_boot_enters_all_the_same() {
    Case {
        arm: &["--parity=0", "--on-corruption=boot"],
        damage: &[Damage::Bit("boot_params", 0xff8)],
        says: &["no parity", "nothing to rebuild it from", "policy is boot: booting anyway"],
        end: End::CapturedDamaged,
        ..Case::NEW
    }
    .run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn the_policy_halt_halts() {
    Case {
        arm: &["--on-corruption=halt"],
        damage: &[Damage::Bit("bzImage", 0), Damage::Bit("bzImage", 257 * 4096)],
        says: &["2 of 2 damaged pages cannot be rebuilt", "policy is halt", "kdump-rs panic-kernel: halted"],
        end: End::Halted,
        ..Case::NEW
    }
    .run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_damaged_handoff_block_is_taken_from_the_copy() {
    HANDOFF.run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn two_damaged_handoff_blocks_are_explained_and_reset() {
    Case {
        damage: &[
            Damage::BytesBeforeEnd("panic-kernel", 0x700, 1),
            Damage::BytesBeforeEnd("panic-copy", 0x700, 1),
        ],
        says: &["handoff DAMAGED: sha256 mismatch", "handoff taken from the copy at ", "resetting"],
        end: End::Reset,
        ..Case::NEW
    }
    .run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_damaged_panic_kernel_hands_over_to_its_copy() {
    PROGRAM.run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn two_damaged_panic_kernels_say_so_and_reset() {
    Case {
        damage: &[Damage::Bytes("panic-kernel", 0x1000, 4096), Damage::Bytes("panic-copy", 0x3000, 1)],
        says: &["both copies DAMAGED, resetting"],
        end: End::Reset,
        ..Case::NEW
    }
    .run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn damaged_page_tables_are_rebuilt_before_they_are_used() {
    Case {
        damage: &[Damage::Bytes("page-tables", 0x10, 0x1800)],
        says: &["region page-tables: 2 pages rebuilt", "page tables at "],
        end: End::Captured { repaired: &[("page-tables", 2)] },
        ..Case::NEW
    }
    .run();
}

/// On Linux 6.1, whose initramfs is packed otherwise, the control page.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_6_1_survives_a_damaged_control_page() {
    Case {
        kernel: "6.1",
        damage: &[Damage::Bytes("control-page", 0, 4096)],
        says: &["region control-page: 1 page rebuilt"],
        end: End::Captured { repaired: &[("control-page", 1)] },
        ..Case::NEW
    }
    .run();
}

/// On Linux 7.3, on the other CPU, whose model has neither 5-level paging nor 1 GiB pages nor SHA.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn linux_7_3_is_repaired_on_the_second_cpu_of_an_old_model() {
    Case {
        kernel: "7.3",
        cpu: Some("qemu64"),
        panic_cpu: Some(1),
        damage: &[Damage::Bytes("bzImage", 0x10_0000, 0x1_0000)],
        says: &["entered, CPU apic id 1, ", ", 4 levels", "region bzImage: 16 pages rebuilt"],
        end: End::Captured { repaired: &[("bzImage", 16)] },
        ..Case::NEW
    }
    .run();
}

/// A CPU that comes back makes this kernel rewrite elfcorehdr, without the note that names the record.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn the_record_survives_a_kernel_that_rewrites_elfcorehdr() {
    Case {
        kernel: "7.3",
        toggled_cpu: Some(1),
        says: &["entering capture kernel", "elfcorehdr names no panic record: taken from its page"],
        end: End::Captured { repaired: &[] },
        ..Case::NEW
    }
    .run();
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn exceptions_come_out_with_their_registers() {
    for (kind, says) in [
        ("div", "EXCEPTION vector 0 (#DE) error 0x0 rip "),
        ("ud2", "EXCEPTION vector 6 (#UD) error 0x0 rip "),
        ("pf", "EXCEPTION vector 14 (#PF) error 0x0 rip "),
        ("stack", "EXCEPTION vector 14 (#PF) error 0x2 rip "),
    ] {
        Case {
            arm: &[&format!("--panic-test={kind}")],
            says: &["TEST: provoking failure", says, "(image+0x", "  rax 0x", "  r11 0x", "resetting"],
            end: End::Reset,
            ..Case::NEW
        }
        .run();
    }
}

/// What a check of the compiler catches is no exception: it is told by its place in the source.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_bug_of_the_program_itself_comes_out_with_its_place() {
    Case {
        arm: &["--panic-test=bug"],
        says: &["TEST: provoking failure", "BUG at panic-kernel/program/provoke.rs:", "resetting"],
        never: &["EXCEPTION", "entering"],
        end: End::Reset,
        ..Case::NEW
    }
    .run();
}

/// A fault while the first one is reported resets without another word; one while that is tried ends in the CPU's
/// own reset. An NMI is survived.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn failures_of_the_failure_path_end_in_a_reset_and_nmis_in_nothing() {
    for kind in ["nested", "triple"] {
        Case {
            arm: &[&format!("--panic-test={kind}")],
            says: &["EXCEPTION vector 6 (#UD)"],
            never: &["  rax 0x", "resetting", "halted", "entering"],
            end: End::Reset,
            ..Case::NEW
        }
        .run();
    }
    Case {
        arm: &["--panic-test=nmi"],
        says: &["1 NMI ignored"],
        end: End::Captured { repaired: &[] },
        ..Case::NEW
    }
    .run();
}

/// The policy boot overrides an exception, and the record tells of it.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn an_exception_with_policy_boot_is_captured_and_recorded() {
    Case {
        arm: &["--panic-test=gp", "--on-corruption=boot"],
        says: &["EXCEPTION vector 13 (#GP)", "entering capture kernel"],
        end: End::CapturedAfterException { vector: 13 },
        ..Case::NEW
    }
    .run();
}
