// The parts by themselves: SipHash, timers, scoreboard.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernel/net/tcp/scoreboard.h"
#include "kernel/net/tcp/siphash.h"
#include "kernel/net/tcp/timer_heap.h"

namespace husk::net::tcp {
namespace {

TEST(TcpParts, siphash_2_4_test_vectors) {
  EXPECT_EQ(SipHash(0x0706050403020100, 0x0f0e0d0c0b0a0908).finish(), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(SipHash(0x0706050403020100, 0x0f0e0d0c0b0a0908).add(0x0706050403020100).finish(), 0x93f5f5799a932462u);
}

struct Alarm final : Timer {
  void on_timer(u64) override {}
};

TEST(TcpParts, timers_come_in_order) {
  TimerHeap heap;
  std::vector<Alarm> alarms(500);
  std::mt19937 random(1);
  for (Alarm& alarm : alarms) {
    ASSERT_TRUE(heap.add_place().ok());
    heap.set(alarm, random() % 1000);
  }
  for (int i = 0; i < 500; i += 3) heap.set(alarms[i], random() % 1000);
  for (int i = 0; i < 500; i += 5) heap.cancel(alarms[i]);
  u64 last = 0, count = 0;
  while (heap.next_ns() != kNever) {
    u64 next = heap.next_ns();
    EXPECT_GE(next, last);
    last = next;
    EXPECT_EQ(heap.pop_due(next - 1), nullptr);
    EXPECT_NE(heap.pop_due(next), nullptr);
    ++count;
  }
  EXPECT_EQ(count, 400u);
}

TEST(TcpParts, scoreboard_agrees_with_a_bitmap) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    Scoreboard board;
    SeqNum base{0xffffff80};
    std::vector<bool> held(400);
    u32 una = 0;
    for (int i = 0; i < 40; ++i) {
      u32 first = una + random() % (399 - una), end = first + 1 + random() % (400 - first);
      end = std::min<u32>(end, first + 1 + random() % 30);
      u32 gained = 0;
      for (u32 at = first; at < end; ++at)
        if (!held[at]) held[at] = true, ++gained;
      ASSERT_EQ(board.add({base + first, base + end}), gained);
      if (random() % 8 == 0) {
        una = std::min<u32>(una + random() % 20, 350);
        board.advance(base + una);
      }
      u32 sacked = 0, missing = 0;
      for (u32 at = una; at < 400; ++at) sacked += held[at];
      for (u32 at = 100; at < 300; ++at) missing += at >= una && !held[at];
      ASSERT_EQ(board.sacked(), sacked);
      if (una <= 100) {
        ASSERT_EQ(board.missing(base + 100, base + 300), missing);
      }
      SackBlock gap = board.gap(base + una, base + 400);
      u32 from = una;
      while (from < 400 && held[from]) ++from;
      u32 until = from;
      while (until < 400 && !held[until]) ++until;
      ASSERT_EQ(gap.first, base + from);
      ASSERT_EQ(gap.end, base + until);
    }
  }
}

}  // namespace
}  // namespace husk::net::tcp
