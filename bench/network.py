"""The network's figures: a server in a machine behind a TAP, and the same server in a container behind veth and a bridge; the client is on the host.

Both servers run all the time; the clients alternate. Needs root for the TAP, the bridge and the container."""
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import threading
import time

TAP, BRIDGE, VETH, SPACE = "huskb0", "huskb1", "huskb2", "husk-bench"
OURS, THEIRS = "10.84.1.2", "10.84.2.2"
SECONDS = 3

NGINX = """worker_processes 1; daemon off; master_process off; pid /tmp/nginx.pid; error_log stderr warn; user root;
events { worker_connections 4096; }
http { access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 80; root /tmp/husk-bench-site; } }
"""


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True)


class Networks:
    """The TAP and the container's network, and their removal."""

    def __enter__(self):
        self.remove()
        ip("tuntap", "add", TAP, "mode", "tap")
        ip("addr", "add", "10.84.1.1/24", "dev", TAP)
        ip("link", "set", TAP, "up")
        ip("netns", "add", SPACE)
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", "10.84.2.1/24", "dev", BRIDGE)
        ip("link", "add", VETH, "type", "veth", "peer", "name", "eth0", "netns", SPACE)
        ip("link", "set", VETH, "master", BRIDGE)
        for name in (BRIDGE, VETH):
            ip("link", "set", name, "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{THEIRS}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            ip("-n", SPACE, *words)
        return self

    def remove(self):
        for words in (("link", "del", TAP), ("link", "del", VETH), ("link", "del", BRIDGE), ("netns", "del", SPACE)):
            ip(*words, check=False)

    def __exit__(self, *_):
        self.remove()


class Server:
    """One program in a machine and in a container."""

    def __init__(self, b, name, command, port, files=(), memory="256M"):
        self.b, self.port = b, port
        program = subprocess.run(["sh", "-c", f"command -v {command[0]}"], capture_output=True, text=True).stdout.strip() or command[0]
        image = b.image(program, *[word for path in files for word in ("--with", f"{path}:{path}")])
        self.ours_command = [b.husk, "run", "--net", f"tap={TAP}", "--ip", f"{OURS}/24", "-m", memory, image, *command[1:]]
        bundle = b.work / f"bundle-{name}"
        (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
        if not (bundle / "config.json").exists():
            b.run("crun", "spec", cwd=bundle)
        config = json.loads((bundle / "config.json").read_text())
        config["process"].update(args=[program, *command[1:]], terminal=False, rlimits=[])
        config["process"]["capabilities"] = {kind: ["CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")}
        config["root"]["readonly"] = False
        config["linux"].pop("resources", None)
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] not in ("network", "cgroup")] + [{"type": "network", "path": f"/run/netns/{SPACE}"}]
        mounts = [m for m in config["mounts"] if m["type"] in ("proc", "tmpfs", "devpts")]
        for path in ("/usr", "/etc", "/lib", "/lib64", "/bin", "/sbin", "/var"):
            if os.path.islink(path):
                os.path.lexists(bundle / "rootfs" / path[1:]) or os.symlink(os.readlink(path), bundle / "rootfs" / path[1:])
            elif os.path.isdir(path):
                mounts.append({"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]})
        mounts.append({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]})
        mounts.append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]})
        for path in (*files, *([] if program.startswith("/usr") else [program])):
            mounts.append({"destination": str(path), "type": "bind", "source": str(path), "options": ["bind", "ro"]})
        config["mounts"] = mounts
        (bundle / "config.json").write_text(json.dumps(config))
        self.identity = f"husk-bench-{name}-{os.getpid()}"
        # crun refuses the hybrid cgroup layout: cgroup2 in a mount namespace of its own.
        script = f"umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; cd {bundle}; exec crun run {self.identity}"
        self.theirs_command = ["unshare", "-m", "sh", "-c", script]
        self.processes = []

    def start(self, command, address):
        log = open(self.b.work / f"log-{address}", "wb")
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.b.env)
        self.processes.append(process)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            try:
                socket.create_connection((address, self.port), timeout=1).close()
                return process
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"{command}: does not answer: {(self.b.work / f'log-{address}').read_text(errors='replace')[-600:]}")

    def __enter__(self):
        try:
            self.ours = self.start(self.ours_command, OURS)
            self.theirs = self.start(self.theirs_command, THEIRS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        subprocess.run(["crun", "delete", "--force", self.identity], capture_output=True)
        subprocess.run(["pkill", "-9", "-f", f"crun run {self.identity}"], capture_output=True)


def thread_times(pid):
    """CPU seconds of each thread of a process: (name, user, system). The first one runs the virtual CPU."""
    ticks, times = os.sysconf("SC_CLK_TCK"), {}
    for task in sorted(pathlib.Path(f"/proc/{pid}/task").iterdir(), key=lambda p: int(p.name)):
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        times[task.name] = (int(fields[11]) / ticks, int(fields[12]) / ticks)
    return times


def client_rate(b, server, make_command, pattern, scale=1.0):
    """The client against both, alternately; and, for ours, where the CPU time went."""
    spent = []

    def one(address, count_time):
        before = thread_times(server.ours.pid) if count_time else None
        start, usage = time.monotonic(), os.times()
        text = b.run(*make_command(address)).stdout
        if count_time:
            wall = time.monotonic() - start
            after, now = thread_times(server.ours.pid), os.times()
            threads = [(after[k][0] - before.get(k, (0, 0))[0], after[k][1] - before.get(k, (0, 0))[1]) for k in after]
            spent.append((wall, threads, now.children_user - usage.children_user, now.children_system - usage.children_system))
        match = re.search(pattern, text)
        if not match:
            raise RuntimeError(f"no figure in: {text[-300:]}")
        return float(match.group(1)) * scale

    result = b.interleaved(lambda: one(OURS, True), lambda: one(THEIRS, False))
    wall = sum(s[0] for s in spent)
    threads = [sum(s[1][i][k] for s in spent if i < len(s[1])) / wall * 100 for i in range(len(spent[0][1])) for k in (0, 1)]
    names = ["vCPU thread"] + [f"I/O thread {i}" if i > 1 else "I/O thread" for i in range(1, len(threads) // 2)]
    words = [f"{name} {threads[2 * i]:.0f}+{threads[2 * i + 1]:.0f}" for i, name in enumerate(names)]
    client = [sum(s[k] for s in spent) / wall * 100 for k in (2, 3)]
    print(f"{'':24} where the time goes, percent of a CPU, user+system: {', '.join(words)}, client {client[0]:.0f}+{client[1]:.0f}", flush=True)
    return result


def nginx_wrk(b):
    site = pathlib.Path("/tmp/husk-bench-site")
    site.mkdir(exist_ok=True)
    (site / "index.html").write_text("x" * 612)
    conf = b.work / "nginx.conf"
    conf.write_text(NGINX)
    with Networks(), Server(b, "nginx", ["nginx", "-c", str(conf)], 80, [conf, site]) as server:
        return client_rate(b, server, lambda a: ["wrk", "-c50", "-t1", f"-d{SECONDS}s", f"http://{a}/index.html"], r"Requests/sec:\s*([\d.]+)", 1e-3)


def redis(b, pipeline):
    command = ["redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    count = 100_000 if pipeline == 1 else 1_500_000
    with Networks(), Server(b, "redis", command, 6379) as server:
        return client_rate(b, server, lambda a: ["redis-benchmark", "-h", a, "-c", "50", "-n", count, "-P", pipeline, "-t", "get", "--csv"], r'"GET","([\d.]+)"', 1e-3)


def redis_get(b):
    return redis(b, 1)


def redis_get_pipeline_16(b):
    return redis(b, 16)


def tcp_round_trip(b):
    program = b.compile("rr")
    with Networks(), Server(b, "rr", [program, "server", "7000"], 7000) as server:
        return client_rate(b, server, lambda a: [program, "client", a, 7000, SECONDS], r"p50_us ([\d.]+)")


def iperf3_one_stream(b):
    with Networks(), Server(b, "iperf3", ["iperf3", "-s"], 5201) as server:
        return client_rate(b, server, lambda a: ["iperf3", "-c", a, "-t", SECONDS, "-f", "m"], r"([\d.]+) Mbits/sec\s+receiver", 1e-3)


def iperf3_one_stream_reverse(b):
    with Networks(), Server(b, "iperf3", ["iperf3", "-s"], 5201) as server:
        return client_rate(b, server, lambda a: ["iperf3", "-R", "-c", a, "-t", SECONDS, "-f", "m"], r"([\d.]+) Mbits/sec\s+receiver", 1e-3)


def first_pong(b):
    command = ["redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    server = Server(b, "redis", command, 6379)

    def one(command, address):
        begin = time.monotonic()
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=b.env)
        try:
            while time.monotonic() < begin + 10:
                try:
                    # Both networks drop or refuse until the server listens: ask often, so that neither waits for a retransmission.
                    with socket.create_connection((address, 6379), timeout=0.005) as connection:
                        connection.settimeout(1)
                        connection.sendall(b"PING\r\n")
                        if connection.recv(7) == b"+PONG\r\n":
                            return (time.monotonic() - begin) * 1e3
                except OSError:
                    time.sleep(0.0002)
            raise RuntimeError(f"no PONG from {address}")
        finally:
            process.kill()
            process.wait()
            subprocess.run(["crun", "delete", "--force", server.identity], capture_output=True)
            subprocess.run(["pkill", "-9", "-f", f"crun run {server.identity}"], capture_output=True)
            while address == THEIRS and subprocess.run(["ip", "netns", "pids", SPACE], capture_output=True).stdout:
                time.sleep(0.01)

    with Networks():
        return b.interleaved(lambda: one(server.ours_command, OURS), lambda: one(server.theirs_command, THEIRS))


FIGURES = {
    "nginx_wrk": (nginx_wrk, "k/s", "ratio at least 1 (612-byte file, wrk -c50; a container behind veth and a bridge)", "higher"),
    "redis_get": (redis_get, "k/s", "ratio at least 1 (50 clients; the same container)", "higher"),
    "redis_get_pipeline_16": (redis_get_pipeline_16, "k/s", "ratio at least 1 (50 clients, pipeline of 16; the same container)", "higher"),
    "tcp_round_trip": (tcp_round_trip, "us", "ratio at most 1.5 (median; the same container)", "lower"),
    "iperf3_one_stream": (iperf3_one_stream, "Gb/s", "ratio at least 0.8 (host to machine; the same container)", "higher"),
    "iperf3_one_stream_reverse": (iperf3_one_stream_reverse, "Gb/s", "ratio at least 0.8 (machine to host; the same container)", "higher"),
    "first_pong": (first_pong, "ms", "ratio at most 1 (command to the first PONG of redis-server; crun)", "lower"),
}
