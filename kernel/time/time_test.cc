#include "kernel/time/time.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>

#include "platform/fake/fake.h"
#include "platform/platform.h"

namespace husk::time {
namespace {

class TimeTest : public testing::Test {
 protected:
  void SetUp() override {
    platform::fake::reset();
    init(platform::fake::kTicksPerSecond, 0, 0, 0);
  }
};

TEST_F(TimeTest, conversion_is_exact_enough_for_a_year) {
  for (u64 hz : {400'000'000ull, 2'494'140'000ull, 3'000'000'000ull, 5'200'000'000ull}) {
    init(hz, 1000, 0, 1000);
    u64 year_ns = 365 * 86'400 * kNsPerSecond;
    EXPECT_LT(std::abs(static_cast<i64>(ticks_to_ns(hz * 365 * 86'400) - year_ns)), static_cast<i64>(year_ns / 500'000'000));
    for (u64 ns : {0ull, 1ull, 999'999'999ull, 86'400'000'000'000ull}) EXPECT_GE(ticks_to_ns(ticks_at(ns) - 1000) + 2 + ns / 100'000'000, ns);
  }
  EXPECT_EQ(ticks_at(kForever - 1), ~u64{0});
}

TEST_F(TimeTest, wall_clock_taken_before_and_after_boot) {
  platform::fake::advance(5000);
  init(platform::fake::kTicksPerSecond, 1000, 1'000'000, 900);
  EXPECT_EQ(monotonic_ns(), 4000u);
  EXPECT_EQ(realtime_ns(), 1'000'000u + 4100);
  init(platform::fake::kTicksPerSecond, 1000, 1'000'000, 1500);
  EXPECT_EQ(realtime_ns(), 1'000'000u + 3500);
  set_realtime_ns(77);
  EXPECT_EQ(realtime_ns(), 77u);
}

struct Recorder : Timer {
  Recorder() : Timer([](Timer& timer) { ++static_cast<Recorder&>(timer).fired; }) {}
  int fired = 0;
};

TEST_F(TimeTest, machine_hears_only_of_earlier_deadlines) {
  Recorder a, b, c;
  a.arm(1000);
  EXPECT_EQ(platform::fake::armed_deadline(), ticks_at(1000));
  b.arm(2000);
  EXPECT_EQ(platform::fake::armed_deadline(), ticks_at(1000));
  c.arm(500);
  EXPECT_EQ(platform::fake::armed_deadline(), ticks_at(500));
  c.cancel();
  EXPECT_EQ(platform::fake::armed_deadline(), ticks_at(500));
  platform::halt();
  run_timers();
  EXPECT_EQ(a.fired + b.fired + c.fired, 0);
  EXPECT_EQ(platform::fake::armed_deadline(), ticks_at(1000));
}

TEST_F(TimeTest, random_operations_match_a_sorted_set) {
  std::mt19937 random(1);
  std::deque<Recorder> timers(200);
  std::set<std::pair<u64, size_t>> model;
  std::vector<int> expected(timers.size());
  for (int step = 0; step < 20'000; ++step) {
    size_t i = random() % timers.size();
    if (timers[i].armed()) model.erase({timers[i].deadline_ns(), i});
    switch (random() % 4) {
      case 0: timers[i].cancel(); break;
      default: timers[i].arm(monotonic_ns() + random() % 1000); model.insert({timers[i].deadline_ns(), i});
    }
    ASSERT_EQ(next_deadline_ns(), model.empty() ? kForever : model.begin()->first);
    if (step % 8 != 0) continue;
    platform::fake::advance(random() % 100);
    run_timers();
    for (; !model.empty() && model.begin()->first <= monotonic_ns(); model.erase(model.begin())) ++expected[model.begin()->second];
    for (size_t k = 0; k < timers.size(); ++k) ASSERT_EQ(timers[k].fired, expected[k]);
  }
}

TEST_F(TimeTest, callback_may_arm_and_destroy) {
  struct Periodic : Timer {
    Periodic()
        : Timer([](Timer& timer) {
            auto& self = static_cast<Periodic&>(timer);
            if (++self.fired < 3) self.arm(self.deadline_ns() + 10);
            delete std::exchange(self.victim, nullptr);
          }) {}
    int fired = 0;
    Recorder* victim = new Recorder;
  } periodic;
  periodic.victim->arm(1);
  periodic.arm(0);
  while (next_deadline_ns() != kForever) {
    platform::halt();
    run_timers();
  }
  EXPECT_EQ(periodic.fired, 3);
}

}  // namespace
}  // namespace husk::time
