//! Machines as directories of files.

use std::fs;

use super::*;
use crate::iomem::{Iomem, tests::SAMPLE};
use kdump_arch_x86::bootparam::BootParams;

fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// A machine whose boot loader left a color text screen.
fn text_screen() -> BootParams {
    let mut params = BootParams::default();
    params.screen_info[ORIG_VIDEO_MODE] = 3;
    params.screen_info[ORIG_VIDEO_COLS] = 80;
    params.screen_info[ORIG_VIDEO_LINES] = 25;
    params.screen_info[ORIG_VIDEO_IS_VGA] = 1;
    params
}

/// What is chosen on a machine with this command line and this screen.
fn chosen(choice: Choice, cmdline: &str, params: Option<&BootParams>, root: &Path) -> Chosen {
    let boot_params = params.map(|params| Box::new(*params));
    let iomem = Iomem::parse(SAMPLE.as_bytes()).unwrap();
    resolve(choice, &Machine { cmdline: cmdline.to_owned(), boot_params, iomem, ..Machine::default() }, root)
}

fn auto(cmdline: &str, root: &tempfile::TempDir) -> Chosen {
    chosen(Choice::Auto, cmdline, None, root.path())
}

const COM1: Console = Console::Uart8250Port { port: 0x3f8, baud: 0 };

#[test]
fn the_last_serial_console_is_used_at_its_own_speed() {
    let dir = root(&[]);
    let found = auto("console=ttyS1,9600 console=ttyS0,115200 console=tty0", &dir);
    assert_eq!((found.console, found.warning), (COM1, None));
}

#[test]
fn a_console_that_cannot_be_driven_gives_way_to_the_one_before() {
    let dir = root(&[
        ("sys/class/tty/ttyS1/port", "0x2F8\n"),
        ("sys/class/tty/ttyS1/io_type", "0\n"),
        ("sys/class/tty/ttyS1/type", "0\n"),
    ]);
    assert_eq!(auto("console=ttyS0 console=ttyS1", &dir).console, COM1);
}

#[test]
fn sysfs_gives_ports_and_registers() {
    let dir = root(&[
        ("sys/class/tty/ttyS0/port", "0x2E8\n"),
        ("sys/class/tty/ttyS0/io_type", "0\n"),
        ("sys/class/tty/ttyS0/type", "4\n"),
        ("sys/class/tty/ttyS4/port", "0x0\n"),
        ("sys/class/tty/ttyS4/io_type", "3\n"),
        ("sys/class/tty/ttyS4/type", "4\n"),
        ("sys/class/tty/ttyS4/iomem_base", "0xFE032000\n"),
        ("sys/class/tty/ttyS4/iomem_reg_shift", "2\n"),
        ("sys/class/tty/ttyS5/port", "0x0\n"),
        ("sys/class/tty/ttyS5/io_type", "2\n"),
        ("sys/class/tty/ttyS5/iomem_base", "0x4020000000\n"),
        ("sys/class/tty/ttyS6/port", "0x0\n"),
        ("sys/class/tty/ttyS6/io_type", "6\n"),
        ("sys/class/tty/ttyS7/port", "0x0\n"),
        ("sys/class/tty/ttyS7/io_type", "3\n"),
    ]);
    let tty = |index, baud| chosen(Choice::Tty { index, baud }, "", None, dir.path());
    assert_eq!(tty(0, 9600).console, Console::Uart8250Port { port: 0x2e8, baud: 9600 });
    let mmio32 = Console::Uart8250Mmio { base: 0xfe03_2000, shift: 2, width: 4, baud: 0 };
    assert_eq!((tty(4, 0).console, auto("console=ttyS4,115200", &dir).console), (mmio32, mmio32));
    assert_eq!(tty(4, 0).text, "ttyS4, 8250 at 0xfe032000 (32-bit registers, 4 bytes apart)");
    let mmio = Console::Uart8250Mmio { base: 0x40_2000_0000, shift: 0, width: 1, baud: 0 };
    assert_eq!(tty(5, 0).console, mmio);
    for (index, why) in [(6, "io_type 6"), (7, "does not tell where")] {
        let found = tty(index, 0);
        assert_eq!(found.console, Console::None);
        assert!(found.warning.unwrap().contains(why), "{}", found.text);
    }
}

