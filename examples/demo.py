#!/usr/bin/python3
"""`make demo`: Debian's own, unmodified binaries as unikernels, each with the timeline of its start.

Leaves nothing behind: images go to a temporary cache that is removed at the end."""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--husk", default=HERE.parent / "build/husk", type=pathlib.Path)
    husk = parser.parse_args().husk.resolve()
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    if not kvm:
        print("demo: /dev/kvm cannot be used here: the machines run in QEMU without KVM, 10 to 50 times slower (see `husk doctor`)")
    hypervisor = ["--hypervisor", "kvm" if kvm else "qemu"]
    with tempfile.TemporaryDirectory(prefix="husk-demo-") as folder:
        env = dict(os.environ, XDG_CACHE_HOME=folder)
        program = pathlib.Path(folder, "demo_cxx")
        subprocess.run(["g++", "-O2", "-pthread", "-o", program, HERE / "demo_cxx.cc"], check=True)
        runs = [
            ("sqlite3: 100,000 inserts, joins, integrity check", ["/usr/bin/sqlite3"], HERE / "demo.sql", []),
            ("python3: modules, threads, files", ["/usr/bin/python3", "-c", (HERE / "demo_threads.py").read_text()], None, []),
            ("a C++ program compiled just now", [program], None, []),
        ]
        done = 0
        for title, command, stdin, options in runs:
            image = pathlib.Path(folder, pathlib.Path(command[0]).name + ".husk")
            print(f"\nbuilding {image.name}", flush=True)
            subprocess.run([husk, "build", command[0], "-o", image], env=env, check=True)
            print(f"    image {image.stat().st_size / 1e6:.1f} MB")
            line = [husk, "run", *hypervisor, "--timeline", *options, image, *command[1:]]
            shown = [str(w) if "\n" not in str(w) else "…" for w in line]
            print(f"--- {title}\n$ {' '.join(shown)}" + (f" < {stdin.name}" if stdin else ""), flush=True)
            status = subprocess.run(list(map(str, line)), stdin=open(stdin, "rb") if stdin else subprocess.DEVNULL, env=env).returncode
            print(f"    exit status {status}", flush=True)
            done += status == 0
    print(f"\ndemo: {done} of {len(runs)} programs ran as unikernels" + ("" if kvm else " (in QEMU, without KVM)"))
    return 0 if done == len(runs) else 1


sys.exit(main())
