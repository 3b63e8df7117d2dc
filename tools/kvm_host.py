#!/usr/bin/python3
"""Runs a command on an emulated computer whose Linux has KVM: a processor with AMD SVM and nested paging, by QEMU without KVM.

For hosts without KVM, and to see husk where ring 0 runs on the processor while a software KVM emulates it. The command sees this host's files, as
root, in this folder; what it writes is gone afterwards. Its output and exit status are passed on. Everything is 20 to 50 times slower than on the
host: good for what works, not for how fast.

    tools/kvm_host.py build/husk run --timeline echo hello
    tools/kvm_host.py ctest --test-dir build -L guest

The first run fetches Debian's kernel (70 MB, by apt-get) into build/kvm-host/. Exit status: the command's; 125 if the computer did not come so far; 77 if
nothing can be said of the command: there is no kernel to be had, or the computer stood still (its Linux does now and then, why is not known; seen in the
middle of tests that pass)."""
import argparse
import gzip
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net", "virtio_rng", "tun", "veth", "bridge", "kvm_amd"]
STALL = re.compile(r"^\[ *\d+\.\d+\] .*(detected stall|soft lockup)")  # its kernel's own words
READY, ENDED = "kvm-host: ready", "kvm-host: status "

INIT = """#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
{modules}
$busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host
$busybox mount -t tmpfs -o size=75% tmpfs /layer
$busybox mkdir /layer/upper /layer/work
$busybox mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /root
$busybox mount -t proc proc /root/proc
$busybox mount -t sysfs sysfs /root/sys
$busybox mount -t devtmpfs devtmpfs /root/dev
$busybox mkdir -p /root/dev/pts /root/dev/shm /root/dev/net
$busybox mount -t devpts devpts /root/dev/pts
$busybox mount -t tmpfs tmpfs /root/dev/shm
$busybox ln -s /proc/self/fd /root/dev/fd
$busybox ifconfig lo 127.0.0.1 up
$busybox ifconfig eth0 192.168.76.15 netmask 255.255.255.0 up
$busybox route add default gw 192.168.76.2
echo "{ready}"
# Through a pipe: the console is a terminal.
{{ $busybox chroot /root /bin/sh -c {command}; echo $? > /status; }} 2>&1 | $busybox cat
echo "{ended}$($busybox cat /status)"
$busybox poweroff -f
"""


def fetch_kernel(folder):
    """The unpacked package of the kernel that linux-image-amd64 stands for."""
    unpacked = folder / "kernel"
    if unpacked.exists():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    shown = subprocess.run(["apt-cache", "show", "linux-image-amd64"], capture_output=True, text=True, check=True).stdout
    name = re.search(r"^Depends: (linux-image-\S+)", shown, re.M).group(1)
    print(f"kvm-host: fetching {name}", file=sys.stderr)
    subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=folder, check=True)
    (package,) = folder.glob(f"{name}_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacking"], check=True)
    package.unlink()
    (folder / "unpacking").rename(unpacked)
    return unpacked


def modules_in_order(kernel):
    """MODULES and what they need, as paths, what is needed first."""
    paths = {path.stem.replace("-", "_"): path for path in kernel.glob("lib/modules/*/kernel/**/*.ko")}
    order = []

    def add(name):
        needed = re.search(rb"\0depends=([^\0]*)\0", paths[name].read_bytes())
        for other in filter(None, needed.group(1).decode().split(",") if needed else []):
            add(other.replace("-", "_"))
        if paths[name] not in order:
            order.append(paths[name])

    for name in MODULES:
        add(name)
    return order


class Archive:
    """cpio in the newc format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.data, self.count = bytearray(), 0

    def add(self, name, mode, content=b""):
        self.count += 1
        fields = [self.count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self.pad()
        self.data += content
        self.pad()

    def pad(self):
        self.data += bytes(-len(self.data) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return gzip.compress(bytes(self.data), 1)


def initial_ram_disk(kernel, command):
    archive, modules = Archive(), modules_in_order(kernel)
    for name in ("bin", "modules", "proc", "dev", "host", "layer", "root"):
        archive.add(name, 0o040755)
    archive.add("bin/busybox", 0o100755, pathlib.Path("/bin/busybox").read_bytes())
    for path in modules:
        archive.add(f"modules/{path.name}", 0o100644, path.read_bytes())
    load = "\n".join(f"$busybox insmod /modules/{path.name}" for path in modules)
    words = f"cd {shlex.quote(os.getcwd())} && export HOME=/root PATH={shlex.quote(os.environ['PATH'])} HUSK_EMULATED_HOST=1 && {shlex.join(command)}"
    archive.add("init", 0o100755, INIT.format(modules=load, ready=READY, ended=ENDED, command=shlex.quote(words)).encode())
    return archive.finish()


def run(kernel, command, arguments):
    ram_disk = os.memfd_create("initrd")
    os.write(ram_disk, initial_ram_disk(kernel, command))
    (image,) = kernel.glob("boot/vmlinuz-*")
    # QEMU 7.2 reads the stack of a ring-3 IRETQ with supervisor rights, which husk's kernel does not survive under SMAP.
    words = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,smap=off", "-smp", str(arguments.cpus), "-m", arguments.memory, "-nodefaults",
             "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", image, "-initrd", f"/proc/self/fd/{ram_disk}",
             "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr",
             "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
             "-nic", "user,model=virtio-net-pci,restrict=on,net=192.168.76.0/24", "-object", "rng-random,id=r,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r"]
    machine = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=[ram_disk], text=True, errors="replace")
    status, began, stalled = 125, False, threading.Event()

    def watchdog():
        timer = threading.Timer(arguments.patience, lambda: (stalled.set(), machine.kill()))
        timer.start()
        return timer

    timer = watchdog()
    try:
        for line in machine.stdout:
            timer.cancel()
            timer = watchdog()
            line = line.rstrip("\r\n")
            if line.startswith(ENDED):
                status = int(line.removeprefix(ENDED))
                break
            if began:
                print(line, flush=True)
            if STALL.match(line):
                stalled.set()
                break
            began = began or line == READY
        if not stalled.is_set():
            machine.wait(20)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        pass
    finally:
        timer.cancel()
        machine.kill()
        machine.wait()
    if stalled.is_set():
        print(f"kvm-host: the emulated computer stood still (or said nothing for {arguments.patience} s) and was switched off", file=sys.stderr)
        return 77
    if not began:
        print("kvm-host: the emulated computer did not start", file=sys.stderr)
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="6G", help="of the emulated computer (default: %(default)s)")
    parser.add_argument("--cpus", default=2, type=int, help="of the emulated computer (default: %(default)s)")
    parser.add_argument("--patience", default=180, type=int, help="seconds without a line of output until it is switched off (default: %(default)s)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command; see --help")
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("/bin/busybox", "busybox-static")):
        if not shutil.which(program):
            print(f"kvm-host: {program} is missing; install it: apt-get install {package}", file=sys.stderr)
            return 125
    try:
        kernel = fetch_kernel(ROOT / "build/kvm-host")
    except (OSError, subprocess.CalledProcessError, AttributeError) as error:
        print(f"kvm-host: Debian's kernel cannot be fetched: {error}", file=sys.stderr)
        return 77
    return run(kernel, arguments.command, arguments)


sys.exit(main())
