#!/usr/bin/python3
"""Checks every #include "..." against tools/layers.txt: direction, and that guest and host never include each other; and that each folder of sources has
a README.

Tests (*_test.cc, *_fuzz.cc, testing/) are exempt. Prints each violation; exit status 1 if there is one."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load_rules():
    rules = {}
    for line in (ROOT / "tools/layers.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            rules[words[0]] = (int(words[1]), words[2], words[3:])
    return rules


def folder_of(path, rules):
    """The longest prefix of path that has a rule."""
    parts = path.split("/")
    for length in range(len(parts) - 1, 0, -1):
        name = "/".join(parts[:length])
        if name in rules:
            return name
    return None


def rank(name, rules):
    value = rules[name][0]
    return value if value < 10 else value / 10


def main():
    rules = load_rules()
    names = subprocess.run(["git", "ls-files", "*.h", "*.cc", "*.S"], cwd=ROOT, capture_output=True, text=True, check=True)
    problems, count = [], 0
    sources = subprocess.run(["git", "ls-files", "*.h", "*.cc", "*.S", "*.c", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    for folder in sorted({str(pathlib.PurePath(name).parent) for name in sources.stdout.split()}):
        if not (ROOT / folder / "README.md").exists():
            problems.append(f"{folder}: no README.md")
    for name in names.stdout.split():
        source = folder_of(name, rules)
        if source is None:
            problems.append(f"{name}: its folder is not in tools/layers.txt")
            continue
        if re.search(r"(_test|_fuzz)\.(cc|h)$|/testing/", name) or source in ("tests", "bench", "examples"):
            continue
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not match:
                continue
            count += 1
            included = match.group(1)
            target = folder_of(included, rules)
            where = f"{name}:{number}: includes {included}"
            if target is None:
                if not (ROOT / included).exists() and "/" not in included:
                    problems.append(f"{where}: not a path from the root")
                continue
            if target == source or any(included.startswith(prefix) for prefix in rules[source][2]):
                continue
            worlds = {rules[source][1], rules[target][1]}
            if {"guest", "host"} <= worlds:
                problems.append(f"{where}: guest and host meet only in abi/ and wire/")
            elif source.startswith("kernel/") and target == "kernel":
                continue  # cpu.h, log.h, random.h
            elif rank(target, rules) >= rank(source, rules):
                problems.append(f"{where}: {source} (rank {rank(source, rules):g}) may not include {target} (rank {rank(target, rules):g})")
    for problem in problems:
        print(problem)
    print(f"layering: {count} includes, {len(problems)} violations")
    return 1 if problems else 0


sys.exit(main())
