//! What the host tells the guest: a file in its initramfs, one order a line.

use std::fs;
use std::net::Ipv4Addr;

use crate::{Added, Crash, Mount};

/// The orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orders {
    /// How to crash.
    pub crash: Crash,
    /// Arguments of `kdump-rs arm`.
    pub arm: Vec<String>,
    /// The CPU to crash on.
    pub panic_cpu: Option<u32>,
    /// Bytes to be filled with pattern pages.
    pub pattern_bytes: u64,
    /// Bytes to be filled with the contents of the files on the disk.
    pub load_bytes: u64,
    /// Wait, armed, until the host says go.
    pub is_held: bool,
    /// Arguments of `kdump-rs kexec load`, for an image that is entered instead of crashing.
    pub kexec: Vec<String>,
    /// How often the guest boots itself anew by an ordinary kexec before anything else; its initramfs is on the
    /// second disk.
    pub reboots: u32,
    /// Arguments of a second `arm`, which must fail and leave the guest armed.
    pub failing_arm: Vec<String>,
    /// A command that loads the capture kernel, instead of `kdump-rs arm`.
    pub loader: Vec<String>,
    /// A command that loads another capture kernel once the host said go.
    pub second_loader: Vec<String>,
    /// Call EFI runtime services.
    pub is_efi: bool,
    /// The CPU to take offline and back, once armed.
    pub toggled_cpu: Option<u32>,
    /// Command lines of `kdump-rs` to run once armed, whatever they end with.
    pub asked: Vec<String>,
    /// What comes while it waits.
    pub added: Added,
    /// More modules to load.
    pub modules: Vec<String>,
    /// Address of its network device.
    pub address: Option<Ipv4Addr>,
    /// File systems to mount before it is armed.
    pub mounts: Vec<Mount>,
}

impl Orders {
    /// Where the file is in the guest.
    pub const PATH: &'static str = "/etc/kdump-rs/rehearse";

