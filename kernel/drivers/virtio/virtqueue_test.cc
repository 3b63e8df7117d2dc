#include "kernel/drivers/virtio/virtqueue.h"

#include <gtest/gtest.h>

#include "kernel/drivers/fake_device_test.h"

namespace husk::drivers::virtio {
namespace {

constexpr QueueBuffer kOut{{0x1000}, 10, Direction::to_device}, kIn{{0x2000}, 20, Direction::from_device};

u16 offer(Virtqueue& queue, std::vector<QueueBuffer> chain) { return queue.offer(chain).value(); }

TEST(virtqueue, virtio_2_7_5_chain_is_laid_out_in_the_descriptor_table) {
  FakeQueue fake(8, true);
  offer(*fake.queue, {kOut, kIn, kIn});
  FakeQueue::Chain chain;
  EXPECT_FALSE(fake.next(&chain));  // not before publish()
  (void)fake.queue->publish();
  ASSERT_TRUE(fake.next(&chain));
  ASSERT_EQ(chain.parts.size(), 3u);
  EXPECT_EQ(chain.parts[0].address, 0x1000u);
  EXPECT_EQ(chain.parts[0].flags, abi::virtio::kDescriptorNext);
  EXPECT_EQ(chain.parts[2].flags, abi::virtio::kDescriptorWrite);
  EXPECT_EQ(fake.queue->free_descriptors(), 5);
}

TEST(virtqueue, descriptors_come_back_and_are_used_again_beyond_index_wrap) {
  FakeQueue fake(4, true);
  for (int round = 0; round < 70000; ++round) {
    u16 first = offer(*fake.queue, {kOut, kIn});
    u16 second = offer(*fake.queue, {kIn});
    EXPECT_EQ(fake.queue->offer(std::vector{kOut, kOut}).error().code(), EAGAIN);
    (void)fake.queue->publish();
    fake.finish(second, 20);  // out of order
    fake.finish(first, 7);
    UsedBuffer used;
    ASSERT_TRUE(fake.queue->take(&used));
    ASSERT_EQ(used.id, second);
    ASSERT_TRUE(fake.queue->take(&used));
    ASSERT_EQ(used.length, 7u);
    ASSERT_FALSE(fake.queue->take(&used));
    ASSERT_EQ(fake.queue->free_descriptors(), 4);
  }
}

TEST(virtqueue, virtio_2_7_10_doorbell_only_when_the_event_index_is_passed) {
  FakeQueue fake(8, true);
  fake.set_available_event(1);
  offer(*fake.queue, {kOut});
  EXPECT_FALSE(fake.queue->publish());
  offer(*fake.queue, {kOut});
  EXPECT_TRUE(fake.queue->publish());
  offer(*fake.queue, {kOut});
  EXPECT_FALSE(fake.queue->publish());
  EXPECT_FALSE(fake.queue->publish());  // nothing new
}

TEST(virtqueue, virtio_2_7_9_doorbell_flag_without_event_index) {
  FakeQueue fake(8, false);
  offer(*fake.queue, {kOut});
  EXPECT_TRUE(fake.queue->publish());
  fake.used()->flags = abi::virtio::kUsedNoNotify;
  offer(*fake.queue, {kOut});
  EXPECT_FALSE(fake.queue->publish());
}

TEST(virtqueue, virtio_2_7_7_interrupt_wishes) {
  FakeQueue fake(8, true);
  EXPECT_FALSE(abi::virtio::event_is_due(fake.used_event(), 5, 0));
  fake.queue->want_interrupt(3);
  EXPECT_FALSE(abi::virtio::event_is_due(fake.used_event(), 2, 0));
  EXPECT_TRUE(abi::virtio::event_is_due(fake.used_event(), 3, 2));
  fake.queue->want_no_interrupt();
  EXPECT_FALSE(abi::virtio::event_is_due(fake.used_event(), 3, 2));
}

struct Misbehaviour {
  const char* name;
  void (*act)(FakeQueue& fake, u16 id);
};
class VirtqueueMisbehaviour : public testing::TestWithParam<Misbehaviour> {};

TEST_P(VirtqueueMisbehaviour, breaks_the_queue_for_good) {
  FakeQueue fake(4, true);
  u16 id = offer(*fake.queue, {kOut, kIn});
  (void)fake.queue->publish();
  GetParam().act(fake, id);
  UsedBuffer used;
  while (fake.queue->take(&used)) {}
  EXPECT_TRUE(fake.queue->broken());
  EXPECT_FALSE(fake.queue->has_used());
  EXPECT_EQ(fake.queue->offer(std::vector{kOut}).error().code(), EIO);
}

INSTANTIATE_TEST_SUITE_P(all, VirtqueueMisbehaviour,
                         testing::Values(Misbehaviour{"id_beyond_the_table", [](FakeQueue& f, u16) { f.finish(4, 0); }},
                                         Misbehaviour{"huge_id", [](FakeQueue& f, u16) { f.finish(0xffffffff, 0); }},
                                         Misbehaviour{"middle_of_a_chain", [](FakeQueue& f, u16 id) { f.finish((id + 1u) % 4, 0); }},
                                         Misbehaviour{"never_offered", [](FakeQueue& f, u16 id) { f.finish((id + 3u) % 4, 0); }},
                                         Misbehaviour{"longer_than_offered", [](FakeQueue& f, u16 id) { f.finish(id, 21); }},
                                         Misbehaviour{"twice", [](FakeQueue& f, u16 id) { f.finish(id, 0), f.finish(id, 0); }},
                                         Misbehaviour{"index_far_ahead", [](FakeQueue& f, u16) { f.used()->index = 1000; }}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

}  // namespace
}  // namespace husk::drivers::virtio
