#!/usr/bin/python3
"""`make demo`: Debian's own, unmodified binaries as unikernels, each with the timeline of its start.

Leaves nothing behind: images go to a temporary cache that is removed at the end."""
import argparse
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """A server in a machine, with one port published on this host's loopback; ended with the block."""

    def __init__(self, husk, hypervisor, env, image, arguments, port):
        self.port = free_port()
        self.line = [husk, "run", *hypervisor, "-m", "64M", "-p", f"127.0.0.1:{self.port}:{port}", image, *arguments]
        print("$ " + " ".join(map(str, self.line)) + " &", flush=True)
        self.begin = time.monotonic()
        self.process = subprocess.Popen(list(map(str, self.line)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=env)

    def first_answer(self, question, answer, patience_s):
        """Milliseconds from the command to the first right answer."""
        while time.monotonic() < self.begin + patience_s and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=patience_s) as connection:
                    connection.sendall(question)
                    if connection.recv(len(answer)) == answer:
                        return (time.monotonic() - self.begin) * 1e3
            except OSError:
                time.sleep(0.001)
        raise RuntimeError("the server does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def shown(*command, **more):
    print("$ " + " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), check=True, **more)


def redis(husk, hypervisor, env, folder, patience_s):
    print("\n--- redis-server, driven by redis-cli and redis-benchmark")
    image = pathlib.Path(folder, "redis-server.husk")
    shown(husk, "build", "redis-server", "-o", image, env=env)
    print(f"    image {image.stat().st_size / 1e6:.1f} MB")
    with Service(husk, hypervisor, env, image, ["--protected-mode", "no", "--save", ""], 6379) as service:
        print(f"    command to the first PONG: {service.first_answer(b'PING' + bytes([13, 10]), b'+PONG', patience_s):.1f} ms", flush=True)
        for words in (["SET", "greeting", "hello"], ["GET", "greeting"]):
            shown("redis-cli", "-p", service.port, *words)
        shown("redis-benchmark", "-p", service.port, "-q", "-n", 20000 if "kvm" in hypervisor else 500, "-t", "set,get")


def nginx(husk, hypervisor, env, folder, patience_s):
    print("\n--- nginx, serving a packed directory to curl")
    site, image = pathlib.Path(folder, "site"), pathlib.Path(folder, "nginx.husk")
    site.mkdir()
    (site / "index.html").write_text("<h1>served by a unikernel</h1>\n")
    shown(husk, "build", "nginx", "-o", image, "--with", f"{site}:/var/www/html", env=env)
    print(f"    image {image.stat().st_size / 1e6:.1f} MB")
    with Service(husk, hypervisor, env, image, ["-g", "daemon off; master_process off;"], 80) as service:
        service.first_answer(b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 200", patience_s)
        shown("curl", "-sS", f"http://127.0.0.1:{service.port}/index.html")


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
        services = [redis, nginx]
        for service in services:
            try:
                service(husk, hypervisor, env, folder, 20 if kvm else 120)
                done += 1
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                print(f"    failed: {error}", flush=True)
    print(f"\ndemo: {done} of {len(runs) + len(services)} programs ran as unikernels" + ("" if kvm else " (in QEMU, without KVM)"))
    return 0 if done == len(runs) + len(services) else 1


sys.exit(main())
