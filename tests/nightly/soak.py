#!/usr/bin/python3
"""redis and nginx under load in a machine behind a TAP, for minutes: nothing may fail, and memory must not grow.

Each server runs alone. Every few seconds the monitor's resident memory (the guest's is a part of it: what the guest touched once stays) and, for redis,
what it says of its own are written down. The first quarter of the time, and at least half a minute, is for filling; afterwards neither may grow beyond
a bound: the highest value of the last quarter against the highest of the first. All of it is in name spaces of its own, which end with this program.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/net"))
from interop import Failure, Process, enter_name_space, ip, why_not_here  # noqa: E402

TAP, HOST, MACHINE = "husks0", "10.87.0.1", "10.87.0.2"
SAMPLE_S, ROUND_S, START_S, FILL_S = 10, 15, 30, 30
MONITOR_GROWTH_KB, REDIS_GROWTH_KB = 4096, 1024

NGINX = """worker_processes 1; daemon off; master_process off; pid /tmp/nginx.pid; error_log stderr warn;
events { worker_connections 4096; }
http { access_log off; sendfile on; keepalive_requests 1000; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 80; root /srv; } }
"""


def ask(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace", timeout=60)


class Redis:
    name = "redis"
    growth = {"monitor": MONITOR_GROWTH_KB, "redis": REDIS_GROWTH_KB}

    def command(self, work):
        return [], ["redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no"]

    def answers(self):
        return ask("timeout", 2, "redis-cli", "-h", MACHINE, "PING").stdout.strip() == "PONG"

    def load(self):
        """10,000 keys of 200 bytes, new connections each time, with and without pipelining."""
        return ["sh", "-c", "".join(f"timeout {ROUND_S * 4} redis-benchmark -h {MACHINE} -c 50 -n {n} -P {p} -r 10000 -d 200 -t set,get --csv && " for n, p in ((50_000, 1), (400_000, 16))) + "echo end"]

    def judge(self, text):
        rates = re.findall(r'^"[SG]ET","([\d.]+)"', text, re.M)
        if "rror" in text or not text.endswith("end\n") or len(rates) != 4:
            raise Failure(f"redis-benchmark said: {text[-1000:]}")
        return 2 * 450_000

    def own_memory(self):
        return {"redis": int(re.search(r"used_memory:(\d+)", ask("redis-cli", "-h", MACHINE, "INFO", "memory").stdout).group(1)) // 1024}


class Nginx:
    name = "nginx"
    growth = {"monitor": MONITOR_GROWTH_KB}

    def command(self, work):
        (work / "srv").mkdir()
        (work / "srv/index.html").write_text("x" * 612)
        (work / "nginx.conf").write_text(NGINX)
        return ["--with", f"{work}/nginx.conf:/etc/husk-nginx.conf", "--with", f"{work}/srv:/srv"], ["nginx", "-c", "/etc/husk-nginx.conf"]

    def answers(self):
        return ask("curl", "-s", "-m", "1", f"http://{MACHINE}/index.html").stdout == "x" * 612

    def load(self):
        return ["wrk", "-c50", "-t1", f"-d{ROUND_S}s", f"http://{MACHINE}/index.html"]

    def judge(self, text):
        done = re.search(r"(\d+) requests in", text)
        if "Socket errors" in text or "Non-2xx" in text or not done or done.group(1) == "0":
            raise Failure(f"wrk said: {text[-1000:]}")
        return int(done.group(1))

    def own_memory(self):
        return {}


def resident_kb(pid):
    """Of a process and all its children."""
    total = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            total = int(line.split()[1])
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += sum(resident_kb(child) for child in (task / "children").read_text().split())
    return total


class Soak:
    def __init__(self, arguments, server, work):
        self.server, self.seconds, self.requests, self.samples = server, arguments.minutes * 60, 0, []
        options, program = server.command(work)
        command = [arguments.husk, "run", "--net", f"tap={TAP}", "--ip", f"{MACHINE}/24", "-m", "256M", *options, *program]
        self.machine, self.work = Process(work, server.name, command), work

    def alive(self):
        if self.machine.process.poll() is not None:
            raise Failure(f"the machine ended with {self.machine.process.returncode}")

    def await_answer(self):
        end = time.monotonic() + START_S
        while not self.server.answers():
            self.alive()
            if time.monotonic() > end:
                raise Failure(f"no answer after {START_S} s")
            time.sleep(0.1)

    def sample(self, second):
        values = {"monitor": resident_kb(self.machine.process.pid), **self.server.own_memory()}
        self.samples.append((second, values))
        print(f"soak: {self.server.name} {second:5.0f} s: {self.requests} requests, " + ", ".join(f"{k} {v} KB" for k, v in values.items()), flush=True)

    def run(self):
        self.await_answer()
        begin, next_sample, load = time.monotonic(), 0, None
        while (second := time.monotonic() - begin) < self.seconds or load:
            self.alive()
            if second >= next_sample:
                self.sample(second)
                next_sample += SAMPLE_S
            if load is None:
                load = Process(self.work, "load", self.server.load())
            elif load.process.poll() is not None:
                if load.process.returncode != 0:
                    raise Failure(f"the load ended with {load.process.returncode}: {load.said()[-1000:]}")
                self.requests += self.server.judge(load.said())
                load = None
            time.sleep(0.1)
        self.sample(time.monotonic() - begin)

    def judge(self):
        self.machine.end()
        if "PANIC" in self.machine.said() or "crashed" in self.machine.said():
            raise Failure("the machine crashed")
        end = self.samples[-1][0]
        for kind, bound in self.server.growth.items():
            first = max(values[kind] for second, values in self.samples if second <= max(end / 4, FILL_S))
            last = max(values[kind] for second, values in self.samples if second >= end * 3 / 4)
            print(f"soak: {self.server.name}: {kind} {first} KB in the first quarter, {last} KB in the last ({last - first:+} KB, at most +{bound})", flush=True)
            if last - first > bound:
                raise Failure(f"the memory of {kind} grows")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--husk", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", default=20, type=float, help="for each server")
    parser.add_argument("servers", nargs="*", help="redis, nginx (default: both)")
    arguments = parser.parse_args()
    reason = why_not_here()
    if reason:
        print(f"soak: SKIP: {reason}")
        return 0
    enter_name_space(__file__)
    arguments.husk = arguments.husk.resolve()
    ip("tuntap", "add", TAP, "mode", "tap")
    ip("addr", "add", f"{HOST}/24", "dev", TAP)
    for name in (TAP, "lo"):
        ip("link", "set", name, "up")
    failed = []
    for server in (Redis(), Nginx()):
        if arguments.servers and server.name not in arguments.servers:
            continue
        with tempfile.TemporaryDirectory(prefix="husk-soak-") as folder:
            soak = Soak(arguments, server, pathlib.Path(folder))
            try:
                soak.run()
                soak.judge()
                print(f"soak: {server.name}: ok, {soak.requests} requests in {soak.samples[-1][0] / 60:.1f} minutes", flush=True)
            except Failure as reason:
                failed.append(server.name)
                print(f"soak: {server.name}: FAIL: {reason}; the machine said: {soak.machine.said()[-2000:]}", flush=True)
            finally:
                soak.machine.end()
    print("soak: " + (f"failed: {' '.join(failed)}" if failed else "ok"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
