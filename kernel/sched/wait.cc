// Wait queues and device pollers.
#include <utility>

#include "kernel/sched/scheduler.h"
#include "platform/platform.h"

namespace husk::sched {
namespace {

// Leaves the queue as it wakes its thread, so that wake_one() does not choose it twice.
class Sleeper final : public Waiter {
 public:
  void notify(u32) override {
    unlink();
    notified_ = true;
    wake(thread_);
  }
  // Has been added to a queue.
  Wake sleep(u64 deadline_ns, Interruptible interruptible) {
    prepare_to_block();
    Wake reason = block(deadline_ns, interruptible);
    unlink();
    return notified_ ? Wake::woken : reason;
  }

 private:
  Thread* thread_ = current();
  bool notified_ = false;
};

}  // namespace

void WaitQueue::wake_all(u32 events) {
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    Waiter& waiter = *at;
    ++at;  // the waiter may remove itself
    waiter.notify(events);
  }
}

void WaitQueue::wake_one(u32 events) {
  bool chosen = false;
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    Waiter& waiter = *at;
    ++at;
    if (waiter.exclusive && std::exchange(chosen, true)) continue;
    waiter.notify(events);
  }
}

Wake WaitQueue::wait(u64 deadline_ns, Interruptible interruptible) {
  Sleeper sleeper;
  add(&sleeper);
  return sleeper.sleep(deadline_ns, interruptible);
}

Wake WaitQueue::wait_exclusive(u64 deadline_ns) {
  Sleeper sleeper;
  add_exclusive(&sleeper);
  return sleeper.sleep(deadline_ns, Interruptible::yes);
}

void register_poller(Poller* poller) { scheduler().pollers.push_back(poller); }

bool poll_devices() {
  Scheduler& s = scheduler();
  bool worked = false;
  for (Poller& poller : s.pollers) worked |= poller.poll();
  if (worked && s.device_period_ns != 0) s.device_period_ns = kTimerPollMinNs;
  return worked;
}

bool poll_before_blocking() { return !platform::halting_serves() && poll_devices(); }

bool Scheduler::prepare_to_sleep() {
  bool work = false;
  for (Poller& poller : pollers) work |= poller.prepare_to_sleep();
  return work;
}

// Each event, this timer's too, polls all devices (Scheduler::poll_events): nothing is left to do here but to come again.
void Scheduler::device_timer_fired(time::Timer&) {
  Scheduler& s = scheduler();
  s.arm_device_timer();
  s.device_period_ns = std::min(2 * s.device_period_ns, kTimerPollMaxNs);
}

void Scheduler::arm_device_timer() { device_timer.arm(time::monotonic_ns() + device_period_ns); }

void poll_by_timer() {
  scheduler().device_period_ns = kTimerPollMinNs;
  scheduler().arm_device_timer();
}

void expect_events() {
  Scheduler& s = scheduler();
  if (s.device_period_ns == 0) return;
  s.device_period_ns = kTimerPollMinNs;
  if (s.device_timer.deadline_ns() > time::monotonic_ns() + kTimerPollMinNs) s.arm_device_timer();
}

}  // namespace husk::sched
