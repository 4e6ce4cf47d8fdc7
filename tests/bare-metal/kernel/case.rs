//! What a case is about. The kinds take turns, so a few cases are all of them.

use core::fmt;

use kdump_panic_kernel::kimage::{Transfer, Width};

use crate::control_page::EntryMode;
use crate::crossing::Paging;

/// Which control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    X86_64,
    /// With what is in force when it is entered.
    I386(Paging),
}

/// Which part of the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The planner says where the image waits.
    Staged,
    /// The contents lie somewhere already, and on each other's destinations.
    Ordered,
}

pub struct Case {
    pub number: u64,
    pub control: Control,
    pub mode: EntryMode,
    pub transfer: Transfer,
    pub way: Way,
    /// The last one takes the place of the kernel, too.
    pub is_last: bool,
}

impl Case {
    pub fn new(number: u64, is_last: bool) -> Self {
        let (control, mode) = match number % 3 {
            0 => (Control::X86_64, EntryMode::Bits64),
            1 => (Control::X86_64, EntryMode::Bits32),
            _ => {
                let paging = match number / 3 % 3 {
                    0 => Paging::Pae,
                    1 => Paging::Pse,
                    _ => Paging::Off,
                };
                (Control::I386(paging), EntryMode::Bits32)
            }
        };
        let transfer = if number / 3 % 2 == 0 { Transfer::Swap } else { Transfer::Copy };
        let way = if number / 6 % 2 == 0 { Way::Staged } else { Way::Ordered };
        Self { number, control, mode, transfer, way, is_last }
    }

    /// Width of the list's entries.
    pub fn width(&self) -> Width {
        match self.control {
            Control::X86_64 => Width::Bits64,
            Control::I386(_) => Width::Bits32,
        }
    }

    /// Whether the list may reach above 4 GiB.
    pub fn reaches_high(&self) -> bool {
        self.control == Control::X86_64
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { control, mode, transfer, way, .. } = self;
        write!(f, "{control:?} to {mode:?}, {transfer:?}, {way:?}")
    }
}
