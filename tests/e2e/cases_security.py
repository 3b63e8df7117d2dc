"""What a program in a machine must not be able to do, and how much addresses differ from boot to boot."""
import pathlib
import re
import subprocess

from harness import wait_until

# Outcomes that are right, as regular expressions on what tests/security/probe.cc prints. EACCES 13, EPERM 1, ENOMEM 12, EINVAL 22.
REFUSED = r"done -(1|13|22|12)$"
FAULT = r"(SIGSEGV|SIGBUS|SIGILL)$"
EXPECTED = {
    "map writable and executable": REFUSED, "make written memory executable": REFUSED, "execute written file": REFUSED + "|" + FAULT,
    "execute stack": "SIGSEGV$", "execute heap": "SIGSEGV$", "execute read-only data": "SIGSEGV$", "write text": "SIGSEGV$",
    "make text writable and write": REFUSED + "|SIGSEGV$", "read address 0": "SIGSEGV$", "read address 0xffff": "SIGSEGV$", "map address 0": REFUSED,
    "map address 0x1000": REFUSED, "map kernel address": REFUSED, "write kernel text": "SIGSEGV$", "read nub": "SIGSEGV$", "read nub data": "SIGSEGV$",
    "call nub": "SIGSEGV$", "nub call from the program": "done -38$", "thread stack overflow": "SIGSEGV$", "main stack overflow": "SIGSEGV$",
    "vmcall": r"(SIGILL|SIGSEGV|done -1)$", "end": "still running$", "smsw": FAULT, "sgdt": FAULT,
}
PRIVILEGED = ["cli", "hlt", "read cr3", "write cr3", "write cr0", "rdmsr", "wrmsr", "lgdt", "lidt", "ltr", "invlpg", "wbinvd", "out 0x64", "in 0xcf8", "swapgs",
              "sysretq", "int 0x20", "int 0x80"]
EXPECTED.update({name: FAULT for name in PRIVILEGED})


def probe(t):
    result = t.husk_run([t.compile("tests/security/probe.cc")])
    seen = dict(line.split(": ", 1) for line in result.stdout.decode().splitlines() if ": " in line)
    wrong = [f"{name}: {seen.get(name, 'nothing printed')} (expected {right})" for name, right in EXPECTED.items()
             if not re.match(right, seen.get(name, ""))]
    t.expect(not wrong, "; ".join(wrong) + f"; stderr {result.stderr[-400:]}")


def static_probe(t):
    """The same from a static program, whose system calls and layout differ."""
    binary = t.compile("tests/security/probe.cc", output=t.work / "probe-static", flags=["-pthread", "-O0", "-static"])
    result = t.husk_run([binary])
    t.expect(b"end: still running" in result.stdout, f"{result}")


def address_entropy(t):
    """Addresses of twenty boots: all differ; bits that vary, as a lower bound of the entropy."""
    program = t.compile("tests/security/probe.cc")
    boots = []
    for _ in range(20):
        result = t.husk_run([program, "addresses"])
        t.expect(result.returncode == 0, f"{result}")
        boots.append({n: int(v, 16) for n, v in (line.split() for line in result.stdout.decode().splitlines())})
    report = []
    for name in boots[0]:
        values = [b[name] for b in boots]
        varying = 0
        for value in values:
            varying |= value ^ values[0]
        bits = bin(varying).count("1")
        report.append(f"{name} {bits}")
        t.expect(len(set(values)) == len(values), f"{name}: the same in two boots: {values}")
        minimum = {"heap": 20, "stack": 22, "kernel": 20}.get(name, 24)
        t.expect(bits >= minimum, f"{name}: only {bits} bits vary, {minimum} expected")
    print("      entropy in bits: " + ", ".join(report))


def jit_is_declared(t):
    """With --jit, a program may write code and then execute it; never both at once."""
    result = t.husk_run([t.compile("tests/security/probe.cc")], options=["--jit"])
    text = result.stdout.decode()
    t.expect("make written memory executable: done 42" in text, f"--jit does not allow flipping: {text}")


def status_of(folder):
    return dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)


def children_of(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def network_is_jailed(pid):
    """It loads its library when the first frame comes, and closes its jail then."""
    return any(status["Name"] == "husk-net" and status["Seccomp"] == "2" for status in (status_of(pathlib.Path(f"/proc/{child}")) for child in children_of(pid)))


def every_thread_is_jailed(t):
    """Filter, capabilities and identity belong to threads, not to the process: all of the monitor's, of QEMU's and of the network's must have what
    their jails give."""
    program = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.0.2.2', 9)); print('ready', flush=True); sys.stdin.read()"
    for options in ((), ("-p", "127.0.0.1:0:80")):
        process = subprocess.Popen([*map(str, t.husk_command(*options)), "/usr/bin/python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, env=t.environment, cwd=t.work)
        t.expect(process.stdout.readline() == b"ready\n", "not ready")
        try:
            wait_until(lambda: network_is_jailed(process.pid), 10)
            names = set()
            for thread in (thread for pid in (process.pid, *children_of(process.pid)) for thread in pathlib.Path(f"/proc/{pid}/task").iterdir()):
                status = status_of(thread)
                name = status["Name"]
                names.add(name.split("-")[0] if name.startswith("qemu") else name)
                jail = status["Seccomp"], status["NoNewPrivs"], int(status["CapPrm"], 16), int(status["CapEff"], 16)
                t.expect(jail == ("2", "1", 0, 0), f"{options} thread {thread.name} ({name}): filter, no new privileges, capabilities: {jail}")
                t.expect("0" not in status["Uid"].split(), f"{options} thread {thread.name} ({name}) is root's: {status['Uid']}")
            t.expect("husk-net" in names and ("qemu" in names) == (t.hypervisor == "qemu"), f"whose threads are these? {names}")
        finally:
            process.stdin.close()
            process.wait(timeout=30)


def image_that_only_its_owner_reads(t):
    """Whoever the monitor has become by then."""
    image = t.work / "private.husk"
    t.expect(t.run([t.husk, "build", t.compile("tests/syscalls/hello.c"), "-o", image]).returncode == 0, "build")
    image.chmod(0o600)
    result = t.husk_run([image])
    t.expect(result.stdout == b"hello, world\n", f"{result}")


CASES = {f.__name__: f for f in (probe, static_probe, address_entropy, jit_is_declared, every_thread_is_jailed, image_that_only_its_owner_reads)}
QEMU_CASES = ["probe", "every_thread_is_jailed"]
