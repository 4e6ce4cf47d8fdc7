//! The panic-path program: from the crashed kernel's last jump to the control page, which enters the capture
//! kernel.
//!
//! State on entry (left by `relocate_kernel`, see `docs/panic-path.md`):
//! 1. 64-bit mode, CPL 0, interrupts off, on the CPU that crashed, which need not be the boot CPU.
//! 2. All general registers 0; RSP in a page that is not ours, what it points at is rubbish.
//! 3. CR4 has PAE and perhaps LA57 (MCE in TDX guests): any SSE instruction faults.
//! 4. No valid GDT or IDT (or the old kernel's debugging ones): any segment load or exception is a reset.
//! 5. CR3 holds an identity map of all RAM and all kexec segments. MMIO is not in it.
//! 6. The other CPUs are parked in the old kernel's code; DMA may still be going on.
//!
//! Duties: own image, stack, CPU state, descriptor tables, page tables; say so; believe the handoff block;
//! check every region and rebuild what is damaged; leave a record; enter the control page, or do what the
//! policy says. Every wait is bounded, and only a failure while another is reported ends silently.
//!
//! Must not touch: memory outside the image but for damaged pages of protected regions, the record's page
//! and the console; the other CPUs.
//!
//! At the jump: CS 0x10, DS/ES/SS/FS/GS 0x18 flat, IF=DF=0, CR3 the loader's identity map (or the one found),
//! CR0 and CR4 as found but for the SSE bits of CR0. The general registers are the control page's business.
//!
//! This file tells the story; it only calls what the library decides and the neighbours do.

#![no_std]
#![no_main]

mod clock;
mod console;
mod cpu;
mod entry;
mod exceptions;
mod memory;
mod provoke;
mod runtime;
mod state;

use kdump_panic_kernel::handoff::{Console, HANDOFF_SIZE, Handoff, surviving_console};
use kdump_panic_kernel::line::Sink;
use kdump_panic_kernel::record::{PhaseId, Record, RecordFlags};
use kdump_panic_kernel::sha256::Engine;
use kdump_panic_kernel::verify::{Action, Answer, Inspection, Stage, after_exception};
use kdump_panic_kernel::{messages, reset};

use crate::console::ActiveConsole;
use crate::cpu::{IoPorts, rdtsc};
use crate::memory::IdentityMap;

/// Where is reported what comes before a console is known: the first serial port, as it was left.
const FALLBACK_CONSOLE: Console = Console::Uart8250Port { port: 0x3f8, baud: 0 };

/// Runs on our own stack with SSE enabled. `image` and `block` are the addresses of the program and the page
/// behind it, `damaged` is the copy this one stands in for or 0, `copy_block` the other copy's block or 0.
extern "C" fn start(
    image: u64,
    block: &'static [u8; HANDOFF_SIZE],
    found_cr4: u64,
    entered: u64,
    damaged: u64,
    copy_block: u64,
) -> ! {
    clock::begin(entered);
    state::set_found_cr4(found_cr4);
    exceptions::install(image..block.as_ptr() as u64);
    cpu::enable_machine_check();
    let engine = Engine::detect();
    let record = state::record();
    record.set_cpu(cpu::apic_id(), image, engine);
    record.phase(PhaseId::ENTERED, 0, entered);

    let copy_block = memory::page(copy_block);
    let named = surviving_console(block).or_else(|| copy_block.and_then(|block| surviving_console(block)));
    let wanted = named.unwrap_or(FALLBACK_CONSOLE);
    let mut console = ActiveConsole::waiting();
    if wanted.memory().is_none() {
        console.open(wanted);
    }
    if damaged != 0 {
        record.flag(RecordFlags::FROM_COPY);
        console.line(&messages::image_damaged(damaged, image));
    }
    console.line(&messages::entered(cpu::apic_id(), image));

    let action = match believed(block, copy_block, engine, record, &mut console) {
        Some(handoff) => inspect(state::believe(handoff), wanted, engine, record, &mut console),
        None => {
            if !console.is_open() {
                console.open(FALLBACK_CONSOLE);
            }
            Action::Reset
        }
    };
    perform(action, &mut console)
}

