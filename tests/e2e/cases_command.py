"""The husk command: options, exit status, signals, errors, clean-up."""
import fcntl
import json
import os
import pathlib
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

from harness import Failure, Skip, wait_until


class OwnTerminal:
    """A pseudo-terminal (`ours` is the user's end) and how it was before; `start` runs a command whose controlling terminal it is."""
    def __init__(self, t):
        self.t, (self.ours, self.theirs) = t, pty.openpty()
        self.before = self.modes()

    def modes(self):
        return termios.tcgetattr(self.theirs)

    def start(self, command, **streams):
        def own():
            os.setsid()
            fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)
        streams = {name: self.theirs for name in ("stdin", "stdout", "stderr")} | streams
        return subprocess.Popen(list(map(str, command)), env=self.t.environment, cwd=self.t.work, preexec_fn=own, **streams)

    def close(self):
        os.close(self.ours), os.close(self.theirs)


def one_line_error(t, result, status, *words):
    text = result.stderr.decode(errors="replace").strip()
    t.expect(result.returncode == status, f"exit status {result.returncode}, expected {status}: {text}")
    t.expect(text.startswith("husk: ") and len(text.splitlines()) == 1, f"not one line 'husk: …': {text!r}")
    for word in words:
        t.expect(word in text, f"the error does not name {word!r}: {text!r}")


def c_program(t, name, body, flags=()):
    source = t.work / f"{name}.c"
    source.write_text("#define _GNU_SOURCE\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n#include <signal.h>\n" + body)
    return t.compile(source, flags=list(flags))


def errors(t):
    one_line_error(t, t.husk_run(["no-such-program-here"]), 127, "no-such-program-here")
    one_line_error(t, t.husk_run(["/no/such/file"]), 127, "/no/such/file")
    (t.work / "text").write_text("just text\n")
    one_line_error(t, t.husk_run([t.work / "text"]), 126, "text")
    one_line_error(t, t.run([t.husk, "run", "--no-such-option", "true"]), 125, "--no-such-option")
    one_line_error(t, t.run([t.husk, "run", "-m", "lots", "true"]), 125, "lots")
    one_line_error(t, t.run([t.husk, "run", "--env-file", "/no/env", "true"]), 125, "/no/env")
    one_line_error(t, t.run([t.husk, "run", "--with", "/no/with", "true"]), 125, "/no/with")
    one_line_error(t, t.run([t.husk, "inspect", "/no/image"]), 125, "/no/image")
    t.expect(t.run([t.husk]).returncode in (0, 125), "husk without arguments")
    t.expect(b"Usage" in t.run([t.husk, "--help"]).stdout, "--help has no usage")
    t.expect(b"xamples" in t.run([t.husk, "run", "--help"]).stdout, "run --help has no examples")


