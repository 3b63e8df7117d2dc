// One thread's epoll loop: descriptors with handlers, a wake-up from other threads.
//
// Everything but wake() and stop() is for the thread that calls run(), or for before it. System calls while running: epoll_wait,
// epoll_ctl, read (of the wake-up).
#pragma once

#include <atomic>
#include <functional>
#include <map>

#include "base/types.h"
#include "host/file_descriptor.h"

namespace husk::host {

class EventLoop {
 public:
  using Handler = std::function<void(u32 epoll_events)>;

  // Throws std::system_error, here and in add().
  EventLoop();
  // False if this kind of file cannot be waited for (a regular file is always ready); the handler is then not kept.
  bool add(int fd, u32 epoll_events, Handler handler);
  void change(int fd, u32 epoll_events);  // any thread
  void remove(int fd);
  // Called after each round of handlers; true asks for another round at once.
  void set_after_round(std::function<bool()> after_round) { after_round_ = std::move(after_round); }
  void run();
  void wake();
  void stop();

 private:
  FileDescriptor epoll_, wake_;
  std::map<int, Handler> handlers_;
  std::function<bool()> after_round_;
  std::atomic<bool> stopping_{false};
};

}  // namespace husk::host
