// See host/event_loop.h.
#include "host/event_loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

namespace husk::host {
namespace {

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

EventLoop::EventLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wake_) fail("creating an event loop");
  add(wake_.get(), EPOLLIN, [this](u32) {
    u64 count;
    (void)!read(wake_.get(), &count, sizeof(count));
  });
}

bool EventLoop::add(int fd, u32 epoll_events, Handler handler) {
  epoll_event event{};
  event.events = epoll_events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    if (errno == EPERM) return false;
    fail("watching a file descriptor");
  }
  handlers_[fd] = std::move(handler);
  return true;
}

void EventLoop::change(int fd, u32 epoll_events) {
  epoll_event event{};
  event.events = epoll_events;
  event.data.fd = fd;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::remove(int fd) {
  if (handlers_.erase(fd) != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::run() {
  bool again = after_round_ && after_round_();
  while (!stopping_.load(std::memory_order_acquire)) {
    epoll_event events[16];
    int count = epoll_wait(epoll_.get(), events, 16, again ? 0 : -1);
    if (count < 0 && errno != EINTR) fail("waiting for events");
    for (int i = 0; i < count; ++i) {
      auto found = handlers_.find(events[i].data.fd);
      if (found == handlers_.end()) continue;
      Handler handler = found->second;  // a handler may remove itself
      handler(events[i].events);
    }
    again = after_round_ && after_round_();
  }
}

void EventLoop::wake() {
  u64 one = 1;
  (void)!write(wake_.get(), &one, sizeof(one));
}

void EventLoop::stop() {
  stopping_.store(true, std::memory_order_release);
  wake();
}

}  // namespace husk::host
