"""A machine and Linux talk TCP over a line that loses, repeats, overtakes and damages frames; see tests/net/interop.py."""
import sys

from harness import ROOT, Failure, Skip, shorten


def bad_line(t):
    done = t.run([sys.executable, ROOT / "tests/net/interop.py", "--husk", t.husk, "--bytes", "64M"], timeout=240)
    text = done.stdout.decode(errors="replace")
    if "interop: SKIP" in text:
        raise Skip(text.split("SKIP: ")[1].strip())
    if done.returncode != 0 or "interop: ok" not in text:
        raise Failure(f"status {done.returncode}: {shorten(text, 6000)} {shorten(done.stderr, 2000)}")


CASES = {"bad_line": bad_line}
QEMU_CASES = []
