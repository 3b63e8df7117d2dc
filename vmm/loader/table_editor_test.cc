// TableEditor against a machine built in plain memory: what it maps, what it prepares, what it leaves to the nub, and that nothing in the guest's memory
// can lead it outside of that memory or keep it for ever. No KVM.
#include "vmm/loader/table_editor.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <random>

#include "abi/nub_policy.h"
#include "vmm/kvm/vm.h"

namespace husk::vmm {
namespace {

using namespace abi;

constexpr u64 kRam = 8 * kMiB, kImagePages = 8, kImageSize = kImagePages * kPageSize;
constexpr u64 kVa = 0x10000000, kFree = 3 * kMiB, kFreeHuge = 4 * kMiB;
constexpr u32 kR = kNubRead, kRW = kNubRead | kNubWrite, kRX = kNubRead | kNubExecute, kRWX = kRW | kNubExecute;

ImageHeader image_header(u32 flags) {
  ImageHeader header{};
  header.flags = flags;
  header.file_size = kImageSize;
  header.nub_part_count = 2;
  header.nub_parts[0] = {0x2000, 0, 0x1000, 0x1000, kPartRead | kPartExecute, 0};
  header.nub_parts[1] = {0x3000, 0x1000, 0x1000, 0x1000, kPartRead | kPartWrite, 0};
  header.kernel_part_count = 3;
  header.kernel_parts[0] = {0x4000, 0, 0x1000, 0x1000, kPartRead | kPartExecute, 0};
  header.kernel_parts[1] = {0x5000, 0x1000, 0x1000, 0x1000, kPartRead, 1};
  header.kernel_parts[2] = {0x6000, 0x2000, 0x1000, 0x1000, kPartRead | kPartWrite, 0};
  header.kernel_size = 0x3000;
  header.nub_size = 0x2000;
  header.nub_syscall_stub = 0x300;
  header.nub_state = 0x1000;
  return header;
}

class TableEditorTest : public testing::Test {
 protected:
  void SetUp() override { build(0); }
  void build(u32 image_flags) {
    memory_ = std::make_unique<GuestMemory>();
    memory_->add_ram(0, kRam);
    FileDescriptor image(memfd_create("image", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(image.get(), kImageSize), 0);
    memory_->add_file(kMonitorImageAddress, kImageSize, image.get());
    ImageHeader header = image_header(image_flags);
    DeviceWindow window{WindowKind::monitor_device, 0, kMonitorDeviceAddress, kPageSize, 0};
    const u8 entropy[32] = {1, 2, 3};
    MachineInput input{};
    input.header = &header;
    input.image_physical = kMonitorImageAddress;
    input.machine = MachineKind::monitor;
    input.ram[0] = {0, kRam};
    input.ram_count = 1;
    input.ram_size = kRam;
    input.entropy = entropy;
    input.windows = &window;
    input.window_count = 1;
    input.ram_is_zero = 1;
    ram_ = memory_->writable({0}, kRam).data();
    u8* file = memory_->range({kMonitorImageAddress}, kImageSize, Access::read).data();
    auto at = [this, file](u64 pa) { return pa >= kMonitorImageAddress ? file + (pa - kMonitorImageAddress) : ram_ + pa; };
    ASSERT_EQ(build_machine(input, at, &output_), nullptr);
    for (const MemoryRange& range : {output_.nub_region, output_.relro}) memory_->hide(range.start, range.size);
    filler_.emplace(*memory_, PhysAddr{output_.nub_state_physical}, PhysAddr{output_.vcpu_shared_physical});
  }

  NubState& state() { return *reinterpret_cast<NubState*>(ram_ + output_.nub_state_physical); }
  VcpuShared& shared() { return *reinterpret_cast<VcpuShared*>(ram_ + output_.vcpu_shared_physical); }
  const BootInfo& info() { return *reinterpret_cast<BootInfo*>(ram_ + output_.boot_info_physical); }
  u64 upper() { return info().kernel_area_start; }

  u64 run(u32 count) {
    shared().calls_done = ~u64{0};
    filler_->run(count);
    return shared().calls_done;
  }
  // Whether the one call was performed.
  bool map(u64 va, u64 pa, u64 length, u32 flags, u32 space = 0) {
    shared().calls[0] = {NubOp::map, 0, flags, va, pa, length, space, 0};
    return run(1) == 1;
  }
  u64 change(NubOp op, u64 va, u64 length, u32 flags = 0) {
    shared().calls[0] = {op, 0, flags, va, 0, length, 0, 0};
    return run(1);
  }
  // What the nub does with HUSK_NUB_APPLY (nub/stubs.S). Gives the number of entries written.
  u64 apply() {
    ApplyList& list = *reinterpret_cast<ApplyList*>(ram_ + state().apply_list);
    u64 written = 0;
    for (const ApplyRun* run = list.runs; run->count != 0; ++run) {
      u64* to = reinterpret_cast<u64*>(ram_ + (run->to - kNubRegionBase + state().region_start));
      memcpy(to, list.entries + (run->from - (kNubVcpuBase + kBlockApply + offsetof(ApplyList, entries))) / 8, run->count * 8);
      *reinterpret_cast<u16*>(ram_ + (run->usage - kNubRegionBase + state().region_start)) -= static_cast<u16>(run->removed);
      written += run->count;
    }
    list.runs[0].count = 0;
    return written;
  }
  void expect_counts() {
    u64 usage = reinterpret_cast<u64>(state().usage) - kNubRegionBase + state().region_start;
    const u16* counts = reinterpret_cast<u16*>(ram_ + usage);
    for (u64 i = 0; i < state().pool_next; ++i) {
      const u64* table = reinterpret_cast<u64*>(ram_ + state().pool_start + i * kPageSize);
      if (counts[i] == kPoolRoot) continue;
      ASSERT_EQ(counts[i], 512 - std::count(table, table + 512, 0u)) << i;
    }
  }
  // The leaf entry for va, or 0; the walk is the processor's (Intel SDM 3A §4.5), and stays in the pool.
  u64 walk(u64 va, u64* page_size = nullptr) {
    u64 table = state().boot_root;
    for (int level = 4;; --level) {
      EXPECT_TRUE(inside(table, kPageSize, state().pool_start, state().pool_pages * kPageSize));
      u64 entry = reinterpret_cast<u64*>(ram_ + table)[va >> (3 + 9 * level) & 511];
      if (entry == 0 || level == 1 || (entry & kPteHuge)) {
        if (page_size != nullptr) *page_size = level == 2 ? kHugePageSize : kPageSize;
        return entry;
      }
      table = entry & kPteFrame;
    }
  }
  void each_leaf(u64 table, int level, u64 va, const std::function<void(u64 va, u64 entry, u64 size)>& visit) {
    for (u64 i = 0; i < 512; ++i) {
      u64 entry = reinterpret_cast<u64*>(ram_ + table)[i];
      u64 at = va | i << (3 + 9 * level);
      if (level == 4 && i >= 256) at |= 0xffff000000000000;
      if (entry == 0) continue;
      if (level == 1 || (entry & kPteHuge)) visit(at, entry, level == 1 ? kPageSize : kHugePageSize);
      else each_leaf(entry & kPteFrame, level - 1, at, visit);
    }
  }
  // The invariants of nub/invariants.md that a page table can show.
  void audit() {
    const NubState& s = state();
    each_leaf(s.boot_root, 4, 0, [&](u64 va, u64 entry, u64 size) {
      u64 frame = entry & kPteFrame;
      if ((entry & kPteUser) == 0) {
        ASSERT_GE(va, kUpperEnd);
        return;
      }
      ASSERT_TRUE(va >= kUserStart && va < kUpperEnd) << std::hex << va;
      bool image = inside(frame, size, s.image_start, s.image_end - s.image_start), ram = inside(frame, size, 0, kRam);
      ASSERT_TRUE(image || ram || inside(frame, size, kMonitorDeviceAddress, kPageSize)) << std::hex << frame;
      ASSERT_TRUE(apart(frame, size, s.region_start, s.region_end - s.region_start)) << std::hex << va;
      ASSERT_FALSE(image && (entry & kPteWrite)) << std::hex << va;
      ASSERT_TRUE(image || (entry & kPteNoExecute)) << std::hex << va;
      for (u32 i = 0; i < s.sealed_count; ++i) {
        ASSERT_TRUE((entry & kPteSealed) || apart(frame, size, s.sealed[i].start, s.sealed[i].size)) << std::hex << va;
      }
    });
  }

  std::unique_ptr<GuestMemory> memory_;
  u8* ram_ = nullptr;
  MachineOutput output_{};
  std::optional<TableEditor> filler_;
};

TEST_F(TableEditorTest, maps_land_where_a_walk_finds_them) {
  ASSERT_TRUE(map(kVa, kFree, 3 * kPageSize, kRW));
  for (u64 i = 0; i < 3; ++i) {
    EXPECT_EQ(walk(kVa + i * kPageSize), (kFree + i * kPageSize) | kPteLeaf | kPteUser | kPteWrite | kPteNoExecute);
  }
  EXPECT_EQ(walk(kVa - kPageSize), 0u);
  EXPECT_EQ(walk(kVa + 3 * kPageSize), 0u);
  ASSERT_TRUE(map(kUserStart, kMonitorImageAddress, kPageSize, kRX));
  EXPECT_EQ(walk(kUserStart), kMonitorImageAddress | kPteLeaf | kPteUser | kPteImage);
  ASSERT_TRUE(map(kUserEnd - kPageSize, kMonitorDeviceAddress, kPageSize, kRW));
  EXPECT_EQ(walk(kUserEnd - kPageSize), kMonitorDeviceAddress | kPteLeaf | kPteUser | kPteWrite | kPteNoExecute | kPteDevice | kPteUncached);
  ASSERT_TRUE(map(upper(), kFree, kPageSize, kR));
  EXPECT_EQ(walk(upper()), kFree | kPteLeaf | kPteUser | kPteNoExecute);
  audit();
}
TEST_F(TableEditorTest, it_knows_how_far_memory_was_mapped) {
  EXPECT_EQ(filler_->memory_end(), 0u);
  ASSERT_TRUE(map(kVa, kFree, 2 * kPageSize, kRW));
  EXPECT_EQ(filler_->memory_end(), kFree + 2 * kPageSize);
  ASSERT_TRUE(map(kVa + kMiB, kFree - kMiB, kPageSize, kRW));
  ASSERT_TRUE(map(kVa + 2 * kMiB, kMonitorImageAddress + 0x4000, kPageSize, kRX));
  EXPECT_FALSE(map(kVa + 3 * kMiB, kRam, kPageSize, kRW));
  EXPECT_EQ(filler_->memory_end(), kFree + 2 * kPageSize);
}

TEST_F(TableEditorTest, large_pages_where_all_is_aligned_and_small_ones_around) {
  u64 page_size = 0, va = 0x40000000;
  ASSERT_TRUE(map(va - kPageSize, kFreeHuge - kPageSize, kHugePageSize + 2 * kPageSize, kRW));
  EXPECT_EQ(walk(va, &page_size) & kPteFrame, kFreeHuge);
  EXPECT_EQ(page_size, kHugePageSize);
  EXPECT_EQ(walk(va - kPageSize, &page_size) & kPteFrame, kFreeHuge - kPageSize);
  EXPECT_EQ(page_size, kPageSize);
  EXPECT_EQ(walk(va + kHugePageSize, &page_size) & kPteFrame, kFreeHuge + kHugePageSize);
  EXPECT_EQ(page_size, kPageSize);
}
TEST_F(TableEditorTest, the_usage_counts_are_the_nubs) {
  ASSERT_TRUE(map(kVa, kFree, 5 * kPageSize, kRW));
  expect_counts();
}

TEST_F(TableEditorTest, present_entries_change_when_the_nub_applies) {
  ASSERT_TRUE(map(kVa, kFree, 4 * kPageSize, kRW));
  EXPECT_EQ(shared().calls_prepared, 0u);
  const u64 before = walk(kVa + kPageSize);
  ASSERT_EQ(change(NubOp::protect, kVa + kPageSize, 2 * kPageSize, kR), 1u);
  EXPECT_EQ(shared().calls_prepared, 1u);
  EXPECT_EQ(walk(kVa + kPageSize), before);
  EXPECT_EQ(apply(), 2u);
  EXPECT_EQ(walk(kVa), kFree | kPteLeaf | kPteUser | kPteWrite | kPteNoExecute);
  EXPECT_EQ(walk(kVa + kPageSize), (kFree + kPageSize) | kPteLeaf | kPteUser | kPteNoExecute);
  EXPECT_EQ(walk(kVa + 2 * kPageSize), (kFree + 2 * kPageSize) | kPteLeaf | kPteUser | kPteNoExecute);
  EXPECT_EQ(walk(kVa + 3 * kPageSize) & kPteWrite, kPteWrite);
  ASSERT_EQ(change(NubOp::unmap, kVa, 2 * kPageSize), 1u);
  apply();
  EXPECT_EQ(walk(kVa + kPageSize), 0u);
  EXPECT_NE(walk(kVa + 2 * kPageSize), 0u);
  ASSERT_TRUE(map(kVa + kPageSize, kMonitorImageAddress, 3 * kPageSize, kRX));  // one empty, two in use
  EXPECT_EQ(shared().calls_prepared, 1u);
  apply();
  EXPECT_EQ(walk(kVa + 2 * kPageSize), (kMonitorImageAddress + kPageSize) | kPteLeaf | kPteUser | kPteImage);
  expect_counts();
  audit();
}
TEST_F(TableEditorTest, nothing_to_change_prepares_nothing) {
  ASSERT_TRUE(map(kVa, kFree, kPageSize, kR));
  EXPECT_EQ(change(NubOp::protect, kVa, 100 * kHugePageSize, kR), 1u);
  EXPECT_EQ(change(NubOp::unmap, kVa + kPageSize, 600 * kGiB), 1u);
  EXPECT_EQ(shared().calls_prepared, 0u);
}
TEST_F(TableEditorTest, a_table_that_becomes_empty_is_left_to_the_nub) {
  ASSERT_TRUE(map(kVa, kFree, 3 * kPageSize, kRW));
  EXPECT_EQ(change(NubOp::unmap, kVa, 3 * kPageSize), 0u);
  EXPECT_EQ(change(NubOp::unmap, kVa - kHugePageSize, kGiB), 0u);
  shared().calls[0] = {NubOp::unmap, 0, 0, kVa, 0, kPageSize, 0, 0};
  shared().calls[1] = {NubOp::unmap, 0, 0, kVa + kPageSize, 0, 2 * kPageSize, 0, 0};
  EXPECT_EQ(run(2), 1u);
  EXPECT_EQ(apply(), 1u);
  expect_counts();
}
TEST_F(TableEditorTest, what_was_prepared_is_void_after_the_next_run) {
  ASSERT_TRUE(map(kVa, kFree, 2 * kPageSize, kR));
  ASSERT_EQ(change(NubOp::protect, kVa, kPageSize, kRW), 1u);
  ASSERT_TRUE(map(kVa + kMiB, kFree, kPageSize, kR));
  EXPECT_EQ(shared().calls_prepared, 0u);
  EXPECT_EQ(apply(), 0u);
  EXPECT_EQ(walk(kVa) & kPteWrite, 0u);
}
TEST_F(TableEditorTest, a_batch_stops_at_what_overlaps_the_prepared) {
  ASSERT_TRUE(map(kVa, kFree, 8 * kPageSize, kRW));
  shared().calls[0] = {NubOp::unmap, 0, 0, kVa, 0, 2 * kPageSize, 0, 0};
  shared().calls[1] = {NubOp::protect, 0, kR, kVa + 4 * kPageSize, 0, kPageSize, 0, 0};
  shared().calls[2] = {NubOp::map, 0, kR, kVa + 9 * kPageSize, kFree, kPageSize, 0, 0};
  shared().calls[3] = {NubOp::protect, 0, kR, kVa + kPageSize, 0, 2 * kPageSize, 0, 0};
  EXPECT_EQ(run(4), 3u);
  apply();
  EXPECT_EQ(walk(kVa + kPageSize), 0u);
  expect_counts();
}
TEST_F(TableEditorTest, a_call_that_is_too_large_is_shortened_to_its_rest) {
  constexpr u64 kPages = 2 * kApplyEntriesMax + 100;
  ASSERT_TRUE(map(kVa, kMiB * 3, 2 * kPageSize, kRW));
  for (u64 i = 2; i < kPages; ++i) ASSERT_TRUE(map(kVa + i * kPageSize, kFree + i % 7 * kPageSize, kPageSize, kRW));
  u64 done = change(NubOp::protect, kVa, kPages * kPageSize, kR);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(done, 0u);
    EXPECT_EQ(shared().calls_prepared, 1u);
    EXPECT_EQ(apply(), kApplyEntriesMax);
    done = run(1);
  }
  EXPECT_EQ(done, 1u);
  EXPECT_EQ(apply(), 100u);
  for (u64 i = 0; i < kPages; ++i) ASSERT_EQ(walk(kVa + i * kPageSize) & kPteWrite, 0u) << i;
  expect_counts();
}
TEST_F(TableEditorTest, changes_that_the_nub_would_refuse_are_left_to_it) {
  ASSERT_TRUE(map(kVa, kFree, 2 * kPageSize, kRW));
  ASSERT_TRUE(map(kVa + kMiB, kMonitorImageAddress, 2 * kPageSize, kR));
  ASSERT_TRUE(map(kGiB, kFreeHuge, kHugePageSize, kR));
  const std::vector<u8> before(ram_, ram_ + kRam);
  EXPECT_EQ(change(NubOp::protect, kVa, kPageSize, kRX), 0u);
  EXPECT_EQ(change(NubOp::protect, kVa, kPageSize, kRWX), 0u);
  EXPECT_EQ(change(NubOp::protect, kVa, kPageSize, 0), 0u);
  EXPECT_EQ(change(NubOp::protect, kVa, kPageSize, kRX | kNubJit), 0u);
  EXPECT_EQ(change(NubOp::protect, kVa + kMiB, kPageSize, kRW), 0u);
  EXPECT_EQ(change(NubOp::protect, kGiB, kPageSize, kRW), 0u);  // a large page is not split
  EXPECT_EQ(change(NubOp::unmap, kGiB, kHugePageSize), 0u);
  EXPECT_EQ(change(NubOp::unmap, info().kernel_base, kPageSize), 0u);  // sealed
  EXPECT_EQ(change(NubOp::protect, info().kernel_base + 0x1000, kPageSize, kRW), 0u);
  EXPECT_EQ(change(NubOp::unmap, kNubBase, kPageSize), 0u);
  EXPECT_EQ(change(NubOp::unmap, 0, 2 * kUserStart), 0u);
  EXPECT_EQ(shared().calls_prepared, 0u);
  memcpy(ram_ + output_.vcpu_shared_physical, before.data() + output_.vcpu_shared_physical, kPageSize);
  memcpy(ram_ + state().apply_list, before.data() + state().apply_list, kPageSize);
  EXPECT_EQ(memcmp(before.data(), ram_, kRam), 0);
  EXPECT_EQ(change(NubOp::protect, kVa + kMiB, kPageSize, kRX), 1u);  // frames of the image may become executable
}

struct Refused {
  const char* name;
  u64 va, pa, length;
  u32 flags, space = 0;
};
TEST_F(TableEditorTest, what_the_nub_would_refuse_is_left_to_it) {
  u64 nub_end = state().region_end, sealed = state().sealed[0].start, image = kMonitorImageAddress, top = u64{0} - kPageSize;
  const Refused kCases[] = {
      {"write and execute", kVa, kFree, kPageSize, kRWX},
      {"write and execute image", kVa, image, kPageSize, kRWX},
      {"executable memory", kVa, kFree, kPageSize, kRX},
      {"executable memory for a JIT that the image does not have", kVa, kFree, kPageSize, kRX | kNubJit},
      {"executable device", kVa, kMonitorDeviceAddress, kPageSize, kRX},
      {"writable image", kVa, image, kPageSize, kRW},
      {"nub region", kVa, 0, kPageSize, kR},
      {"end of the nub region", kVa, nub_end - kPageSize, 2 * kPageSize, kR},
      {"nub region by a large page", kVa, 0, kHugePageSize, kRW},
      {"page 0", 0, kFree, kPageSize, kRW},
      {"low page", kUserStart - kPageSize, kFree, 2 * kPageSize, kRW},
      {"sealed range", kVa, sealed, kPageSize, kR},
      {"into a sealed range", kVa, sealed - kPageSize, 2 * kPageSize, kRW},
      {"behind RAM", kVa, kRam, kPageSize, kR},
      {"across the end of RAM", kVa, kRam - kPageSize, 2 * kPageSize, kR},
      {"before the image", kVa, image - kPageSize, 2 * kPageSize, kR},
      {"behind the image", kVa, image + kImageSize, kPageSize, kR},
      {"behind the window", kVa, kMonitorDeviceAddress + kPageSize, kPageSize, kRW},
      {"frame beyond 52 bits", kVa, u64{1} << 52, kPageSize, kRW},
      {"wrapping addresses", top, kFree, 2 * kPageSize, kRW},
      {"wrapping frames", kVa, top, 2 * kPageSize, kRW},
      {"wrapping length", kVa, kFree, top, kRW},
      {"length 0", kVa, kFree, 0, kRW},
      {"unaligned address", kVa + 1, kFree, kPageSize, kRW},
      {"unaligned frame", kVa, kFree + 8, kPageSize, kRW},
      {"unaligned length", kVa, kFree, 12, kRW},
      {"end of the lower half", kUserEnd, kFree, kPageSize, kRW},
      {"not canonical", u64{1} << 63, kFree, kPageSize, kRW},
      {"the nub's addresses", kNubBase, kFree, kPageSize, kRW},
      {"into the nub's addresses", kUpperEnd - kPageSize, kFree, 2 * kPageSize, kRW},
      {"an upper slot without a table", kUpperStart, kFree, kPageSize, kRW},
      {"no access", kVa, kFree, kPageSize, 0},
      {"unknown flags", kVa, kFree, kPageSize, kRW | 0x100},
      {"another space", kVa, kFree, kPageSize, kRW, 1},
      {"the kernel's text", info().kernel_base, kFree, kPageSize, kRW},
  };
  std::vector<u8> before(ram_, ram_ + state().region_end);
  for (const Refused& c : kCases) EXPECT_FALSE(map(c.va, c.pa, c.length, c.flags, c.space)) << c.name;
  EXPECT_EQ(memcmp(before.data(), ram_, before.size()), 0);
}
TEST_F(TableEditorTest, copies_go_into_ram_that_devices_may_write) {
  const u64 from = kFree, to = kFree + 8 * kPageSize;
  auto copy = [&](u64 target, u64 source, u64 length) {
    shared().calls[0] = {NubOp::copy, 0, 0, target, source, length, 0, 0};
    return run(1) == 1;
  };
  memset(ram_ + from, 7, 2 * kPageSize);
  EXPECT_TRUE(copy(to, from, 2 * kPageSize));
  EXPECT_EQ(memcmp(ram_ + to, ram_ + from, 2 * kPageSize), 0);
  EXPECT_TRUE(copy(to, kMonitorImageAddress, kPageSize));
  EXPECT_EQ(ram_[to], 0);
  EXPECT_EQ(ram_[to + kPageSize], 7);
  EXPECT_FALSE(copy(kMonitorImageAddress, from, kPageSize));
  EXPECT_FALSE(copy(kRam - kPageSize, from, 2 * kPageSize));
  EXPECT_FALSE(copy(to, kRam - kPageSize, 2 * kPageSize));
  EXPECT_FALSE(copy(to, ~u64{0}, 2));
  EXPECT_FALSE(copy(to, from, 0));
  EXPECT_FALSE(copy(kMonitorDeviceAddress, from, 8));
  for (const MemoryRange& hidden : {output_.nub_region, output_.relro}) {
    EXPECT_FALSE(copy(hidden.start, from, 1));
    EXPECT_FALSE(copy(hidden.start + hidden.size - 1, from, 1));
    EXPECT_FALSE(copy(to, hidden.start, 1));
  }
}

TEST_F(TableEditorTest, a_copy_between_maps_is_done_in_order) {
  memset(ram_ + kFree, 9, kPageSize);
  shared().calls[0] = {NubOp::copy, 0, 0, kFree + kPageSize, kFree, kPageSize, 0, 0};
  shared().calls[1] = {NubOp::map, 0, kNubRead, kVa, kFree + kPageSize, kPageSize, 0, 0};
  shared().calls[2] = {NubOp::copy, 0, 0, kFree + 2 * kPageSize, kFree + kPageSize, kPageSize, 0, 0};
  EXPECT_EQ(run(3), 3u);
  EXPECT_EQ(ram_[kFree + 3 * kPageSize - 1], 9);
  EXPECT_NE(walk(kVa), 0u);
}

TEST_F(TableEditorTest, only_mappings_are_its_business) {
  for (u16 op = 0; op < 30; ++op) {
    if (op >= static_cast<u16>(NubOp::map) && op <= static_cast<u16>(NubOp::protect)) continue;
    shared().calls[0] = {static_cast<NubOp>(op), 0, kRW, kVa, kFree, kPageSize, 0, 0};
    EXPECT_EQ(run(1), 0u) << op;
  }
}
TEST_F(TableEditorTest, no_new_kernel_text) {
  EXPECT_FALSE(map(upper() + kPageSize, kMonitorImageAddress, kPageSize, kRX));
  EXPECT_TRUE(map(upper() + kPageSize, kMonitorImageAddress, kPageSize, kR));
  EXPECT_TRUE(map(kVa, kMonitorImageAddress, kPageSize, kRX));
}
TEST_F(TableEditorTest, a_jit_image_gets_executable_memory_below_only) {
  build(kImageJit);
  EXPECT_TRUE(map(kVa, kFree, kPageSize, kRX | kNubJit));
  EXPECT_FALSE(map(kVa + kPageSize, kFree, kPageSize, kRX));
  EXPECT_FALSE(map(upper(), kFree, kPageSize, kRX | kNubJit));
  EXPECT_FALSE(map(kVa + kPageSize, kMonitorImageAddress, kPageSize, kRWX | kNubJit));
}
TEST_F(TableEditorTest, entries_in_use_are_not_written) {
  ASSERT_TRUE(map(kVa + 2 * kPageSize, kFree, kPageSize, kR));
  EXPECT_TRUE(map(kVa + 2 * kPageSize, kFree, kPageSize, kR));
  EXPECT_EQ(shared().calls_prepared, 0u);  // the same again
  EXPECT_TRUE(map(kVa, kFree + kMiB, 4 * kPageSize, kRW));
  EXPECT_EQ(shared().calls_prepared, 1u);
  EXPECT_EQ(walk(kVa + 2 * kPageSize), kFree | kPteLeaf | kPteUser | kPteNoExecute);
  EXPECT_EQ(walk(kVa + 3 * kPageSize), 0u);
  ASSERT_TRUE(map(kGiB, kFreeHuge, kHugePageSize, kR));
  EXPECT_FALSE(map(kGiB + kPageSize, kFree, kPageSize, kRW));  // a large page is not split
  EXPECT_FALSE(map(kGiB, kFreeHuge, kHugePageSize, kRW));      // nor changed
  EXPECT_EQ(walk(kGiB) & kPteFrame, kFreeHuge);
}
TEST_F(TableEditorTest, a_batch_stops_at_the_first_call_that_it_cannot_do) {
  for (u64 i = 0; i < 4; ++i) shared().calls[i] = {NubOp::map, 0, kRW, kVa + i * kPageSize, kFree, kPageSize, 0, 0};
  shared().calls[2].flags = kRWX;
  EXPECT_EQ(run(4), 2u);
  EXPECT_NE(walk(kVa + kPageSize), 0u);
  EXPECT_EQ(walk(kVa + 3 * kPageSize), 0u);
  EXPECT_EQ(run(0), 0u);
}
TEST_F(TableEditorTest, a_count_beyond_the_array_ends_with_the_array) {
  for (u64 i = 0; i < kNubCallsMax; ++i) shared().calls[i] = {NubOp::map, 0, kRW, kVa + i * kPageSize, kFree, kPageSize, 0, 0};
  EXPECT_EQ(run(~u32{0}), kNubCallsMax);
}
TEST_F(TableEditorTest, an_empty_pool_is_left_to_the_nub) {
  u64 done = 0;
  while (done < 200 && map((done + 1) * 300 * kGiB, kFree, kPageSize, kRW)) ++done;
  EXPECT_GT(done, 5u);
  EXPECT_LT(done, 20u);
  EXPECT_EQ(state().pool_next, state().pool_pages);
  audit();
}
TEST_F(TableEditorTest, freed_tables_are_used_first_and_emptied) {
  u64 index = state().pool_next++, table = state().pool_start + index * kPageSize;
  memset(ram_ + table, 0xff, kPageSize);
  *reinterpret_cast<u64*>(ram_ + table) = 0;  // end of the list
  state().pool_free = index + 1;
  ASSERT_TRUE(map(kVa, kFree, kPageSize, kRW));
  EXPECT_EQ(state().pool_free, 0u);
  audit();
}

// Random values that are likely to be near a limit of something.
class Random {
 public:
  explicit Random(u64 seed) : engine_(seed) {}
  u64 below(u64 limit) { return engine_() % limit; }
  bool chance(u64 of) { return below(of) == 0; }
  u64 value() {
    static constexpr u64 kNear[] = {0,
                                    kUserStart,
                                    kVa,
                                    kUserEnd,
                                    kUpperStart,
                                    kUpperEnd,
                                    kNubBase,
                                    kNubRegionBase,
                                    kRam,
                                    kFree,
                                    kFreeHuge,
                                    kMonitorImageAddress,
                                    kMonitorImageAddress + kImageSize,
                                    kMonitorDeviceAddress,
                                    kGiB,
                                    u64{1} << 47};
    switch (below(5)) {
      case 0: return engine_();
      case 1: return engine_() >> below(64);
      case 2: return align_down(engine_() % (2 * kRam), kPageSize);
      default: return kNear[below(std::size(kNear))] + (below(9) - 4) * (chance(8) ? 1 : kPageSize);
    }
  }
  NubCall call(u64 upper) {
    if (!chance(6)) {  // one that may well be right
      return {chance(2)   ? NubOp::map
              : chance(2) ? NubOp::protect
                          : NubOp::unmap,
              0,
              chance(2) ? kR : kRW,
              (chance(4) ? upper : kVa) + below(4096) * kPageSize,
              kMiB + below((kRam - kMiB) / kPageSize) * kPageSize,
              (1 + below(4)) * kPageSize,
              0,
              0};
    }
    NubCall call{NubOp::map, 0, static_cast<u32>(below(32)) | kNubRead, value(), value(), (1 + below(8)) * kPageSize, 0, 0};
    if (chance(3)) call.va = upper + below(1024) * kPageSize;
    if (chance(3)) call.pa = align_down(below(kRam), kPageSize);
    if (chance(8)) call.va = align_down(call.va, kHugePageSize), call.pa = align_down(call.pa, kHugePageSize), call.length = kHugePageSize;
    if (chance(8)) call.length = value();
    if (chance(50)) call.op = static_cast<NubOp>(below(20));
    if (chance(50)) call.space = static_cast<u32>(value());
    return call;
  }

