// See cli/terminal.h. termios(3), tty_ioctl(4).
#include "cli/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace husk::cli {
namespace {

// The guard's whole life: one byte says that all is well, the end of the pipe that it is not.
[[noreturn]] void guard(int pipe, const termios& saved) {
  setsid();  // the terminal's signals are not for us
  dup2(pipe, STDOUT_FILENO);
  close_range(STDERR_FILENO, ~0u, 0);  // hold nothing open that somebody waits for
  pipe = STDOUT_FILENO;
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  char byte;
  if (read(pipe, &byte, 1) == 0) tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
  _exit(0);
}

}  // namespace

void RawTerminal::start() {
  bool shows_typing = isatty(STDOUT_FILENO) == 1 || isatty(STDERR_FILENO) == 1;
  if (!shows_typing || tcgetattr(STDIN_FILENO, &saved_) != 0 || tcgetpgrp(STDIN_FILENO) != getpgrp()) return;
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC) == 0) {
    guard_ = fork();
    if (guard_ == 0) {
      close(pipes[1]);
      guard(pipes[0], saved_);
    }
    close(pipes[0]);
    guard_pipe_ = pipes[1];
  }
  termios raw = saved_;
  cfmakeraw(&raw);
  if (isatty(STDOUT_FILENO) != 1) raw.c_oflag = saved_.c_oflag;
  active_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void RawTerminal::restore() {
  if (active_) tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
  active_ = false;
  if (guard_pipe_ >= 0) {
    (void)!write(guard_pipe_, "", 1);
    close(guard_pipe_);
    waitpid(guard_, nullptr, 0);
  }
  guard_pipe_ = -1;
}

}  // namespace husk::cli
