//! Writes the dump of a ready-made machine to a file, for a look at it with other readers.
//!
//! `cargo run -p kdump-synth --example write -- linux_6_12 elf /tmp/vmcore`

use kdump_synth::{Compression, Machine, flatten};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, format, path] = &arguments[..] else {
        eprintln!(
            "usage: write linux_5_10|linux_6_1|linux_6_12|linux_7_3 elf|elf31|zlib|zstd|raw|zlib31|flat OUTPUT"
        );
        std::process::exit(2);
    };
    let machine = match kernel.as_str() {
        "linux_5_10" => Machine::linux_5_10(),
        "linux_6_1" => Machine::linux_6_1(),
        "linux_6_12" => Machine::linux_6_12(),
        "linux_7_3" => Machine::linux_7_3(),
        other => panic!("no ready-made machine is called {other}"),
    };
    let bytes = match format.as_str() {
        "elf" => machine.elf_core().bytes(),
        "elf31" => machine.elf_core_at_level(31).bytes(),
        "zlib" => machine.kdump().bytes(),
        "zstd" => machine.kdump().compression(Compression::Zstd).bytes(),
        "raw" => machine.kdump().compression(Compression::None).bytes(),
        "zlib31" => machine.kdump_at_level(31).bytes(),
        "flat" => flatten(&machine.kdump().bytes(), 1 << 16),
        other => panic!("no format is called {other}"),
    };
    std::fs::write(path, bytes)
}
