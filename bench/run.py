#!/usr/bin/python3
"""The figures of husk: each as ours, theirs and their ratio with its spread, measured side by side in one run.

A figure is measured in interleaved pairs (ours, theirs, ours, ...). The ratio is the median of the pairs' ratios; the spread is
from the lowest to the highest. `run.py NAME...` runs some of them, `--json FILE` also writes everything as JSON."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import network  # noqa: E402

FIGURES = {}


def figure(unit, goal, better="lower"):
    def register(function):
        FIGURES[function.__name__] = (function, unit, goal, better)
        return function
    return register


class Bench:
    def __init__(self, husk, work, pairs):
        self.husk, self.work, self.pairs = str(husk), work, pairs
        self.env = dict(os.environ, XDG_CACHE_HOME=str(work / "cache"), LC_ALL="C")

    def compile(self, name, *flags):
        output = self.work / (name + "".join(flags))
        if not output.exists():
            subprocess.run(["gcc", "-O2", "-w", "-o", output, ROOT / f"bench/programs/{name}.c", "-pthread", "-lm", *flags], check=True)
        return str(output)

    def run(self, *command, **more):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=self.env, **more)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr[-500:]}")
        return done

    def number(self, *command):
        return float(self.run(*command).stdout.split()[-1])

    def numbers(self, *command):
        return [float(x) for x in self.run(*command).stdout.split()]

    def image(self, program, *options):
        target = self.work / (pathlib.Path(program).name + ".husk")
        if not target.exists():
            self.run(self.husk, "build", program, "-o", target, *options)
        return target

    def interleaved(self, ours, theirs):
        """Runs both alternately, after one warm-up of each; gives two lists."""
        ours(), theirs()
        left, right = [], []
        for _ in range(self.pairs):
            left.append(ours())
            right.append(theirs())
        return left, right

    def same_program(self, program, *options):
        """One program that prints its own figure: in a machine, and on the host pinned to one CPU."""
        image = self.image(program)
        return self.interleaved(lambda: self.number(self.husk, "run", *options, image), lambda: self.number("taskset", "-c", "1", program))


@figure("ns", "at most 10 ns, ratio at most 0.04 (Linux on the host)")
def getppid(b):
    return b.same_program(b.compile("getppid"))


@figure("ms", "ratio at most 0.33 (Linux on the host, 4 KiB faults)")
def touch_512_mib(b):
    return b.same_program(b.compile("touch"), "-m", "1G")


@figure("ms", "the limit of touch_512_mib: the host with 2 MiB pages")
def touch_512_mib_limit(b):
    program = b.compile("touch")
    image = b.image(program)
    return b.interleaved(lambda: b.number(b.husk, "run", "-m", "1G", image), lambda: b.number("taskset", "-c", "1", program, "huge"))


@figure("ns", "ratio at most 0.5 (Linux on the host, one CPU)")
def futex_switch(b):
    return b.same_program(b.compile("pingpong"))


@figure("us", "ratio at most 0.5 (Linux on the host, one CPU)")
def pthread_create_join(b):
    return b.same_program(b.compile("create"))


@figure("ms", "ratio at most 1.03 (Linux on the host)")
def compute(b):
    return b.same_program(b.compile("compute"))


def crun_bundle(b, program):
    bundle = b.work / "bundle"
    (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
    shutil.copy(program, bundle / "rootfs/hello")
    b.run("crun", "spec", cwd=bundle) if not (bundle / "config.json").exists() else None
    config = json.loads((bundle / "config.json").read_text())
    # No rlimits and no device cgroup: raising RLIMIT_MEMLOCK for them needs a capability that test machines lack.
    config["process"].update(args=["/hello"], terminal=False, rlimits=[])
    config["linux"].pop("resources", None)
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


@figure("ms", "ratio at most 1, under 15 ms (crun run of the same static binary)")
def hello(b):
    (b.work / "hello.c").write_text('#include <stdio.h>\nint main(void) { puts("hello, world"); return 0; }\n')
    program = str(b.work / "hello")
    subprocess.run(["gcc", "-O2", "-static", "-o", program, b.work / "hello.c"], check=True)
    image, bundle, spawn = b.image(program), crun_bundle(b, program), b.compile("spawn")
    # crun refuses the hybrid cgroup layout: give it cgroup2 in a mount namespace of its own, once for all of its runs.
    script = f"umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; cd {bundle}; exec {spawn} 5 crun run husk-bench-{os.getpid()}"
    theirs = lambda: statistics.median(b.numbers("unshare", "-m", "sh", "-c", script))
    return b.interleaved(lambda: statistics.median(b.numbers(spawn, 5, b.husk, "run", image)), theirs)


@figure("ms", "how far hello is from an empty VM (create, one instruction, destroy)")
def hello_against_empty_vm(b):
    (b.work / "hello.c").write_text('#include <stdio.h>\nint main(void) { puts("hello, world"); return 0; }\n')
    program = str(b.work / "hello")
    subprocess.run(["gcc", "-O2", "-static", "-o", program, b.work / "hello.c"], check=True)
    image, spawn, empty = b.image(program), b.compile("spawn"), b.compile("empty_vm")
    return b.interleaved(lambda: statistics.median(b.numbers(spawn, 5, b.husk, "run", image)), lambda: statistics.median(b.numbers(empty, 5)))


@figure("ms", "first guest instruction to the program's entry: at most 2 ms (theirs: the same in an empty process, start to entry)")
def boot(b):
    hello(b) if not (b.work / "hello.husk").exists() else None
    def ours():
        lines = b.run(b.husk, "run", "--timeline", "--json", b.work / "hello.husk").stderr.splitlines()
        times = json.loads(next(line for line in lines if line.startswith("{")))["timeline_ms"]
        return times["program_start"] - times["first_instruction"]
    spawn = b.compile("spawn")
    return b.interleaved(ours, lambda: statistics.median(b.numbers(spawn, 5, b.work / "hello")))


@figure("MB/s", "standard input to standard output through cat (Linux: the same pipes)", better="higher")
def pipe_throughput(b):
    size = 1 << 30
    def through(*command):
        line = " ".join(map(str, command))
        script = f"import subprocess,time;t=time.monotonic();subprocess.run('head -c {size} /dev/zero | {line} > /dev/null',shell=True,check=True);print({size}/1e6/(time.monotonic()-t))"
        return b.number(sys.executable, "-c", script)
    image = b.image("/bin/cat")
    return b.interleaved(lambda: through(b.husk, "run", image), lambda: through("cat"))


FIGURES.update(network.FIGURES)


def report(name, unit, goal, better, ours, theirs):
    ratios = sorted(o / t for o, t in zip(ours, theirs))
    row = {"name": name, "unit": unit, "goal": goal, "better": better, "ours": statistics.median(ours), "theirs": statistics.median(theirs),
           "ratio": statistics.median(ratios), "ratio_low": ratios[0], "ratio_high": ratios[-1], "pairs": len(ratios), "ours_all": ours, "theirs_all": theirs}
    print(f"{name:24} ours {row['ours']:10.3f} {unit:5} theirs {row['theirs']:10.3f} {unit:5} ratio {row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f}, "
          f"{row['pairs']} pairs)   goal: {goal}", flush=True)
    return row


def image_sizes(b):
    """Sizes are counted, not timed: nub and kernel, the image of the static hello, the smallest -m that runs it."""
    image = b.work / "hello.husk"
    if not image.exists():
        hello(b)
    smallest = next((m for m in (2, 3, 4, 6, 8, 16) if subprocess.run([b.husk, "run", "-m", f"{m}M", image], capture_output=True, env=b.env).returncode == 0), None)
    sizes = json.loads(b.run(b.husk, "inspect", "--json", image).stdout)
    program = (b.work / "hello").stat().st_size
    row = {"name": "sizes", "image_bytes": image.stat().st_size, "program_bytes": program, "smallest_memory_mib": smallest, "inspect": sizes}
    print(f"{'sizes':24} hello image {row['image_bytes']} bytes, of them the program {program}; smallest -m {smallest}M")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--husk", default=ROOT / "build/husk", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--pairs", default=7, type=int)
    parser.add_argument("names", nargs="*", help=f"from: {' '.join(FIGURES)} sizes")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(FIGURES) - {"sizes"}
    if unknown:
        parser.error(f"no such figure: {' '.join(sorted(unknown))}")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("bench: /dev/kvm cannot be used here; these figures are about KVM", file=sys.stderr)
        return 1
    # Autogroup scheduling makes `nice` useless between sessions; this protects the runs where it is allowed.
    try:
        pathlib.Path("/proc/self/autogroup").write_text("-19")
    except OSError:
        pass
    rows, failed = [], []
    with tempfile.TemporaryDirectory(prefix="husk-bench-") as folder:
        b = Bench(arguments.husk.resolve(), pathlib.Path(folder), arguments.pairs)
        for name, (function, unit, goal, better) in FIGURES.items():
            if arguments.names and name not in arguments.names:
                continue
            try:
                rows.append(report(name, unit, goal, better, *function(b)))
            except (RuntimeError, OSError, subprocess.CalledProcessError, StopIteration, ValueError) as error:
                failed.append(name)
                print(f"{name:24} failed: {error!r}", flush=True)
        if not arguments.names or "sizes" in arguments.names:
            rows.append(image_sizes(b))
    if arguments.json:
        arguments.json.write_text(json.dumps({"figures": rows, "failed": failed}, indent=1) + "\n")
    return 1 if failed else 0


sys.exit(main())
