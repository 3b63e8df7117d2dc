// See vmm/sandbox/filter.h. seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
#include "vmm/sandbox/filter.h"

#include <asm/termbits.h>
#include <asm/ioctls.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"
#include "vmm/sandbox/filter_program.h"

namespace husk::vmm::sandbox {
namespace {

// The most frequent first. What the monitor, its event loop, malloc, threads and stdio use once everything is open. A descriptor of a process
// (pidfd_send_signal) has only who runs QEMU: of that one; others cannot be had.
constexpr u32 kAllowed[] = {
    SYS_futex,           SYS_epoll_wait,
    SYS_epoll_pwait,     SYS_read,
    SYS_write,           SYS_preadv2,
    SYS_pwritev2,        SYS_readv,
    SYS_writev,          SYS_sendmsg,
    SYS_recvmsg,         SYS_poll,
    SYS_rt_sigreturn,    SYS_getrandom,
    SYS_timerfd_settime, SYS_clock_gettime,
    SYS_clock_nanosleep, SYS_nanosleep,
    SYS_epoll_ctl,       SYS_pread64,
    SYS_lseek,           SYS_close,
    SYS_close_range,     SYS_munmap,
    SYS_madvise,         SYS_brk,
    SYS_sched_yield,     SYS_rt_sigprocmask,
    SYS_rt_sigaction,    SYS_sigaltstack,
    SYS_set_robust_list, SYS_rseq,
    SYS_gettid,          SYS_getpid,
    SYS_fstat,           SYS_newfstatat,
    SYS_restart_syscall, SYS_exit,
    SYS_exit_group,      SYS_sched_getaffinity,
    SYS_wait4,           SYS_pidfd_send_signal,
};
// ioctl(2) requests: the running vCPU, doorbells once there are many (monitor.cc), its registers for a crash report, the terminal,
// and what a TAP interface may leave to the guest, which the guest's driver decides.
constexpr u32 kIoctls[] = {
    KVM_RUN,    KVM_INTERRUPT, KVM_IOEVENTFD, KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_VCPU_EVENTS, KVM_SET_SIGNAL_MASK,
    TIOCGWINSZ, TCGETS,        TCSETS,        TCSETSW,      TCSETSF,       TUNSETOFFLOAD,
};

}  // namespace

std::vector<sock_filter> make_filter() {
  Program program;
  program.allow_values(SYS_ioctl, 1, kIoctls);
  for (u32 number : kAllowed) program.allow(number);
  program.allow_if_equal(SYS_tgkill, 0, static_cast<u32>(getpid()));
  program.allow_if_equal(SYS_sched_setscheduler, 1, SCHED_BATCH);  // only to be less in the way
  program.allow_if_clear(SYS_mmap, 2, PROT_EXEC);
  program.allow_if_clear(SYS_mprotect, 2, PROT_EXEC);
  program.allow_if_set(SYS_clone, 0, CLONE_THREAD);
  program.fail(SYS_clone3, ENOSYS);  // its flags cannot be seen here; glibc then uses clone
  return program.take();
}

}  // namespace husk::vmm::sandbox
