// A small process that cleans up if its maker dies without doing so, by kill -9 too.
#pragma once

#include <sys/types.h>

#include <functional>

namespace husk::host {

class DeathGuard {
 public:
  DeathGuard() = default;
  DeathGuard(const DeathGuard&) = delete;
  ~DeathGuard() { release(); }
  // Forks. `clean_up` runs in the fork, once this process has ended before release(). The fork is a session of its own (the terminal's
  // signals are not for it) and has stdin, and no other of this process's descriptors. Without processes to be had there is no guard.
  void start(const std::function<void()>& clean_up);
  void release();  // all is well

 private:
  int end_ = -1;  // of a socket pair
  pid_t child_ = 0;
};

}  // namespace husk::host
