"""Debian's own binaries, unmodified, and what other compilers make."""
import hashlib
import os
import pathlib
import random
import subprocess

from harness import Failure

SQL = b"""
create table t(id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
  insert into t select i, 'name-' || (i * 7919 % 100003), i * 0.5 from n;
create table u as select id, id % 97 as bucket from t;
create index by_bucket on u(bucket);
select count(*), sum(value), min(name), max(name) from t;
select bucket, count(*), round(avg(t.value), 3) from u join t using(id) group by bucket order by bucket limit 5;
update t set name = upper(name) where id % 3 = 0;
delete from t where id % 10 = 0;
select count(*), count(distinct name) from t;
pragma integrity_check;
"""

PYTHON = b"""
import json, threading, hashlib, re, collections, datetime, decimal, itertools, random, sqlite3, struct, zlib, tempfile, os, subprocess, math, csv, io
def work(n, out):
    h = hashlib.sha256()
    for i in range(2000): h.update(str(i * n).encode())
    out[n] = h.hexdigest()
out = {}
threads = [threading.Thread(target=work, args=(n, out)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(json.dumps(out, sort_keys=True))
print(re.findall(r'\\d+', 'a1b22c333'), math.sqrt(2), decimal.Decimal(1) / 3)
db = sqlite3.connect(':memory:'); db.execute('create table x(a)'); db.executemany('insert into x values(?)', [(i,) for i in range(1000)])
print(db.execute('select sum(a) from x').fetchone())
with tempfile.TemporaryDirectory() as d:
    p = os.path.join(d, 'file'); open(p, 'wb').write(zlib.compress(b'x' * 100000))
    print(len(zlib.decompress(open(p, 'rb').read())), os.listdir(d))
print(datetime.date(2024, 2, 29) + datetime.timedelta(365), collections.Counter('mississippi').most_common(2))
random.seed(42); print([random.randrange(1000) for _ in range(5)])
class E(Exception): pass
try: raise E('x')
except E as e: print(type(e).__name__, e)
import sys; print(sys.version_info[:2], sys.stdin.readline() == '', len(sys.argv))
sys.exit(7)
"""

PERL = rb"""use strict; use List::Util qw(sum); use POSIX qw(floor); use Data::Dumper; use Digest::MD5 qw(md5_hex);
my %h; $h{$_ % 7} += $_ for 1..10000; print "$_=$h{$_}\n" for sort keys %h;
print sum(1..100), " ", floor(3.7), " ", md5_hex("husk"), "\n"; my $s = "aXbXc"; $s =~ s/X/-/g; print "$s\n";
open(my $f, '>', '/tmp/perl-test') or die; print $f "line $_\n" for 1..100; close $f;
open($f, '<', '/tmp/perl-test'); my @l = <$f>; print scalar(@l), "\n"; unlink '/tmp/perl-test'; exit 5;
"""

LUA = rb"""
local t = {} for i = 1, 10000 do t[i] = i * i % 1009 end table.sort(t) print(t[1], t[5000], t[10000])
print(string.format("%5.2f %s %d", 3.14159, ("x"):rep(5), #t)) print(select("#", string.byte("hello", 1, -1)))
local c = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) print(c(), c(), c())
print(pcall(error, "boom")) os.exit(4)
"""

GO = """package main
import ("fmt"; "sync"; "time"; "sort"; "os"; "strings"; "runtime")
func main() {
  var wg sync.WaitGroup; var mu sync.Mutex; total := 0
  for i := 0; i < 100; i++ { wg.Add(1); go func(n int) { defer wg.Done(); for j := 0; j < 1000; j++ { mu.Lock(); total += n; mu.Unlock() } }(i) }
  wg.Wait(); fmt.Println(total)
  c := make(chan int); go func() { for i := 0; i < 5; i++ { c <- i; time.Sleep(time.Millisecond) }; close(c) }()
  for v := range c { fmt.Print(v, " ") }; fmt.Println()
  m := map[string]int{}; for _, w := range strings.Fields("a b a c b a") { m[w]++ }
  k := []string{}; for w := range m { k = append(k, w) }; sort.Strings(k); fmt.Println(k, m)
  func() { defer func() { fmt.Println("recovered:", recover()) }(); var p *int; fmt.Println(*p) }()
  done := make(chan bool); go func() { for { select { case <-done: return; default: } } }(); time.Sleep(20 * time.Millisecond); done <- true
  b := make([][]byte, 0); for i := 0; i < 200; i++ { b = append(b, make([]byte, 1<<18)) }; runtime.GC(); fmt.Println(len(b))
  os.WriteFile("/tmp/go-test", []byte("data"), 0600); d, _ := os.ReadFile("/tmp/go-test"); os.Remove("/tmp/go-test"); fmt.Println(string(d))
  os.Exit(9)
}
"""


