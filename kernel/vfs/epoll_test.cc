// epoll: what its modes report, who is woken, what waiting costs. What programs see is compared with Linux in tests/syscalls/epoll.c.
#include "kernel/fs/test_support.h"

namespace husk {
namespace {

using test::code;
using vfs::kIn;
using vfs::kOut;

constexpr u32 kExclusive = 1u << 28, kOneShot = 1u << 30, kEdge = 1u << 31;

// Is ready when told so, and counts how often it is asked.
class TestFile final : public vfs::File {
 public:
  u32 poll_events() override {
    ++asked;
    return events;
  }
  sched::WaitQueue* wait_queue() override { return &queue; }
  void arrive(u32 new_events) {
    events = new_events;
    queue.wake_one(new_events);
  }
  u32 events = 0;
  u64 asked = 0;
  sched::WaitQueue queue;
};

class EpollTest : public test::Machine {
 protected:
  static Ref<vfs::File> epoll() { return vfs::make_epoll(0).release(); }
  static Ref<TestFile> file() { return make_ref<TestFile>().release(); }
  static size_t ready(vfs::File& epoll, u64 deadline_ns = 0, size_t maximum = 64) {
    vfs::EpollEvent events[64];
    return *test::epoll_wait(epoll, events, maximum, deadline_ns);
  }
};

TEST_F(EpollTest, waiting_costs_what_is_ready_and_not_what_is_watched) {
  constexpr int kWatched = 10'000;
  auto waiting = epoll();
  std::vector<Ref<TestFile>> files;
  for (int i = 0; i < kWatched; ++i) {
    files.push_back(file());
    ASSERT_TRUE(vfs::epoll_add(*waiting, i, files.back(), {kIn, static_cast<u64>(i)}).ok());
  }
  auto total = [&] {
    u64 sum = 0;
    for (auto& each : files) sum += each->asked;
    return sum;
  };
  u64 before = total();
  EXPECT_EQ(ready(*waiting), 0u);
  EXPECT_EQ(total(), before);
  files[77]->arrive(kIn);
  EXPECT_EQ(ready(*waiting), 1u);
  EXPECT_EQ(total(), before + 1);
  files[77]->events = 0;
  EXPECT_EQ(ready(*waiting), 0u);
  EXPECT_EQ(total(), before + 2);
  EXPECT_EQ(ready(*waiting), 0u);
  EXPECT_EQ(total(), before + 2);
}

TEST_F(EpollTest, an_edge_is_reported_once_for_each_arrival) {
  auto waiting = epoll();
  auto watched = file();
  ASSERT_TRUE(vfs::epoll_add(*waiting, 1, watched, {kIn | kEdge, 1}).ok());
  watched->arrive(kIn);
  watched->arrive(kIn);
  EXPECT_EQ(ready(*waiting), 1u);
  EXPECT_EQ(ready(*waiting), 0u);
  watched->arrive(kIn | kOut);
  EXPECT_EQ(ready(*waiting), 1u);
  watched->queue.wake_all(kOut);  // not asked for
  EXPECT_EQ(ready(*waiting), 0u);
  watched->queue.wake_all(vfs::kHup);  // always asked for
  EXPECT_EQ(ready(*waiting), 1u);
}

TEST_F(EpollTest, one_shot_is_silent_until_it_is_armed_again) {
  auto waiting = epoll();
  auto watched = file();
  ASSERT_TRUE(vfs::epoll_add(*waiting, 1, watched, {kIn | kOneShot, 1}).ok());
  watched->arrive(kIn);
  EXPECT_EQ(ready(*waiting), 1u);
  watched->arrive(kIn | vfs::kHup);
  EXPECT_EQ(ready(*waiting), 0u);
  ASSERT_TRUE(vfs::epoll_modify(*waiting, 1, *watched, {kIn | kOneShot, 1}).ok());
  EXPECT_EQ(ready(*waiting), 1u);
  EXPECT_EQ(ready(*waiting), 0u);
}

TEST_F(EpollTest, exclusive_items_wake_one_epoll_and_take_few_flags) {
  auto first = epoll(), second = epoll();
  auto watched = file();
  ASSERT_TRUE(vfs::epoll_add(*first, 1, watched, {kIn | kExclusive, 1}).ok());
  ASSERT_TRUE(vfs::epoll_add(*second, 1, watched, {kIn | kExclusive, 1}).ok());
  EXPECT_EQ(code(vfs::epoll_modify(*first, 1, *watched, {kIn, 1})), EINVAL);
  EXPECT_EQ(code(vfs::epoll_add(*first, 2, watched, {kIn | kExclusive | kOneShot, 1})), EINVAL);
  EXPECT_EQ(code(vfs::epoll_add(*first, 2, second, {kIn | kExclusive, 1})), EINVAL);
  int woken = 0;
  for (auto* each : {&first, &second}) {
    spawn([&woken, each] { woken += ready(**each, time::monotonic_ns() + 1'000'000) > 0 ? 1 : 0; });
  }
  spawn([&] { watched->arrive(kIn); });
  sched::run_until_quiet();
  EXPECT_EQ(woken, 1);
}

TEST_F(EpollTest, an_exclusive_event_goes_to_an_epoll_where_somebody_waits) {
  auto busy = epoll(), idle = epoll();
  auto watched = file();
  ASSERT_TRUE(vfs::epoll_add(*busy, 1, watched, {kIn | kExclusive, 1}).ok());
  ASSERT_TRUE(vfs::epoll_add(*idle, 1, watched, {kIn | kExclusive, 1}).ok());
  int woken = 0;
  spawn([&] { woken = static_cast<int>(ready(*idle, time::monotonic_ns() + 1'000'000)); });
  spawn([&] { watched->arrive(kIn); });
  sched::run_until_quiet();
  EXPECT_EQ(woken, 1);
}

TEST_F(EpollTest, an_event_wakes_one_of_the_threads_of_an_epoll_and_all_who_poll_it) {
  auto waiting = epoll(), outer = epoll();
  auto watched = file();
  ASSERT_TRUE(vfs::epoll_add(*waiting, 1, watched, {kIn | kEdge, 1}).ok());
  int woken = 0, polled = 0;
  for (int i = 0; i < 3; ++i) spawn([&] { woken += ready(*waiting, time::monotonic_ns() + 1'000'000) > 0 ? 1 : 0; });
  sched::yield();
  ASSERT_TRUE(vfs::epoll_add(*outer, 1, waiting, {kIn | kEdge, 1}).ok());
  spawn([&] {
    sched::yield();
    watched->arrive(kIn);
    polled = static_cast<int>(ready(*outer));
  });
  sched::run_until_quiet();
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(polled, 1);
}

TEST_F(EpollTest, epolls_nest_five_deep_and_never_in_a_circle) {
  std::vector<Ref<vfs::File>> up, down;
  for (int i = 0; i < 6; ++i) up.push_back(epoll()), down.push_back(epoll());
  for (size_t i = 1; i < 6; ++i) {
    EXPECT_EQ(code(vfs::epoll_add(*up[i], 1, up[i - 1], {kIn, 1})), i < 5 ? 0 : ELOOP);
    EXPECT_EQ(code(vfs::epoll_add(*down[i - 1], 1, down[i], {kIn, 1})), i < 5 ? 0 : ELOOP);
  }
  EXPECT_EQ(code(vfs::epoll_add(*up[0], 1, up[2], {kIn, 1})), ELOOP);
}

TEST_F(EpollTest, an_event_that_cannot_be_given_stays) {
  struct Bad final : vfs::EpollOutput {
    Result<void> put(const vfs::EpollEvent&) override { return left-- > 0 ? Result<void>() : Error(EFAULT); }
    int left = 0;
  } bad;
  auto waiting = epoll();
  auto first = file(), second = file();
  ASSERT_TRUE(vfs::epoll_add(*waiting, 1, first, {kIn | kEdge, 1}).ok());
  ASSERT_TRUE(vfs::epoll_add(*waiting, 2, second, {kIn | kEdge, 2}).ok());
  first->arrive(kIn);
  second->arrive(kIn);
  EXPECT_EQ(code(vfs::epoll_wait(*waiting, bad, 9, 0)), EFAULT);
  bad.left = 1;
  EXPECT_EQ(*vfs::epoll_wait(*waiting, bad, 9, 0), 1u);
  EXPECT_EQ(ready(*waiting), 1u);
}

TEST_F(EpollTest, items_take_turns) {
  auto waiting = epoll();
  std::vector<Ref<TestFile>> files;
  for (int i = 0; i < 10; ++i) {
    files.push_back(file());
    files.back()->events = kIn;
    ASSERT_TRUE(vfs::epoll_add(*waiting, i, files.back(), {kIn, static_cast<u64>(i)}).ok());
  }
  u64 seen = 0;
  for (int round = 0; round < 5; ++round) {
    vfs::EpollEvent events[2];
    ASSERT_EQ(*test::epoll_wait(*waiting, events, 2, 0), 2u);
    for (auto& event : events) seen |= u64{1} << event.data;
  }
  EXPECT_EQ(seen, 0x3ffu);
}

// A look at the devices may end a connection, by a timer that is due, although nothing has arrived.
TEST_F(EpollTest, what_a_fruitless_look_at_the_devices_brings_is_reported) {
  struct Poller : sched::Poller {
    bool poll() override {
      if (file != nullptr) std::exchange(file, nullptr)->arrive(kIn);
      return false;
    }
    TestFile* file = nullptr;
  };
  static Poller& poller = *new Poller;  // as long as the process
  sched::register_poller(&poller);
  auto waiting = epoll();
  auto watched = file();
  ASSERT_TRUE(vfs::epoll_add(*waiting, 1, watched, {kIn, 1}).ok());
  poller.file = watched.get();
  u64 deadline = time::monotonic_ns() + 1'000'000'000, end = 0;
  size_t found = 0;
  spawn([&] {
    found = ready(*waiting, deadline);
    end = time::monotonic_ns();
  });
  sched::run_until_quiet();
  EXPECT_EQ(found, 1u);
  EXPECT_LT(end, deadline);
}

}  // namespace
}  // namespace husk
