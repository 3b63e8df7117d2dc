#!/usr/bin/python3
"""Everything that `make check` runs, in order, with progress and one clear line at the end.

Steps: layering; sizes; the generated pages are current; unit tests and fuzz corpora under sanitizers (ctest -L unit); micro-guests
on KVM and in QEMU (ctest -L guest); end-to-end tests on KVM, then a part of them in QEMU without KVM. A host whose /dev/kvm cannot be used runs
all of them in QEMU, and the micro-guests and some of the cases on the KVM of an emulated host (tools/kvm_host.py)."""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

# End-to-end cases for the emulated host of machines without KVM: everything is slow there.
ON_EMULATED_KVM = ["syscalls/hello", "syscalls/memory", "syscalls/threads", "syscalls/clocks", "programs/lua", "command/streams", "command/slow_reader_of_messages", "command/signals_from_outside",
                   "crash/overflows", "security/probe", "security/every_thread_is_jailed", "services/redis", "services/udp_service"]
ROOT = pathlib.Path(__file__).resolve().parent.parent


class Steps:
    def __init__(self):
        self.passed, self.failed, self.skipped, self.names = 0, 0, 0, []

    def run(self, name, command, counts=None):
        """Runs a command, shows its output. `counts` finds (passed, failed, skipped) in it; else the exit status is one test. Status 77: skipped."""
        print(f"== {name}", flush=True)
        start = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        lines = []
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
        status = process.wait()
        found = counts("".join(lines)) if counts and status != 77 else None
        passed, failed, skipped = found or {0: (1, 0, 0), 77: (0, 0, 1)}.get(status, (0, 1, 0))
        if status not in (0, 77) and failed == 0:
            failed = 1
        self.passed, self.failed, self.skipped = self.passed + passed, self.failed + failed, self.skipped + skipped
        if failed:
            self.names.append(name)
        print(f"== {name}: {passed} passed, {failed} failed, {skipped} skipped ({time.monotonic() - start:.0f} s)", flush=True)
        return status == 0


def ctest_counts(text):
    match = re.search(r"(\d+)% tests passed, (\d+) tests failed out of (\d+)", text)
    if not match:
        return None
    failed, total = int(match.group(2)), int(match.group(3))
    skipped = len(re.findall(r"\*\*\*Skipped", text))
    return total - failed - skipped, failed, skipped


def e2e_counts(text):
    match = re.search(r"e2e: (\d+) passed, (\d+) failed, (\d+) skipped", text)
    return tuple(map(int, match.groups())) if match else None


def emulated_counts(text):
    both = ctest_counts(text), e2e_counts(text)
    return tuple(map(sum, zip(*both))) if all(both) else None


def main():
    parser = argparse.ArgumentParser(description="Runs every test of husk.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--jobs", default="2")
    arguments = parser.parse_args()
    steps = Steps()
    python = "/usr/bin/python3"
    steps.run("layering", [python, "tools/check_layers.py"])
    steps.run("sizes", [python, "tools/check_sizes.py", "--build", arguments.build])
    if steps.run("build tests", ["ninja", "-C", arguments.build, "-j", arguments.jobs, "--quiet", "unit_tests", "guest_tests"]):
        ctest = ["ctest", "--test-dir", arguments.build, "--no-tests=error", "--output-on-failure", "-j", arguments.jobs]
        steps.run("unit tests and fuzz corpora", [*ctest, "-L", "unit"], ctest_counts)
        steps.run("micro-guests", [*ctest, "-j", "1", "-L", "guest"], ctest_counts)
    husk = f"{arguments.build}/husk"
    e2e = [python, "tests/e2e/run.py", "--husk", husk]
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    if kvm:
        steps.run("end to end on KVM", e2e, e2e_counts)
    steps.run("end to end in QEMU without KVM", [*e2e, "--hypervisor", "qemu", *([] if kvm else ["--all"])], e2e_counts)
    if not kvm:
        # Without hostile_test: see docs/kvm-notes.md, "On AMD's SVM".
        guest = f"ctest --test-dir {arguments.build} --no-tests=error --output-on-failure -L guest -E \"in_qemu|hostile\""
        command = f"{guest}; status=$?; {' '.join(map(str, e2e))} {' '.join(ON_EMULATED_KVM)} && exit $status"
        steps.run("on KVM of an emulated host", [python, "tools/kvm_host.py", "sh", "-c", command], emulated_counts)
        print("check: /dev/kvm cannot be used here: every end-to-end case ran in QEMU instead, and a part on the KVM of an emulated host")
    if steps.names:
        print(f"check: failed: {', '.join(steps.names)}")
    print(f"{steps.passed} passed, {steps.failed} failed, {steps.skipped} skipped")
    return 1 if steps.failed else 0


sys.exit(main())
