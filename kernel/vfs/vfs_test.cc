// Pipes, eventfd, timerfd, epoll, poll and splice, with the real scheduler on the fake platform.
#include "kernel/fs/test_support.h"

namespace husk {
namespace {

using test::code;
using vfs::kHup;
using vfs::kIn;
using vfs::kOut;

class VfsTest : public test::Machine {
 protected:
  static vfs::FilePair pipe(u32 flags = 0) { return vfs::make_pipe(flags).release(); }
  static std::vector<vfs::EpollEvent> ready(vfs::File& epoll, size_t maximum = 16, u64 deadline = 0) {
    std::vector<vfs::EpollEvent> events(maximum);
    auto count = test::epoll_wait(epoll, events.data(), maximum, deadline);
    events.resize(count.ok() ? *count : 0);
    return events;
  }
};

TEST_F(VfsTest, pipe_blocks_and_wakes) {
  auto ends = pipe();
  std::string got;
  spawn([&] { got = test::read(*ends.first, 100); });
  spawn([&] { EXPECT_EQ(*test::write(*ends.second, "hello"), 5u); });
  sched::run_until_quiet();
  EXPECT_EQ(got, "hello");
}

TEST_F(VfsTest, pipe_moves_more_than_it_holds) {
  auto ends = pipe();
  const size_t size = 300'000;
  std::string got, sent(size, 0);
  for (size_t i = 0; i < size; ++i) sent[i] = static_cast<char>(i * 7 / 3);
  spawn([&] {
    EXPECT_EQ(*test::write(*ends.second, sent), size);
    ends.second = nullptr;
  });
  spawn([&] {
    for (;;) {
      std::string piece = test::read(*ends.first, 7000);
      if (piece.empty()) break;
      got += piece;
    }
  });
  sched::run_until_quiet();
  EXPECT_TRUE(got == sent);
}

TEST_F(VfsTest, pipe_write_of_pipe_buf_is_atomic) {
  auto ends = pipe(vfs::kOpenNonBlocking);
  EXPECT_EQ(*test::write(*ends.second, std::string(65536 - 100, 'x')), 65436u);
  EXPECT_EQ(code(test::write(*ends.second, std::string(101, 'y'))), EAGAIN);
  EXPECT_EQ(*test::write(*ends.second, std::string(5000, 'y')), 100u);
  EXPECT_EQ(ends.second->poll_events(), 0u);
  EXPECT_EQ(test::read(*ends.first, 5000).size(), 5000u);
  EXPECT_EQ(ends.second->poll_events(), u32{kOut});
}

TEST_F(VfsTest, pipe_ends) {
  auto ends = pipe(vfs::kOpenNonBlocking);
  EXPECT_EQ(test::read(*ends.first, 1), "errno " + std::to_string(EAGAIN));
  (void)test::write(*ends.second, "ab").ok();
  ends.second = nullptr;
  EXPECT_EQ(ends.first->poll_events(), u32{kIn | kHup});
  EXPECT_EQ(test::read(*ends.first, 9), "ab");
  EXPECT_EQ(test::read(*ends.first, 9), "");
  auto others = pipe();
  others.first = nullptr;
  EXPECT_EQ(code(test::write(*others.second, "x")), EPIPE);
  EXPECT_EQ(others.second->poll_events(), u32{kOut | vfs::kErr});
}

TEST_F(VfsTest, pipe_capacity_changes_keep_the_bytes) {
  auto ends = pipe(vfs::kOpenNonBlocking);
  (void)test::write(*ends.second, std::string(6000, 'a')).ok();
  (void)test::read(*ends.first, 5000);
  (void)test::write(*ends.second, std::string(5000, 'b')).ok();
  EXPECT_EQ(*vfs::pipe_capacity(*ends.first, 5000), 8192);
  EXPECT_EQ(code(vfs::pipe_capacity(*ends.first, 4096)), EBUSY);
  EXPECT_EQ(test::read(*ends.first, 9000), std::string(1000, 'a') + std::string(5000, 'b'));
}

TEST_F(VfsTest, signal_interrupts_a_read) {
  auto ends = pipe();
  std::string got;
  auto thread = spawn([&] { got = test::read(*ends.first, 1); });
  sched::run_until_quiet();
  thread->interrupt();
  sched::run_until_quiet();
  EXPECT_EQ(got, "errno " + std::to_string(EINTR));
}

TEST_F(VfsTest, eventfd_counts) {
  auto file = vfs::make_eventfd(2, vfs::kOpenNonBlocking).release();
  u64 value = 3;
  std::string_view bytes(reinterpret_cast<char*>(&value), 8);
  EXPECT_EQ(*test::write(*file, bytes), 8u);
  std::string got = test::read(*file, 8);
  EXPECT_EQ(*reinterpret_cast<const u64*>(got.data()), 5u);
  EXPECT_EQ(test::read(*file, 8), "errno " + std::to_string(EAGAIN));
  EXPECT_EQ(test::read(*file, 7), "errno " + std::to_string(EINVAL));
  value = ~u64{0};
  EXPECT_EQ(code(test::write(*file, bytes)), EINVAL);
}

TEST_F(VfsTest, timerfd_counts_missed_ticks) {
  auto file = vfs::make_timerfd(1, vfs::kOpenNonBlocking).release();
  ASSERT_TRUE(vfs::timerfd_set(*file, {1000, 500}, false).ok());
  EXPECT_EQ(file->poll_events(), 0u);
  platform::fake::advance(2200);  // ticks at 1000, 1500, 2000
  time::run_timers();
  EXPECT_EQ(file->poll_events(), u32{kIn});
  std::string got = test::read(*file, 8);
  EXPECT_EQ(*reinterpret_cast<const u64*>(got.data()), 3u);
  EXPECT_EQ(vfs::timerfd_get(*file)->value_ns, 300u);
}

TEST_F(VfsTest, epoll_levels_edges_and_one_shots) {
  auto level = pipe(vfs::kOpenNonBlocking), edge = pipe(vfs::kOpenNonBlocking), once = pipe(vfs::kOpenNonBlocking);
  auto epoll = vfs::make_epoll(0).release();
  ASSERT_TRUE(vfs::epoll_add(*epoll, 3, level.first, {kIn, 1}).ok());
  ASSERT_TRUE(vfs::epoll_add(*epoll, 4, edge.first, {kIn | 1u << 31, 2}).ok());
  ASSERT_TRUE(vfs::epoll_add(*epoll, 5, once.first, {kIn | 1u << 30, 3}).ok());
  EXPECT_EQ(code(vfs::epoll_add(*epoll, 5, once.first, {kIn, 3})), EEXIST);
  EXPECT_TRUE(ready(*epoll).empty());
  for (auto* ends : {&level, &edge, &once}) (void)test::write(*ends->second, "xy").ok();
  EXPECT_EQ(ready(*epoll).size(), 3u);
  auto again = ready(*epoll);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].data, 1u);
  (void)test::write(*edge.second, "z").ok();
  (void)test::write(*once.second, "z").ok();
  EXPECT_EQ(ready(*epoll).size(), 2u);
  (void)test::read(*level.first, 10);
  EXPECT_TRUE(ready(*epoll).empty());
  ASSERT_TRUE(vfs::epoll_modify(*epoll, 5, *once.first, {kIn | 1u << 30, 4}).ok());
  EXPECT_EQ(ready(*epoll).size(), 1u);
  EXPECT_TRUE(vfs::epoll_remove(*epoll, 3, *level.first).ok());
  EXPECT_EQ(code(vfs::epoll_remove(*epoll, 3, *level.first)), ENOENT);
}