def foreign_and_broken_elf(t):
    good = bytearray(pathlib.Path("/bin/true").read_bytes())
    def variant(name, change):
        data = bytearray(good)
        changed = change(data)  # b"" is a result, too
        data = data if changed is None else changed
        path = t.work / name
        path.write_bytes(data)
        path.chmod(0o755)
        return path
    def poke(offset, value):
        def change(data):
            data[offset:offset + len(value)] = value
        return change
    one_line_error(t, t.husk_run([variant("arm", poke(18, struct.pack("<H", 183)))]), 126, "arm")
    one_line_error(t, t.husk_run([variant("elf32", poke(4, b"\x01"))]), 126, "elf32")
    one_line_error(t, t.husk_run([variant("cut", lambda d: d[:100])]), 126, "cut")
    one_line_error(t, t.husk_run([variant("cut-later", lambda d: d[: len(d) // 2])]), 126, "cut-later")
    one_line_error(t, t.husk_run([variant("phoff", poke(32, struct.pack("<Q", 1 << 60)))]), 126, "phoff")
    one_line_error(t, t.husk_run([variant("empty", lambda d: bytearray())]), 126, "empty")


def missing_libraries(t):
    for name in ("first", "second"):
        (t.work / f"{name}.c").write_text(f"int {name}(void) {{ return 0; }}\n")
        t.run(["gcc", "-shared", "-fPIC", "-o", f"libhusk{name}.so", f"{name}.c"])
    program = c_program(t, "needs", "int first(void), second(void); int main(void) { return first() + second(); }", ["-L.", "-lhuskfirst", "-lhusksecond"])
    os.unlink(t.work / "libhuskfirst.so")
    os.unlink(t.work / "libhusksecond.so")
    one_line_error(t, t.husk_run([program]), 127, "libhuskfirst.so", "libhusksecond.so")
    (t.work / "elsewhere").mkdir()
    for name in ("first", "second"):
        t.run(["gcc", "-shared", "-fPIC", "-o", f"elsewhere/libhusk{name}.so", f"{name}.c"])
    found = t.husk_run([program], options=["-e", f"LD_LIBRARY_PATH={t.work}/elsewhere"])
    t.expect(found.returncode == 0, f"with LD_LIBRARY_PATH: {found}")
    script = t.work / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    one_line_error(t, t.husk_run([script]), 127, "/no/such/interpreter")
    one_line_error(t, t.husk_run([t.work / "elsewhere/libhuskfirst.so"]), 126, "library")


def image_files(t):
    hello = t.compile("tests/syscalls/hello.c")
    for name in ("a.husk", "b.husk"):
        built = t.run([t.husk, "build", hello, "-o", name])
        t.expect(built.returncode == 0, f"build: {built.stderr.decode()}")
    a, b = (t.work / "a.husk").read_bytes(), (t.work / "b.husk").read_bytes()
    t.expect(a == b, "two builds of the same program differ")
    run = t.husk_run([t.work / "a.husk"])
    t.expect((run.returncode, run.stdout) == (0, b"hello, world\n"), f"{run}")
    described = json.loads(t.run([t.husk, "inspect", "--json", "a.husk"]).stdout)
    t.expect(isinstance(described, dict) and described, "inspect --json is no object")
    for size in (0, 64, 4096, 5000, len(a) // 2, len(a) - 1):
        (t.work / "cut.husk").write_bytes(a[:size])
        broken = t.husk_run([t.work / "cut.husk"])
        one_line_error(t, broken, 126, "cut.husk")
    for offset in (*range(0, 4096 + 1024, 97), *range(4096 + 1024, described["sizes"]["nub"] + described["sizes"]["kernel"], 20_011)):
        data = bytearray(a)
        data[offset] ^= 1 << offset % 8
        (t.work / "bad.husk").write_bytes(data)
        one_line_error(t, t.husk_run([t.work / "bad.husk"], timeout=20), 126, "bad.husk")
    t.expect(t.run([t.husk, "inspect", "bad.husk"]).returncode != 0, "inspect of a damaged image")
    # In the cache: built again.
    t.environment["XDG_CACHE_HOME"] = str(t.work / "cache")
    for _ in range(2):
        run = t.husk_run([hello])
        t.expect((run.returncode, run.stdout, run.stderr) == (0, b"hello, world\n", b""), f"after damage in the cache: {run}")
        cached, = (t.work / "cache/husk").glob("*.husk")
        data = bytearray(cached.read_bytes())
        data[100_000] ^= 1
        cached.chmod(0o644)
        cached.write_bytes(data)


def environment_and_directory(t):
    (t.work / "env").write_text("# comment\nFROM_FILE=one two\nPASSED\n")
    t.environment["PASSED"] = "passed"
    result = t.husk_run(["env"], options=["-e", "GIVEN=1", "--env-file", t.work / "env"])
    lines = set(result.stdout.decode().splitlines())
    t.expect({"GIVEN=1", "FROM_FILE=one two", "PASSED=passed"} <= lines, f"environment: {lines}")
    t.expect(not any(line.startswith("SECRET=") for line in lines), "the host's environment leaked")
    t.environment["SECRET"] = "x"
    t.expect(b"SECRET" not in t.husk_run(["env"]).stdout, "the host's environment leaked")
    t.expect(t.husk_run(["pwd"], options=["-w", "/tmp"]).stdout == b"/tmp\n", "-w")
    t.expect(t.husk_run(["pwd"], options=["-w", "/made/for/it"]).stdout == b"/made/for/it\n", "-w makes the directory")
    one_line_error(t, t.husk_run(["pwd"], options=["-w", "/etc/passwd/x"]), 126, "/etc/passwd/x")
    t.expect(t.husk_run(["date", "-d", "@0", "+%H %Z"], options=["-e", "TZ=Asia/Tokyo"]).stdout == b"09 JST\n", "-e TZ=ZONE")
    (t.work / "site").mkdir()
    (t.work / "site/page").write_text("content\n")
    t.expect(t.husk_run(["cat", "/srv/page"], options=["--with", f"{t.work}/site:/srv"]).stdout == b"content\n", "--with DIR:PATH")
    t.expect(t.husk_run(["hostname"], options=["--name", "box"]).stdout.strip() == b"box", "--name")


def exit_statuses(t):
    for status in (0, 1, 77, 255):
        t.compare([c_program(t, f"exit{status}", f"int main(void) {{ return {status}; }}")], status=status)
    for name in ("SIGSEGV", "SIGABRT", "SIGTERM", "SIGKILL"):
        program = c_program(t, name, f"int main(void) {{ kill(getpid(), {name}); pause(); return 0; }}")
        result = t.husk_run([program])
        t.expect(result.returncode == 128 + getattr(signal, name), f"{name}: {result.returncode}")


def crash_report(t):
    program = c_program(t, "crash", "__attribute__((noinline)) int inner(int* p) { return *p; }\n"
                        "__attribute__((noinline)) int outer(int* p) { return inner(p) + 1; }\nint main(int argc, char** argv) { return outer((int*)(8 * (long)argc)); }", ["-g", "-fno-omit-frame-pointer", "-O0"])
    result = t.husk_run([program])
    text = result.stderr.decode()
    t.expect(result.returncode == 139, f"exit status {result.returncode}")
    for word in ("SIGSEGV", "0x8", "inner", "outer", "main"):
        t.expect(word in text, f"the crash report does not name {word!r}:\n{text}")


def too_little_memory(t):
    program = c_program(t, "big", "static char b[64 << 20]; int main(void) { memset(b, 1, sizeof b); puts(\"filled\"); return 0; }")
    result = t.husk_run([program], options=["-m", "32M"])
    t.expect(result.returncode in (125, 126, 137) and b"memory" in result.stderr, f"{result}")
    result = t.husk_run([program], options=["-m", "128M"])
    t.expect(result.stdout == b"filled\n", f"{result}")
    one_line_error(t, t.husk_run([program], options=["-m", "1K"]), 125, "memory")
    hello, too_small = t.compile("tests/syscalls/hello.c"), 0
    for size in "64K", "256K", "512K", "1M", "1500K", "2M", "3M":
        result = t.husk_run([hello], options=["-m", size])
        if result.returncode != 0:
            one_line_error(t, result, 125, "memory", "-m")
            too_small += 1
    t.expect(too_small > 0, "no size is too small")


def smallest_machine(t):
    result = t.husk_run([t.compile("tests/syscalls/hello.c")], options=["-m", "4M"])
    t.expect((result.returncode, result.stdout) == (0, b"hello, world\n"), f"{result}")


# Says it without stdio: the signal may come inside a call of stdio's, dprintf's in a handler included.
GOT = 'static void got(int s) { char text[] = "got 00\\n"; text[4] += s / 10; text[5] += s % 10; write(1, text, 7); }\n'


def signals_from_outside(t):
    program = c_program(t, "waits", GOT + "static void on(int s) { got(s); _exit(5); }\n"
                        "int main(void) { signal(SIGTERM, on); signal(SIGINT, on); puts(\"ready\"); fflush(stdout); for (;;) pause(); }")
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([*map(str, t.husk_command()), str(program)], stdout=subprocess.PIPE, env=t.environment, cwd=t.work)
        t.expect(process.stdout.readline() == b"ready\n", "not ready")
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
        t.expect((out, process.returncode) == (b"got %02d\n" % number, 5), f"signal {number}: {out} {process.returncode}")
    program = c_program(t, "user", GOT + "static void on(int s) { got(s); if (s == SIGTERM) _exit(5); }\n"
                        "int main(void) { signal(SIGUSR1, on); signal(SIGUSR2, on); signal(SIGTERM, on); dprintf(1, \"ready\\n\"); for (;;) pause(); }")
    process = subprocess.Popen([*map(str, t.husk_command()), str(program)], stdout=subprocess.PIPE, env=t.environment, cwd=t.work)
    t.expect(process.stdout.readline() == b"ready\n", "not ready")
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):  # more than three: no requests to stop
        process.send_signal(number)
        t.expect(process.stdout.readline() == b"got %02d\n" % number, f"signal {number}")
    t.expect((process.communicate(timeout=30)[1], process.returncode) == (None, 5), f"after the signals: {process.returncode}")
    spin = c_program(t, "spins", "int main(void) { signal(SIGTERM, SIG_IGN); puts(\"ready\"); fflush(stdout); for (;;); }")
    process = subprocess.Popen([*map(str, t.husk_command("--stop-timeout", "1")), str(spin)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=t.environment, cwd=t.work)
    t.expect(process.stdout.readline() == b"ready\n", "not ready")
    start = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)
    t.expect(time.monotonic() - start < 10 and process.returncode == 137, f"after the grace period: status {process.returncode}")


def processes_of(t):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(t.work).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    found.append(entry.name)
            except OSError:
                pass
    return found


def nothing_left_behind(t):
    program = c_program(t, "stays", "int main(void) { puts(\"ready\"); fflush(stdout); for (;;) pause(); }")
    before = set(os.listdir("/tmp")), set(os.listdir("/dev/shm"))
    process = subprocess.Popen([*map(str, t.husk_command()), str(program)], stdout=subprocess.PIPE, env=t.environment, cwd=t.work)
    t.expect(process.stdout.readline() == b"ready\n", "not ready")
    process.kill()
    process.wait()
    time.sleep(0.3)
    t.expect(not processes_of(t), f"processes left after kill -9: {processes_of(t)}")
    after = set(os.listdir("/tmp")), set(os.listdir("/dev/shm"))
    left = [n for n in (after[0] - before[0]) | (after[1] - before[1]) if "husk" in n and not n.startswith("husk-e2e-")]
    t.expect(not left, f"files left after kill -9: {left}")
    if t.hypervisor == "qemu":
        return
    scratch = t.work / "scratch"
    scratch.mkdir()
    # A build that is surely not over when the signal comes.
    slow = t.work / "slow"
    slow.mkdir()
    (slow / "mkfs.erofs").write_text(f'#!/bin/sh\nsleep 1\nexec {shutil.which("mkfs.erofs")} "$@"\n')
    (slow / "mkfs.erofs").chmod(0o755)
    environment = {**t.environment, "TMPDIR": str(scratch), "PATH": f"{slow}:{t.environment.get('PATH', os.environ['PATH'])}"}
    for number in signal.SIGKILL, signal.SIGINT:
        process = subprocess.Popen([t.husk, "build", "python3", "-o", scratch / "x.husk"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(scratch.glob("husk-build-*/root/usr")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        t.expect(process.wait(timeout=30) == -number, f"build was over before signal {number}")
        t.expect(wait_until(lambda: not list(scratch.iterdir()), 10), f"files left by a build after signal {number}: {list(scratch.iterdir())}")


def streams(t):
    data = os.urandom(1 << 20) * 24
    echo = t.husk_run(["cat"], data)
    t.expect(echo.stdout == data, f"24 MiB through cat: {len(echo.stdout)} bytes came back, status {echo.returncode}: {echo.stderr[-300:]}")
    both = c_program(t, "both", "int main(void) { for (int i = 0; i < 1000; ++i) { printf(\"o%d\\n\", i); fprintf(stderr, \"e%d\\n\", i); } return 0; }")
    t.compare([both])
    reader = subprocess.run(f"{' '.join(map(str, t.husk_command()))} yes | head -n 3", shell=True, capture_output=True, env=t.environment, timeout=60 * t.slow)
    t.expect(reader.stdout == b"y\ny\ny\n", f"yes | head: {reader}")
    t.expect(t.husk_run(["cat"], b"").stdout == b"", "empty stdin")


def slow_reader_of_messages(t):
    """--trace into a pipe that nobody reads: the machine can be stopped; who reads late reads all."""
    busy = c_program(t, "busy", "int main(int n, char** words) { for (long left = n > 1 ? atol(words[1]) : -1; left != 0; --left) getppid(); return 3; }")

    def start(*words):
        process = subprocess.Popen([*t.husk_command("--trace", "--stop-timeout", "1s"), busy, *words], stderr=subprocess.PIPE, env=t.environment)
        before, since, end = -1, time.monotonic(), time.monotonic() + 30 * t.slow
        while time.monotonic() < min(end, since + 1):  # until a second brings no more
            waiting, = struct.unpack("i", fcntl.ioctl(process.stderr, termios.FIONREAD, bytes(4)))
            if waiting != before or waiting == 0:
                before, since = waiting, time.monotonic()
            time.sleep(0.05)
        t.expect(before > 50000, f"{before} bytes wait: not a full pipe")
        return process

    process = start()
    process.terminate()
    try:
        status = process.wait(timeout=10 * t.slow)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failure("SIGTERM: no end while nobody reads")
    t.expect(status in (128 + signal.SIGKILL, 128 + signal.SIGTERM), f"SIGTERM: status {status}")
    process = start("60000")
    text = process.communicate(timeout=60 * t.slow)[1].decode()
    t.expect(process.returncode == 3 and text.count("getppid() =") == 60000 and text.rstrip().endswith("exit_group(3) = ?"),
             f"read late: {text.count('getppid() =')} of 60000 calls, status {process.returncode}, the end {text[-200:]!r}")


def reports(t):
    hello = t.compile("tests/syscalls/hello.c")
    result = t.husk_run([hello], options=["--timeline"])
    moments = [line.split(None, 1)[1] for line in result.stderr.decode().splitlines() if line.startswith("   ")]
    in_order = [m for m in moments if m in ("first guest instruction", "kernel started", "program's entry", "program's exit", "machine off", "command's end")]
    t.expect(result.stdout == b"hello, world\n" and len(in_order) == 6 and in_order[0].startswith("first") and in_order[-1] == "command's end", f"--timeline: {result}")
    result = t.husk_run([hello], options=["--trace"])
    t.expect(result.stdout == b"hello, world\n" and b"write(1" in result.stderr and b"exit_group" in result.stderr, f"--trace: {result}")
    for shell in ("bash", "zsh", "fish"):
        t.expect(t.run([t.husk, "completion", shell]).stdout, f"completion {shell}")


def doctor(t):
    """What it says is so: KVM as /dev/kvm is; this host runs machines, as the other cases show; without its tools it does not."""
    told = t.run([t.husk, "doctor", "--json"])
    answer = json.loads(told.stdout)
    checks = {check["name"]: check for check in answer["checks"]}
    kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    t.expect((checks["kvm"]["state"] == "ok") == kvm, f"/dev/kvm is {'' if kvm else 'not '}usable, doctor says: {checks['kvm']}")
    t.expect(all(check["fix"] for check in checks.values() if check["state"] == "bad"), f"a bad line without a remedy: {told.stdout}")
    t.expect(answer["healthy"] and told.returncode == 0, f"not healthy, but machines run here: {told}")
    last = t.run([t.husk, "doctor"]).stdout.decode().splitlines()[-1]
    t.expect(("QEMU without KVM" in last) != kvm, f"the last line: {last}")
    bare = t.run([t.husk, "doctor"], env=dict(t.environment, PATH="/nowhere"))
    t.expect(bare.returncode == 1 and b"apt-get install erofs-utils" in bare.stdout, f"without mkfs.erofs: {bare}")


def terminal(t):
    program = c_program(t, "tty", "#include <sys/ioctl.h>\nint main(void) { struct winsize w; ioctl(0, TIOCGWINSZ, &w); printf(\"%d %d %d\\n\", isatty(0), isatty(1), w.ws_col); "
                        "char b[64]; while (fgets(b, 64, stdin)) printf(\"<%s>\", strtok(b, \"\\n\")); return 6; }")
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 123, 0, 0))
        os.chdir(t.work)
        os.execve(t.husk, [*map(str, t.husk_command()), str(program)], t.environment)
    text = b""
    def until(word):
        nonlocal text
        end = time.monotonic() + 20 * t.slow
        while word not in text and time.monotonic() < end:
            try:
                text += os.read(fd, 1000)
            except OSError:
                break
        t.expect(word in text, f"terminal: no {word!r} in {text!r}")
    until(b"1 1 123")
    os.write(fd, b"typo\x7f\x7f\x7f\x7fhello\n")
    until(b"<hello>")
    os.write(fd, b"\x04")
    _, status = os.waitpid(pid, 0)
    t.expect(os.waitstatus_to_exitcode(status) == 6, f"terminal: status {status}")


def full_disk(t):
    """What the host cannot write is not lost in silence: the program is told, or else the user."""
    for count, status in (10, 125), (5_000_000, 1):  # more than all buffers on the way
        with open("/dev/full", "wb") as full:
            process = subprocess.run([*map(str, t.husk_command()), "seq", str(count)], stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=t.environment,
                                     cwd=t.work, timeout=30 * t.slow)
        t.expect(process.returncode == status and b"output to stdout was lost: No space left on device" in process.stderr, f"/dev/full: {process}")
    t.expect(b"write error: No space left on device" in process.stderr, f"the program is not told: {process}")


def half_terminal(t):
    """One stream is a terminal, the other is not: what is typed shows once, lines end with one carriage return, the terminal is afterwards as before."""
    for half in "stdin", "stdout", "stdin only":
        terminal = OwnTerminal(t)
        pipes = {"stdin": ["stdout"], "stdout": ["stdin"], "stdin only": ["stdout", "stderr"]}[half]
        process = terminal.start([*t.husk_command(), "cat"], **{name: subprocess.PIPE for name in pipes})
        if "stdin" in half:
            if half == "stdin":
                wait_until(lambda: not terminal.modes()[3] & termios.ECHO, 20 * t.slow)
            os.write(terminal.ours, b"hello\n")
            t.expect(process.stdout.readline() == b"hello\n", "stdin is a terminal: output")
            os.write(terminal.ours, b"\x04")
        else:
            process.stdin.write(b"hello\n")
            process.stdin.close()
        process.wait(timeout=30 * t.slow)
        shown = os.read(terminal.ours, 1000)
        t.expect(shown == b"hello\r\n", f"{half} is a terminal: it shows {shown}")
        t.expect(terminal.modes() == terminal.before, f"{half} is a terminal: not as before")
        terminal.close()


def terminal_comes_back(t):
    """The program hears that its window has changed; after kill -9 the terminal is as before."""
    program = c_program(t, "winch", "#include <sys/ioctl.h>\nstatic void on(int s) { struct winsize w; ioctl(0, TIOCGWINSZ, &w); dprintf(1, \"%d columns\\n\", w.ws_col); }\n"
                        "int main(void) { signal(SIGWINCH, on); dprintf(1, \"ready\\n\"); for (;;) pause(); }")
    terminal = OwnTerminal(t)
    process = terminal.start([*t.husk_command(), program])
    text = b""

    def shows(word):
        nonlocal text
        while word not in text:
            t.expect(select.select([terminal.ours], [], [], 20 * t.slow)[0], f"terminal: no {word} in {text}")
            text += os.read(terminal.ours, 1000)
    shows(b"ready")
    fcntl.ioctl(terminal.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 77, 0, 0))
    shows(b"77 columns")
    t.expect(terminal.modes() != terminal.before, "the terminal is not raw")
    process.kill()
    process.wait()
    t.expect(wait_until(lambda: terminal.modes() == terminal.before, 5), "the terminal is not as before")
    terminal.close()


def no_permission(t):
    """A user who may not use /dev/kvm: one line if it must be KVM, else QEMU and a word on it."""
    if os.geteuid() != 0 or not os.path.exists("/dev/kvm") or os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        raise Skip("needs root, and a /dev/kvm that is not for everybody")
    home = t.work / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    t.work.chmod(0o755), t.work.parent.chmod(0o711)
    hello, husk = shutil.copy(t.compile("tests/syscalls/hello.c"), t.work / "its-hello"), shutil.copy(t.husk, t.work / "its-husk")
    def run(*options):
        return subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", husk, "run", *options, hello], env={**t.environment, "HOME": str(home), "XDG_CACHE_HOME": ""},
                              stdin=subprocess.DEVNULL, capture_output=True, cwd=home, timeout=60)
    one_line_error(t, run("--hypervisor", "kvm"), 125, "/dev/kvm", "doctor")
    fallen_back = run()
    t.expect((fallen_back.returncode, fallen_back.stdout) == (0, b"hello, world\n") and b"without KVM" in fallen_back.stderr, f"{fallen_back}")


def words(t):
    def run(*arguments):
        return t.run([t.husk, *arguments])
    one_line_error(t, run("no-such-command", "echo"), 125, "no-such-command")
    one_line_error(t, run("--no-such-option"), 125, "--no-such-option")
    one_line_error(t, run("run", "-v", "/a:/b", "true"), 125, "-v", "--with")
    one_line_error(t, run("run", "--cpus", "many", "true"), 125, "many")
    one_line_error(t, run("run", "--cpus", "2", "true"), 125, "--cpus 2")
    result = run("run", "-e", "A=B", "--rm", "--cpus", "1.0", "--", "/bin/echo", "-n", "--", "x")
    t.expect(result.stdout == b"-- x", f"run -- PROGRAM: {result.stdout!r} {result.stderr!r}")
    for options in ("--json",), ("--pcap", "-"), ("--hostname", "two words"), ("--name", "-x"), ("--env-file", "."):
        one_line_error(t, run("run", *options, "true"), 125, options[0])
    os.mkfifo(t.work / "fifo")
    one_line_error(t, t.husk_run([t.work / "fifo"]), 126, "fifo")


def build_options(t):
    program = c_program(t, "memory", "int main(void) { printf(\"%ld\\n\", sysconf(_SC_PHYS_PAGES) * 4 / 1024); return 0; }", ["-static"])
    image = t.work / "memory.husk"
    t.expect(t.run([t.husk, "build", "-m", "48M", program, "-o", image]).returncode == 0, "build -m")
    def has(mib, *options):  # QEMU gives up to 4 MiB more
        said = t.husk_run([image], options=options).stdout
        return said.strip().isdigit() and mib <= int(said) <= (mib if t.hypervisor == "kvm" else mib + 4)
    t.expect(has(48), "an image's memory is not what build said")
    t.expect(has(32, "-m", "32M"), "run -m goes first")
    one_line_error(t, t.run([t.husk, "build", "-m", "1K", program, "-o", image]), 125, "1K")
    one_line_error(t, t.run([t.husk, "run", "--with", f"{program}:/x", image]), 125, "--with")
    os.mkfifo(t.work / "pipe")
    (t.work / "tree").mkdir()
    os.mkfifo(t.work / "tree/fifo")
    t.expect(b"tree/fifo" in t.run([t.husk, "build", program, "-o", t.work / "x.husk", "--with", t.work / "tree"]).stderr, "a FIFO is left out without a word")
    one_line_error(t, t.run([t.husk, "build", program, "-o", program]), 125, "the program itself")
    one_line_error(t, t.run([t.husk, "build", program, "-o", t.work / "pipe"]), 125, "not a regular file")
    t.expect(t.run([program]).returncode == 0, "the program is damaged")
    again = t.work / "again.husk"
    odd = f"{program.parent}/./{program.name}" if isinstance(program, pathlib.Path) else f"{os.path.dirname(program)}/./{os.path.basename(program)}"
    t.run([t.husk, "build", "-m", "48M", odd, "-o", again])
    t.expect(image.read_bytes() == again.read_bytes(), "one program under two spellings gives two images")


def completion_knows_every_option(t):
    """What --help lists, the completion scripts offer."""
    import re
    for command in ("run", "build"):
        options = set(re.findall(r"^  (?:-\w,)?\s*(--[a-z-]+)", t.run([t.husk, command, "--help"]).stdout.decode(), re.M)) - {"--help"}
        t.expect(len(options) > 5, f"no options in the help of {command}")
        for shell in ("bash", "fish"):
            script = t.run([t.husk, "completion", shell]).stdout.decode()
            missing = sorted(o for o in options if o not in script and o[2:] not in script.split())
            t.expect(not missing, f"{shell} completion of {command} lacks {missing}")


CASES = {f.__name__: f for f in (words, build_options, completion_knows_every_option, errors, foreign_and_broken_elf, missing_libraries, image_files, environment_and_directory, exit_statuses, crash_report, too_little_memory,
                                 smallest_machine, signals_from_outside, nothing_left_behind, streams, slow_reader_of_messages, full_disk, reports, doctor, terminal, half_terminal, terminal_comes_back,
                                 no_permission)}
QEMU_CASES = ["too_little_memory", "exit_statuses", "streams", "signals_from_outside", "nothing_left_behind", "terminal", "full_disk", "doctor"]
