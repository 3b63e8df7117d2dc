// Wait queues and device pollers.
#include "kernel/sched/scheduler.h"

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
  bool notified() const { return notified_; }

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
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    Waiter& waiter = *at;
    ++at;
    bool last = waiter.exclusive;
    waiter.notify(events);
    if (last) return;
  }
}

Wake WaitQueue::wait(u64 deadline_ns, Interruptible interruptible) {
  Sleeper sleeper;
  add(&sleeper);
  prepare_to_block();
  Wake reason = block(deadline_ns, interruptible);
  remove(&sleeper);
  return sleeper.notified() ? Wake::woken : reason;
}

void register_poller(Poller* poller) { scheduler().pollers.push_back(poller); }

bool poll_devices() {
  bool worked = false;
  for (Poller& poller : scheduler().pollers) worked |= poller.poll();
  return worked;
}

}  // namespace husk::sched
