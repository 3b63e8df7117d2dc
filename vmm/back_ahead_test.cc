// BackAhead on memory of its own: what becomes present, and that nonsense from the guest does nothing.
#include "vmm/back_ahead.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "abi/monitor_device.h"

namespace husk::vmm {
namespace {

constexpr u64 kStart = 64 * kMiB, kSize = 16 * kMiB;

class BackAheadTest : public testing::Test {
 protected:
  BackAheadTest() : ahead_(memory_) { memory_.add_ram(kStart, kSize); }
  static u32 pages(u64 address, u32 count) { return static_cast<u32>(address / kHugePageSize) << abi::kMonitorBackCountBits | count; }
  bool present(u64 address) {
    unsigned char there = 0;
    EXPECT_EQ(mincore(memory_.range({address}, kPageSize, Access::write).data(), kPageSize, &there), 0);
    return (there & 1) != 0;
  }
  GuestMemory memory_;
  BackAhead ahead_;
};

TEST_F(BackAheadTest, from_the_last_page_towards_the_guest) {
  EXPECT_FALSE(ahead_.step());
  ahead_.ask(pages(kStart + 4 * kMiB, 2));
  EXPECT_TRUE(ahead_.step());
  EXPECT_TRUE(present(kStart + 6 * kMiB));
  EXPECT_FALSE(present(kStart + 4 * kMiB));
  EXPECT_TRUE(ahead_.step());
  EXPECT_TRUE(present(kStart + 4 * kMiB));
  EXPECT_FALSE(ahead_.step());
  EXPECT_FALSE(present(kStart + 2 * kMiB));
  EXPECT_FALSE(present(kStart + 8 * kMiB));
}

TEST_F(BackAheadTest, the_latest_wish_counts) {
  ahead_.ask(pages(kStart, 4));
  EXPECT_TRUE(ahead_.step());
  ahead_.ask(pages(kStart + 8 * kMiB, 1));
  EXPECT_TRUE(ahead_.step());
  EXPECT_FALSE(ahead_.step());
  EXPECT_TRUE(present(kStart + 8 * kMiB));
  EXPECT_FALSE(present(kStart));
}

TEST_F(BackAheadTest, who_reaches_a_further_page_gets_the_next) {
  BackAhead low(memory_);
  EXPECT_FALSE(low.reached(kPageSize));
  EXPECT_FALSE(low.reached(kHugePageSize));
  EXPECT_TRUE(ahead_.reached(kStart + kPageSize));
  EXPECT_TRUE(ahead_.step());
  EXPECT_TRUE(present(kStart + kHugePageSize));
  EXPECT_FALSE(present(kStart) || present(kStart + 2 * kHugePageSize));
  EXPECT_FALSE(ahead_.reached(kStart + kHugePageSize));
  EXPECT_FALSE(ahead_.step());
  EXPECT_TRUE(ahead_.reached(kStart + kHugePageSize + 1));
  EXPECT_TRUE(ahead_.step());
  EXPECT_TRUE(present(kStart + 2 * kHugePageSize));
}

TEST_F(BackAheadTest, what_is_no_memory_or_hidden_is_passed_over) {
  memory_.hide(kStart + kMiB, kPageSize);
  ahead_.ask(pages(kStart, 1));
  EXPECT_TRUE(ahead_.step());
  EXPECT_FALSE(present(kStart));
  ahead_.ask(~u32{0});
  for (int i = 0; i < 255; ++i) EXPECT_TRUE(ahead_.step());
  EXPECT_FALSE(ahead_.step());
  for (u64 at = kStart; at < kStart + kSize; at += kHugePageSize) EXPECT_FALSE(present(at));
}

}  // namespace
}  // namespace husk::vmm