TEST_F(VfsTest, epoll_forgets_closed_files_and_nests) {
  auto inner = vfs::make_epoll(0).release(), outer = vfs::make_epoll(0).release();
  auto ends = pipe();
  ASSERT_TRUE(vfs::epoll_add(*inner, 3, ends.first, {kIn, 1}).ok());
  ASSERT_TRUE(vfs::epoll_add(*outer, 4, inner, {kIn, 2}).ok());
  EXPECT_EQ(code(vfs::epoll_add(*inner, 5, outer, {kIn, 2})), ELOOP);
  EXPECT_EQ(code(vfs::epoll_add(*inner, 5, inner, {kIn, 2})), EINVAL);
  (void)test::write(*ends.second, "x").ok();
  EXPECT_EQ(ready(*outer).size(), 1u);
  ends.first = nullptr;
  EXPECT_TRUE(ready(*outer).empty());
  EXPECT_TRUE(ready(*inner).empty());
}

TEST_F(VfsTest, epoll_wait_sleeps_until_an_event_or_the_deadline) {
  auto epoll = vfs::make_epoll(0).release();
  auto ends = pipe();
  ASSERT_TRUE(vfs::epoll_add(*epoll, 3, ends.first, {kIn, 7}).ok());
  size_t first = 99, second = 99;
  spawn([&] {
    first = ready(*epoll, 4, time::monotonic_ns() + 1'000'000).size();
    second = ready(*epoll, 4, time::kForever).size();
  });
  sched::run_until_quiet();
  EXPECT_EQ(first, 0u);
  EXPECT_EQ(second, 99u);
  (void)test::write(*ends.second, "x").ok();
  sched::run_until_quiet();
  EXPECT_EQ(second, 1u);
}

TEST_F(VfsTest, poll_waits_for_any) {
  auto a = pipe(), b = pipe();
  vfs::PollItem items[2] = {{a.first, kIn, 0}, {b.first, kIn, 0}};
  size_t count = 99;
  spawn([&] { count = vfs::poll(items, 2, time::kForever).release(); });
  sched::run_until_quiet();
  EXPECT_EQ(count, 99u);
  (void)test::write(*b.second, "x").ok();
  sched::run_until_quiet();
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(items[0].result, 0u);
  EXPECT_EQ(items[1].result, u32{kIn});
}

TEST_F(VfsTest, splice_loses_nothing) {
  auto from = pipe(vfs::kOpenNonBlocking), to = pipe(vfs::kOpenNonBlocking);
  (void)test::write(*to.second, std::string(65536 - 10, 'x')).ok();
  (void)test::write(*from.second, std::string(5000, 'y')).ok();
  EXPECT_EQ(code(vfs::pipe_splice(*from.first, nullptr, *to.second, nullptr, 5000)), 0);
  (void)test::read(*to.first, 65536);
  i64 moved = vfs::pipe_splice(*from.first, nullptr, *to.second, nullptr, 5000).release();
  std::string rest = test::read(*from.first, 65536);
  EXPECT_EQ(moved + 10, 5000) << rest.size();
}

}  // namespace
}  // namespace husk
