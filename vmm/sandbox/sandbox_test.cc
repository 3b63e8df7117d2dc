// The jail bites: each test forks, enters the jail, and tries what a broken-out guest would try.
//
// Without sanitizers' own system calls in the way only if these are kept away from it: the child leaves with _exit.
#include "vmm/sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace husk::vmm::sandbox {
namespace {

constexpr int kAllowed = 7, kForbidden = 125, kNoJail = 99;

// The status of a child that does `attempt` inside the jail: kForbidden if the filter caught it.
int in_jail(const std::function<void()>& attempt) {
  pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    Report report;
    detach(report);
    try {
      enter(report);
    } catch (...) {
      _exit(kNoJail);
    }
    attempt();
    _exit(kAllowed);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Sandbox, monitors_own_calls_are_allowed) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  EXPECT_EQ(in_jail([&] {
              char byte = 0;
              if (write(pipes[1], &byte, 1) != 1 || read(pipes[0], &byte, 1) != 1) _exit(1);
              if (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) _exit(2);
              syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0);
              if (ioctl(pipes[0], TUNSETOFFLOAD, 0) == 0) _exit(3);
              sched_param none{};
              if (sched_setscheduler(0, SCHED_BATCH, &none) != 0) _exit(4);
            }),
            kAllowed);
}

struct Forbidden {
  const char* name;
  std::function<void()> attempt;
};

TEST(Sandbox, everything_else_ends_the_process) {
  const Forbidden cases[] = {
      {"open", [] { syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); }},
      {"socket", [] { syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }},
      {"execve", [] { syscall(SYS_execve, "/bin/true", nullptr, nullptr); }},
      {"fork", [] { syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }},
      {"vfork", [] { syscall(SYS_vfork); }},
      {"ptrace", [] { syscall(SYS_ptrace, 0, 0, 0, 0); }},
      {"kill", [] { syscall(SYS_kill, 1, 0); }},
      {"tgkill of another process", [] { syscall(SYS_tgkill, 1, 1, 0); }},
      {"unshare", [] { syscall(SYS_unshare, CLONE_NEWUSER); }},
      {"mount", [] { syscall(SYS_mount, "a", "b", "c", 0, nullptr); }},
      {"bpf", [] { syscall(SYS_bpf, 0, nullptr, 0); }},
      {"io_uring", [] { syscall(SYS_io_uring_setup, 1, nullptr); }},
      {"executable mmap", [] { syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }},
      {"executable mprotect", [] { syscall(SYS_mprotect, 0x10000, 4096, PROT_EXEC); }},
      {"making a TAP interface", [] { syscall(SYS_ioctl, 0, TUNSETIFF, "x"); }},
      {"typing into the terminal", [] { syscall(SYS_ioctl, 0, TIOCSTI, "x"); }},
      {"another scheduling class",
       [] {
         sched_param first{.sched_priority = 1};
         sched_setscheduler(0, SCHED_FIFO, &first);
       }},
      {"setuid", [] { syscall(SYS_setuid, 0); }},
      {"process_vm_readv", [] { syscall(SYS_process_vm_readv, 1, nullptr, 0, nullptr, 0, 0); }},
      {"prctl", [] { syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); }},
  };
  for (const Forbidden& test : cases) EXPECT_EQ(in_jail(test.attempt), kForbidden) << test.name;
}

TEST(Sandbox, foreign_architecture_calls_kill) {
  EXPECT_EQ(in_jail([] { asm volatile("int $0x80" ::"a"(20) : "memory"); }), 128 + SIGSYS);
}

TEST(Sandbox, clone3_looks_unimplemented) {
  EXPECT_EQ(in_jail([] {
              if (syscall(SYS_clone3, nullptr, 0) != -1 || errno != ENOSYS) _exit(1);
            }),
            kAllowed);
}

}  // namespace
}  // namespace husk::vmm::sandbox
