#include "platform/fake/fake.h"

#include <gtest/gtest.h>

#include "abi/image_format.h"
#include "platform/platform.h"

namespace husk::platform {
namespace {

constexpr VirtAddr kProgram{0x400000};
constexpr PhysAddr kRam{4 * kMiB}, kImage{abi::kMonitorImageAddress};

class FakePlatform : public testing::Test {
 protected:
  void SetUp() override { fake::reset(); }
};

TEST_F(FakePlatform, batch_takes_effect_at_flush_and_joins_neighbours) {
  PageTableBatch batch(0);
  ASSERT_TRUE(batch.map(kProgram, kRam, kPageSize, kRead).ok());
  ASSERT_TRUE(batch.map(kProgram + kPageSize, kRam + kPageSize, kPageSize, kRead).ok());
  EXPECT_FALSE(fake::lookup(0, kProgram.value));
  ASSERT_TRUE(batch.flush().ok());
  EXPECT_EQ(fake::lookup(0, kProgram.value + kPageSize + 5)->physical, kRam + kPageSize);
  EXPECT_EQ(fake::counters().operations, 1u);
}

TEST_F(FakePlatform, second_batch_keeps_order_and_the_firsts_error) {
  PageTableBatch first(0), second(0);
  ASSERT_TRUE(first.map({0x1000}, kRam, kPageSize, kRead).ok());
  ASSERT_TRUE(second.map(kProgram, kRam, kPageSize, kRead).ok());
  EXPECT_TRUE(second.flush().ok());
  EXPECT_EQ(first.flush().error().code(), EPERM);
}

TEST_F(FakePlatform, copies_are_joined_only_if_both_sides_go_on) {
  u8* ram = reinterpret_cast<u8*>(fake::boot_info().direct_base);
  const PhysAddr from = kRam + kMiB;
  for (u64 i = 0; i < 3; ++i) ram[from.value + i * kPageSize] = static_cast<u8>(i + 1);
  PageTableBatch batch(0);
  ASSERT_TRUE(batch.copy(kRam, from, kPageSize).ok());
  ASSERT_TRUE(batch.copy(kRam + kPageSize, from + kPageSize, kPageSize).ok());
  ASSERT_TRUE(batch.copy(kRam + 2 * kPageSize, from, kPageSize).ok());
  EXPECT_EQ(ram[kRam.value], 0);
  ASSERT_TRUE(batch.flush().ok());
  EXPECT_EQ(fake::counters().operations, 2u);
  EXPECT_EQ(ram[kRam.value], 1);
  EXPECT_EQ(ram[kRam.value + kPageSize], 2);
  EXPECT_EQ(ram[kRam.value + 2 * kPageSize], 1);
}

TEST_F(FakePlatform, full_batch_flushes_itself) {
  PageTableBatch batch(0);
  for (u64 i = 0; i < 200; ++i) ASSERT_TRUE(batch.map(kProgram + i * 2 * kPageSize, kRam, kPageSize, kRead).ok());
  ASSERT_TRUE(batch.flush().ok());
  EXPECT_EQ(fake::mapped_pages(0), 200u);
  EXPECT_EQ(fake::counters().nub_entries, 3u);
}

TEST_F(FakePlatform, nub_invariants) {
  struct Case {
    VirtAddr va;
    PhysAddr pa;
    u32 protection;
    bool jit, allowed;
  } cases[] = {
      {kProgram, kRam, kRead | kWrite, false, true},
      {kProgram, kRam, kRead | kExecute, false, false},
      {kProgram, kImage, kRead | kExecute, false, true},
      {kProgram, kImage, kRead | kWrite, false, false},
      {kProgram, kRam, kRead | kWrite | kExecute | kJit, false, false},
      {kProgram, kRam, kRead | kWrite | kExecute | kJit, true, true},
      {kProgram, kRam, kRead | kWrite | kExecute, true, false},
      {{0x1000}, kRam, kRead, false, false},
      {kProgram, {kGiB * 100}, kRead, false, false},
  };
  for (const Case& c : cases) {
    fake::allow_jit(c.jit);
    PageTableBatch batch(0);
    ASSERT_TRUE(batch.map(c.va, c.pa, kPageSize, c.protection).ok());
    EXPECT_EQ(batch.flush().ok(), c.allowed) << c.va.value << " " << c.protection;
  }
}

TEST_F(FakePlatform, kernel_area_is_real_memory) {
  u64 va = fake::boot_info().kernel_area_start;
  PageTableBatch batch(0);
  ASSERT_TRUE(batch.map({va}, kRam, kPageSize, kRead | kWrite).ok());
  ASSERT_TRUE(batch.flush().ok());
  *reinterpret_cast<u64*>(va) = 42;
  EXPECT_EQ(*reinterpret_cast<u64*>(fake::boot_info().direct_base + kRam.value), 42u);
}

TEST_F(FakePlatform, halt_moves_time_to_the_deadline) {
  arm_timer(500);
  halt();
  EXPECT_EQ(ticks(), 500u);
}

}  // namespace
}  // namespace husk::platform
