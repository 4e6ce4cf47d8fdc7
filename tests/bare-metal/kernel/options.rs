//! The command line.

use core::str::FromStr;

/// What to spoil between staging and the panic, to see that the payload finds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Corrupt {
    Nothing,
    /// A page of the image, where it waits.
    Image,
    /// A page that the image displaces.
    Displaced,
    /// A page that has nothing to do with it.
    Bystander,
    /// The table itself.
    Table,
}

pub struct Options {
    pub seed: u64,
    pub cases: u64,
    pub corrupt: Corrupt,
}

impl Options {
    /// Takes `seed=N cases=N corrupt=WHAT`, all of them optional.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let mut options = Self { seed: 1, cases: 1, corrupt: Corrupt::Nothing };
        for word in line.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').ok_or("a word of the command line has no value")?;
            let number = || u64::from_str(value).map_err(|_| "a value of the command line is no number");
            match name {
                "seed" => options.seed = number()?,
                "cases" => options.cases = number()?,
                "corrupt" => {
                    options.corrupt = match value {
                        "nothing" => Corrupt::Nothing,
                        "image" => Corrupt::Image,
                        "displaced" => Corrupt::Displaced,
                        "bystander" => Corrupt::Bystander,
                        "table" => Corrupt::Table,
                        _ => return Err("nothing of this kind can be corrupted"),
                    }
                }
                _ => return Err("the command line has an unknown word"),
            }
        }
        Ok(options)
    }
}
