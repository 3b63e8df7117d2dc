"""Crash reports: the backtrace has the functions that were active, in order, and no other."""
import re

SOURCE = """
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#define FUNCTION __attribute__((noipa))
volatile int sink;
int (*volatile nowhere)(int);
static char alternate[65536];

/* Leaves return addresses below the stack pointer. */
FUNCTION int returned(int n) { char b[200]; memset(b, n, sizeof b); sink = b[n]; return n ? returned(n - 1) + 1 : 0; }
FUNCTION int fault(int* p) { int r = *p; sink = r; return r; }
FUNCTION int divide(int a, int b) { return a / b; }
FUNCTION int call_null(int a) { return nowhere(a) + 1; }
FUNCTION int recurse(int n) { char b[100]; memset(b, n, sizeof b); sink = b[5]; return recurse(n + 1) + b[7]; }
FUNCTION int compare(const void* a, const void* b) { sink = fault((int*)8); return *(int*)a - *(int*)b; }
FUNCTION int sort(void) { int v[] = {3, 1, 2}; qsort(v, 3, sizeof(int), compare); return v[0]; }
FUNCTION void handler(int s) { returned(3); sink = fault((int*)16) + s; }
FUNCTION int send_signal(void) { signal(SIGUSR1, handler); kill(getpid(), SIGUSR1); return sink + 1; }
FUNCTION int on_alternate_stack(int (*then)(int)) {
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  sigaltstack(&stack, NULL);
  sigaction(SIGSEGV, &action, NULL);
  return then(1) + 1;
}
FUNCTION int read_null(int a) { return fault((int*)24) + a; }
FUNCTION void* worker(void* a) { returned(10); sink = fault((int*)32); return a; }
FUNCTION void* deep_worker(void* a) { sink = recurse(0); return a; }
FUNCTION int thread(void* (*body)(void*)) { pthread_t t; pthread_create(&t, NULL, body, NULL); pthread_join(t, NULL); return 1; }
FUNCTION void give_up(void) { abort(); }  /* the call is its last instruction */
FUNCTION int ask_time(void) { return clock_gettime(CLOCK_MONOTONIC, (void*)8) + 1; }
/* A system call whose return address lies in a trampoline of husk's. */
FUNCTION long moved(long nr, long a, long b) {
  __asm__ volatile("1: syscall\\n test %%rax,%%rax\\n jg 1b" : "+a"(nr) : "D"(a), "S"(b) : "rcx", "r11", "memory");
  return nr + 1;
}
FUNCTION int act(const char* what) {
  int r = 0;
  if (!strcmp(what, "fault")) r = fault((int*)8);
  else if (!strcmp(what, "divide")) r = divide(1, sink);
  else if (!strcmp(what, "null")) r = call_null(1);
  else if (!strcmp(what, "overflow")) r = recurse(1);
  else if (!strcmp(what, "sort")) r = sort();
  else if (!strcmp(what, "signal")) r = send_signal();
  else if (!strcmp(what, "alternate")) r = on_alternate_stack(read_null);
  else if (!strcmp(what, "alternate_overflow")) r = on_alternate_stack(recurse);
  else if (!strcmp(what, "thread")) r = thread(worker);
  else if (!strcmp(what, "thread_overflow")) r = thread(deep_worker);
  else if (!strcmp(what, "abort")) give_up();
  else if (!strcmp(what, "vdso")) r = ask_time();
  else if (!strcmp(what, "moved")) r = moved(SYS_kill, getpid(), SIGABRT);
  return r + 1;
}
int main(int argc, char** argv) { returned(10); sink = 0; return act(argv[1]) + argc; }
"""

HANDLED = "<signal handler called>"
# What runs, and the functions of the program from the innermost on; "libc" for any number of functions of the C library.
TRACES = {
    "fault": ["fault", "act", "main"],
    "divide": ["divide", "act", "main"],
    "null": ["?", "call_null", "act", "main"],
    "sort": ["fault", "compare", "libc", "sort", "act", "main"],
    "signal": ["fault", "handler", HANDLED, "libc", "send_signal", "act", "main"],
    "alternate": ["fault", "handler", HANDLED, "fault", "read_null", "on_alternate_stack", "act", "main"],
    "thread": ["fault", "worker", "libc"],
    "abort": ["libc", "give_up", "act", "main"],
    "vdso": ["clock_gettime", "libc", "ask_time", "act", "main"],
    "moved": ["moved", "act", "main"],
}
BOTTOM = {"main": ["libc", "_start"]}


def frames(text):
    return re.findall(r"^  #\d+ +0x[0-9a-f]+ (.*) in (\S+) \(0x[0-9a-f]+\)$", text, re.M)


