"""Network services: Debian's own servers in a machine, driven by their real clients on the host; and clients in a machine."""
import hashlib
import http.server
import os
import pathlib
import random
import re
import resource
import signal
import socket
import subprocess
import threading
import time

from harness import Failure, shorten, wait_until

SERVER_START_S = 20


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """`husk run` of a server in the background; ends it, and checks how it ended."""

    def __init__(self, t, program, port, options=(), udp=False, memory="128M"):
        self.t, self.port = t, free_port(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        self.log = open(t.work / f"service-{self.port}.log", "w+b")
        publish = f"127.0.0.1:{self.port}:{port}" + ("/udp" if udp else "")
        command = t.husk_command("-p", publish, "-m", memory, *options) + list(program)
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=t.environment, cwd=t.work)

    def __enter__(self):
        return self

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def ready(self, probe=None):
        """Until `probe()` is true; by default until a connection lives: user-mode networking accepts before the guest does."""
        end = time.monotonic() + SERVER_START_S * self.t.slow
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"the server ended with {self.process.returncode}: {shorten(self.said(), 3000)}")
            try:
                if (probe or self.answers)():
                    return self
            except OSError:
                pass
            time.sleep(0.02)
        raise Failure(f"the server does not answer after {SERVER_START_S * self.t.slow} s: {shorten(self.said(), 3000)}")

    def answers(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.settimeout(0.2)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        log = self.said()
        self.log.close()
        if kind is None:
            for word in ("guest crashed", "PANIC", "panic:", "SIGSEGV"):
                self.t.expect(word not in log, f"the machine said: {shorten(log, 3000)}")
        elif log:
            print(f"      the server said: {shorten(log, 3000)}", flush=True)


def said_to(port, question):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(question)
        return connection.recv(1000)


def succeed(t, command, timeout=120, **more):
    done = t.run(command, timeout=timeout, **more)
    t.expect(done.returncode == 0, f"{' '.join(map(str, command))}: status {done.returncode}: {shorten(done.stdout, 1500)} {shorten(done.stderr, 1500)}")
    return done.stdout.decode(errors="replace")


def redis(t):
    with Service(t, ["redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no"], 6379) as service:
        cli = ["redis-cli", "-p", service.port]
        service.ready(lambda: t.run([*cli, "PING"]).stdout.strip() == b"PONG")
        t.expect(succeed(t, [*cli, "SET", "key", "value"]).strip() == "OK", "SET")
        t.expect(succeed(t, [*cli, "GET", "key"]).strip() == "value", "GET")
        big = random.Random(1).randbytes(5_000_000).hex().encode()
        t.expect(succeed(t, [*cli, "-x", "SET", "big"], stdin=big).strip() == "OK", "SET of 10 MB")
        t.expect(hashlib.sha256(t.run([*cli, "GET", "big"]).stdout.rstrip(b"\n")).digest() == hashlib.sha256(big).digest(), "10 MB came back changed")
        seconds = 30 if not t.emulated else 2 if t.host_slow > 1 else 10
        for pipeline in (1, 16):
            # First how fast it is, then as many requests as that takes.
            requests = 300 * pipeline if t.emulated else 3000 * pipeline
            for count in (requests, None):
                text = succeed(t, ["redis-benchmark", "-p", service.port, "-c", "50", "-n", count or max(int(rate * seconds), 1), "-P", pipeline, "-t", "get", "--csv"], timeout=60 + 10 * seconds)
                t.expect("rror" not in text, f"redis-benchmark: {shorten(text)}")
                match = re.search(r'"GET","([\d.]+)"', text)
                t.expect(match, f"redis-benchmark said: {shorten(text)}")
                rate = float(match.group(1))
        t.expect(succeed(t, [*cli, "PING"]).strip() == "PONG", "PING after the load")
        t.run([*cli, "SHUTDOWN", "NOSAVE"])
        t.expect(service.process.wait(20) == 0, f"SHUTDOWN: status {service.process.returncode}")


def redis_in_24_megabytes(t):
    with Service(t, ["redis-server", "--protected-mode", "no", "--save", ""], 6379, memory="24M") as service:
        service.ready(lambda: said_to(service.port, b"PING\r\n") == b"+PONG\r\n")
        t.expect(succeed(t, ["redis-cli", "-p", service.port, "SET", "key", "x" * 100_000]).strip() == "OK", "SET")


def memcached(t):
    with Service(t, ["memcached", "-u", "root", "-U", "0", "-t", "2"], 11211) as service:
        service.ready(lambda: said_to(service.port, b"version\r\n").startswith(b"VERSION"))
        servers = f"--servers=127.0.0.1:{service.port}"
        (t.work / "stored").write_bytes(os.urandom(100_000))
        succeed(t, ["memccp", servers, t.work / "stored"])
        t.expect(t.run(["memccat", servers, "stored"]).stdout.rstrip(b"\n") == (t.work / "stored").read_bytes().rstrip(b"\n"), "memccat gives other bytes than memccp stored")
        succeed(t, ["memcslap", servers, "--concurrency=8", "--execute-number=2000", "--test=get"])
        t.expect("STAT" in succeed(t, ["memcstat", servers]) or "pid" in succeed(t, ["memcstat", servers]), "memcstat")


def make_site(t):
    site = t.work / "site"
    site.mkdir()
    (site / "index.html").write_text("<html>" + "x" * 599 + "</html>")
    with open(site / "big", "wb") as out:
        generator = random.Random(3)
        for _ in range(2 if t.emulated else 100):
            out.write(generator.randbytes(1_000_000))
    return site


def drive_http(t, service, site):
    url = f"http://127.0.0.1:{service.port}"
    service.ready(lambda: t.run(["curl", "-s", "-o", "/dev/null", "-m", "5", f"{url}/index.html"]).returncode == 0)
    t.expect(succeed(t, ["curl", "-sS", f"{url}/index.html"]) == (site / "index.html").read_text(), "index.html")
    t.expect(b" 404" in t.run(["curl", "-sS", "-i", f"{url}/none"]).stdout.split(b"\n")[0], "a missing file is not 404")
    got = t.run(["curl", "-sS", "-o", "got", f"{url}/big"], timeout=120 * t.slow)
    t.expect(got.returncode == 0, f"curl of the big file: {got.stderr}")
    same = hashlib.sha256((t.work / "got").read_bytes()).digest() == hashlib.sha256((site / "big").read_bytes()).digest()
    t.expect(same, f"the big file changed on the way: {(t.work / 'got').stat().st_size} bytes")


def drive_wrk(t, service, seconds=5):
    text = succeed(t, ["wrk", "-c50", "-t1", f"-d{seconds}s", f"http://127.0.0.1:{service.port}/index.html"])
    t.expect("Socket errors" not in text and "Non-2xx" not in text, f"wrk: {text}")
    t.expect(float(re.search(r"Requests/sec:\s*([\d.]+)", text).group(1)) > 100, f"wrk: {text}")


def hold_connections(t, service, count):
    """So many connections at once, each answered."""
    held = []
    try:
        for _ in range(count):
            held.append(socket.create_connection(("127.0.0.1", service.port), timeout=30))
        for connection in held:
            connection.sendall(b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in held:
            t.expect(connection.recv(15).startswith(b"HTTP/1.1 200"), "a connection got another answer")
    finally:
        for connection in held:
            connection.close()


NGINX = """worker_processes 1; daemon off; master_process off; pid /tmp/nginx.pid; error_log stderr warn;
events { worker_connections 4096; }
http { access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 80; root /srv; } }
"""


def nginx_service(t, site):
    (t.work / "nginx.conf").write_text(NGINX)
    return Service(t, ["nginx", "-c", "/etc/husk-nginx.conf"], 80, ["--with", f"{t.work}/nginx.conf:/etc/husk-nginx.conf", "--with", f"{site}:/srv"])


def nginx(t):
    site = make_site(t)
    with nginx_service(t, site) as service:
        drive_http(t, service, site)
        drive_wrk(t, service)
        hold_connections(t, service, 1000)


def nginx_as_shipped(t):
    """Debian's configuration, the options that the issue names."""
    with Service(t, ["nginx", "-g", "daemon off; master_process off;"], 80) as service:
        service.ready(lambda: b"nginx" in t.run(["curl", "-s", "-m", "5", f"http://127.0.0.1:{service.port}/"]).stdout)


def lighttpd(t):
    site = make_site(t)
    (t.work / "lighttpd.conf").write_text('server.document-root = "/srv"\nserver.port = 80\nserver.max-connections = 2048\nserver.max-fds = 4096\nindex-file.names = ("index.html")\n')
    options = ["--with", f"{t.work}/lighttpd.conf:/etc/husk-lighttpd.conf", "--with", f"{site}:/srv"]
    with Service(t, ["lighttpd", "-D", "-f", "/etc/husk-lighttpd.conf"], 80, options) as service:
        drive_http(t, service, site)
        drive_wrk(t, service)
        hold_connections(t, service, 1000)


def python_http_server(t):
    site = make_site(t)
    with Service(t, ["/usr/bin/python3", "-m", "http.server", "-d", "/srv", "8000"], 8000, ["--with", f"{site}:/srv"]) as service:
        drive_http(t, service, site)


GO_SERVER = """package main
import ("fmt"; "net/http"; "io")
func main() {
  http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { b, _ := io.ReadAll(r.Body); fmt.Fprintf(w, "%s %s %d\\n", r.Method, r.URL.Path, len(b)) })
  panic(http.ListenAndServe(":8080", nil))
}
"""


def go_http_server(t):
    t.need("go")
    (t.work / "server.go").write_text(GO_SERVER)
    env = dict(t.environment, GOCACHE=str(t.work.parent / "gocache"), CGO_ENABLED="0", GOFLAGS="-mod=mod", HOME=str(t.work))
    built = t.run(["go", "build", "-o", "server", "server.go"], env=env, timeout=300)
    t.expect(built.returncode == 0, f"go build: {built.stderr.decode()}")
    with Service(t, [t.work / "server"], 8080, memory="256M") as service:
        url = f"http://127.0.0.1:{service.port}"
        service.ready(lambda: t.run(["curl", "-s", "-m", "5", url]).returncode == 0)
        (t.work / "body").write_bytes(os.urandom(10_000_000))
        t.expect(succeed(t, ["curl", "-sS", "--data-binary", "@body", f"{url}/post"]) == "POST /post 10000000\n", "POST of 10 MB")
        drive_wrk(t, service, 3)


def iperf3(t):
    with Service(t, ["iperf3", "-s"], 5201) as service:
        # Not by a connection that says nothing: iperf3 would wait for its test.
        service.ready(lambda: t.run(["iperf3", "-c", "127.0.0.1", "-p", service.port, "-n", "1K"]).returncode == 0)
        for direction in ((), ("-R",)):
            time.sleep(0.5 * t.slow)  # the server opens its listener anew after each test
            text = succeed(t, ["iperf3", "-c", "127.0.0.1", "-p", service.port, "-t", "3", *direction])
            t.expect("receiver" in text, f"iperf3: {shorten(text)}")


class HostServer:
    """An HTTP server on this host at an address that a guest may reach, and its content."""

    def __enter__(self):
        self.content = random.Random(5).randbytes(5_000_000)
        content = self.content

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def host_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return None


def curl_in_the_guest(t):
    """By address and by a name that the machine was given."""
    address = host_address()
    if address is None:
        raise Failure("this host has no address but the loopback")
    with HostServer() as server:
        for name, options in ((address, ()), ("files.example", ("--add-host", f"files.example:{address}"))):
            got = t.husk_run(["curl", "-sS", f"http://{name}:{server.port}/file"], options=options)
            t.expect(got.returncode == 0 and got.stdout == server.content, f"curl of {name}: {got.returncode}, {len(got.stdout)} bytes: {shorten(got.stderr)}")


DNS_QUERY = """
import socket, struct, sys
query = struct.pack('>HHHHHH', 0x1234, 0x100, 1, 0, 0, 0) + b'\\x04husk\\x07example\\0' + struct.pack('>HH', 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
s.sendto(query, (sys.argv[1], int(sys.argv[2])))
answer, peer = s.recvfrom(512)
print(peer[1] == int(sys.argv[2]), struct.unpack('>HH', answer[:4])[0] == 0x1234, socket.inet_ntoa(answer[-4:]))
"""


def dns_query_by_udp(t):
    address = host_address()
    if address is None:
        raise Failure("this host has no address but the loopback")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        server.settimeout(30 * t.slow)

        def answer():
            try:
                query, peer = server.recvfrom(512)
                server.sendto(query[:2] + b"\x81\x80" + query[4:6] + b"\x00\x01\0\0\0\0" + query[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([10, 1, 2, 3]), peer)
            except OSError:
                pass

        threading.Thread(target=answer, daemon=True).start()
        got = t.husk_run(["/usr/bin/python3", "-c", DNS_QUERY, address, str(server.getsockname()[1])])
        t.expect(got.stdout == b"True True 10.1.2.3\n", f"the answer: {got.stdout!r} {shorten(got.stderr)}")


def udp_service(t):
    program = "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 5000))\nwhile True:\n  d, a = s.recvfrom(65536); s.sendto(d[::-1], a)\n"
    with Service(t, ["/usr/bin/python3", "-c", program], 5000, udp=True) as service:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", service.port))

            def probe():
                client.send(b"ready?")
                return client.recv(100) == b"?ydaer"

            service.ready(probe)
            for size in (1, 1000, 1472, 8000):
                data = os.urandom(size)
                client.send(data)
                end = time.monotonic() + 10
                while (got := client.recv(65536)) == b"?ydaer" and time.monotonic() < end:
                    pass
                t.expect(got == data[::-1], f"a datagram of {size} bytes came back as {len(got)}")


def errors(t):
    from cases_command import one_line_error
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one_line_error(t, t.husk_run(["true"], options=["-p", f"127.0.0.1:{port}:80"]), 125, str(port), "in use")
    one_line_error(t, t.husk_run(["true"], options=["-p", "nonsense"]), 125, "nonsense")
    one_line_error(t, t.husk_run(["true"], options=["-p", "1:2:3:4"]), 125, "1:2:3:4")
    one_line_error(t, t.husk_run(["true"], options=["-p", "99999:80"]), 125, "99999")
    one_line_error(t, t.husk_run(["true"], options=["--net", "nowhere"]), 125, "nowhere")
    one_line_error(t, t.husk_run(["true"], options=["--net", "tap=husk-none0"]), 125, "husk-none0")
    one_line_error(t, t.husk_run(["true"], options=["--net", "tap=husk-none0", "--ip", "300.1.2.3/24"]), 125, "300.1.2.3")
    one_line_error(t, t.husk_run(["true"], options=["--pcap", "/no/such/folder/file"]), 125, "/no/such/folder/file")


def pcap(t):
    """What the guest sends and receives, as a file that starts as pcap files do and holds the request."""
    address = host_address()
    if address is None:
        raise Failure("this host has no address but the loopback")
    with HostServer() as server:
        got = t.husk_run(["curl", "-sS", "-o", "/dev/null", f"http://{address}:{server.port}/a-name-to-be-found"], options=["--pcap", "capture"])
        t.expect(got.returncode == 0, f"curl: {shorten(got.stderr)}")
    data = (t.work / "capture").read_bytes()
    t.expect(data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"), f"not a pcap file: {data[:24]!r}")
    t.expect(b"GET /a-name-to-be-found" in data and len(data) > len(server.content), f"the capture has {len(data)} bytes")
    full = t.husk_run(["ls", "/nowhere-to-be-found"], options=["--pcap", "/dev/full"])
    t.expect(full.returncode == 2 and b"husk: --pcap /dev/full: the capture is not complete: No space left on device" in full.stderr, f"a capture that cannot be written: {full}")


def no_network(t):
    got = t.husk_run(["/usr/bin/python3", "-c", "import socket\ns = socket.socket()\ntry: s.connect(('192.0.2.1', 80))\nexcept OSError as e: print(e.errno)"], options=["--net", "none"])
    t.expect(got.stdout == b"101\n", f"connect without a network: {got}")
    t.compare(["/usr/bin/python3", "-c", "import socket, threading\na = socket.create_server(('127.0.0.1', 0))\nb = socket.create_connection(a.getsockname())\nc, _ = a.accept()\nb.sendall(b'x' * 100000)\nb.close()\n"
               "n = 0\nwhile (d := c.recv(65536)): n += len(d)\nprint(n)"], options=["--net", "none"])


def nothing_left_behind(t):
    """After kill -9 of husk no process, no listening port."""
    with Service(t, ["redis-server", "--protected-mode", "no", "--save", ""], 6379) as service:
        service.ready()
        service.process.kill()
        service.process.wait()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", service.port)) != 0:
                    break
            time.sleep(0.05)
        else:
            raise Failure("the published port still answers after kill -9")
        left = [p for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and str(service.port).encode() in read_quietly(p / "cmdline")]
        t.expect(not left, f"processes left: {left}")


def network_that_ends(t):
    """The user-mode network's process is killed: that is said, and the machine goes on."""
    with Service(t, ["redis-server", "--protected-mode", "no", "--save", ""], 6379) as service:
        service.ready(lambda: said_to(service.port, b"PING\r\n") == b"+PONG\r\n")
        children = pathlib.Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        network, = (int(child) for child in children if read_quietly(pathlib.Path(f"/proc/{child}/comm")) == b"husk-net\n")
        os.kill(network, signal.SIGKILL)
        t.expect(wait_until(lambda: "husk: network: the user-mode network has ended" in service.said(), 10), f"nobody says so: {service.said()}")
        t.expect(service.process.poll() is None, "the machine ended with it")
        service.process.terminate()
        t.expect(service.process.wait(15 * t.slow) == 0, f"SIGTERM after that: status {service.process.returncode}: {shorten(service.said())}")
        t.expect(service.said().count("has ended") == 1, f"said more than once: {service.said()}")


ECHO_SERVER = r"""
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7)};
  struct rlimit files = {12000, 12000};
  setrlimit(RLIMIT_NOFILE, &files);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), queue = epoll_create1(0), count;
  if (bind(listener, (void*)&any, sizeof any) != 0 || listen(listener, 4096) != 0) return 1;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[64];
  epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event);
  while ((count = epoll_wait(queue, ready, 64, -1)) >= 0) {
    for (int i = 0; i < count; ++i) {
      char bytes[4096];
      int fd = ready[i].data.fd;
      if (fd == listener) {
        while ((event.data.fd = accept(listener, 0, 0)) >= 0) epoll_ctl(queue, EPOLL_CTL_ADD, event.data.fd, &event);
        continue;
      }
      ssize_t got = read(fd, bytes, sizeof bytes);
      if (got <= 0 || write(fd, bytes, got) != got) close(fd);
    }
  }
  return 2;
}
"""


def connections_without_number(t):
    """Through a published port: thousands one after the other, each ended by its client, and more at once than the user-mode network takes."""
    source = t.work / "echo.c"
    source.write_text(ECHO_SERVER)
    with Service(t, [t.compile(source)], 7) as service:
        def answers():
            return said_to(service.port, b"hello") == b"hello"

        service.ready(answers)

        def one_after_the_other(count):
            for _ in range(count):
                if not answers():
                    failures.append("no echo")

        failures = []
        one_by_one = [threading.Thread(target=one_after_the_other, args=(500,)) for _ in range(16)]  # 8000 in less than ten seconds
        for thread in one_by_one:
            thread.start()
        for thread in one_by_one:
            thread.join()
        t.expect(not failures and answers(), f"short connections: {len(failures)} failures")
        resource.setrlimit(resource.RLIMIT_NOFILE, (12000, max(12000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
        at_once = [socket.create_connection(("127.0.0.1", service.port), timeout=20) for _ in range(9000)]
        for connection in at_once[0], at_once[6000]:
            connection.sendall(b"still here")
            t.expect(connection.recv(100) == b"still here", "one of thousands of connections")
        for connection in at_once:
            connection.close()
        service.ready(answers)
        t.expect("network" not in service.said(), f"the network said: {service.said()}")


def read_quietly(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


CASES = {f.__name__: f for f in (redis, redis_in_24_megabytes, memcached, nginx, nginx_as_shipped, lighttpd, python_http_server, go_http_server, iperf3, curl_in_the_guest, dns_query_by_udp, udp_service, errors, pcap, no_network, connections_without_number, network_that_ends,
                                 nothing_left_behind)}
QEMU_CASES = ["redis", "nginx", "curl_in_the_guest", "udp_service", "no_network"]
