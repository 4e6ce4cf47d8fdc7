//! The words of the program's first instructions: its own sum, and where the other copy is.

use goblin::elf::Elf;
use kdump_panic_kernel::selfcheck::{
    self, COPY_ENTRY_SYMBOL, COPY_HANDOFF_SYMBOL, EARLY_PORT_SYMBOL, SUM_SYMBOL, TAKEOVER_SYMBOL,
};

use super::{Error, Placed, symbol};

const WORD_SIZE: usize = size_of::<u64>();

/// Where in the image they stand, and where it takes over from another copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) sum: usize,
    pub(super) copy_entry: usize,
    pub(super) copy_handoff: usize,
    pub(super) early_port: usize,
    takeover: u64,
}

impl Words {
    /// Finds them by their symbols, all in the constant part.
    ///
    /// # Errors
    /// [`Error::NoSymbol`], [`Error::BadSymbol`].
    pub(super) fn find(elf: &Elf<'_>, constant_len: u64) -> Result<Self, Error> {
        let word = |name| {
            let value = symbol(elf, name)?;
            // The sum goes by aligned words.
            if !value.is_multiple_of(WORD_SIZE as u64) || value >= constant_len {
                return Err(Error::BadSymbol { name, value });
            }
            Ok(value as usize)
        };
        let takeover = symbol(elf, TAKEOVER_SYMBOL)?;
        if takeover >= constant_len {
            return Err(Error::BadSymbol { name: TAKEOVER_SYMBOL, value: takeover });
        }
        Ok(Self {
            sum: word(SUM_SYMBOL)?,
            copy_entry: word(COPY_ENTRY_SYMBOL)?,
            copy_handoff: word(COPY_HANDOFF_SYMBOL)?,
            early_port: word(EARLY_PORT_SYMBOL)?,
            takeover,
        })
    }
}

impl Placed {
    /// Tells two copies of each other, and each its own sum. `early_port` is that of an 8250 for the last words
    /// if both are damaged, 0 for none.
    pub fn pair(first: &mut Self, second: &mut Self, early_port: u16) {
        let (first_at, second_at) = (first.addresses(), second.addresses());
        for (this, (takeover, handoff)) in [(first, second_at), (second, first_at)] {
            let words = this.words;
            this.put(words.copy_entry, takeover);
            this.put(words.copy_handoff, handoff);
            this.put(words.early_port, early_port.into());
            let constant = this.bytes.get(..this.constant_len as usize).unwrap_or(&this.bytes);
            let sum = selfcheck::sum(constant, words.sum);
            this.put(words.sum, sum);
        }
    }

    fn addresses(&self) -> (u64, u64) {
        (self.base + self.words.takeover, self.handoff)
    }

    fn put(&mut self, at: usize, value: u64) {
        if let Some(word) = self.bytes.get_mut(at..at + WORD_SIZE) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}
