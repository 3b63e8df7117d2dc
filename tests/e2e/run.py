#!/usr/bin/python3
"""Runs the end-to-end cases. See README.md in this folder; `run.py --help` for options."""
import argparse
import importlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import ROOT, Failure, Skip, Tools  # noqa: E402

MODULES = ["cases_syscalls", "cases_programs", "cases_command", "cases_crash", "cases_security", "cases_services", "cases_interop"]


def load_cases():
    cases, qemu = {}, set()
    for name in MODULES:
        module = importlib.import_module(name)
        theme = name.removeprefix("cases_")
        cases.update({f"{theme}/{k}": v for k, v in module.CASES.items()})
        qemu |= {f"{theme}/{k}" for k in module.QEMU_CASES}
    return cases, qemu


def main():
    parser = argparse.ArgumentParser(description="End-to-end tests of husk.")
    parser.add_argument("--husk", default=ROOT / "build/husk", type=pathlib.Path)
    parser.add_argument("--hypervisor", default="kvm", choices=["kvm", "qemu"])
    parser.add_argument("--machine", default="microvm", choices=["microvm", "q35"], help="of QEMU")
    parser.add_argument("--all", action="store_true", help="in QEMU, too, every case and not only the part that each check runs there")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--keep", action="store_true", help="keep the work folders")
    parser.add_argument("names", nargs="*", help="cases or prefixes of names (default: all)")
    arguments = parser.parse_args()
    # A shell starts what it runs in the background with these ignored, and so they would be in every program here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    cases, qemu = load_cases()
    names = [n for n in cases if not arguments.names or any(n.startswith(p) for p in arguments.names)]
    if arguments.hypervisor == "qemu" and not arguments.names and not arguments.all:
        names = [n for n in names if n in qemu]
    if arguments.list:
        print("\n".join(names))
        return 0
    if arguments.hypervisor == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("e2e: /dev/kvm cannot be used here: the KVM cases are skipped")
        print(f"e2e: 0 passed, 0 failed, {len(names)} skipped")
        return 0
    passed, failed, skipped = 0, [], 0
    base = pathlib.Path(tempfile.mkdtemp(prefix="husk-e2e-"))
    try:
        for name in names:
            work = base / name.replace("/", "-")
            work.mkdir()
            start = time.monotonic()
            try:
                cases[name](Tools(arguments.husk.resolve(), work, arguments.hypervisor, arguments.machine))
                passed += 1
                print(f"ok    {arguments.hypervisor} {name} ({time.monotonic() - start:.2f} s)", flush=True)
            except Skip as reason:
                skipped += 1
                print(f"skip  {arguments.hypervisor} {name}: {reason}", flush=True)
            except Failure as reason:
                failed.append(name)
                print(f"FAIL  {arguments.hypervisor} {name} ({time.monotonic() - start:.2f} s)\n      {reason}", flush=True)
            except Exception:
                failed.append(name)
                print(f"FAIL  {arguments.hypervisor} {name}\n{traceback.format_exc()}", flush=True)
            if not arguments.keep:
                shutil.rmtree(work, ignore_errors=True)
    finally:
        if not arguments.keep:
            shutil.rmtree(base, ignore_errors=True)
    print(f"e2e: {passed} passed, {len(failed)} failed, {skipped} skipped" + (": " + " ".join(failed) if failed else ""))
    return 1 if failed or passed == 0 else 0


sys.exit(main())
