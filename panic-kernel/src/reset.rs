//! Resetting the machine through its ports.
//!
//! Both ways reset the whole platform from any CPU. What they do not reach is left to the caller, who
//! ends in a triple fault.
//!
//! Source: `arch/x86/kernel/reboot.c`, `native_machine_emergency_restart`.

use crate::ports::{Ports, delay};

/// Reset control register of the PCI chipset.
const CF9: u16 = 0xcf9;
/// Reset bits: full reset on the next rising edge of `RST_CPU`.
const CF9_SYS_RST: u8 = 0x02;
const CF9_RST_CPU: u8 = 0x04;
const CF9_FULL_RST: u8 = 0x08;

/// Status (read) and command (write) port of the 8042 keyboard controller.
const KBD_STATUS_COMMAND: u16 = 0x64;
const KBD_INPUT_FULL: u8 = 0x02;
/// Pulses output line 0, which is wired to the reset pin.
const KBD_PULSE_RESET: u8 = 0xfe;

/// Asks the chipset, then the keyboard controller, for a reset. Returns if neither obliged.
pub fn reset_by_ports<P: Ports>(ports: &mut P) {
    let cf9 = ports.read(CF9) & !(CF9_SYS_RST | CF9_RST_CPU | CF9_FULL_RST);
    ports.write(CF9, cf9 | CF9_SYS_RST);
    delay(ports, 50);
    ports.write(CF9, cf9 | CF9_FULL_RST | CF9_SYS_RST | CF9_RST_CPU);
    delay(ports, 50_000);

    for _ in 0..10 {
        for _ in 0..0x1_0000 {
            if ports.read(KBD_STATUS_COMMAND) & KBD_INPUT_FULL == 0 {
                break;
            }
        }
        delay(ports, 50);
        ports.write(KBD_STATUS_COMMAND, KBD_PULSE_RESET);
        delay(ports, 50);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A machine where every port reads the same and no write resets anything.
    struct Deaf {
        reads: u8,
        writes: Vec<(u16, u8)>,
    }

    impl Ports for Deaf {
        fn read(&mut self, _port: u16) -> u8 {
            self.reads
        }

        fn write(&mut self, port: u16, value: u8) {
            self.writes.push((port, value));
        }
    }

    #[test]
    fn the_chipset_is_asked_first_with_a_rising_edge() {
        let mut ports = Deaf { reads: 0, writes: Vec::new() };
        reset_by_ports(&mut ports);
        assert_eq!(&ports.writes[..3], [(0xcf9, 0x02), (0xcf9, 0x0e), (0x64, 0xfe)]);
    }

    #[test]
    fn a_machine_without_either_control_gets_the_caller_back() {
        let mut ports = Deaf { reads: 0xff, writes: Vec::new() };
        reset_by_ports(&mut ports);
        assert_eq!(ports.writes.len(), 12);
    }
}
