// See host/death_guard.h.
#include "host/death_guard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace husk::host {
namespace {

// One byte says that all is well, the end of the pipe that it is not.
[[noreturn]] void watch(int pipe, const std::function<void()>& clean_up) {
  setsid();
  dup2(pipe, STDOUT_FILENO);
  close_range(STDERR_FILENO, ~0u, 0);  // hold nothing open that somebody waits for
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  char byte;
  if (read(STDOUT_FILENO, &byte, 1) == 0) clean_up();
  _exit(0);
}

}  // namespace

void DeathGuard::start(const std::function<void()>& clean_up) {
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC) != 0) return;
  child_ = fork();
  if (child_ == 0) {
    close(pipes[1]);
    watch(pipes[0], clean_up);
  }
  close(pipes[0]);
  pipe_ = pipes[1];
}

void DeathGuard::release() {
  if (pipe_ < 0) return;
  (void)!write(pipe_, "", 1);
  close(pipe_);
  pipe_ = -1;
  if (child_ > 0) waitpid(child_, nullptr, 0);
}

}  // namespace husk::host
