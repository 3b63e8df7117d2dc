// poll(2) over any files: one waiter per file wakes the thread.
#include "kernel/vfs/file.h"

namespace husk::vfs {

namespace {

class ThreadWaiter final : public sched::Waiter {
 public:
  explicit ThreadWaiter(u32 events) : events_(events) {}
  ThreadWaiter(ThreadWaiter&& other) noexcept : events_(other.events_) {}  // only while in no queue
  ~ThreadWaiter() { sched::WaitQueue::remove(this); }
  void notify(u32 events) override {
    if (events == 0 || (with_synonyms(events) & events_) != 0) sched::wake(thread_);
  }

 private:
  sched::Thread* thread_ = sched::current();
  u32 events_;
};

size_t check(PollItem* items, size_t count) {
  size_t ready = 0;
  for (size_t i = 0; i < count; ++i) {
    PollItem& item = items[i];
    if (!item.file) {
      ready += item.result != 0 ? 1 : 0;  // the caller's: kInvalid
      continue;
    }
    item.result = with_synonyms(item.file->poll_events()) & item.events;
    ready += item.result != 0 ? 1 : 0;
  }
  return ready;
}

}  // namespace

Result<size_t> poll(PollItem* items, size_t count, u64 deadline_ns) {
  size_t before = check(items, count);
  if (before == 0 && sched::poll_devices()) before = check(items, count);  // what has arrived without an interrupt yet
  if (before > 0) return before;
  if (deadline_ns == 0) return sched::current()->interrupted() ? Result<size_t>(Error(EINTR)) : before;
  Vec<ThreadWaiter> waiters;
  TRY(waiters.reserve(count));
  for (size_t i = 0; i < count; ++i) {
    sched::WaitQueue* queue = items[i].file ? items[i].file->wait_queue() : nullptr;
    if (queue == nullptr) continue;
    TRY(waiters.push_back(ThreadWaiter(items[i].events)));
    queue->add(&waiters.back());
  }
  for (;;) {
    sched::expect_events();
    sched::prepare_to_block();
    size_t ready = check(items, count);
    // With something ready this ends the preparation at once.
    sched::Wake wake = sched::block(ready > 0 ? 0 : deadline_ns, sched::Interruptible::yes);
    if (ready > 0) return ready;
    if (wake == sched::Wake::woken) continue;
    ready = check(items, count);
    if (ready == 0 && wake == sched::Wake::interrupted) return Error(EINTR);
    return ready;
  }
}

}  // namespace husk::vfs
