#!/usr/bin/python3
"""The size rules of the project: nub source lines, nub + kernel bytes in an image. Prints each; exit status 1 if one is broken."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NUB_LINES_MAX = 1500
IMAGE_BYTES_MAX = 450 * 1024


def image_bytes(husk):
    """What a built image has of nub, kernel and relocations."""
    with tempfile.TemporaryDirectory() as folder:
        image = f"{folder}/true.husk"
        subprocess.run([husk, "build", "/bin/true", "-o", image], capture_output=True, text=True, check=True)
        text = subprocess.run([husk, "inspect", "--json", image], capture_output=True, text=True, check=True).stdout
    sizes = json.loads(text)["sizes"]
    return sizes["nub"] + sizes["kernel"] + sizes["relocations"]


def main():
    parser = argparse.ArgumentParser(description="Checks the size rules.")
    parser.add_argument("--build", default="build", type=pathlib.Path)
    build = parser.parse_args().build
    sources = [p for p in (ROOT / "nub").rglob("*") if p.suffix in (".h", ".cc", ".S") and not p.name.endswith("_test.cc")]
    lines = sum(len(p.read_text().splitlines()) for p in sources)
    total = image_bytes(build / "husk")
    print(f"nub: {lines} lines of source (at most {NUB_LINES_MAX})")
    print(f"nub + kernel: {total} bytes in an image (at most {IMAGE_BYTES_MAX})")
    return 0 if lines <= NUB_LINES_MAX and total <= IMAGE_BYTES_MAX and lines > 0 else 1


sys.exit(main())
