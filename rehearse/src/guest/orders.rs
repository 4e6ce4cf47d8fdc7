//! What the host tells the guest: a file in its initramfs, one order a line.

use std::fs;

use crate::Crash;

/// The orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orders {
    /// How to crash.
    pub crash: Crash,
    /// Arguments of `kdump-rs arm`.
    pub arm: Vec<String>,
}

impl Orders {
    /// Where the file is in the guest.
    pub const PATH: &'static str = "/etc/kdump-rs/rehearse";

    /// The file's text: `crash WAY`, then `arm ARGUMENT` for each argument.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("crash {}\n", self.crash);
        for argument in &self.arm {
            text.push_str(&format!("arm {argument}\n"));
        }
        text
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// The line that is no order.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut orders = Self { crash: Crash::default(), arm: vec![] };
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("crash", way)) => orders.crash = way.parse().map_err(|e| format!("{e}"))?,
                Some(("arm", argument)) => orders.arm.push(argument.to_owned()),
                _ => return Err(format!("{line:?} is no order")),
            }
        }
        Ok(orders)
    }

    pub(super) fn read() -> Result<Self, String> {
        Self::parse(&fs::read_to_string(Self::PATH).map_err(|e| format!("cannot read {}: {e}", Self::PATH))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_file() {
        let arm = ["--level", "31", "--target", "/var/my crash"].map(str::to_owned).to_vec();
        let orders = Orders { crash: Crash::Sysrq, arm };
        assert_eq!(Orders::parse(&orders.to_text()), Ok(orders));
    }

    #[test]
    fn a_line_that_is_no_order_is_named() {
        assert_eq!(Orders::parse("crash sysrq\nmarch\n"), Err("\"march\" is no order".to_owned()));
    }
}
