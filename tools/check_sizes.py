#!/usr/bin/python3
"""The size rules of the project: nub source lines, nub + kernel bytes in an image. Prints each; exit status 1 if one is broken."""
import argparse
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NUB_LINES_MAX = 1500
LOADED_BYTES_MAX = 300 * 1024


def loaded_bytes(elf):
    """File bytes of all loadable segments."""
    headers = subprocess.run(["readelf", "-lW", elf], capture_output=True, text=True, check=True).stdout
    return sum(int(line.split()[4], 16) for line in headers.splitlines() if line.split()[:1] == ["LOAD"])


def main():
    parser = argparse.ArgumentParser(description="Checks the size rules.")
    parser.add_argument("--build", default="build", type=pathlib.Path)
    build = parser.parse_args().build
    sources = [p for p in (ROOT / "nub").rglob("*") if p.suffix in (".h", ".cc", ".S") and not p.name.endswith("_test.cc")]
    lines = sum(len(p.read_text().splitlines()) for p in sources)
    elves = sorted(build.rglob("nub.elf")) + sorted(build.rglob("kernel.elf"))
    total = sum(loaded_bytes(e) for e in elves)
    print(f"nub: {lines} lines of source (at most {NUB_LINES_MAX})")
    print(f"nub + kernel: {total} bytes loaded (at most {LOADED_BYTES_MAX})")
    return 0 if lines <= NUB_LINES_MAX and total <= LOADED_BYTES_MAX and len(elves) == 2 and lines > 0 else 1


sys.exit(main())
