"""Times whole commands, ours beside the peers', interleaved, and prints a Markdown table.

Wall time is what a person waits; CPU time and peak memory are what the machine pays. Medians of
all runs after one warm-up run each. Ratios are peer / ours of the wall medians: above 1 we are
faster. Shared machines are noisy: compare ratios, not seconds.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

DRGN = r"""
import sys, drgn
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import task_state_to_char
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
try:
    prog.load_debug_info([sys.argv[2]])
except drgn.MissingDebugInfoError:
    pass  # modules
out = get_dmesg(prog)
for t in for_each_task(prog):
    print(t.pid.value_(), t.comm.string_(), task_state_to_char(t))
print(prog.crashed_thread().stack_trace())
"""


def run(argv, stdin=None):
    """Runs a command; returns (exit code, wall s, cpu s, peak MiB)."""
    start = time.monotonic()
    child = subprocess.Popen(argv, stdin=open(stdin) if stdin else subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(title, commands, runs):
    """commands: (name, argv, output file or None, stdin). The first is ours."""
    figures = {name: [] for name, *_ in commands}
    failed = {}
    for i in range(runs + 1):
        for name, argv, out, stdin in commands:
            if name in failed:
                continue
            if out and os.path.exists(out):
                os.unlink(out)
            code, *figure = run(argv, stdin)
            if code != 0:
                failed[name] = code
            elif i > 0:
                figures[name].append(figure)
    ours = statistics.median(f[0] for f in figures[commands[0][0]]) if figures[commands[0][0]] else None
    for name, _, out, _ in commands:
        if name in failed:
            print(f"| {title} | {name} | failed: exit {failed[name]} | | | | |")
            continue
        wall, cpu, rss = (statistics.median(f[i] for f in figures[name]) for i in range(3))
        size = f"{os.path.getsize(out) / 1e6:.1f} MB" if out else ""
        ratio = f"{wall / ours:.2f}" if ours else ""
        print(f"| {title} | {name} | {wall:.3f} s | {cpu:.3f} s | {rss:.0f} MiB | {size} | {ratio} |", flush=True)


def main():
    program, core, peers, vmlinux, python = sys.argv[1:6]
    runs = int(os.environ.get("KDUMP_RS_BENCH_RUNS", "5"))
    makedumpfile, crash = f"{peers}/makedumpfile", f"{peers}/crash"
    print(f"{os.path.getsize(core) / 1e6:.0f} MB ELF core, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
          f"median of {runs} runs\n")
    print("| work | command | wall | CPU | peak memory | file | wall / ours |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(core)) as tmp:
        script, commands = f"{tmp}/bench_drgn.py", f"{tmp}/crash.cmd"
        with open(script, "w") as f:
            f.write(DRGN)
        with open(commands, "w") as f:
            f.write("log\nps\nbt\nmod\nquit\n")
        compare("log, tasks, panic stack", [
            ("kdump-rs analyze (no debug symbols)", [program, "analyze", core], None, None),
            ("drgn 0.3.0 + vmlinux", [python, script, core, vmlinux], None, None),
            ("crash 9.0.2 + vmlinux", [crash, "-s", vmlinux, core, "-i", commands], None, None),
        ], runs)
        for level in ("31", "1"):
            for ours, theirs in (("zstd", "-z"), ("zlib", "-c")):
                out = [f"{tmp}/{who}-{level}-{ours}" for who in ("a", "b", "c")]
                compare(f"-d {level} {ours}", [
                    ("kdump-rs capture", [program, "capture", core, "-o", out[0], "-d", level,
                                          "--compression", ours], out[0], None),
                    ("makedumpfile 1.7.8", [makedumpfile, theirs, "-d", level, core, out[1]], out[1], None),
                    ("makedumpfile 1.7.8, 2 threads", [makedumpfile, theirs, "-d", level, "--num-threads", "2",
                                                       core, out[2]], out[2], None),
                ], runs)
                for path in out:
                    if os.path.exists(path):
                        os.unlink(path)
        out = [f"{tmp}/a.elf", f"{tmp}/b.elf"]
        compare("-d 31 ELF", [
            ("kdump-rs capture", [program, "capture", core, "-o", out[0], "-d", "31", "--format", "elf"], out[0], None),
            ("makedumpfile 1.7.8", [makedumpfile, "-E", "-d", "31", core, out[1]], out[1], None),
        ], runs)


if __name__ == "__main__":
    main()
