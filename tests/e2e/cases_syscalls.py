"""Every program of tests/syscalls: the same output on Linux and on husk."""
import re

from harness import ROOT

STDIN = b"".join(b"line %d\n" % i for i in range(1000))


def make_case(source):
    def case(t):
        binary = t.compile(source)
        match = re.search(r"^// husk:(.*)$", source.read_text(), re.M)
        t.environment["HUSK_TEST"] = "from the environment"
        options = (match.group(1).split() if match else []) + ["-e", "HUSK_TEST"]
        t.compare([binary, "first", "two words", ""] if source.stem == "arguments" else [binary], STDIN, options)
    return case


CASES = {s.stem: make_case(s) for s in sorted((ROOT / "tests/syscalls").glob("*.c*"))}
QEMU_CASES = ["hello", "arguments", "memory", "files", "cxx", "signals", "threads", "events", "clocks"]