def names(text, program):
    """The trace with the C library's functions, which have no names in it, run together."""
    out = []
    for name, path in frames(text):
        name = re.sub(r"\+0x[0-9a-f]+$", "", name).removeprefix("__vdso_")
        if "/libc.so" in path and name != HANDLED:
            name = "libc"
        if name != "libc" or out[-1:] != ["libc"]:
            out.append(name)
    return out


def build(t, name, flags, source=SOURCE, suffix=".c"):
    path = t.work / f"{name}{suffix}"
    path.write_text(source)
    return t.compile(path, flags=["-O2", "-fno-optimize-sibling-calls", *flags])


def crash(t, program, *arguments, status=139):
    result = t.husk_run([program, *arguments])
    text = result.stderr.decode()
    t.expect(result.returncode == status, f"{arguments}: exit status {result.returncode}, expected {status}:\n{text}")
    return text


def backtraces(t):
    program = build(t, "dynamic", ["-fomit-frame-pointer"])
    for what, expected in TRACES.items():
        text = crash(t, program, what, status={"divide": 136, "abort": 134, "moved": 134}.get(what, 139))
        expected = expected + BOTTOM.get(expected[-1], [])
        t.expect(names(text, program) == expected, f"{what}: the trace is not {expected}:\n{text}")
        t.expect("ends here" not in text, f"{what}: the trace is not complete:\n{text}")


def static_programs(t):
    """Without a search table, and in the case of static PIE relocated by itself."""
    for flags in (["-static"], ["-static-pie"], ["-static", "-Wl,--no-eh-frame-hdr"]):
        program = build(t, "static", flags)
        for what in ("fault", "null", "sort", "signal", "thread"):
            text = crash(t, program, what)
            found = names(text, program)
            expected = [name for name in TRACES[what] if name != "libc"]
            own = [name for name in found if name in expected]
            t.expect(own == expected and found[0] == expected[0] and "returned" not in found, f"{flags} {what}: the trace is not {expected}:\n{text}")
            t.expect("ends here" not in text, f"{flags} {what}: the trace is not complete:\n{text}")


def overflows(t):
    program = build(t, "overflow", [])
    for what, above in (("overflow", []), ("thread_overflow", []), ("alternate_overflow", ["fault", "handler", HANDLED])):
        text = crash(t, program, what)
        found = names(text, program)
        t.expect(found[:len(above)] == above and len(found) > 30 and set(found[len(above):]) == {"recurse"}, f"{what}: not a recursion:\n{text}")
        t.expect("there are more frames" in text, f"{what}: the trace seems complete:\n{text}")


def frame_pointers(t):
    """Code without unwind tables."""
    program = build(t, "tables", ["-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"])
    text = crash(t, program, "fault")
    t.expect(names(text, program)[:3] == TRACES["fault"], f"not {TRACES['fault']}:\n{text}")


def uncaught_exception(t):
    program = build(t, "thrower", [], """
#include <stdexcept>
#include <string>
#define FUNCTION __attribute__((noipa))
FUNCTION void thrower(int n) { throw std::runtime_error(std::to_string(n)); }
struct Object {
  FUNCTION int method(int n) { std::string text(100, 'a'); thrower(n); return static_cast<int>(text.size()); }
};
int main(int argc, char**) { Object object; return object.method(argc) + 1; }
""", ".cc")
    text = crash(t, program, status=134)
    found = names(text, program)
    order = ["libc", "std::terminate()", "__cxa_throw", "thrower(int)", "Object::method(int)", "main", "libc", "_start"]
    t.expect([name for name in found if name != "?"] == order, f"the trace is not {order}:\n{text}")
    t.expect("ends here" not in text, f"the trace is not complete:\n{text}")


def damaged_tables(t):
    """A program with a hostile .eh_frame costs its own report something, and nothing else."""
    program = build(t, "damaged", [])
    headers = t.run(["readelf", "-SW", program]).stdout.decode()
    offset, size = (int(word, 16) for word in re.search(r"\.eh_frame +PROGBITS +\S+ (\S+) (\S+)", headers).groups())
    data = bytearray(program.read_bytes())
    for i in range(24, size, 3):
        data[offset + i] ^= 0x5a
    program.write_bytes(data)
    text = crash(t, program, "fault")
    t.expect(names(text, program)[:1] == ["fault"] and "SIGSEGV" in text, f"no report:\n{text}")


CASES = {f.__name__: f for f in (backtraces, static_programs, overflows, frame_pointers, uncaught_exception, damaged_tables)}
QEMU_CASES = ["overflows"]
