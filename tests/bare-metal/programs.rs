//! Compiles the test kernel and its payload, as `panic-kernel/build.rs` does with the panic-path program: the
//! compiler is called directly, because both are freestanding, and linked with the `rust-lld` that comes with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const CODEGEN: &[&str] = &[
    "--edition=2024",
    "--target=x86_64-unknown-linux-gnu",
    "--cap-lints=warn",
    "-Cpanic=abort",
    "-Copt-level=2",
    "-Ccodegen-units=1",
    // What is planned here is checked, not trusted.
    "-Coverflow-checks=on",
    "-Crelocation-model=static",
    "-Ccode-model=small",
    // Exceptions are taken on the stack in use.
    "-Cno-redzone=yes",
    "-Cforce-unwind-tables=no",
    "-Dunsafe_code",
    "-Dunsafe_op_in_unsafe_fn",
];

const LINK: &[&str] = &[
    "-Clto=fat",
    "-Cstrip=debuginfo",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=--gc-sections",
    "-Clink-arg=--build-id=none",
    "-Clink-arg=-zmax-page-size=4096",
];

/// The kernel's ELF file, which has the payload's in it.
pub fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare-metal");
        std::fs::create_dir_all(&out).unwrap();
        Build { root: Path::new(env!("CARGO_MANIFEST_DIR")), out: &out }.all()
    })
}

struct Build<'a> {
    root: &'a Path,
    out: &'a Path,
}

impl Build<'_> {
    fn all(&self) -> PathBuf {
        // The library is compiled as it is for any kernel. It embeds two programs, which we have.
        std::fs::write(self.out.join("panic-kernel.elf"), kdump_panic_kernel::IMAGE).unwrap();
        std::fs::write(self.out.join("probe.elf"), kdump_panic_kernel::image::PROBE).unwrap();
        let library = self.rlib(
            "kdump_panic_kernel",
            "panic-kernel/src/lib.rs",
            &["--check-cfg=cfg(kdump_freestanding,test)"],
        );
        let platform = self.rlib("bare_metal_platform", "tests/bare-metal/platform/lib.rs", &[]);
        let payload = self.program("payload", &[("bare_metal_platform", &platform)]);
        self.program_with(
            "kernel",
            &[("bare_metal_platform", &platform), ("kdump_panic_kernel", &library)],
            &[("BARE_METAL_PAYLOAD", &payload)],
        )
    }

    fn rlib(&self, name: &str, source: &str, more: &[&str]) -> PathBuf {
        let output = self.out.join(format!("lib{name}.rlib"));
        let mut rustc = self.rustc(&self.root.join(source), &output);
        rustc.args(["--crate-type=rlib", "--crate-name", name]).args(more);
        run(rustc, name);
        output
    }

    fn program(&self, name: &str, crates: &[(&str, &Path)]) -> PathBuf {
        self.program_with(name, crates, &[])
    }

    fn program_with(&self, name: &str, crates: &[(&str, &Path)], environment: &[(&str, &Path)]) -> PathBuf {
        let source = self.root.join("tests/bare-metal").join(name);
        let output = self.out.join(format!("{name}.elf"));
        let mut rustc = self.rustc(&source.join("main.rs"), &output);
        rustc.args(["--crate-type=bin", "--crate-name", name]).args(LINK);
        rustc.arg(joined("-Clink-arg=-T", &source.join("link.ld")));
        for (name, path) in crates {
            rustc.arg(joined(&format!("--extern={name}="), path));
        }
        rustc.envs(environment.iter().copied());
        run(rustc, name);
        output
    }

    fn rustc(&self, source: &Path, output: &Path) -> Command {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(CODEGEN).arg("-o").arg(output).arg(source).env("OUT_DIR", self.out);
        rustc
    }
}

fn run(mut rustc: Command, name: &str) {
    let out = rustc.output().expect("the compiler runs");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "compiling {name} failed: {}\n{stderr}", out.status);
    assert!(!stderr.contains("warning"), "compiling {name} warns:\n{stderr}");
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}
