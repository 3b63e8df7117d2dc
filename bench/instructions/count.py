#!/usr/bin/python3
"""Counts the instructions that the kernel spends on a batch of redis's requests, by callgrind: repeatable, whatever else the machine does.

    bench/instructions/count.py --build build [--pipeline 16] [--burst 10] [--batches 2000] [--top 25]

One batch is one read(2) and one write(2) of PIPELINE requests by one of 50 clients; BURST frames arrive while the vCPU is parked. The program is
redis_path.cc: the kernel's own code, built as for a machine, with a device, clients and a program of the bench. Prints the sum, the sum by layer
(where the source file of each instruction belongs), and the functions that cost most, themselves and with what they call. The user copy's bytes count as one
instruction each. Not counted: entry from the program, saving of vector registers, the monitor."""
import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# By the path of the source, then, for what is inlined from base/ or libstdc++, by the function's name.
LAYERS = [("driver", r"kernel/drivers", r"drivers::"), ("TCP", r"kernel/net/tcp/", r"net::tcp::"), ("IP and link", r"kernel/net/|/wire/", r"net::|wire::"),
          ("packets", r"kernel/packet", r"packet::"), ("heap", r"kernel/mem/(heap|frames|new|frame_info)", r"^mem::|operator (new|delete)"),
          ("user copy", r"kernel/mem/user", r"user_copy|^0x"), ("memcpy", r"kernel/boot/runtime", r"^mem(cpy|move|set|cmp)$"), ("epoll and files", r"kernel/vfs", r"vfs::"),
          ("system calls and sockets", r"kernel/linux", r"linux::|sys_"), ("scheduler", r"kernel/sched", r"sched::"), ("time", r"kernel/time", r"time::")]


class Profile:
    """A callgrind.out file: cost by function and source file, inclusive cost by function."""

    def __init__(self, path):
        self.own, self.inclusive = collections.Counter(), collections.Counter()
        names, function, file, callee, call = {"f": {}, "n": {}}, None, None, None, False

        def resolve(kind, text):
            number, name = re.match(r"\((\d+)\)(?: (.*))?$", text).groups()
            return names[kind].setdefault(number, name)

        for line in open(path):
            key, _, value = line.rstrip("\n").partition("=")
            if key in ("fl", "fi", "fe", "cfi", "cfl"):
                named = resolve("f", value)
                file = file if key.startswith("c") else named
            elif key == "fn":
                function = resolve("n", value)
            elif key == "cfn":
                callee = resolve("n", value)
            elif key == "calls":
                call = True
            elif (cost := re.match(r"[+\-*\d]\S* (\d+)$", key)) and function is not None:
                if not call:
                    self.own[plain(function), file] += int(cost.group(1))
                elif callee != function:
                    self.inclusive[plain(callee)] += int(cost.group(1))
                call = False


def plain(name):
    name = re.sub(r"\[clone [^\]]*\]", "", name).replace("husk::", "").replace("(anonymous namespace)::", "")
    return re.sub(r"\(.*\)( const)?$", "", name).strip()


def layer_of(function, file):
    for by_name in (False, True):
        for layer, path, name in LAYERS:
            if re.search(name if by_name else path, function if by_name else file or ""):
                return layer
    return "the bench itself" if "bench/" in (file or "") else "other"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build", type=pathlib.Path)
    parser.add_argument("--pipeline", default=16, type=int)
    parser.add_argument("--burst", default=10, type=int)
    parser.add_argument("--batches", default=2000, type=int)
    parser.add_argument("--top", default=25, type=int)
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        print("count: valgrind is missing; install it: apt-get install valgrind", file=sys.stderr)
        return 1
    subprocess.run(["ninja", "-C", arguments.build, "--quiet", "husk_redis_path"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "callgrind.out")
        program = [arguments.build / "bench/instructions/redis_path", "50", arguments.pipeline, arguments.burst, arguments.batches]
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", f"--callgrind-out-file={out}", *program]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            print(f"count: {done.stderr}", file=sys.stderr)
            return 1
        # Some more than asked for: those that were ready at the end.
        batches = int(re.search(r"^batches (\d+)", done.stderr, re.M).group(1))
        profile = Profile(out)
    print(f"{sum(profile.own.values()) / batches:10.0f}  instructions a batch; pipeline of {arguments.pipeline}, {arguments.burst} frames a park, {batches} batches")
    layers, functions = collections.Counter(), collections.Counter()
    for (function, file), cost in profile.own.items():
        layers[layer_of(function, file)] += cost
        functions[function] += cost
    for layer, cost in layers.most_common():
        print(f"{cost / batches:10.0f}  {layer}")
    print(f"\n{'own':>10}  {'with calls':>10}")
    for function, cost in functions.most_common(arguments.top):
        print(f"{cost / batches:10.0f}  {max(cost, profile.inclusive[function]) / batches:10.0f}  {function[:100]}")
    return 0


sys.exit(main())
