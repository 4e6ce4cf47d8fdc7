#!/bin/sh
# Prints our times beside the peers', from one run on one machine: `make bench`.
#   KDUMP_RS_BENCH_CORE=FILE   measure on this raw ELF vmcore of the cached 6.12 kernel
#   KDUMP_RS_BENCH_RUNS=N      runs of each command (default 5, interleaved)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"
program="$here/../target/x86_64-unknown-linux-gnu/release/kdump-rs"
"$here/setup-peers.sh"

release=$(cat "$cache/kernels/6.12/release")
core=${KDUMP_RS_BENCH_CORE:-$cache/bench/$release-1g/vmcore}
if [ ! -e "$core" ]; then
    say "making a raw core of a 1 GiB guest"
    mkdir -p "$cache/bench"
    rm -rf "$cache/bench/.new" "$cache/bench/$release-1g"
    "$program" rehearse --kernel "$cache/kernels/6.12/vmlinuz" --memory 1G --crashkernel 160M \
        --level 0 --format elf --out "$cache/bench/.new" > /dev/null
    found=$(find "$cache/bench/.new" -name vmcore | head -n 1)
    [ -n "$found" ] || die "the rehearsal left no vmcore"
    mkdir -p "$cache/bench/$release-1g"
    mv "$found" "$core"
    rm -rf "$cache/bench/.new"
fi
python3 "$here/bench.py" "$program" "$core" "$cache/peers" \
    "$cache/peers/vmlinux-$release" "$("$here/setup-oracle.sh")"

# Filtering and compressing what a machine has in memory that has been up for a while: 8 GiB, mostly page cache, tmpfs
# and anonymous memory, filled with what the files of this machine hold. Takes a quarter of an hour once, and 40 GB.
busy=${KDUMP_RS_BENCH_BUSY_CORE:-$cache/bench/$release-busy-8g/vmcore}
if [ ! -e "$busy" ]; then
    say "making a raw core of a busy 8 GiB guest"
    (cd "$here/.." && cargo build --release --locked --quiet -p kdump-rehearse --example busy_core)
    rm -rf "$cache/bench/.new" "$cache/bench/$release-busy-8g"
    found=$("$here/../target/x86_64-unknown-linux-gnu/release/examples/busy_core" \
        "$here/../target/x86_64-unknown-linux-gnu/release" "$cache/kernels/6.12/vmlinuz" 8G \
        "${KDUMP_RS_BENCH_FILES:-/usr/lib}" "$cache/bench/.new")
    mkdir -p "$cache/bench/$release-busy-8g"
    mv "$found" "$busy"
    rm -rf "$cache/bench/.new"
fi
printf '\n'
python3 "$here/bench_capture.py" "$program" "$busy" "$cache/peers/makedumpfile"

# The panic path, in guests; and the planner of page lists.
cd "$here/.."
cargo build --release --locked --quiet -p kdump-rehearse --example panic_path_time
printf '\n'
target/x86_64-unknown-linux-gnu/release/examples/panic_path_time target/x86_64-unknown-linux-gnu/release \
    "$cache/kernels/6.12/vmlinuz" "$cache/kexec-tools/root" "$cache/bench/panic-path" "${KDUMP_RS_BENCH_RUNS:-3}"
# Arming, in guests.
cargo build --release --locked --quiet -p kdump-rehearse --example arm_time
printf '\n'
target/x86_64-unknown-linux-gnu/release/examples/arm_time target/x86_64-unknown-linux-gnu/release \
    "$cache/kernels/6.12/vmlinuz" "$cache/kexec-tools/root" "$cache/bench/arm-time" "${KDUMP_RS_BENCH_RUNS:-3}"
printf '\n'
cargo run --release --locked --quiet -p kdump-panic-kernel --example kimage_cost
