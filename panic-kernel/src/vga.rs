//! The VGA text screen, written from the bottom: what the crashed kernel printed scrolls up and stays.
//!
//! Nothing is waited for and nothing is asked of the adapter: the mode is the one the kernel left, and the
//! loader chooses this console only where that was text.
//!
//! Source: `arch/x86/kernel/early_printk.c`.

use crate::line::{Line, Sink};

/// Characters of a row.
pub const COLUMNS: usize = 80;
/// Rows of the screen.
pub const ROWS: usize = 25;

/// White on blue, to be told from what the kernel wrote.
const ATTRIBUTE: u16 = 0x1f00;

/// The character cells of the screen, `row * 80 + column`; a character in the low byte, its attribute above.
pub trait Cells {
    /// Reads a cell.
    fn read(&mut self, cell: usize) -> u16;
    /// Writes a cell.
    fn write(&mut self, cell: usize, value: u16);
}

/// The screen.
pub struct VgaText<C>(pub C);

impl<C: Cells> VgaText<C> {
    /// Moves everything up by a row and clears the last one.
    fn scroll(&mut self) {
        for cell in COLUMNS..ROWS * COLUMNS {
            let value = self.0.read(cell);
            self.0.write(cell - COLUMNS, value);
        }
        for cell in (ROWS - 1) * COLUMNS..ROWS * COLUMNS {
            self.0.write(cell, ATTRIBUTE | u16::from(b' '));
        }
    }
}

impl<C: Cells> Sink for VgaText<C> {
    fn line(&mut self, line: &Line) {
        for row in line.as_bytes().chunks(COLUMNS) {
            self.scroll();
            for (column, &byte) in row.iter().enumerate() {
                self.0.write((ROWS - 1) * COLUMNS + column, ATTRIBUTE | u16::from(byte));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    struct Screen(Vec<u16>);

    impl Cells for &mut Screen {
        fn read(&mut self, cell: usize) -> u16 {
            self.0[cell]
        }

        fn write(&mut self, cell: usize, value: u16) {
            self.0[cell] = value;
        }
    }

    fn row(screen: &Screen, row: usize) -> String {
        let cells = &screen.0[row * COLUMNS..][..COLUMNS];
        cells.iter().map(|&cell| char::from(cell as u8)).collect()
    }

    #[test]
    fn lines_appear_at_the_bottom_and_push_the_rest_up() {
        let mut screen = Screen(vec![0x0700 | u16::from(b'k'); ROWS * COLUMNS]);
        let mut line = Line::empty();
        line.str("first");
        VgaText(&mut screen).line(&line);
        let mut line = Line::empty();
        line.str(&"wide ".repeat(20));
        VgaText(&mut screen).line(&line);
        assert_eq!(row(&screen, 21), "k".repeat(80));
        assert_eq!(row(&screen, 22).trim_end(), "first");
        assert_eq!(row(&screen, 23), "wide ".repeat(16));
        assert_eq!(row(&screen, 24).trim_end(), "wide ".repeat(4).trim_end());
        assert_eq!(screen.0[22 * COLUMNS], 0x1f00 | u16::from(b'f'));
    }
}
