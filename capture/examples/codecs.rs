//! How fast each codec packs the pages of a dump, in time of one CPU whatever else the machine does, and how small:
//! `cargo run --release -p kdump-capture --example codecs DUMP`.

use std::path::PathBuf;
use std::time::Duration;

use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_capture::compress::{Compressor, Level};
use kdump_vmcore::kdump::Compression;
use kdump_vmcore::{Dump, PhysMem as _};

const PAGE: usize = PAGE_SIZE as usize;
/// Pages that are looked at: 256 MiB.
const PAGES: usize = 1 << 16;

const CODECS: [(Compression, Level); 14] = [
    (Compression::Snappy, Level::Usual),
    (Compression::Lzo, Level::Usual),
    (Compression::Zstd, Level::Number(-20)),
    (Compression::Zstd, Level::Number(-10)),
    (Compression::Zstd, Level::Number(-5)),
    (Compression::Zstd, Level::Number(-3)),
    (Compression::Zstd, Level::Number(-1)),
    (Compression::Zstd, Level::Number(1)),
    (Compression::Zstd, Level::Number(3)),
    (Compression::Zlib, Level::Number(1)),
    (Compression::Zlib, Level::Number(2)),
    (Compression::Zlib, Level::Number(3)),
    (Compression::Zlib, Level::Number(6)),
    (Compression::Zlib, Level::Number(9)),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path: PathBuf = std::env::args_os().nth(1).ok_or("usage: codecs DUMP")?.into();
    let pages = read_pages(&Dump::open(&path)?);
    println!("{} pages that are not all zeros, {} MB", pages.len() / PAGE, pages.len() / 1_000_000);
    println!("{:<8} {:>5} {:>8} {:>6} {:>9}", "codec", "level", "MB/s", "ratio", "stored %");
    for (how, level) in CODECS {
        let mut codec = Compressor::new(how, level)?;
        let mut out = vec![0; PAGE];
        let (mut bytes, mut stored) = (0, 0);
        let begin = cpu_time()?;
        for page in pages.chunks_exact(PAGE) {
            match codec.page(page, &mut out) {
                Some(n) => bytes += n,
                None => (bytes, stored) = (bytes + PAGE, stored + 1),
            }
        }
        let speed = pages.len() as f64 / 1e6 / (cpu_time()? - begin).as_secs_f64();
        let ratio = pages.len() as f64 / bytes as f64;
        let stored = 100.0 * f64::from(stored) * PAGE as f64 / pages.len() as f64;
        let level = level.number(how)?;
        println!("{:<8} {level:>5} {speed:>8.0} {ratio:>6.3} {stored:>9.1}", how.name());
    }
    Ok(())
}

/// The first pages of the dump that are not all zeros, one behind the other.
fn read_pages(dump: &Dump) -> Vec<u8> {
    let mut out = Vec::new();
    let mut page = [0; PAGE];
    for range in dump.ram() {
        for at in (range.start().0..range.end().0).step_by(PAGE) {
            if dump.read(PhysAddr(at), &mut page).is_ok() && page.iter().any(|&b| b != 0) {
                out.extend_from_slice(&page);
            }
            if out.len() == PAGES * PAGE {
                return out;
            }
        }
    }
    out
}

/// Time that this thread has run. Source: Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat.
fn cpu_time() -> std::io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().and_then(|n| n.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| std::io::Error::other(format!("schedstat says {stat:?}")))
}
