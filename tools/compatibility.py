#!/usr/bin/env python3
"""Makes docs/compatibility.md from kernel/linux/syscalls.def. With --check: fails if the page is not current."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "kernel/linux/syscalls.def"
PAGE = ROOT / "docs/compatibility.md"
ENTRY = re.compile(r'^SYSCALL\((\d+), (\w+), (\w+), (\w+), "([^"]*)", "([^"]*)"\)$')
LEVELS = {
    "full": "does what Linux does, as far as one process on one processor can tell",
    "partial": "the note says what is left out",
    "ignored": "accepted or refused without effect",
    "missing": "`ENOSYS`; one line in the log (`--log-level info` shows it)",
}


def entries():
    for line in TABLE.read_text().splitlines():
        if line.startswith("SYSCALL("):
            match = ENTRY.match(line)
            if not match:
                sys.exit(f"{TABLE}: cannot read: {line}")
            yield match.groups()


def page():
    rows = list(entries())
    lines = ["# System calls", "", "<!-- Made by tools/compatibility.py from kernel/linux/syscalls.def: edit that. -->", "",
             "What programs find of x86-64 Linux' system calls, by number. Numbers beyond the table give `ENOSYS`.", "",
             "| support | meaning | calls |", "| --- | --- | --- |"]
    for level, meaning in LEVELS.items():
        lines.append(f"| {level} | {meaning} | {sum(row[2] == level for row in rows)} |")
    lines += ["", "| number | name | support | note |", "| --- | --- | --- | --- |"]
    lines += [f"| {number} | {name} | {level} | {note} |" for number, name, level, _, _, note in rows]
    return "\n".join(lines) + "\n"


def main():
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not current: run tools/compatibility.py")


main()
