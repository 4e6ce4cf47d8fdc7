use super::*;
use crate::log::{Caller, Log, Record};

fn decide(lines: &[&str]) -> (Cause, String) {
    let records = lines.iter().enumerate().map(|(i, line)| Record {
        seq: i as u64,
        ts_ns: i as u64,
        level: 0,
        facility: 0,
        caller: Caller::Task(1),
        text: line.as_bytes().to_vec(),
    });
    let verdict = Cause::decide(&Panic::from_log(&Log { records: records.collect(), lost: 0 })).unwrap();
    (verdict.cause, verdict.evidence)
}

/// Check the last lines of real kernels: 6.1, 6.12 and 7.3.
#[test]
fn the_kernels_own_words_decide() {
    let panic = |text: &str| decide(&[&format!("Kernel panic - not syncing: {text}")]).0;
    assert_eq!(panic("sysrq triggered crash"), Sysrq);
    assert_eq!(panic("Attempted to kill init! exitcode=0x00000100"), InitKilled);
    assert_eq!(panic("Out of memory: compulsory panic_on_oom is enabled"), OutOfMemory);
    assert_eq!(panic("System is deadlocked on memory"), OutOfMemory);
    assert_eq!(panic("hung_task: blocked tasks"), HungTask);
    assert_eq!(panic("softlockup: hung tasks"), SoftLockup);
    assert_eq!(panic("Hard LOCKUP"), HardLockup);
    assert_eq!(panic("NMI: Not continuing"), Nmi);
    assert_eq!(panic("RCU Stall"), RcuStall);
    assert_eq!(panic("Fatal local machine check: Uncorrected error"), MachineCheck);
    assert_eq!(panic("TASK stack guard page"), StackOverflow);
    assert_eq!(panic("stack-protector: Kernel stack is corrupted in: f+0x1/0x2"), StackCorruption);
    assert_eq!(panic("kernel: panic_on_warn set ..."), Warning);
    assert_eq!(panic("VFS: Unable to mount root fs on unknown-block(0,0)"), Cause::Panic);
}

#[test]
fn an_oops_is_known_by_its_first_lines() {
    let null = "BUG: kernel NULL pointer dereference, address: 0000000000000008";
    let rip = "RIP: 0010:f+0x5/0x10 [m]";
    assert_eq!(
        decide(&[null, "#PF: supervisor write", "Oops: 0002 [#1] PREEMPT SMP", rip]),
        (NullDereference, null.into())
    );
    let page = "BUG: unable to handle page fault for address: ffff88810000dead";
    assert_eq!(decide(&[page, "Oops: Oops: 0000 [#1] SMP NOPTI", rip]).0, PageFault);
    let bug = "kernel BUG at /build/kdump_trigger.c:56!";
    assert_eq!(decide(&[bug, "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", rip]), (Bug, bug.into()));
    assert_eq!(decide(&[bug, "Oops: invalid opcode: 0000 [#1] SMP NOPTI", rip]), (Bug, bug.into()));
    assert_eq!(decide(&["invalid opcode: 0000 [#1] SMP", rip]).0, InvalidOpcode);
    let guard = "BUG: TASK stack guard page was hit at 000000007a3d2c1b (stack is 0000000000000000..0000000000000000)";
    assert_eq!(
        decide(&[guard, "stack guard page: 0000 [#1] PREEMPT SMP NOPTI", rip]),
        (StackOverflow, guard.into())
    );
    assert_eq!(decide(&[guard, "Oops: stack guard page: 0000 [#1] SMP NOPTI"]).0, StackOverflow);
    assert_eq!(decide(&["Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP", rip]).0, GeneralProtection);
    assert_eq!(decide(&["divide error: 0000 [#1] SMP", rip]).0, DivideError);
    assert_eq!(decide(&["Oops: 0000 [#1] SMP", rip]).0, Oops);
}

/// Folklore: without a capture kernel an oops ends in "Fatal exception", which says nothing.
#[test]
fn a_fatal_exception_is_the_oops_before_it() {
    let null = "BUG: kernel NULL pointer dereference, address: 0000000000000000";
    let panic = "Kernel panic - not syncing: Fatal exception in interrupt";
    let lines = [null, "Oops: 0010 [#1] SMP", "RIP: 0010:0x0", panic];
    assert_eq!(decide(&lines), (NullDereference, null.into()));
}

#[test]
fn an_earlier_oops_that_did_not_kill_is_not_the_cause() {
    let null = "BUG: kernel NULL pointer dereference, address: 0000000000000000";
    let bug = "kernel BUG at mm/slub.c:1!";
    let lines = [null, "Oops: 0010 [#1] SMP", "x", "y", bug, "Oops: invalid opcode: 0000 [#2] SMP"];
    assert_eq!(decide(&lines), (Bug, bug.into()));
    let lines = [null, "Oops: 0010 [#1] SMP", "Kernel panic - not syncing: sysrq triggered crash"];
    assert_eq!(decide(&lines).0, Sysrq);
}

