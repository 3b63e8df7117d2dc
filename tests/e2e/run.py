#!/usr/bin/python3
"""Runs the end-to-end cases. See README.md in this folder; `run.py --help` for options."""
import argparse
import ctypes
import importlib
import json
import os
import pathlib
import select
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


def adopt_orphans():
    """What a case starts stays below this process, even when its own parent is gone (prctl(2))."""
    set_child_subreaper = 36
    if ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        sys.exit("e2e: prctl(PR_SET_CHILD_SUBREAPER) failed")


def descendants(of):
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = stat.parent.name, stat.read_text().rpartition(")")[2].split()
        except OSError:  # has ended
            continue
        if rest[0] != "Z":
            children.setdefault(int(rest[1]), []).append(int(number))
    found, ask = [], [of]
    while ask:
        ask += (more := children.get(ask.pop(), []))
        found += more
    return found


def end_all():
    while left := descendants(os.getpid()):
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def outcome_of(case, tools):
    try:
        case(tools)
        return "ok", ""
    except Skip as reason:
        return "skip", str(reason)
    except Failure as reason:
        return "FAIL", str(reason)
    except Exception:
        return "FAIL", traceback.format_exc()


def run_case(case, tools, limit):
    """Runs it in a process of its own, for at most `limit` seconds; nothing that it started is left. Gives (outcome, text)."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(ours)
        with os.fdopen(theirs, "w") as result:
            json.dump(outcome_of(case, tools), result)
        sys.stdout.flush()
        os._exit(0)
    os.close(theirs)
    try:
        with os.fdopen(ours) as result:
            if not select.select([result], [], [], limit)[0]:
                return "FAIL", f"no end after {limit} s, the limit of a case"
            text = result.read()
        return tuple(json.loads(text)) if text else ("FAIL", "the process of the case was killed")
    finally:
        end_all()


def main():
    parser = argparse.ArgumentParser(description="End-to-end tests of husk.")
    parser.add_argument("--husk", default=ROOT / "build/husk", type=pathlib.Path)
    parser.add_argument("--hypervisor", default="kvm", choices=["kvm", "qemu"])
    parser.add_argument("--machine", default="microvm", choices=["microvm", "q35"], help="of QEMU")
    parser.add_argument("--all", action="store_true", help="in QEMU, too, every case and not only the part that each check runs there")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--keep", action="store_true", help="keep the work folders")
    parser.add_argument("--limit", default=300, type=float, metavar="SECONDS", help="of one case (default 300)")
    parser.add_argument("names", nargs="*", help="cases or prefixes of names (default: all)")
    arguments = parser.parse_args()
    # A shell starts what it runs in the background with these ignored, and so they would be in every program here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    adopt_orphans()
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
    count, failed = {"ok": 0, "skip": 0, "FAIL": 0}, []
    base = pathlib.Path(tempfile.mkdtemp(prefix="husk-e2e-"))
    try:
        for name in names:
            work = base / name.replace("/", "-")
            work.mkdir()
            start = time.monotonic()
            tools = Tools(arguments.husk.resolve(), work, arguments.hypervisor, arguments.machine)
            outcome, text = run_case(cases[name], tools, arguments.limit)
            count[outcome] += 1
            failed += [name] if outcome == "FAIL" else []
            took = f" ({time.monotonic() - start:.2f} s)" if outcome != "skip" else ""
            separator = {"ok": "", "skip": ": ", "FAIL": "\n      "}[outcome]
            print(f"{outcome:<5} {arguments.hypervisor} {name}{took}{separator}{text}", flush=True)
            if not arguments.keep:
                shutil.rmtree(work, ignore_errors=True)
    finally:
        if not arguments.keep:
            shutil.rmtree(base, ignore_errors=True)
    print(f"e2e: {count['ok']} passed, {len(failed)} failed, {count['skip']} skipped" + (": " + " ".join(failed) if failed else ""))
    return 1 if failed or count["ok"] == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
