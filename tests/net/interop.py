#!/usr/bin/python3
"""TCP between Linux and a husk machine over a bad line: interop_peer.c at both ends, interop_link.cc between them.

    machine -- huski0 -- bridge -- huski1 [interop_link] huski2 -- Linux

All of it is in a network and process name space of its own, which ends with this program. Four connections: the machine listens, then the machine
connects, over IPv4 and over IPv6 each; on every one both ends send at once, and check every byte. It also checks that the line was bad: frames were
lost, repeated, late and damaged in both directions, and Linux saw wrong checksums. (Where a frame came twice or late, both stacks had to cope.)
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TAP, BRIDGE, NEAR, FAR = "huski0", "huski3", "huski1", "huski2"
LINUX, MACHINE = ("10.86.0.1", "fd86::1"), ("10.86.0.2", "fd86::2")
PORT = 5000
FAULTS = {"loss": 0.01, "duplicate": 0.005, "reorder": 0.005, "corrupt": 0.002}
UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}


class Failure(Exception):
    pass


def why_not_here():
    """Why this host cannot run it; None if it can."""
    if os.geteuid() != 0:
        return "needs root, for a network name space and TAP interfaces"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be used here"
    return None


def enter_name_space(script):
    """Runs the script again in name spaces of its own; all processes in them end with it."""
    if os.environ.get("HUSK_OWN_SPACE") != script:
        os.environ["HUSK_OWN_SPACE"] = script
        os.execvp("unshare", ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-u", script, *sys.argv[1:]])


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def make_network():
    setting = pathlib.Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    setting.write_text("1")
    ip("link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0")
    for name in (TAP, NEAR, FAR):
        ip("tuntap", "add", name, "mode", "tap")
    for name in (TAP, NEAR):
        ip("link", "set", name, "master", BRIDGE)
    pathlib.Path(f"/proc/sys/net/ipv6/conf/{FAR}/disable_ipv6").write_text("0")
    # The bridge is Linux, too: it must not answer for an address that is behind the line.
    pathlib.Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/arp_ignore").write_text("1")
    for name in (BRIDGE, TAP, NEAR, FAR, "lo"):
        ip("link", "set", name, "up")
    ip("addr", "add", f"{LINUX[0]}/24", "dev", FAR)
    ip("addr", "add", f"{LINUX[1]}/64", "dev", FAR, "nodad")


def compile_program(name, work):
    source = HERE / name
    flags = re.match(r"// flags:(.*)", source.read_text()).group(1).split()
    output = work / source.stem
    subprocess.run(["g++" if source.suffix == ".cc" else "gcc", *flags, "-o", output, source], check=True)
    return output


class Process:
    """A program in the background; its output is in a file."""

    def __init__(self, work, name, command):
        self.name, self.path = name, work / f"{name}.log"
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        return self.path.read_text(errors="replace")

    def await_line(self, line, seconds, others=()):
        end = time.monotonic() + seconds
        while line not in self.said().splitlines():
            for process in (self, *others):
                if process.process.poll() is not None:
                    raise Failure(f"{process.name} ended with {process.process.returncode}: {process.said()[-2000:]}")
            if time.monotonic() > end:
                raise Failure(f"{self.name} has not said {line!r} after {seconds:.0f} s: {self.said()[-2000:]}")
            time.sleep(0.02)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def machine_command(arguments, program, *words):
    addresses = [word for address, size in zip(MACHINE, (24, 64)) for word in ("--ip", f"{address}/{size}")]
    return [arguments.husk, "run", "--net", f"tap={TAP}", *addresses, *arguments.option, "-m", "128M", program, *words]


def converse(arguments, work, peer, machine_listens, number):
    """One machine; one connection over IPv4 and one over IPv6."""
    seed, size, patience = arguments.seed + number, arguments.bytes // 2, 60 + arguments.bytes / 200_000
    names = ("machine", "linux") if machine_listens else ("linux", "machine")
    addresses = MACHINE if machine_listens else LINUX
    processes = []
    try:
        for name, words in zip(names, (("listen", PORT, size, seed, 2), ("connect", PORT, size, seed, *addresses))):
            command = [peer, *words] if name == "linux" else machine_command(arguments, peer, *words)
            processes.append(Process(work, f"{name}-{number}", command))
            if len(processes) == 1:
                processes[0].await_line("listening", 30)
        for process, other in (processes, reversed(processes)):
            process.await_line("done", patience, (other,))
        for version, seconds in zip((4, 6), re.findall(r"([\d.]+) s$", processes[0].said(), re.M)):
            rate = 2 * size / 1e6 / max(float(seconds), 0.01)
            print(f"interop: {names[0]} listens, {names[1]} connects, IPv{version}: {size / 1e6:.1f} MB each way in {seconds} s ({rate:.1f} MB/s)", flush=True)
    finally:
        for process in processes:
            process.end()
    for process in processes:
        for word in ("PANIC", "panic:", "guest crashed"):
            if word in process.said():
                raise Failure(f"{process.name} said: {process.said()[-2000:]}")


def check_line(said, asked):
    counts = re.findall(r"^(\w+): (\d+) frames, (\d+) lost, (\d+) repeated, (\d+) late, (\d+) damaged, (\d+)", said, re.M)
    if len(counts) != 2:
        raise Failure(f"the line said: {said}")
    for direction, count in zip(("to Linux", "to the machine"), counts):
        print("interop: {}: {} frames, {} lost, {} repeated, {} late, {} damaged, {} found the line full".format(direction, *count[1:]))
        for name, number in zip(FAULTS, count[2:6]):
            if number == "0" and asked[name] > 0:
                raise Failure(f"the line was too good for a test: {name}")
    lines = [line.split() for line in pathlib.Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    counters = dict(zip(*lines))
    print("interop: Linux saw {InCsumErrors} wrong checksums, sent {RetransSegs} segments again of {OutSegs}".format(**counters), flush=True)
    if counters["InCsumErrors"] == "0" and asked["corrupt"] > 0:
        raise Failure("Linux saw no wrong checksum")


def number_of_bytes(text):
    return int(float(text[:-1]) * UNITS[text[-1]]) if text[-1:] in UNITS else int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--husk", required=True, type=pathlib.Path)
    parser.add_argument("--bytes", default=64_000_000, type=number_of_bytes, help="of all connections, each way: 64M, 10G")
    parser.add_argument("--seed", default=1, type=int)
    for name, default in FAULTS.items():
        parser.add_argument(f"--{name}", default=default, type=float, metavar="PROBABILITY", help=f"default {default}")
    parser.add_argument("--option", action="append", default=[], help="one more option of husk run")
    arguments = parser.parse_args()
    reason = why_not_here()
    if reason:
        print(f"interop: SKIP: {reason}")
        return 0
    enter_name_space(__file__)
    arguments.husk = arguments.husk.resolve()
    with tempfile.TemporaryDirectory(prefix="husk-interop-") as folder:
        work = pathlib.Path(folder)
        peer, link = compile_program("interop_peer.c", work), compile_program("interop_link.cc", work)
        make_network()
        faults = {name: getattr(arguments, name) for name in FAULTS}
        line = Process(work, "link", [link, NEAR, FAR, f"seed={arguments.seed}", *[f"{name}={chance}" for name, chance in faults.items()]])
        try:
            line.await_line("ready", 10)
            arguments.bytes //= 2
            for number, machine_listens in enumerate((True, False)):
                converse(arguments, work, peer, machine_listens, number)
            line.end()
            check_line(line.said(), faults)
        except Failure as reason:
            line.end()
            logs = "".join(f"-- {path.stem}:\n{path.read_text(errors='replace')}" for path in sorted(work.glob("*.log")))
            print(f"interop: FAIL (seed {arguments.seed}): {reason}\n{logs}")
            return 1
    print("interop: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
