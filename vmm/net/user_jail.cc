// See vmm/net/user_jail.h. seccomp(2), sigaction(2).
#include "vmm/net/user_jail.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/sandbox/filter_program.h"
#include "vmm/sandbox/sandbox.h"

namespace husk::vmm::net {
namespace {

// libslirp takes 385 KiB of address space for a connection, and glib ends the process when there is none: the descriptors are to be used up first.
[[maybe_unused]] constexpr rlim_t kMemoryMax = rlim_t{4} << 30;
int resolver_file = -1;

constexpr u32 kAllowed[] = {
    SYS_poll,          SYS_recvfrom,       SYS_sendto,     SYS_read,    SYS_write,           SYS_readv,
    SYS_writev,        SYS_recvmsg,        SYS_sendmsg,    SYS_accept,  SYS_accept4,         SYS_connect,
    SYS_bind,          SYS_listen,         SYS_shutdown,   SYS_close,   SYS_getsockopt,      SYS_setsockopt,
    SYS_getsockname,   SYS_getpeername,    SYS_fcntl,      SYS_ppoll,   SYS_rt_sigreturn,    SYS_futex,
    SYS_brk,           SYS_munmap,         SYS_mremap,     SYS_madvise, SYS_getrandom,       SYS_lseek,
    SYS_clock_gettime, SYS_gettimeofday,   SYS_fstat,      SYS_dup,     SYS_getpid,          SYS_gettid,
    SYS_rt_sigaction,  SYS_rt_sigprocmask, SYS_exit_group, SYS_exit,    SYS_restart_syscall, SYS_sigaltstack,
};
constexpr u32 kFamilies[] = {AF_INET, AF_INET6};
constexpr u32 kIoctls[] = {FIONREAD, FIONBIO};

[[noreturn]] void die(const char* text, size_t size) {
  (void)!write(STDERR_FILENO, text, size);
  _exit(1);
}

void on_crash(int) {
  constexpr char text[] = "husk: network: the user-mode network crashed\n";
  die(text, sizeof(text) - 1);
}

// The one file that there is. In a signal handler: but one that a system call raised, so anything that is allowed may be called.
i64 open_resolver_file() {
  if (resolver_file < 0) return -ENOENT;
  lseek(resolver_file, 0, SEEK_SET);
  int copy = dup(resolver_file);
  return copy < 0 ? -EMFILE : copy;
}

void on_forbidden_call(int, siginfo_t* info, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (info->si_syscall == SYS_openat) {
    registers[REG_RAX] = open_resolver_file();
    return;
  }
  if (info->si_syscall == SYS_newfstatat) {
    // fstatat(fd, "", AT_EMPTY_PATH) is how glibc spells fstat(fd); any other path means the one file.
    bool by_descriptor = (registers[REG_R10] & AT_EMPTY_PATH) != 0;
    int fd = by_descriptor ? static_cast<int>(registers[REG_RDI]) : resolver_file;
    i64 done = syscall(SYS_fstat, fd, reinterpret_cast<struct stat*>(registers[REG_RDX]));
    registers[REG_RAX] = done == 0 ? 0 : -ENOENT;
    return;
  }
  char text[] = "husk: network: the user-mode network tried system call      , which its jail forbids\n";
  char* digit = strstr(text, "    ,") + 3;
  for (int number = info->si_syscall; number > 0 && *digit == ' '; number /= 10) *digit-- = static_cast<char>('0' + number % 10);
  die(text, sizeof(text) - 1);
}

void handle(int signal, void (*handler)(int), void (*with_information)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  if (handler != nullptr) action.sa_handler = handler;
  else action.sa_sigaction = with_information;
  action.sa_flags = with_information != nullptr ? SA_SIGINFO : 0;
  sigaction(signal, &action, nullptr);
}

void limit(__rlimit_resource resource, rlim_t value) {
  rlimit now{};
  getrlimit(resource, &now);
  value = std::min(value, now.rlim_max);
  rlimit limits{value, value};
  setrlimit(resource, &limits);
}

// Again after each change of credentials, which resets it.
void die_with(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
}

std::vector<sock_filter> make_user_filter() {
  sandbox::Program program;
  for (u32 number : kAllowed) program.allow(number);
  program.allow_values(SYS_socket, 0, kFamilies, SECCOMP_RET_ERRNO | EACCES);
  program.allow_values(SYS_ioctl, 1, kIoctls);
  program.allow_if_clear(SYS_mmap, 2, PROT_EXEC);
  program.allow_if_clear(SYS_mprotect, 2, PROT_EXEC);
  program.allow_if_equal(SYS_tgkill, 0, static_cast<u32>(getpid()));  // abort()
  return program.take();
}

}  // namespace

void leave_root(pid_t parent) {
  resolver_file = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
  sandbox::Report report;
  sandbox::detach(report);
  sandbox::give_up_privileges(report, CAP_SYS_CHROOT);
  die_with(parent);
}

void enter_user_jail(pid_t parent) {
  if (resolver_file < 0) leave_root(parent);
  sandbox::Report report;
  sandbox::leave_file_system(report);
  sandbox::give_up_privileges(report);
  die_with(parent);
  limit(RLIMIT_NOFILE, kUserDescriptorsMax);
#ifndef __SANITIZE_ADDRESS__  // which maps terabytes
  limit(RLIMIT_AS, kMemoryMax);
#endif
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP}) handle(signal, on_crash, nullptr);  // SIGTRAP: glib's
  handle(SIGSYS, nullptr, on_forbidden_call);
  sandbox::install_filter(make_user_filter());
}

}  // namespace husk::vmm::net