 private:
  std::mt19937_64 engine_;
};

TEST_F(TableEditorTest, random_calls_keep_the_invariants) {
  Random random(1);
  const std::vector<u8> fresh(ram_, ram_ + kRam);
  const NubState first = state();
  u64 performed = 0, applied = 0, usage = reinterpret_cast<u64>(first.usage) - kNubRegionBase + first.region_start;
  for (int round = 0; round < 3000 && !HasFatalFailure(); ++round) {
    if (round % 20 == 0) memcpy(ram_, fresh.data(), kRam);
    std::vector<u64> before(first.pool_pages * 512);
    memcpy(before.data(), ram_ + first.pool_start, before.size() * 8);
    for (NubCall& call : shared().calls) {
      call = random.call(upper());
      if (call.op == NubOp::copy) call.op = NubOp::none;  // would change RAM, as it should
    }
    performed += run(static_cast<u32>(random.chance(10) ? random.value() : random.below(kNubCallsMax)));
    const u64* after = reinterpret_cast<u64*>(ram_ + first.pool_start);
    for (u64 i = 0; i < before.size(); ++i) ASSERT_TRUE(before[i] == 0 || before[i] == after[i]) << "entry changed";
    audit();
    applied += apply();
    audit();
    expect_counts();
    if (round % 20 != 19) continue;
    // Besides tables, their counts and the pool's two numbers, only the call page is different.
    state().pool_next = first.pool_next;
    memcpy(ram_ + output_.vcpu_shared_physical, fresh.data() + output_.vcpu_shared_physical, kPageSize);
    memcpy(ram_ + first.apply_list, fresh.data() + first.apply_list, kPageSize);
    EXPECT_EQ(memcmp(ram_, fresh.data(), usage), 0);
    EXPECT_EQ(memcmp(ram_ + first.region_end, fresh.data() + first.region_end, kRam - first.region_end), 0);
  }
  EXPECT_GT(performed, 3000u);  // and not only refused
  EXPECT_GT(applied, 300u);
}

// What a broken nub might leave: the filler may harm this guest, must end, and must stay in its RAM (the sanitizer watches).
TEST_F(TableEditorTest, broken_state_and_tables_harm_the_guest_only) {
  Random random(2);
  const std::vector<u8> fresh(ram_, ram_ + kRam);
  const NubState first = state();
  u64 performed = 0;
  for (int round = 0; round < 4000; ++round) {
    memcpy(ram_, fresh.data(), first.region_end + kMiB);
    u64* words = reinterpret_cast<u64*>(&state());
    for (u64 i = 0; i < sizeof(NubState) / 8; ++i) {
      if (random.chance(12)) words[i] = random.value();
    }
    if (random.chance(2)) state().pool_free = random.below(2 * first.pool_pages);
    if (random.chance(8)) state().pool_start = random.value(), state().pool_pages = random.value();
    if (random.chance(8)) state().usage = reinterpret_cast<u16*>(random.value());
    if (random.chance(4)) state().image_start = 0, state().image_end = random.value();
    u64* pool = reinterpret_cast<u64*>(ram_ + first.pool_start);
    for (u64 i = random.chance(2) ? 0 : random.below(2000); i > 0; --i) {
      u64 table = first.pool_start + random.below(first.pool_pages) * kPageSize;
      pool[random.below(first.pool_pages * 512)] = random.chance(2) ? table | kPteTable : random.value();
    }
    for (NubCall& call : shared().calls) call = random.call(upper());
    u32 count = static_cast<u32>(random.value());
    u64 done = run(count);
    ASSERT_LE(done, std::min<u64>(count, kNubCallsMax));
    performed += done;
  }
  EXPECT_GT(performed, 1000u);
}
TEST_F(TableEditorTest, tables_that_point_at_themselves_end) {
  u64 root = state().boot_root;
  std::fill_n(reinterpret_cast<u64*>(ram_ + root), 512, root | kPteTable);
  state().ram[0].size = u64{1} << 46;
  EXPECT_FALSE(map(kVa, kFree, u64{1} << 45, kRW));
  memset(ram_ + root, 0, kPageSize);
  state().pool_free = (root - state().pool_start) / kPageSize + 1;  // the root is on the free list
  EXPECT_FALSE(map(kVa, kFree, u64{1} << 45, kRW));
}

}  // namespace
}  // namespace husk::vmm
