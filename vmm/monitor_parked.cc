// See vmm/monitor_parked.h.
#include "vmm/monitor_parked.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <mutex>
#include <utility>

namespace husk::vmm {
namespace {

u64 now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * 1000000000 + static_cast<u64>(time.tv_nsec);
}

void set_period(int timer_fd, u64 period_ns) {
  itimerspec time{};
  time.it_value.tv_nsec = time.it_interval.tv_nsec = static_cast<long>(period_ns);
  timerfd_settime(timer_fd, 0, &time, nullptr);
}

}  // namespace

ParkedService::ParkedService(NetDevice& device, host::EventLoop& loop, int watched, u32 events)
    : device_(device), loop_(loop), watched_(watched), events_(events), timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
  loop_.add(timer_.get(), EPOLLIN, [this](u32) { on_timer(); });
}

bool ParkedService::serve(u64 deadline_tsc, const std::function<bool()>& is_wanted) {
  const u64 begin_ns = now_ns(), end_ns = begin_ns + kPatienceNs;
  if (begin_ns < bulk_until_ns_) return false;
  for (bool over = false;;) {
    std::unique_lock lock(device_.mutex(), std::defer_lock);
    // The I/O thread may be at work with frames; at the end it is waited for.
    if (over) lock.lock();
    if (over || lock.try_lock()) {
      if (!device_.driver_ok || !device_.error().empty()) return false;
      if (has_news()) return true;
      set_serving(!over);
      u64 sent = device_.metrics().bytes_out;
      bool more = work();
      if (device_.metrics().bytes_out - sent >= kBulkBytes) {
        bulk_until_ns_ = now_ns() + kBulkNs;
        set_serving(false);
        more = over = true;
      }
      if (over && more) loop_.wake();  // the I/O thread goes on with it
      if (has_news()) return true;
      if (over) return false;
    }
    if (is_wanted() || (deadline_tsc != 0 && __rdtsc() >= deadline_tsc)) return false;
    over = now_ns() >= end_ns;
    __builtin_ia32_pause();
  }
}

// Frames that the guest asked to hear of and has not heard of here: what it does not heed does not keep it awake.
bool ParkedService::has_news() {
  u64 news = device_.unheeded();
  return std::exchange(known_news_, news) != news && news != 0;
}

bool ParkedService::work() {
  at_work_ = true;
  ++rounds_;
  device_.set_ready(true, true);
  if (device_.write_handed() != 0) share_ /= 2;  // the other thread has not come to them
  u32 least = received_much_ ? 1 : kManyFrames;
  if (share_ >= least && device_.hand_over(least, share_)) loop_.wake();
  u64 bytes = device_.metrics().bytes_in, frames = device_.counters().received;
  bool more = device_.process();
  bytes = device_.metrics().bytes_in - bytes;
  frames = device_.counters().received - frames;
  if (frames != 0) received_much_ = bytes >= kMuchReceived;
  if ((received_much_ || frames >= kManyFrames) && share_ < NetDevice::kFramesPerRound) ++share_;
  at_work_ = false;
  return more;
}

void ParkedService::set_serving(bool serving) {
  if (serving_ == serving) return;
  serving_ = serving;
  device_.set_polled(serving);
  loop_.change(watched_, serving ? 0 : events_);  // reports what came meanwhile
  tell_guest(serving);
  if (!serving || timer_runs_) return;
  timer_runs_ = true;
  set_period(timer_.get(), kAbsenceNs);
}

// Left to run while the vCPU's sleeps are short: to stop and to start it costs more.
void ParkedService::on_timer() {
  u64 count;
  (void)!read(timer_.get(), &count, sizeof(count));
  std::lock_guard lock(device_.mutex());
  if (!serving_) {
    set_period(timer_.get(), 0);
    timer_runs_ = false;
  } else if (rounds_ == std::exchange(rounds_before_, rounds_)) {
    set_serving(false);
  }
}

}  // namespace husk::vmm
