//! The legacy interrupt controllers (8259), set up as firmware has them, with everything masked.
//!
//! Source: Intel 8259A data sheet; `arch/x86/kernel/i8259.c`.

use kdump_panic_kernel::ports::{Ports, delay};

use crate::cpu::IoPorts;
use crate::output::{Probe, say};

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xa0;
const ICW1_INIT_WITH_ICW4: u8 = 0x11;
const ICW4_8086: u8 = 0x01;
/// Vectors that a BIOS expects its interrupts at.
const MASTER_VECTOR: u8 = 0x08;
const SLAVE_VECTOR: u8 = 0x70;

/// Initialises both, and reads the masks back.
pub fn set_up(probe: &mut Probe) {
    let mut ports = IoPorts;
    let found = [ports.read(MASTER + 1), ports.read(SLAVE + 1)];
    say!("  masks as found {h} {h}", found[0].into(), found[1].into());
    for (base, vector, cascade) in [(MASTER, MASTER_VECTOR, 1 << 2), (SLAVE, SLAVE_VECTOR, 2)] {
        for (offset, value) in
            [(0, ICW1_INIT_WITH_ICW4), (1, vector), (1, cascade), (1, ICW4_8086), (1, 0xff)]
        {
            ports.write(base + offset, value);
            delay(&mut ports, 2);
        }
    }
    // 0xff is also what an absent controller reads: another mask tells them apart.
    ports.write(MASTER + 1, 0xfb);
    let is_there = ports.read(MASTER + 1) == 0xfb;
    ports.write(MASTER + 1, 0xff);
    if is_there {
        probe.pass("vectors 0x08 and 0x70, all masked");
    } else {
        probe.pass("there are none");
    }
}
