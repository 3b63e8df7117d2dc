// Milliseconds to make a KVM virtual machine with one vCPU, run one instruction in ring 3, and destroy it: the floor for any monitor.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
// One `out` in real mode: the smallest thing that exits.
static double once(void) {
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) return -1;
  uint8_t* memory = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memory[0] = 0xe6, memory[1] = 0x10;
  struct kvm_userspace_memory_region region = {0, 0, 0x1000, 1 << 16, (uint64_t)memory};
  ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
  int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  size_t size = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  struct kvm_run* run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
  struct kvm_sregs sregs;
  ioctl(cpu, KVM_GET_SREGS, &sregs);
  sregs.cs.base = 0, sregs.cs.selector = 0;
  ioctl(cpu, KVM_SET_SREGS, &sregs);
  struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
  ioctl(cpu, KVM_SET_REGS, &regs);
  int failed = ioctl(cpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_IO;
  munmap(run, size);
  close(cpu), close(vm), close(kvm);
  munmap(memory, 1 << 16);
  clock_gettime(CLOCK_MONOTONIC, &b);
  return failed ? -1 : (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6;
}
int main(int argc, char** argv) {
  for (int i = 0, n = argc > 1 ? atoi(argv[1]) : 1; i < n; ++i) {
    double ms = once();
    if (ms < 0) {
      fprintf(stderr, "empty_vm: KVM is not usable here\n");
      return 1;
    }
    printf("%.4f\n", ms);
  }
  return 0;
}
