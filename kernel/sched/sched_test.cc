#include "kernel/sched/sched.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernel/mem/frames.h"
#include "kernel/sched/scheduler.h"
#include "platform/fake/fake.h"
#include "platform/platform.h"

namespace husk::sched {
namespace {

class SchedTest : public testing::Test {
 protected:
  void SetUp() override {
    platform::fake::reset();
    time::init(platform::fake::kTicksPerSecond, 0, 0, 0);
    mem::init_frames(platform::fake::boot_info());
    init(this_cpu().shared);
  }
  Ref<Thread> spawn(std::function<void()> body) {
    auto* owned = new std::function<void()>(std::move(body));
    auto thread = Thread::create(
        [](void* argument) {
          auto* function = static_cast<std::function<void()>*>(argument);
          (*function)();
          delete function;
        },
        owned);
    EXPECT_TRUE(thread.ok());
    Ref<Thread> result = thread.release();
    start(result);
    return result;
  }
  std::string trace;
};

TEST_F(SchedTest, threads_take_turns) {
  for (char name : {'a', 'b', 'c'}) {
    spawn([&, name] {
      for (int i = 0; i < 3; ++i) {
        trace += name;
        yield();
      }
    });
  }
  run_until_quiet();
  EXPECT_EQ(trace, "abcabcabc");
}

TEST_F(SchedTest, who_must_stay_neither_blocks_nor_yields) {
  auto try_it = [&](void (*forbidden)()) {
    spawn([forbidden] {
      MustStay stays;
      forbidden();
    });
    spawn([] {});
    run_until_quiet();
  };
  EXPECT_DEATH(try_it([] { yield(); }), "must_stay");
  EXPECT_DEATH(try_it([] { (void)WaitQueue().wait(time::monotonic_ns() + 1000); }), "must_stay");
  spawn([] {
    { MustStay stays; }
    yield();
  });
  run_until_quiet();
}

TEST_F(SchedTest, sleep_ends_at_its_deadline) {
  Wake reason{};
  u64 woke_ns = 0;
  spawn([&] {
    prepare_to_block();
    reason = block(1'000'000, Interruptible::yes);
    woke_ns = time::monotonic_ns();
  });
  run_until_quiet();
  EXPECT_EQ(reason, Wake::timed_out);
  EXPECT_GE(woke_ns, 1'000'000u);
  EXPECT_LT(woke_ns, 1'000'010u);
}

TEST_F(SchedTest, deadline_in_the_past_does_not_sleep) {
  Wake reason{};
  platform::fake::advance(100);
  spawn([&] {
    prepare_to_block();
    reason = block(50, Interruptible::no);
  });
  run_until_quiet();
  EXPECT_EQ(reason, Wake::timed_out);
}

TEST_F(SchedTest, wake_between_prepare_and_block_is_not_lost) {
  Wake reason{};
  spawn([&] {
    prepare_to_block();
    wake(current());
    reason = block(time::kForever, Interruptible::no);
    trace += "x";
  });
  run_until_quiet();
  EXPECT_EQ(trace, "x");
  EXPECT_EQ(reason, Wake::woken);
}

TEST_F(SchedTest, interrupt_ends_only_interruptible_waits) {
  Wake first{}, second{}, third{};
  Ref<Thread> sleeper = spawn([&] {
    prepare_to_block();
    first = block(1000, Interruptible::no);
    prepare_to_block();
    second = block(time::kForever, Interruptible::yes);
    current()->clear_interrupt();
    prepare_to_block();
    third = block(time::monotonic_ns() + 10, Interruptible::yes);
  });
  spawn([&] { sleeper->interrupt(); });
  run_until_quiet();
  EXPECT_EQ(first, Wake::timed_out);
  EXPECT_EQ(second, Wake::interrupted);
  EXPECT_EQ(third, Wake::timed_out);
}

TEST_F(SchedTest, work_bits_follow_their_thread) {
  u8 in_a = 0, in_b = 0;
  Ref<Thread> a = spawn([&] {
    yield();
    in_a = this_cpu().shared->kernel_work[0];
  });
  spawn([&] {
    a->interrupt();
    in_b = this_cpu().shared->kernel_work[0];
  });
  run_until_quiet();
  EXPECT_EQ(in_a & kWorkSignal, kWorkSignal);
  EXPECT_EQ(in_b & kWorkSignal, 0);
}

TEST_F(SchedTest, wake_one_chooses_one_exclusive_waiter_and_wakes_all_others) {
  struct Item : Waiter {
    void notify(u32 events) override { seen |= events; }
    u32 seen = 0;
  } plain, exclusive, second, behind;
  WaitQueue queue;
  queue.add(&plain);
  queue.add_exclusive(&exclusive);
  queue.add_exclusive(&second);
  queue.add(&behind);
  queue.wake_one(4);
  EXPECT_EQ(plain.seen, 4u);
  EXPECT_EQ(exclusive.seen, 4u);
  EXPECT_EQ(second.seen, 0u);
  EXPECT_EQ(behind.seen, 4u);
  for (Waiter* waiter : {&plain, &exclusive, &second, &behind}) WaitQueue::remove(waiter);
}

TEST_F(SchedTest, wait_queue_wakes_and_times_out) {
  WaitQueue queue;
  Wake woken{}, late{};
  spawn([&] { woken = queue.wait(); });
  spawn([&] {
    queue.wake_all();
    late = queue.wait(500);
  });
  run_until_quiet();
  EXPECT_EQ(woken, Wake::woken);
  EXPECT_EQ(late, Wake::timed_out);
  EXPECT_TRUE(queue.empty());
}

TEST_F(SchedTest, slice_ends_when_others_wait_and_the_clock_says_so) {
  spawn([&] {
    spawn([&] { trace += "b"; });
    for (int i = 0; i < 4; ++i) {
      platform::fake::advance(3'000'000);
      this_cpu().shared->interrupt_pending = 1;
      handle_work();
      trace += "a";
    }
  });
  run_until_quiet();
  EXPECT_EQ(trace, "abaaa");
}

TEST_F(SchedTest, slice_begins_also_when_several_wake_an_idle_machine) {
  for (int i = 0; i < 2; ++i) {
    spawn([&] {
      prepare_to_block();
      (void)block(1000, Interruptible::no);
      if (others_runnable()) trace += time::next_deadline_ns() != time::kForever ? "armed" : "forgotten";
    });
  }
  run_until_quiet();
  EXPECT_EQ(trace, "armed");
}

TEST_F(SchedTest, what_a_device_wakes_runs_before_a_busy_thread) {
  struct Device : Poller {
    bool poll() override {
      if (!interrupt) return false;
      interrupt = false;
      queue.wake_all();
      return true;
    }
    bool interrupt = false;
    WaitQueue queue;
  };
  static Device device;
  register_poller(&device);
  spawn([&] {
    (void)device.queue.wait();
    trace += "io ";
  });
  for (int i = 0; i < 2; ++i) {
    spawn([&] {
      device.interrupt = trace.empty();
      this_cpu().shared->interrupt_pending = 1;
      handle_work();
      trace += "busy ";
    });
  }
  run_until_quiet();
  EXPECT_EQ(trace, "io busy busy ");
  device.unlink();
}

TEST_F(SchedTest, ten_thousand_threads_give_their_stacks_back) {
  run_until_quiet();
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 100; ++i) spawn([&] { yield(); });
    run_until_quiet();
  }
  u64 free = mem::memory_statistics().free;
  for (int i = 0; i < 100; ++i) spawn([&] { yield(); });
  run_until_quiet();
  EXPECT_EQ(mem::memory_statistics().free, free);
  EXPECT_GT(statistics().switches, 20'000u);
}

TEST_F(SchedTest, run_time_and_never_started_threads) {
  Ref<Thread> worker = spawn([&] { platform::fake::advance(1234); });
  auto unused = Thread::create([](void*) {}, nullptr);
  EXPECT_EQ(unused.value()->frame()->cs, static_cast<u64>(HUSK_USER_CS));
  run_until_quiet();
  EXPECT_EQ(worker->run_time_ns(), 1234u);
}

// --- idling ------------------------------------------------------------------------------------------------------

TEST(IdlePolling, doubles_while_events_come_soon_after_parking_and_halves_when_they_come_late) {
  IdlePolling polling;
  u64 now = 1'000'000;
  auto park_and_wake_after = [&](u64 ns) {
    polling.begin(now);
    now += polling.period_ns();
    EXPECT_FALSE(polling.worthwhile(now));
    polling.park();
    now += ns;
    polling.event(now);
  };
  EXPECT_EQ(polling.period_ns(), kIdlePollMinNs);
  park_and_wake_after(80'000);
  EXPECT_EQ(polling.period_ns(), 2 * kIdlePollMinNs);
  for (int i = 0; i < 5; ++i) park_and_wake_after(80'000);
  EXPECT_EQ(polling.period_ns(), kIdlePollMaxNs);
  polling.event(now += kIdlePollMaxNs / 2);  // met while polling: no change
  EXPECT_EQ(polling.period_ns(), kIdlePollMaxNs);
  for (int i = 0; i < 5; ++i) park_and_wake_after(10'000'000);
  EXPECT_EQ(polling.period_ns(), kIdlePollMinNs);
}

struct Busy final : Poller {
  ~Busy() { unlink(); }
  bool poll() override { return ++polls, std::exchange(work, false); }
  bool prepare_to_sleep() override { return work = std::exchange(late, false); }
  int polls = 0;
  bool work = false, late = false;
};

TEST_F(SchedTest, what_comes_while_preparing_to_sleep_is_polled_before_sleeping) {
  Busy device;
  device.late = true;
  register_poller(&device);
  u64 halts = platform::fake::counters().halts;
  run_until_quiet();
  EXPECT_EQ(platform::fake::counters().halts, halts);
  EXPECT_EQ(device.polls, 3);  // nothing, the late work, nothing
}

TEST_F(SchedTest, without_interrupts_a_timer_polls_ever_more_seldom_until_something_is_expected) {
  Busy device;
  register_poller(&device);
  expect_events();
  EXPECT_EQ(time::next_deadline_ns(), time::kForever);  // devices have interrupts
  poll_by_timer();
  auto wait = [] {
    u64 before = time::monotonic_ns();
    platform::fake::advance(time::next_deadline_ns() - before);
    (void)poll_devices();
    time::run_timers();
    return time::next_deadline_ns() - time::monotonic_ns();
  };
  EXPECT_EQ(time::next_deadline_ns() - time::monotonic_ns(), kTimerPollMinNs);
  u64 last = 0;
  for (int i = 0; i < 10; ++i) last = wait();
  EXPECT_EQ(last, kTimerPollMaxNs);
  device.work = true;
  EXPECT_EQ(wait(), kTimerPollMinNs);
  for (int i = 0; i < 10; ++i) last = wait();
  EXPECT_EQ(last, kTimerPollMaxNs);
  expect_events();
  EXPECT_EQ(time::next_deadline_ns() - time::monotonic_ns(), kTimerPollMinNs);
}

}  // namespace
}  // namespace husk::sched