    /// The file's text: `crash WAY`, `arm ARGUMENT` for each argument, and what else there is.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("crash {}\n", self.crash);
        for argument in &self.arm {
            text.push_str(&format!("arm {argument}\n"));
        }
        if let Some(cpu) = self.panic_cpu {
            text.push_str(&format!("panic-cpu {cpu}\n"));
        }
        if self.pattern_bytes > 0 {
            text.push_str(&format!("pattern {}\n", self.pattern_bytes));
        }
        if self.load_bytes > 0 {
            text.push_str(&format!("load {}\n", self.load_bytes));
        }
        if self.is_held {
            text.push_str("hold on\n");
        }
        if let Some(cpu) = self.toggled_cpu {
            text.push_str(&format!("toggle-cpu {cpu}\n"));
        }
        for line in &self.asked {
            text.push_str(&format!("ask {line}\n"));
        }
        for (order, number) in
            [("added-cpus", u64::from(self.added.cpus)), ("added-memory", self.added.memory)]
        {
            if number > 0 {
                text.push_str(&format!("{order} {number}\n"));
            }
        }
        if self.added.is_armed_again {
            text.push_str("arm-again on\n");
        }
        for module in &self.modules {
            text.push_str(&format!("module {module}\n"));
        }
        if let Some(address) = self.address {
            text.push_str(&format!("address {address}\n"));
        }
        for Mount { device, fstype, directory } in &self.mounts {
            text.push_str(&format!("mount {device} {fstype} {directory}\n"));
        }
        for word in &self.loader {
            text.push_str(&format!("loader {word}\n"));
        }
        for word in &self.second_loader {
            text.push_str(&format!("second-loader {word}\n"));
        }
        if self.is_efi {
            text.push_str("efi on\n");
        }
        for argument in &self.kexec {
            text.push_str(&format!("kexec {argument}\n"));
        }
        if self.reboots > 0 {
            text.push_str(&format!("reboots {}\n", self.reboots));
        }
        for argument in &self.failing_arm {
            text.push_str(&format!("failing-arm {argument}\n"));
        }
        text
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// The line that is no order.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut orders = Self {
            crash: Crash::default(),
            arm: vec![],
            panic_cpu: None,
            pattern_bytes: 0,
            load_bytes: 0,
            is_held: false,
            kexec: vec![],
            reboots: 0,
            failing_arm: vec![],
            loader: vec![],
            second_loader: vec![],
            is_efi: false,
            toggled_cpu: None,
            asked: vec![],
            added: Added::default(),
            modules: vec![],
            address: None,
            mounts: vec![],
        };
        let number = |line: &str, text: &str| -> Result<u64, String> {
            text.parse().map_err(|_| format!("{line:?} is no order"))
        };
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("crash", way)) => orders.crash = way.parse().map_err(|e| format!("{e}"))?,
                Some(("arm", argument)) => orders.arm.push(argument.to_owned()),
                Some(("panic-cpu", cpu)) => orders.panic_cpu = Some(number(line, cpu)? as u32),
                Some(("toggle-cpu", cpu)) => orders.toggled_cpu = Some(number(line, cpu)? as u32),
                Some(("pattern", bytes)) => orders.pattern_bytes = number(line, bytes)?,
                Some(("load", bytes)) => orders.load_bytes = number(line, bytes)?,
                Some(("ask", line)) => orders.asked.push(line.to_owned()),
                Some(("added-cpus", cpus)) => orders.added.cpus = number(line, cpus)? as u32,
                Some(("added-memory", bytes)) => orders.added.memory = number(line, bytes)?,
                Some(("arm-again", "on")) => orders.added.is_armed_again = true,
                Some(("module", name)) => orders.modules.push(name.to_owned()),
                Some(("address", text)) => {
                    orders.address = Some(text.parse().map_err(|_| format!("{line:?} is no order"))?);
                }
                Some(("mount", text)) => {
                    orders.mounts.push(read_mount(text).ok_or_else(|| format!("{line:?} is no order"))?)
                }
                Some(("loader", word)) => orders.loader.push(word.to_owned()),
                Some(("second-loader", word)) => orders.second_loader.push(word.to_owned()),
                Some(("efi", "on")) => orders.is_efi = true,
                Some(("hold", "on")) => orders.is_held = true,
                Some(("kexec", argument)) => orders.kexec.push(argument.to_owned()),
                Some(("reboots", times)) => orders.reboots = number(line, times)? as u32,
                Some(("failing-arm", argument)) => orders.failing_arm.push(argument.to_owned()),
                _ => return Err(format!("{line:?} is no order")),
            }
        }
        Ok(orders)
    }

    pub(super) fn read() -> Result<Self, String> {
        Self::parse(&fs::read_to_string(Self::PATH).map_err(|e| format!("cannot read {}: {e}", Self::PATH))?)
    }
}

fn read_mount(text: &str) -> Option<Mount> {
    let mut words = text.splitn(3, ' ').map(str::to_owned);
    Some(Mount { device: words.next()?, fstype: words.next()?, directory: words.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_file() {
        let arm = ["--level", "31", "--target", "/var/my crash"].map(str::to_owned).to_vec();
        let orders = Orders {
            crash: Crash::Sysrq,
            arm,
            panic_cpu: Some(1),
            pattern_bytes: 1 << 28,
            load_bytes: 6 << 30,
            is_held: true,
            kexec: vec!["--probe".into()],
            reboots: 3,
            failing_arm: vec!["--load-test".into()],
            loader: vec!["kexec".into(), "-p".into()],
            second_loader: vec!["kexec".into(), "-d".into()],
            is_efi: true,
            toggled_cpu: Some(1),
            asked: vec!["doctor --json".into(), "reserve".into()],
            added: Added { cpus: 2, memory: 1 << 30, is_armed_again: true },
            modules: vec!["i6300esb".into()],
            address: Some(Ipv4Addr::new(10, 0, 2, 15)),
            mounts: vec![Mount {
                device: "/dev/vdb".into(),
                fstype: "xfs".into(),
                directory: "/mnt/a b".into(),
            }],
        };
        assert_eq!(Orders::parse(&orders.to_text()), Ok(orders));
    }

    #[test]
    fn a_line_that_is_no_order_is_named() {
        assert_eq!(Orders::parse("crash sysrq\nmarch\n"), Err("\"march\" is no order".to_owned()));
    }
}
