"""Times `capture` beside makedumpfile on a large core, interleaved, and prints a Markdown table.

makedumpfile runs without threads of its own, which is its best mode here: with them it takes longer. Ratios are to its
zstd, wall time by wall time of the same run: above 1 the row is faster.
"""

import os
import statistics
import sys
import tempfile

from bench import run


def main():
    program, core, makedumpfile = sys.argv[1:4]
    runs = int(os.environ.get("KDUMP_RS_BENCH_RUNS", "3"))
    print(f"{os.path.getsize(core) / 1e6:.0f} MB ELF core, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
          f"median of {runs} runs\n")
    print("| work | command | wall | CPU | peak memory | file | makedumpfile's zstd / this |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(core)) as tmp:
        out = f"{tmp}/out"

        def ours(level, *more):
            return [program, "capture", core, "-o", out, "-d", level, "--force", *more]

        for level in ("1", "31"):
            commands = [
                ("makedumpfile 1.7.8 zstd", [makedumpfile, "-z", "-d", level, core, out]),
                ("kdump-rs zstd, 2 threads", ours(level, "--threads", "2")),
                ("kdump-rs zstd, 1 thread", ours(level, "--threads", "1")),
                ("makedumpfile 1.7.8 lzo", [makedumpfile, "-l", "-d", level, core, out]),
                ("kdump-rs --fast, 2 threads", ours(level, "--threads", "2", "--fast")),
                ("kdump-rs --fast, 1 thread", ours(level, "--threads", "1", "--fast")),
                ("kdump-rs lzo, 2 threads", ours(level, "--threads", "2", "-z", "lzo")),
            ]
            figures = {name: [] for name, _ in commands}
            sizes = {}
            for i in range(runs + 1):
                for name, argv in commands:
                    if os.path.exists(out):
                        os.unlink(out)
                    code, *figure = run(argv)
                    if code != 0:
                        sys.exit(f"{name}: exit {code}")
                    sizes[name] = os.path.getsize(out)
                    if i > 0 or runs == 0:
                        figures[name].append(figure)
            base = statistics.median(f[0] for f in figures[commands[0][0]])
            for name, _ in commands:
                wall, cpu, rss = (statistics.median(f[i] for f in figures[name]) for i in range(3))
                print(f"| -d {level} | {name} | {wall:.2f} s | {cpu:.2f} s | {rss:.0f} MiB | "
                      f"{sizes[name] / 1e6:.1f} MB | {base / wall:.2f} |", flush=True)


if __name__ == "__main__":
    main()
