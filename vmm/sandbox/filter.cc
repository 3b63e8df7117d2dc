// See vmm/sandbox/filter.h. seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
#include "vmm/sandbox/filter.h"

#include <asm/termbits.h>
#include <asm/ioctls.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/kvm.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

namespace husk::vmm::sandbox {
namespace {

constexpr u32 kNumber = offsetof(seccomp_data, nr);
constexpr u32 kArchitecture = offsetof(seccomp_data, arch);
constexpr u32 argument(u32 index) { return static_cast<u32>(offsetof(seccomp_data, args)) + 8 * index; }

sock_filter load(u32 offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); }
sock_filter result(u32 action) { return BPF_STMT(BPF_RET | BPF_K, action); }
sock_filter jump(u16 condition, u32 value, u8 if_true, u8 if_false) {
  return BPF_JUMP(static_cast<u16>(BPF_JMP | condition | BPF_K), value, if_true, if_false);
}

// The most frequent first. What the monitor, its event loop, malloc, threads and stdio use once everything is open.
constexpr u32 kAllowed[] = {
    SYS_futex,         SYS_epoll_wait,      SYS_epoll_pwait,
    SYS_read,          SYS_write,           SYS_preadv2,
    SYS_pwritev2,      SYS_readv,           SYS_writev,
    SYS_sendmsg,       SYS_recvmsg,         SYS_poll,
    SYS_rt_sigreturn,  SYS_getrandom,       SYS_timerfd_settime,
    SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_epoll_ctl,     SYS_pread64,         SYS_lseek,
    SYS_close,         SYS_munmap,          SYS_madvise,
    SYS_brk,           SYS_sched_yield,     SYS_rt_sigprocmask,
    SYS_rt_sigaction,  SYS_sigaltstack,     SYS_set_robust_list,
    SYS_rseq,          SYS_gettid,          SYS_getpid,
    SYS_fstat,         SYS_newfstatat,      SYS_restart_syscall,
    SYS_exit,          SYS_exit_group,      SYS_sched_getaffinity,
    SYS_wait4,
};
// ioctl(2) requests: the running vCPU, doorbells once there are many (monitor.cc), its registers for a crash report, the terminal.
constexpr u32 kIoctls[] = {
    KVM_RUN,    KVM_INTERRUPT, KVM_IOEVENTFD, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_VCPU_EVENTS, KVM_SET_SIGNAL_MASK,
    TIOCGWINSZ, TCGETS,        TCSETS,        TCSETSW,      TCSETSF,
};

class Program {
 public:
  void add(sock_filter instruction) { code_.push_back(instruction); }
  void allow(u32 number) {
    add(jump(BPF_JEQ, number, 0, 1));
    add(result(SECCOMP_RET_ALLOW));
  }
  void fail(u32 number, int error) {
    add(jump(BPF_JEQ, number, 0, 1));
    add(result(SECCOMP_RET_ERRNO | static_cast<u32>(error)));
  }
  // If the number matches: allowed when the test of an argument's low half (3 instructions at most) says so, else forbidden.
  void allow_if_clear(u32 number, u32 index, u32 bits) {
    add(jump(BPF_JEQ, number, 0, 4));
    add(load(argument(index)));
    add(jump(BPF_JSET, bits, 0, 1));
    add(result(SECCOMP_RET_TRAP));
    add(result(SECCOMP_RET_ALLOW));
  }
  void allow_if_set(u32 number, u32 index, u32 bit) {
    add(jump(BPF_JEQ, number, 0, 4));
    add(load(argument(index)));
    add(jump(BPF_JSET, bit, 0, 1));
    add(result(SECCOMP_RET_ALLOW));
    add(result(SECCOMP_RET_TRAP));
  }
  void allow_if_equal(u32 number, u32 index, u32 value) {
    add(jump(BPF_JEQ, number, 0, 4));
    add(load(argument(index)));
    add(jump(BPF_JEQ, value, 0, 1));
    add(result(SECCOMP_RET_ALLOW));
    add(result(SECCOMP_RET_TRAP));
  }
  void allow_ioctls() {
    constexpr u8 count = sizeof(kIoctls) / sizeof(kIoctls[0]);
    add(jump(BPF_JEQ, SYS_ioctl, 0, 2 * count + 2));
    add(load(argument(1)));
    for (u32 request : kIoctls) allow(request);
    add(result(SECCOMP_RET_TRAP));
  }
  std::vector<sock_filter> take() { return std::move(code_); }

 private:
  std::vector<sock_filter> code_;
};

}  // namespace

std::vector<sock_filter> make_filter() {
  Program program;
  program.add(load(kArchitecture));
  program.add(jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0));
  program.add(result(SECCOMP_RET_KILL_PROCESS));
  program.add(load(kNumber));
  program.allow_ioctls();
  for (u32 number : kAllowed) program.allow(number);
  program.allow_if_equal(SYS_tgkill, 0, static_cast<u32>(getpid()));
  program.allow_if_clear(SYS_mmap, 2, PROT_EXEC);
  program.allow_if_clear(SYS_mprotect, 2, PROT_EXEC);
  program.allow_if_set(SYS_clone, 0, CLONE_THREAD);
  program.fail(SYS_clone3, ENOSYS);  // its flags cannot be seen here; glibc then uses clone
  program.add(result(SECCOMP_RET_TRAP));
  return program.take();
}

}  // namespace husk::vmm::sandbox
