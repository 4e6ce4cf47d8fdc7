//! A kernel that does nothing but die: it stages an image as any kernel in Rust could, with the `kimage` library and
//! a control page, notes what has to be where afterwards, and runs into an undefined instruction. The exception handler
//! enters the control page. The payload comes back for the next case.
//!
//! Booted by QEMU's `-kernel` through the PVH entry. Command line: `seed=N cases=N corrupt=WHAT`.
//!
//! Source of the entry: Xen `docs/misc/pvh.pandoc`, `include/xen/interface/hvm/start_info.h` of Linux.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bare_metal_platform::pattern::Random;
use bare_metal_platform::ports::{Verdict, exit};
use bare_metal_platform::say;

mod boot;
mod case;
#[allow(unfulfilled_lint_expectations, reason = "in a library its items are public, here they are not")]
#[path = "../../../arch-x86/src/control_page/mod.rs"]
mod control_page;
mod crossing;
mod exceptions;
mod expectation;
mod heap;
mod memory;
mod options;
mod payload;
mod staging;

use case::Case;
use options::Options;

/// Number of the case at hand; what the kernel knows across cases.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Runs a case, up to the jump.
fn run() -> ! {
    heap::clear();
    exceptions::install();
    let options = match Options::parse(boot::command_line()) {
        Ok(options) => options,
        Err(what) => fail(what),
    };
    let number = NUMBER.load(Relaxed);
    NUMBER.store(number + 1, Relaxed);
    let mut random = Random(options.seed << 32 | number);
    let case = Case::new(number, number + 1 == options.cases);
    memory::fill(random.next());
    let staged = staging::stage(&case, &mut random);
    expectation::leave(&case, &staged, options.corrupt, &mut random);
    say!("kernel: case {number}: {case}: {}", staged.told());
    exceptions::arm(staged.plan.control_page(), case.control);
    exceptions::undefined_instruction()
}

fn fail(what: &str) -> ! {
    say!("kernel: failed: {what}");
    exit(Verdict::Failed)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("kernel: {info}");
    exit(Verdict::Failed)
}