#[test]
fn the_drivers_table_gives_the_port_where_sysfs_does_not() {
    let dir = root(&[(
        "proc/tty/driver/serial",
        "serinfo:1.0 driver revision:\n0: uart:16550A port:000003F8 irq:4\n1: uart:unknown port:000002F8 irq:3\n",
    )]);
    assert_eq!(auto("console=ttyS0", &dir).console, COM1);
    assert!(auto("console=ttyS1", &dir).text.contains("ttyS1 has no UART"));
}

#[test]
fn early_consoles_and_pci_cards_are_found() {
    let dir = root(&[
        ("sys/bus/pci/devices/0000:00:16.3/resource", "0xfedc9000 0xfedc9fff 0x40200\n0 0 0\n"),
        ("sys/bus/pci/devices/0000:02:00.0/resource", "0xe000 0xe007 0x40101\n"),
    ]);
    let registers = Console::Uart8250Mmio { base: 0xfedc_9000, shift: 2, width: 4, baud: 0 };
    assert_eq!(auto("earlycon=uart8250,mmio32,0xfedc9000 console=tty0", &dir).console, registers);
    assert_eq!(auto("earlyprintk=pciserial,force,00:16.3", &dir).console, registers);
    let port = Console::Uart8250Port { port: 0xe000, baud: 0 };
    assert_eq!(auto("earlyprintk=pciserial,2:0.0,115200", &dir).console, port);
    let gone = auto("earlyprintk=pciserial,3:0.0", &dir);
    assert!(gone.warning.unwrap().contains("0000:03:00.0"), "{}", gone.text);
}

#[test]
fn a_text_screen_is_used_where_there_is_no_serial_console() {
    let dir = root(&[]);
    let params = text_screen();
    let on = |cmdline| chosen(Choice::Auto, cmdline, Some(&params), dir.path()).console;
    let color = Console::VgaText { base: 0xb_8000 };
    assert_eq!((on("quiet"), on("console=tty0"), on("console=tty0 console=ttyS0")), (color, color, COM1));
    let mut monochrome = text_screen();
    monochrome.screen_info[ORIG_VIDEO_MODE] = 7;
    let found = chosen(Choice::Auto, "", Some(&monochrome), dir.path());
    assert_eq!(found.console, Console::VgaText { base: 0xb_0000 });
}

#[test]
fn a_screen_in_graphics_mode_is_left_alone_unless_named() {
    let dir = root(&[("proc/fb", "0 bochs-drmdrmfb\n")]);
    let text = text_screen();
    let found = chosen(Choice::Auto, "console=tty0", Some(&text), dir.path());
    assert!(found.warning.unwrap().contains("frame buffer"), "{}", found.text);
    let mut efi = text_screen();
    efi.screen_info[ORIG_VIDEO_IS_VGA] = 0x70;
    let found = chosen(Choice::Auto, "", Some(&efi), root(&[]).path());
    assert!(found.warning.unwrap().contains("not in VGA text mode"), "{}", found.text);
    let found = chosen(Choice::Vga, "", Some(&efi), dir.path());
    assert_eq!((found.console, found.warning), (Console::VgaText { base: 0xb_8000 }, None));
}

#[test]
fn silence_is_warned_of_unless_it_was_chosen() {
    let dir = root(&[]);
    let silent = auto("console=hvc0", &dir);
    assert_eq!(silent.console, Console::None);
    let warning = silent.warning.unwrap();
    assert!(warning.contains("SILENT") && warning.contains("--console none"), "{warning}");
    let found = chosen(Choice::None, "console=ttyS0", None, dir.path());
    assert_eq!((found.console, found.warning), (Console::None, None));
}

#[test]
fn an_address_in_ram_is_not_written_to() {
    let at = |text: &str| chosen(text.parse().unwrap(), "", None, root(&[]).path());
    let found = at("mmio32,0x1000000");
    assert_eq!(found.console, Console::None);
    assert!(found.warning.unwrap().contains("is RAM"), "{}", found.text);
    assert!(at("mmio32,0xfedc9000").warning.is_none() && at("vga").warning.is_none());
}
