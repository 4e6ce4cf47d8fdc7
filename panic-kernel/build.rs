//! Builds the freestanding programs of `program/` and `probe/` and hands them to the library as bytes.
//!
//! Cargo cannot give one package of a workspace its own panic strategy and link arguments, so the
//! compiler is called directly: the library of this crate as an rlib for the program to share, then the
//! program, linked with the `rust-lld` that comes with the compiler. No C compiler takes part, and the
//! result does not depend on where the source lies.

#[path = "src/image/sizes.rs"]
mod sizes;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What both steps are compiled with. Position-independent, because the loader decides the address.
const CODEGEN: &[&str] = &[
    "--edition=2024",
    "--target=x86_64-unknown-linux-gnu",
    "--cfg=kdump_freestanding",
    "--check-cfg=cfg(kdump_freestanding)",
    "-Cpanic=abort",
    "-Copt-level=s",
    "-Ccodegen-units=1",
    // Size: half of 2's, and the digests are as fast. Slices are checked all the same; arithmetic is checked
    // where the same code runs in the host's tests, and its operands are bounded when the block is parsed.
    "-Coverflow-checks=off",
    "-Crelocation-model=pie",
    "-Ccode-model=small",
    // Exceptions are taken on stacks of their own, but an NMI must never find live data below RSP.
    "-Cno-redzone=yes",
    "-Cforce-unwind-tables=no",
    // As the workspace lints say; they do not reach here.
    "-Dunsafe_code",
    "-Dunsafe_op_in_unsafe_fn",
];

const LINK: &[&str] = &[
    "-Clto=fat",
    // Keeps .symtab: the loader finds the handoff page by its symbol.
    "-Cstrip=debuginfo",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=-pie",
    "-Clink-arg=--no-dynamic-linker",
    "-Clink-arg=-ztext",
    "-Clink-arg=--gc-sections",
    "-Clink-arg=--build-id=none",
    "-Clink-arg=--hash-style=sysv",
    "-Clink-arg=-zmax-page-size=4096",
];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kdump_freestanding)");
    for path in ["build.rs", "src", "program", "probe"] {
        println!("cargo::rerun-if-changed={path}");
    }

    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let library = out.join("libkdump_panic_kernel.rlib");
    let program = root.join("program");

    rustc(
        &root,
        &["--crate-type=rlib", "--crate-name=kdump_panic_kernel"],
        &root.join("src/lib.rs"),
        &library,
        &[],
    );
    let mut link: Vec<OsString> = LINK.iter().map(Into::into).collect();
    link.push(concat("-Clink-arg=-T", &program.join("link.ld")));
    link.push(concat("--extern=kdump_panic_kernel=", &library));
    for (name, source, image) in [
        ("panic_kernel", program.join("main.rs"), "panic-kernel.elf"),
        ("panic_probe", root.join("probe/main.rs"), "probe.elf"),
    ] {
        let kind = ["--crate-type=bin", "--crate-name", name];
        rustc(&root, &kind, &source, &out.join(image), &link);
    }
    let image = fs::read(out.join("panic-kernel.elf")).expect("the program was linked");
    let (loaded, occupied) = sizes::sizes(&image);
    // The only way for a build script to be heard; more than the budget is an error of the crate.
    println!(
        "cargo::warning=panic-path program: {loaded} bytes loaded of {} allowed, {occupied} in memory",
        sizes::LOADED_BUDGET
    );
}

fn rustc(root: &Path, kind: &[&str], source: &Path, output: &Path, more: &[OsString]) {
    let status = Command::new(variable("RUSTC"))
        .args(kind)
        .args(CODEGEN)
        .args(more)
        // Panic locations would carry the path of this checkout.
        .arg(concat("--remap-path-prefix=", root).into_string().expect("path is UTF-8") + "=panic-kernel")
        .arg("-o")
        .arg(output)
        .arg(source)
        .status()
        .expect("the compiler named by RUSTC runs");
    assert!(status.success(), "compiling {} failed: {status}", source.display());
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo did not set {name}"))
}

fn concat(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}