def sqlite3(t):
    t.compare(["sqlite3"], SQL)
    t.compare(["sqlite3", "/tmp/husk-e2e.db"], b"create table a(x); insert into a values(1),(2); select sum(x) from a; drop table a; vacuum;")
    for suffix in ("", "-journal"):
        pathlib.Path("/tmp/husk-e2e.db" + suffix).unlink(missing_ok=True)


def python3(t):
    t.compare(["/usr/bin/python3", "-c", PYTHON.decode()], options=["-m", "512M"])


def python3_script(t):
    script = t.work / "tool.py"
    script.write_text("#!/usr/bin/python3\nimport sys, helper\nprint(helper.twice(21), sys.argv[1:])\n")
    script.chmod(0o755)
    (t.work / "helper.py").write_text("def twice(n): return 2 * n\n")
    t.compare([script, "a", "b"], options=["--with", t.work / "helper.py"])


def perl(t):
    t.compare(["perl", "-"], PERL)


def lua(t):
    t.compare(["lua5.4", "-"], LUA)


def musl(t):
    source = t.work / "musl.c"
    source.write_text("""#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void* work(void* p) { char* b = malloc(100000); memset(b, *(int*)p, 100000); long r = b[99999]; free(b); return (void*)r; }
int main() { pthread_t t[8]; int n[8]; for (int i = 0; i < 8; ++i) { n[i] = i; pthread_create(&t[i], 0, work, &n[i]); }
  long sum = 0; for (int i = 0; i < 8; ++i) { void* r; pthread_join(t[i], &r); sum += (long)r; }
  printf("%ld %f %s\\n", sum, 1.5, getenv("HOME") ? "home" : "none"); return 11; }
""")
    t.need("musl-gcc")
    t.compare([t.compile(source, flags=["-static"], compiler="musl-gcc")])


def go(t):
    t.need("go")
    (t.work / "main.go").write_text(GO)
    env = dict(t.environment, GOCACHE=str(t.work.parent / "gocache"), CGO_ENABLED="0", GOFLAGS="-mod=mod", HOME=str(t.work))
    built = t.run(["go", "build", "-o", "gotest", "main.go"], env=env, timeout=300)
    t.expect(built.returncode == 0, f"go build: {built.stderr.decode()}")
    host = t.run([t.work / "gotest"])
    guest = t.husk_run([t.work / "gotest"], options=["-m", "512M"])
    t.expect((guest.returncode, guest.stdout) == (host.returncode, host.stdout),
             f"Linux {host.returncode} {host.stdout!r}, husk {guest.returncode} {guest.stdout!r} {guest.stderr[-500:]!r}")


def busybox(t):
    text = b"".join(b"%d the quick brown fox %d\n" % (i % 17, i) for i in range(5000))
    for applet in (["sha256sum"], ["sort", "-n"], ["wc"], ["grep", "-c", "9 the"], ["awk", "{s+=$1} END {print s}"], ["sed", "-n", "s/quick/slow/p"],
                   ["cut", "-d", " ", "-f", "2"], ["tr", "a-z", "A-Z"], ["head", "-n", "3"], ["tail", "-n", "3"], ["uniq", "-c"], ["md5sum"],
                   ["base64"], ["od", "-c"], ["expr", "6", "*", "7"], ["seq", "1", "50"], ["cal", "2", "2024"], ["echo", "a b"], ["printf", "%05d\n", "42"],
                   ["true"], ["false"], ["cat"], ["rev"], ["gzip", "-c"], ["bzip2", "-c"]):
        t.compare(["/bin/busybox", *applet], text)


def pseudo_text(path, size):
    """A file that compresses like text and is the same on every run."""
    generator = random.Random(7)
    words = [bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(3000)]
    block = b" ".join(generator.choices(words, k=400000)) + b"\n"
    with open(path, "wb") as out:
        written, turn = 0, 0
        while written < size:
            piece = (b"%08d " % turn + block)[: size - written]
            out.write(piece)
            written += len(piece)
            turn += 1


def digest_of_pipe(command, source, env):
    """sha256 of what a command writes when it reads the file; streams, so that size does not matter."""
    digest = hashlib.sha256()
    with open(source, "rb") as stdin, subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, env=env) as process:
        while block := process.stdout.read(1 << 20):
            digest.update(block)
    return process.returncode, digest.hexdigest()


