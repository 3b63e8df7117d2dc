"""What the end-to-end cases use: building test programs, running on the host and in a machine, comparing."""
import os
import pathlib
import re
import shlex
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def shorten(data, limit=600):
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    return text if len(text) <= limit else text[: limit // 2] + "\n  [...]\n" + text[-limit // 2 :]


def first_difference(expected, actual):
    want, got = expected.splitlines(), actual.splitlines()
    for number, (a, b) in enumerate(zip(want, got), 1):
        if a != b:
            return f"line {number}: Linux {a[:200]!r}, husk {b[:200]!r}"
    return f"Linux has {len(want)} lines, husk {len(got)}; tail of the longer: {(want + got)[-1:]}"


def wait_until(condition, seconds):
    """Waits for it, not longer; whether it came."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


class Tools:
    def __init__(self, husk, work, hypervisor, machine):
        self.husk = str(husk)
        self.machine = machine
        self.work = pathlib.Path(work)
        self.hypervisor = hypervisor
        # Less data and more patience: for machines in QEMU, and for all of a host that is emulated (tools/kvm_host.py).
        self.host_slow = 20 if os.environ.get("HUSK_EMULATED_HOST") == "1" else 1
        self.slow = 20 if hypervisor == "qemu" else self.host_slow
        self.emulated = self.slow > 1
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(self.work.parent / "cache"), LC_ALL="C", TZ="UTC")

    def run(self, command, stdin=b"", timeout=60, env=None, **more):
        """Runs a host command; gives CompletedProcess with bytes. stdin: bytes, or an open file."""
        timeout *= self.host_slow
        source = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        try:
            return subprocess.run([str(c) for c in command], capture_output=True, timeout=timeout,
                                  env=env or self.environment, cwd=self.work, **source, **more)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{shlex.join(map(str, command))}: no end after {timeout} s; stdout so far: "
                          f"{shorten(late.stdout or b'')}; stderr: {shorten(late.stderr or b'')}")

    def husk_command(self, *options):
        return [self.husk, "run", "--hypervisor", self.hypervisor, "--machine", self.machine, *options]

    def husk_run(self, program, stdin=b"", options=(), timeout=60, **more):
        return self.run(self.husk_command(*options) + list(program), stdin, timeout * self.slow // self.host_slow, **more)

    def compare(self, program, stdin=b"", options=(), status=None, timeout=60, stderr=True, reopen=None):
        """The same command on the host and in a machine: stdout, stderr and status must be equal."""
        def source():
            return open(reopen, "rb") if reopen else stdin
        host = self.run(program, source(), timeout)
        guest = self.husk_run(program, source(), options, timeout)
        name = shlex.join(map(str, program))[:200]
        if host.returncode < 0:
            host.returncode = 128 - host.returncode
        if guest.returncode != host.returncode:
            raise Failure(f"{name}: exit status {guest.returncode}, on Linux {host.returncode}; stderr: {shorten(guest.stderr)}")
        if status is not None and host.returncode != status:
            raise Failure(f"{name}: the test expects status {status}, Linux gave {host.returncode}")
        if guest.stdout != host.stdout:
            raise Failure(f"{name}: stdout differs: {first_difference(host.stdout, guest.stdout)}; stderr: {shorten(guest.stderr)}")
        if stderr and guest.stderr != host.stderr:
            raise Failure(f"{name}: stderr differs: {first_difference(host.stderr, guest.stderr)}")
        return guest

    def compile(self, source, output=None, flags=None, compiler=None):
        """Compiles a test program; flags come from its first line (`// flags:`) unless given."""
        source = pathlib.Path(source)
        if not source.is_absolute():
            source = ROOT / source
        output = output or self.work / source.stem
        if flags is None:
            match = re.match(r"// flags:(.*)", source.read_text())
            flags = match.group(1).split() if match else []
        compiler = compiler or ("g++" if source.suffix == ".cc" else "gcc")
        built = self.run([compiler, "-O1", "-w", "-o", output, source, *flags], timeout=120)
        if built.returncode != 0:
            raise Failure(f"cannot compile {source}: {shorten(built.stderr)}")
        return output

    def expect(self, condition, message):
        if not condition:
            raise Failure(message)

    def need(self, *commands):
        for command in commands:
            if self.run(["/bin/sh", "-c", f"command -v {command}"]).returncode != 0:
                raise Failure(f"{command} is not installed; tools/packages-test.txt should name its package")
