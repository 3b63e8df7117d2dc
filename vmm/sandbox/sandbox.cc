// See vmm/sandbox/sandbox.h.
#include "vmm/sandbox/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/monitor_error.h"
#include "vmm/sandbox/filter.h"

namespace husk::vmm::sandbox {
namespace {

constexpr rlim_t kDescriptorsMax = 256;  // poll(2) refuses more entries than this limit, so it cannot be 0

// Runs in a signal handler: write and _exit only.
void on_forbidden_call(int, siginfo_t* info, void*) {
  char text[] = "husk: sandbox: the monitor tried system call      , which its jail forbids; please report this\n";
  char* digit = strstr(text, "    ,") + 3;
  for (int number = info->si_syscall; number > 0 && *digit == ' '; number /= 10) *digit-- = static_cast<char>('0' + number % 10);
  (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
  _exit(125);
}

void limit(__rlimit_resource resource, rlim_t value) {
  rlimit limits{value, value};
  setrlimit(resource, &limits);
}

void drop_capabilities(int kept) {
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct left[2]{};
  if (kept != kNoCapability) left[kept / 32].effective = left[kept / 32].permitted = 1u << kept % 32;
  syscall(SYS_capset, &header, left);
}

}  // namespace

void close_inherited_descriptors() { close_range(3, ~0u, 0); }

void detach(Report& report) {
  if (geteuid() != 0) report.user_namespace = unshare(CLONE_NEWUSER) == 0;
  report.namespaces = unshare(CLONE_NEWIPC | CLONE_NEWUTS) == 0;
}

// A directory with nothing to open but facts about our own descriptors; and nothing can be opened.
void leave_file_system(Report& report) { report.empty_root = chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0; }

void give_up_privileges(Report& report, int kept) {
  prctl(PR_SET_KEEPCAPS, kept != kNoCapability, 0, 0, 0);
  if (geteuid() == 0) {
    report.other_user = setgroups(0, nullptr) == 0 && setresgid(kNobody, kNobody, kNobody) == 0 && setresuid(kNobody, kNobody, kNobody) == 0;
  }
  drop_capabilities(kept);
  limit(RLIMIT_CORE, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) throw_errno("giving up new privileges");
}

void install_filter(std::vector<sock_filter> filter) {
  sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) != 0) {
    throw_errno("installing the system-call filter", "the kernel needs CONFIG_SECCOMP_FILTER");
  }
}

void enter(Report& report) {
  leave_file_system(report);
  give_up_privileges(report);
  limit(RLIMIT_NOFILE, kDescriptorsMax);
  struct sigaction action {};
  action.sa_sigaction = on_forbidden_call;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSYS, &action, nullptr);
  mallopt(M_TRIM_THRESHOLD, -1);  // a thread's heap never shrinks: to do that, glibc opens /proc/sys/vm/overcommit_memory
  install_filter(make_filter());
  report.seccomp = true;
}

}  // namespace husk::vmm::sandbox
