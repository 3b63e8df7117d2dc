// Frames, heap and guarded areas over the fake platform's RAM.
#include "kernel/mem/frames.h"

#include <gtest/gtest.h>
#include <string.h>

#include <algorithm>
#include <random>
#include <vector>

#include "base/tree.h"
#include "kernel/mem/user_copy.h"
#include "platform/fake/fake.h"

namespace husk::mem {
namespace {

namespace fake = platform::fake;

class Frames : public testing::Test {
 protected:
  void SetUp() override {
    fake::reset(64 * kMiB);
    init_frames(fake::boot_info());
  }
};

bool all_bytes(const u8* at, size_t size, u8 value) {
  return std::all_of(at, at + size, [&](u8 b) { return b == value; });
}

TEST_F(Frames, only_frames_that_need_no_clearing_if_asked_so) {
  u64 free = memory_statistics().free;
  auto fresh = allocate_frames(kHugeOrder, Zeroed::already);
  ASSERT_TRUE(fresh.ok());
  memset(direct(*fresh), 1, kPageSize << kHugeOrder);
  free_frames(*fresh, kHugeOrder);
  EXPECT_FALSE(allocate_frames(kHugeOrder, Zeroed::already).ok());  // used blocks go first
  EXPECT_EQ(memory_statistics().free, free);
  auto used = allocate_frames(kHugeOrder, Zeroed::yes);
  ASSERT_TRUE(used.ok());
  EXPECT_TRUE(all_bytes(direct(*used), kPageSize << kHugeOrder, 0));
  EXPECT_TRUE(allocate_frames(kHugeOrder, Zeroed::already).ok());
}

TEST_F(Frames, blocks_are_aligned_distinct_and_join_again) {
  u64 free = memory_statistics().free;
  std::mt19937 random(1);
  struct Block {
    PhysAddr at;
    unsigned order;
    u8 fill;
  };
  std::vector<Block> blocks;
  for (int i = 0; i < 4000; ++i) {
    if (blocks.empty() || random() % 5 < 3) {
      unsigned order = random() % 6;
      auto got = allocate_frames(order, i % 2 ? Zeroed::yes : Zeroed::no);
      if (!got) continue;
      ASSERT_TRUE(is_aligned(got->value, kPageSize << order));
      u8* bytes = direct(*got);
      ASSERT_TRUE(i % 2 == 0 || all_bytes(bytes, kPageSize << order, 0));
      u8 fill = static_cast<u8>(random() | 1);
      memset(bytes, fill, kPageSize << order);
      blocks.push_back({*got, order, fill});
    } else {
      size_t victim = random() % blocks.size();
      Block b = blocks[victim];
      ASSERT_TRUE(all_bytes(direct(b.at), kPageSize << b.order, b.fill));
      if (random() % 3 == 0) {
        split_frames(b.at, b.order);
        for (u64 f = 0; f < u64{1} << b.order; ++f) release_frame(b.at + f * kPageSize);
      } else {
        free_frames(b.at, b.order);
      }
      blocks[victim] = blocks.back();
      blocks.pop_back();
    }
  }
  for (Block& b : blocks) free_frames(b.at, b.order);
  EXPECT_EQ(memory_statistics().free, free);
  EXPECT_TRUE(allocate_frames(11, Zeroed::no).ok());
}

TEST_F(Frames, shared_frame_lives_until_its_last_owner) {
  PhysAddr frame = *allocate_frames(0, Zeroed::no);
  u64 free = memory_statistics().free;
  share_frame(frame);
  EXPECT_EQ(frame_owners(frame), 2u);
  release_frame(frame);
  EXPECT_EQ(memory_statistics().free, free);
  release_frame(frame);
  EXPECT_EQ(memory_statistics().free, free + kPageSize);
}

TEST_F(Frames, heap_objects_do_not_overlap_and_everything_comes_back) {
  u64 free = memory_statistics().free;
  std::mt19937 random(2);
  struct Object {
    u8* at;
    size_t size;
    u8 fill;
  };
  std::vector<Object> objects;
  for (int i = 0; i < 20000; ++i) {
    if (objects.empty() || random() % 9 < 5) {
      size_t size = random() % 50 == 0 ? random() % 40000 : random() % 600;
      u8* at = static_cast<u8*>(allocate(size));
      if (at == nullptr) continue;
      ASSERT_TRUE(is_aligned(reinterpret_cast<u64>(at), 16));
      memset(at, i & 0xff, size);
      objects.push_back({at, size, static_cast<u8>(i & 0xff)});
    } else {
      std::swap(objects[random() % objects.size()], objects.back());
      Object o = objects.back();
      objects.pop_back();
      ASSERT_TRUE(all_bytes(o.at, o.size, o.fill));
      release(o.at);
    }
  }
  for (Object& o : objects) release(o.at);
  EXPECT_LE(free - memory_statistics().free, 128 * kKiB);  // an empty slab per size may stay
}

TEST_F(Frames, heap_aligns_to_the_power_of_two_in_the_size) {
  for (size_t size : {64, 128, 256, 512, 1024, 2048, 4096}) {
    for (int i = 0; i < 9; ++i) EXPECT_TRUE(is_aligned(reinterpret_cast<u64>(allocate(size)), size)) << size;
  }
}

TEST_F(Frames, guarded_areas_have_holes_below_and_are_reused) {
  u8* first = *allocate_guarded(16 * kKiB);
  u8* second = *allocate_guarded(16 * kKiB);
  memset(first, 1, 16 * kKiB);
  memset(second, 2, 16 * kKiB);
  EXPECT_TRUE(all_bytes(first, 16 * kKiB, 1));
  EXPECT_FALSE(fake::lookup(0, reinterpret_cast<u64>(first) - 1));
  EXPECT_FALSE(fake::lookup(0, reinterpret_cast<u64>(second) - 1));
  u64 calls = fake::counters().operations;
  free_guarded(first, 16 * kKiB);
  EXPECT_EQ(*allocate_guarded(16 * kKiB), first);
  EXPECT_EQ(fake::counters().operations, calls);
  std::vector<u8*> many;
  for (int i = 0; i < 100; ++i) many.push_back(*allocate_guarded(16 * kKiB));
  u64 free = memory_statistics().free;
  for (u8* base : many) free_guarded(base, 16 * kKiB);
  EXPECT_GE(memory_statistics().free, free + 30 * 16 * kKiB);
}

struct Item : TreeNode<Item> {
  u64 key;
  u64 largest;
};
struct ItemOrder {
  static u64 key(const Item& i) { return i.key; }
  static void summarise(Item& i) {
    i.largest = i.key;
    if (i.left()) i.largest = std::max(i.largest, i.left()->largest);
    if (i.right()) i.largest = std::max(i.largest, i.right()->largest);
  }
};

TEST(TreeOrder, neighbours_bounds_and_summaries) {
  std::mt19937 random(3);
  std::vector<Item> items(300);
  Tree<Item, ItemOrder> tree;
  std::vector<Item*> in;
  for (size_t i = 0; i < items.size(); ++i) items[i].key = i * 10;
  std::vector<bool> present(items.size());
  for (int step = 0; step < 6000; ++step) {
    size_t i = random() % items.size();
    present[i] ? tree.remove(&items[i]) : tree.insert(&items[i]);
    present[i] = !present[i];
    u64 probe = random() % 3000;
    Item *after = nullptr, *before = nullptr, *last = nullptr;
    for (size_t k = 0; k < items.size(); ++k) {
      if (!present[k]) continue;
      if (items[k].key >= probe && !after) after = &items[k];
      if (items[k].key <= probe) before = &items[k];
      last = &items[k];
    }
    ASSERT_EQ(tree.at_or_after(probe), after);
    ASSERT_EQ(tree.at_or_before(probe), before);
    ASSERT_TRUE(!last || tree.root()->largest == last->key);
    ASSERT_TRUE(!before || before == after || tree.next(before) == after);
    ASSERT_TRUE(!after || before == after || tree.previous(after) == before);
  }
  while (Item* first = tree.first()) tree.remove(first);
}

TEST(UserCopy, bad_addresses_are_efault_and_strings_end) {
  char buffer[16] = "hello";
  u64 at = reinterpret_cast<u64>(buffer);
  EXPECT_EQ(string_from_user(at, 16)->view(), "hello");
  EXPECT_EQ(string_from_user(at, 3).error().code(), ENAMETOOLONG);
  EXPECT_EQ(copy_from_user(buffer, 0, 1).error().code(), EFAULT);
  EXPECT_EQ(copy_from_user(buffer, kUserEnd - 1, 2).error().code(), EFAULT);
  EXPECT_EQ(copy_to_user(~u64{0}, buffer, 2).error().code(), EFAULT);
  EXPECT_TRUE(copy_to_user(0, buffer, 0).ok());
  u32 word = 7;
  EXPECT_EQ(*compare_exchange_user_u32(reinterpret_cast<u64>(&word), 7, 9), 7u);
  EXPECT_EQ(word, 9u);
  EXPECT_EQ(load_user_u32(at + 1).error().code(), EINVAL);
}

}  // namespace
}  // namespace husk::mem
