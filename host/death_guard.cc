// See host/death_guard.h.
#include "host/death_guard.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace husk::host {
namespace {

// One byte says that all is well, the end of the stream that it is not.
[[noreturn]] void watch(int end, const std::function<void()>& clean_up) {
  setsid();
  dup2(end, STDOUT_FILENO);
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
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
  child_ = fork();
  if (child_ == 0) {
    close(ends[1]);
    watch(ends[0], clean_up);
  }
  close(ends[0]);
  end_ = ends[1];
}

void DeathGuard::release() {
  if (end_ < 0) return;
  char well = 0;
  iovec bytes{&well, 1};
  msghdr message{};
  message.msg_iov = &bytes, message.msg_iovlen = 1;
  sendmsg(end_, &message, MSG_NOSIGNAL);  // without a guard, or when it is dead, nothing happens
  close(end_);
  end_ = -1;
  if (child_ > 0) waitpid(child_, nullptr, 0);
}

}  // namespace husk::host