def compressor(name, *flags):
    def case(t):
        source, packed = t.work / "input", t.work / "packed"
        pseudo_text(source, 5_000_000 if t.emulated else 500_000_000)
        with open(source, "rb") as stdin, open(packed, "wb") as stdout:
            status = subprocess.run([*map(str, t.husk_command("-m", "1G")), name, *flags, "-c"], stdin=stdin, stdout=stdout, env=t.environment).returncode
        t.expect(status == 0, f"{name}: exit status {status}")
        # What husk packed, Linux unpacks to the same bytes; and husk unpacks what it packed.
        expected = digest_of_pipe(["cat"], source, t.environment)
        t.expect(digest_of_pipe([name, "-d", "-c"], packed, t.environment) == expected, "Linux unpacks other bytes than were packed")
        t.expect(digest_of_pipe([*map(str, t.husk_command("-m", "1G")), name, "-d", "-c"], packed, t.environment) == expected, "husk unpacks other bytes")
    return case


def sort(t):
    source = t.work / "lines"
    generator = random.Random(3)
    with open(source, "w") as out:
        for _ in range(200_000_000 // 50):
            out.write(f"{generator.getrandbits(160):048x}\n")
    env = dict(t.environment, LC_ALL="C")
    expected = digest_of_pipe(["sort"], source, env)
    actual = digest_of_pipe([*map(str, t.husk_command("-m", "2G", "-e", "LC_ALL=C")), "sort"], source, env)
    t.expect(actual == expected, f"sorted output differs: Linux {expected}, husk {actual}")


def openssl(t):
    data = os.urandom(1) * 3_000_000
    for digest in ("sha256", "sha512", "md5", "blake2b512"):
        t.compare(["openssl", "dgst", f"-{digest}"], data)
    speed = t.husk_run(["openssl", "speed", "-seconds", "1", "-bytes", "8192", "-evp", "sha256"])
    t.expect(speed.returncode == 0 and b"8192 bytes" in speed.stdout, f"openssl speed: {speed.returncode} {speed.stdout[-300:]} {speed.stderr[-300:]}")
    keys = t.husk_run(["openssl", "rand", "-hex", "16"]), t.husk_run(["openssl", "rand", "-hex", "16"])
    t.expect(keys[0].returncode == 0 and keys[0].stdout != keys[1].stdout, "two machines gave the same random bytes")


def coreutils(t):
    text = b"".join(b"%d %d\n" % (i * 7919 % 1000, i) for i in range(3000))
    for command in (["sort", "-n"], ["sha1sum"], ["wc", "-l"], ["od", "-An", "-tx1"], ["cksum"], ["shuf", "--random-source=/dev/zero"], ["fold", "-w", "20"], ["tsort"],
                    ["numfmt", "--to=iec"], ["factor", "1234567890"], ["date", "-u", "-d", "@0"], ["env", "-i", "A=b"], ["stat", "-c", "%F", "/"], ["printenv", "NOT_SET"]):
        t.compare(command, text)


def compiled_here(t):
    source = t.work / "fresh.cc"
    source.write_text("#include <iostream>\nint main() { std::string n; std::cin >> n; std::cout << \"hi \" << n << std::endl; return 3; }\n")
    for flags in (["-O2"], ["-O2", "-static"], ["-O2", "-static-pie"], ["-O2", "-no-pie"]):
        t.compare([t.compile(source, flags=flags)], b"husk\n", status=3)


def certificates(t):
    """OpenSSL and Python trust what they trust on the host, and know its C.UTF-8 locale."""
    bundle = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    root = t.work / "root.pem"
    root.write_text(bundle[:bundle.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n")
    result = t.husk_run(["openssl", "verify", "/root.pem"], options=["--with", f"{root}:/root.pem"])
    t.expect(result.returncode == 0, f"openssl verify: {result.stdout!r} {result.stderr!r}")
    code = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509'])"
    t.expect(t.husk_run(["/usr/bin/python3", "-c", code]).stdout == t.run(["/usr/bin/python3", "-c", code]).stdout, "python's roots differ")
    result = t.husk_run(["wc", "-m"], options=["-e", "LC_ALL=C.UTF-8"], stdin="ü\n".encode())
    t.expect(result.stdout.strip() == b"2", f"C.UTF-8: {result.stdout!r}")


CASES = {
    "sqlite3": sqlite3, "python3": python3, "python3_script": python3_script, "perl": perl, "lua": lua, "musl": musl, "go": go, "busybox": busybox,
    "coreutils": coreutils, "compiled_here": compiled_here, "openssl": openssl, "gzip": compressor("gzip", "-1"), "zstd": compressor("zstd", "-T2", "-q"),
    "xz": compressor("xz", "-T2", "-0"), "sort": sort, "certificates": certificates,
}
QEMU_CASES = ["sqlite3", "perl", "lua", "compiled_here", "gzip", "musl"]