#[test]
fn the_watchdogs_lines_are_the_evidence() {
    let soft = "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kdump-crasher:123]";
    assert_eq!(
        decide(&[soft, "Kernel panic - not syncing: softlockup: hung tasks"]),
        (SoftLockup, soft.into())
    );
    assert_eq!(locked_cpu(soft), Some(1));
    assert_eq!(locked_cpu("watchdog: Watchdog detected hard LOCKUP on cpu 12"), Some(12));
    assert_eq!(locked_cpu("watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 2"), Some(2));
    assert_eq!(locked_cpu("hello"), None);
    let hung = "INFO: task a:b blocked :77 blocked for more than 120 seconds.";
    assert_eq!(decide(&[hung, "Kernel panic - not syncing: hung_task: blocked tasks"]).1, hung);
    assert_eq!(hung_pid(hung), Some(77));
    assert_eq!(hung_pid("INFO: task dd:81 blocked in I/O wait for more than 120 seconds."), Some(81));
    assert_eq!(hung_pid("INFO: task dd:81 blocked on a semaphore likely last held by task tar:82"), None);
    assert_eq!(hung_pid("INFO: task dd:81 is blocked on a mutex likely owned by task tar:82."), None);
    assert_eq!(hung_pid("INFO: task x blocked"), None);
}

/// Frames as `name`, or `!name` for one that was interrupted.
fn frames<'a>(names: &[&'a str]) -> Vec<Frame<'a>> {
    let frame = |name: &&'a str| {
        let symbol = name.trim_start_matches('!');
        Frame { symbol: (symbol != "0x0").then_some(symbol), is_interrupted: name.starts_with('!') }
    };
    names.iter().map(frame).collect()
}

fn blamed<'a>(cause: Cause, names: &[&'a str]) -> Option<&'a str> {
    let frames = frames(names);
    blame(cause, &frames).map(|at| frames[at].symbol.unwrap())
}

#[test]
fn the_machinery_is_not_to_blame() {
    let sysrq = ["!__crash_kexec", "panic", "sysrq_handle_crash", "__handle_sysrq.cold"];
    assert_eq!(blamed(Sysrq, &sysrq), Some("sysrq_handle_crash"));
    let killed = ["!__crash_kexec", "vpanic", "panic", "do_exit.cold", "do_group_exit"];
    assert_eq!(blamed(InitKilled, &killed), Some("do_exit.cold"));
    let warned =
        ["!__crash_kexec", "panic", "check_panic_on_warn.cold", "__warn.cold", "report_bug", "handle_bug"];
    let warned = [&warned[..], &["exc_invalid_op", "asm_exc_invalid_op", "!frob", "do_syscall_64"]].concat();
    assert_eq!(blamed(Warning, &warned), Some("frob"));
}

#[test]
fn a_fault_is_blamed_on_what_faulted() {
    assert_eq!(blamed(NullDereference, &["!die_here", "vfs_write"]), Some("die_here"));
    assert_eq!(blamed(NullDereference, &["!0x0", "caller"]), Some("caller"));
    let panicked =
        ["!__crash_kexec", "panic", "oops_end", "page_fault_oops", "asm_exc_page_fault", "!f", "g"];
    assert_eq!(blamed(PageFault, &panicked), Some("f"));
}

#[test]
fn a_lockup_and_an_nmi_are_blamed_on_what_they_interrupted() {
    let timer = ["!__crash_kexec", "panic", "watchdog_timer_fn", "asm_sysvec_apic_timer_interrupt"];
    let spun = [&timer[..], &["!native_queued_spin_lock_slowpath", "_raw_spin_lock", "owner"]].concat();
    assert_eq!(blamed(SoftLockup, &spun), Some("owner"));
    assert_eq!(
        blamed(Nmi, &["!__crash_kexec", "panic", "nmi_panic", "asm_exc_nmi", "!loop", "main"]),
        Some("loop")
    );
    // In user mode, no kernel function is.
    assert_eq!(blamed(Nmi, &["!__crash_kexec", "panic", "nmi_panic", "asm_exc_nmi"]), None);
}

#[test]
fn a_hung_task_is_blamed_on_who_waits_and_not_how() {
    let stack = ["__schedule", "schedule", "schedule_timeout", "__wait_for_common", "my_wait", "vfs_write"];
    assert_eq!(blamed(HungTask, &stack), Some("my_wait"));
    assert_eq!(blamed(HungTask, &[]), None);
}

#[test]
fn an_interrupt_is_seen_further_out_than_the_function() {
    let frames =
        frames(&["!__crash_kexec", "panic", "handler", "asm_sysvec_irq_work", "!idle", "cpu_startup_entry"]);
    assert_eq!(blame(Cause::Panic, &frames), Some(2));
    assert!(is_in_interrupt(&frames, 2));
    assert!(!is_in_interrupt(&frames, 4));
}

#[test]
fn the_report_and_the_words_agree() {
    for cause in [Sysrq, NullDereference, HardLockup, OutOfMemory, InitKilled, PanicInInterrupt, Cause::Panic]
    {
        assert_eq!(serde_json::to_value(cause).unwrap(), cause.word());
    }
}
