// Virtqueue against a driver that keeps the rules, and against one that breaks each of them.
#include "vmm/devices/virtqueue.h"

#include <gtest/gtest.h>

#include "vmm/devices/fake_guest.h"

namespace husk::vmm {
namespace {

using namespace abi::virtio;
using testing::FakeGuest;

class VirtqueueTest : public ::testing::Test {
 protected:
  VirtqueueTest() {
    FakeGuest::add_memory(memory);
    EXPECT_TRUE(queue.enable(memory, guest.layout, false));
  }
  std::string error_of_pop() {
    EXPECT_FALSE(queue.pop(&chain));
    return queue.error();
  }
  GuestMemory memory;
  FakeGuest guest;
  Virtqueue queue;
  Chain chain;
};

TEST_F(VirtqueueTest, chain_is_taken_apart_and_handed_back) {
  guest.descriptor(memory, 2, 0x10000, 16, kDescriptorNext, 5);
  guest.descriptor(memory, 5, 0x20000, 32, kDescriptorWrite);
  guest.offer(memory, 2);
  ASSERT_TRUE(queue.pop(&chain));
  EXPECT_EQ(chain.head, 2);
  ASSERT_EQ(chain.readable.size(), 1u);
  ASSERT_EQ(chain.writable.size(), 1u);
  EXPECT_EQ(chain.readable_size, 16u);
  EXPECT_EQ(chain.writable_size, 32u);
  EXPECT_FALSE(queue.pop(&chain));
  queue.push(2, 7);
  EXPECT_EQ(guest.used_index(memory), 1);
  EXPECT_EQ(guest.used(memory, 0).id, 2u);
  EXPECT_EQ(guest.used(memory, 0).length, 7u);
  EXPECT_TRUE(queue.take_notification());
  EXPECT_FALSE(queue.take_notification());
}

TEST_F(VirtqueueTest, indexes_wrap_at_65536) {
  guest.descriptor(memory, 0, 0x10000, 1, 0);
  for (u32 i = 0; i < 70000; ++i) {
    guest.offer(memory, 0);
    ASSERT_TRUE(queue.pop(&chain)) << i;
    queue.push(0, 0);
  }
  EXPECT_EQ(guest.used_index(memory), static_cast<u16>(70000));
}

TEST_F(VirtqueueTest, virtio_2_7_7_no_interrupt_flag_is_kept) {
  guest.descriptor(memory, 0, 0x10000, 1, 0);
  memory.write(PhysAddr{guest.layout.available}, kAvailableNoInterrupt);
  guest.offer(memory, 0);
  ASSERT_TRUE(queue.pop(&chain));
  queue.push(0, 0);
  EXPECT_FALSE(queue.take_notification());
}

TEST_F(VirtqueueTest, virtio_2_7_10_used_event_decides) {
  ASSERT_TRUE(queue.enable(memory, guest.layout, true));
  guest.descriptor(memory, 0, 0x10000, 1, 0);
  guest.set_used_event(memory, 1);
  for (bool expected : {false, true, false}) {
    guest.offer(memory, 0);
    ASSERT_TRUE(queue.pop(&chain));
    queue.push(0, 0);
    EXPECT_EQ(queue.take_notification(), expected);
  }
}

TEST_F(VirtqueueTest, await_doorbell_sees_a_request_that_came_meanwhile) {
  EXPECT_FALSE(queue.await_doorbell());
  guest.descriptor(memory, 0, 0x10000, 1, 0);
  guest.offer(memory, 0);
  EXPECT_TRUE(queue.await_doorbell());
}

TEST_F(VirtqueueTest, loop_is_refused) {
  guest.descriptor(memory, 0, 0x10000, 1, kDescriptorNext, 1);
  guest.descriptor(memory, 1, 0x10000, 1, kDescriptorNext, 0);
  guest.offer(memory, 0);
  EXPECT_EQ(error_of_pop(), "descriptor chain has a loop");
}

TEST_F(VirtqueueTest, bad_index_is_refused) {
  guest.descriptor(memory, 0, 0x10000, 1, kDescriptorNext, 8);
  guest.offer(memory, 0);
  EXPECT_EQ(error_of_pop(), "descriptor index is outside the queue");
}

TEST_F(VirtqueueTest, bad_head_is_refused) {
  guest.offer(memory, 0xffff);
  EXPECT_EQ(error_of_pop(), "descriptor index is outside the queue");
}

TEST_F(VirtqueueTest, buffers_outside_memory_are_refused) {
  struct {
    u64 address;
    u32 length;
  } cases[] = {{FakeGuest::kMemory, 1}, {FakeGuest::kMemory - 1, 2}, {~u64{0}, 2}, {~u64{0} - 4095, 0x1000}, {0x10000, ~u32{0}}};
  for (auto& test : cases) {
    ASSERT_TRUE(queue.enable(memory, guest.layout, false));
    guest.set_available_index(memory, 0);
    guest.descriptor(memory, 0, test.address, test.length, 0);
    guest.offer(memory, 0);
    EXPECT_EQ(error_of_pop(), "buffer is outside the guest's memory") << test.address;
  }
}

TEST_F(VirtqueueTest, readable_behind_writable_is_refused) {
  guest.descriptor(memory, 0, 0x10000, 1, kDescriptorNext | kDescriptorWrite, 1);
  guest.descriptor(memory, 1, 0x10000, 1, 0);
  guest.offer(memory, 0);
  EXPECT_EQ(error_of_pop(), "readable descriptor behind a writable one");
}

TEST_F(VirtqueueTest, indirect_and_empty_descriptors_are_refused) {
  guest.descriptor(memory, 0, 0x10000, 16, kDescriptorIndirect);
  guest.offer(memory, 0);
  EXPECT_EQ(error_of_pop(), "indirect descriptor, which was not negotiated");
  ASSERT_TRUE(queue.enable(memory, guest.layout, false));
  guest.descriptor(memory, 0, 0x10000, 0, 0);
  EXPECT_EQ(error_of_pop(), "descriptor of length 0");
}

TEST_F(VirtqueueTest, available_index_may_not_run_ahead) {
  guest.set_available_index(memory, 9);
  EXPECT_EQ(error_of_pop(), "available index runs ahead of the queue");
}

TEST_F(VirtqueueTest, a_broken_queue_stays_silent) {
  guest.set_available_index(memory, 0x8000);
  EXPECT_FALSE(queue.pop(&chain));
  queue.push(0, 1);
  EXPECT_EQ(guest.used_index(memory), 0);
  EXPECT_FALSE(queue.take_notification());
  EXPECT_FALSE(queue.await_doorbell());
}

TEST_F(VirtqueueTest, bad_layouts_are_refused) {
  QueueLayout good = guest.layout;
  std::vector<QueueLayout> bad;
  for (u32 size : {0u, 3u, 2048u, ~0u}) bad.push_back({good.descriptors, good.available, good.used, size});
  bad.push_back({good.descriptors + 8, good.available, good.used, 8});
  bad.push_back({good.descriptors, good.available + 1, good.used, 8});
  bad.push_back({good.descriptors, good.available, good.used + 2, 8});
  bad.push_back({FakeGuest::kMemory - 16, good.available, good.used, 8});
  bad.push_back({~u64{15}, good.available, good.used, 8});
  bad.push_back({good.descriptors, FakeGuest::kMemory - 2, good.used, 8});
  for (const QueueLayout& layout : bad) {
    EXPECT_FALSE(queue.enable(memory, layout, false));
    EXPECT_STRNE(queue.error(), "");
    EXPECT_FALSE(queue.pop(&chain));
  }
}

}  // namespace
}  // namespace husk::vmm