/// Finds a block to believe: the one behind this image, or the other copy's.
fn believed(
    block: &'static [u8; HANDOFF_SIZE],
    copy_block: Option<&'static [u8; HANDOFF_SIZE]>,
    engine: Engine,
    record: &mut Record,
    console: &mut ActiveConsole,
) -> Option<Handoff> {
    let mut handoff = Handoff::parse_with(block, engine);
    if let Err(error) = &handoff {
        console.line(&messages::handoff_refused(error));
        if let Some(copy_block) = copy_block {
            console.line(&messages::handoff_from_copy(copy_block.as_ptr() as u64));
            record.flag(RecordFlags::HANDOFF_FROM_COPY);
            handoff = Handoff::parse_with(copy_block, engine);
            if let Err(error) = &handoff {
                console.line(&messages::handoff_refused(error));
            }
        }
    }
    let handoff = handoff.ok()?;
    clock::set_khz(handoff.tsc_khz);
    record.set_handoff(handoff.policy, handoff.entry, handoff.tsc_khz);
    record.phase(PhaseId::HANDOFF, 0, rdtsc());
    console.line(&messages::handoff_ok(&handoff, engine));
    Some(handoff)
}

/// Goes onto the loader's page tables, opens the console if it is not, checks and rebuilds everything.
fn inspect(
    handoff: &'static Handoff,
    wanted: Console,
    engine: Engine,
    record: &mut Record,
    console: &mut ActiveConsole,
) -> Action {
    let mut memory = IdentityMap;
    let mut inspection = Inspection::new(handoff, engine, &mut memory, record, console);
    let (root, nr_levels) = match cpu::has_5_levels() {
        true => (handoff.page_tables.five_level, 5),
        false => (handoff.page_tables.four_level, 4),
    };
    let is_mapped = root != 0 && inspection.check_at(root);
    if is_mapped {
        cpu::load_page_tables(root);
        inspection.record.phase(PhaseId::PAGE_TABLES, nr_levels.into(), rdtsc());
        inspection.sink.line(&messages::page_tables(root, nr_levels));
    } else {
        inspection.record.flag(RecordFlags::OLD_PAGE_TABLES);
        inspection.sink.line(&messages::old_page_tables());
    }
    if !inspection.sink.is_open() {
        if is_mapped || matches!(wanted, Console::VgaText { .. }) {
            inspection.sink.open(wanted);
        } else {
            inspection.sink.open(FALLBACK_CONSOLE);
            inspection.sink.line(&messages::console_unmapped());
        }
    }
    inspection.record.set_console(console::kind());
    inspection.record.phase(PhaseId::CONSOLE, console::kind(), rdtsc());

    provoke::early(handoff.test_hook, inspection.sink);
    inspection.check_all();
    let (nr_damaged, nr_repaired) = (inspection.nr_damaged(), inspection.nr_repaired());
    inspection.record.phase(PhaseId::VERIFIED, nr_damaged, rdtsc());
    if nr_repaired != 0 {
        inspection.record.phase(PhaseId::REPAIRED, nr_repaired, rdtsc());
    }
    inspection.conclude()
}

/// Does what was decided. Never returns.
fn perform(action: Action, console: &mut ActiveConsole) -> ! {
    let nr_nmis = exceptions::nr_nmis();
    if nr_nmis != 0 {
        console.line(&messages::nmis(nr_nmis));
    }
    match action {
        Action::Enter { entry, control_page } => {
            console.line(&messages::entering(entry));
            console.drain();
            leave_record(true);
            state::advance(Stage::Entered);
            exceptions::forget();
            cpu::enter(control_page, state::found_cr4())
        }
        Action::Reset => {
            console.line(&messages::resetting());
            leave_record(false);
            console.drain();
            reset_silently()
        }
        Action::Halt => {
            console.line(&messages::halted());
            leave_record(false);
            console.drain();
            cpu::halt()
        }
    }
}

/// Seals the record and leaves it on its page, for the capture kernel or for whoever looks at the memory.
fn leave_record(is_jump: bool) {
    let Some(handoff) = state::handoff() else { return };
    let record = state::record();
    if is_jump {
        record.flag(RecordFlags::COMPLETE);
        record.phase(PhaseId::JUMP, 0, rdtsc());
    }
    memory::write_record(handoff.record, record.seal(Engine::detect()));
}

/// Resets without a word: for failures of whatever handled the first one, the console perhaps.
extern "C" fn reset_silently() -> ! {
    provoke::in_reset();
    reset::reset_by_ports(&mut IoPorts);
    cpu::triple_fault()
}

/// A bug of ours, caught by a check of the compiler: say where, then let the policy decide as for a fault.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match exceptions::count_bug() {
        Answer::Report => {
            let mut console = ActiveConsole::resume(FALLBACK_CONSOLE);
            if let Some(place) = info.location() {
                console.line(&messages::bug(place.file(), place.line()));
            }
            perform(after_exception(state::stage(), state::handoff()), &mut console)
        }
        Answer::Reset => reset_silently(),
        Answer::TripleFault => cpu::triple_fault(),
    }
}
