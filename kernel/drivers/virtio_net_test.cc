// The network driver against a fake device that may lie. Physical addresses are pointers.
#include "kernel/drivers/virtio_net.h"

#include <gtest/gtest.h>

#include "kernel/drivers/fake_kernel_test.h"

namespace husk {
namespace drivers {
namespace {

using namespace abi::virtio;
using packet::Buffer;
using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;
using packet::Segmentation;

constexpr u64 bits(std::initializer_list<u32> numbers) {
  u64 sum = feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
  for (u32 number : numbers) sum |= feature_bit(number);
  return sum;
}
constexpr u64 kPlain = bits({});
constexpr u64 kMergeable = bits({kNetFeatureMergeableBuffers});
constexpr u64 kEverything = bits({kNetFeatureChecksum, kNetFeatureGuestChecksum, kNetFeatureMtu, kNetFeatureMac, kNetFeatureGuestTcp4,
                                  kNetFeatureGuestTcp6, kNetFeatureHostTcp4, kNetFeatureHostTcp6, kNetFeatureMergeableBuffers, kNetFeatureStatus});

std::string pattern(size_t size) {
  std::string text(size, 0);
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 7 + i / 251);
  return text;
}
std::string bytes_of(const Packet& packet) {
  std::string text(packet.size(), 0);
  packet.copy_out(0, text.data(), packet.size());
  return text;
}
PacketPtr make_packet(const std::string& text) {
  PacketPtr packet = Packet::create(static_cast<u32>(text.size())).value();
  memcpy(packet->head().data(), text.data(), text.size());
  return packet;
}

class VirtioNetTest : public testing::Test {
 protected:
  void start(u64 features, u16 queue_size = 256, u16 mtu = 1500, u16 status = kNetLinkUp) {
    auto made = std::make_unique<FakeTransport>();
    transport = made.get();
    transport->offered = features;
    transport->size_max = queue_size;
    NetConfig config{{2, 0, 0, 1, 2, 3}, status, 1, mtu};
    transport->configuration.resize(sizeof(config) / sizeof(u32));
    memcpy(transport->configuration.data(), &config, sizeof(config));
    auto device = VirtioNet::create(std::move(made));
    ASSERT_TRUE(device.ok());
    net = std::move(device).value();
    rx.emplace(transport->queues[kNetReceiveQueue]);
    tx.emplace(transport->queues[kNetTransmitQueue]);
  }
  void TearDown() override {
    rx.reset();
    tx.reset();
    net.reset();
    no_memory = false;
    mem::free_memory = 1 * kGiB;
    mem::free_queue_memory();
    log_lines = 0;
  }
  // Puts a frame into as many buffers as it needs; 0 if there are not enough (they are lost then).
  u16 deliver(const std::string& frame, NetHeader header = {}, int lie_count = -1, int lie_length = 0) {
    std::string bytes(sizeof(header), 0);
    bytes += frame;
    struct Part {
      DeviceQueue::Chain chain;
      u32 length;
    };
    std::vector<Part> parts;
    for (size_t done = 0; done < bytes.size();) {
      DeviceQueue::Chain chain;
      if (!rx->next(&chain)) return 0;
      u32 step = static_cast<u32>(std::min<size_t>(chain.parts[0].length, bytes.size() - done));
      memcpy(reinterpret_cast<void*>(chain.parts[0].address), bytes.data() + done, step);
      parts.push_back({chain, step});
      done += step;
    }
    header.buffer_count = static_cast<u16>(lie_count >= 0 ? lie_count : static_cast<int>(parts.size()));
    memcpy(reinterpret_cast<void*>(parts[0].chain.parts[0].address), &header, sizeof(header));
    for (auto& part : parts) rx->finish(part.chain.id, static_cast<u32>(static_cast<int>(part.length) + lie_length));
    return static_cast<u16>(parts.size());
  }
  // What the driver sent, header included, one string a packet.
  std::vector<std::string> sent() {
    std::vector<std::string> packets;
    for (DeviceQueue::Chain chain; tx->next(&chain);) {
      std::string text;
      for (auto& part : chain.parts) text.append(reinterpret_cast<char*>(part.address), part.length);
      packets.push_back(text);
      unfinished.push_back(chain.id);
    }
    return packets;
  }
  void finish_sent(size_t count) {
    for (; count > 0 && !unfinished.empty(); --count) {
      tx->finish(unfinished.front(), 0);
      unfinished.erase(unfinished.begin());
    }
  }
  bool interrupt_wanted(DeviceQueue& queue) {  // for the next entry
    return event_is_due(queue.used_event(), static_cast<u16>(queue.used()->index + 1), queue.used()->index);
  }

  FakeTransport* transport = nullptr;
  Owned<VirtioNet> net;
  std::optional<DeviceQueue> rx, tx;
  std::vector<u16> unfinished;
};

// --- what is agreed ----------------------------------------------------------------------------------------------

TEST_F(VirtioNetTest, virtio_5_1_3_takes_all_that_it_knows) {
  start(kEverything | feature_bit(kFeatureRingPacked) | feature_bit(17) | feature_bit(22), 256, 1400);
  EXPECT_EQ(transport->accepted, kEverything);
  auto& properties = net->properties();
  EXPECT_EQ(properties.mtu, 1400);
  EXPECT_EQ(properties.mac[5], 3);
  EXPECT_TRUE(properties.checksum && properties.tcp4_segmentation && properties.tcp6_segmentation && properties.ethernet);
}

TEST_F(VirtioNetTest, virtio_5_1_3_works_without_any_feature) {
  start(kPlain, 256, 9000);
  EXPECT_EQ(transport->accepted, kPlain);
  EXPECT_EQ(net->properties().mtu, 1500);     // no MTU feature: the field says nothing
  EXPECT_EQ(net->properties().mac[0], 0xfe);  // no MAC feature: random, local, unicast
  EXPECT_FALSE(net->properties().checksum);
  deliver(pattern(1514));
  PacketPtr packet = net->receive();
  ASSERT_TRUE(packet);
  EXPECT_EQ(bytes_of(*packet), pattern(1514));
  EXPECT_EQ(packet->checksum, Checksum::unknown);
}

TEST_F(VirtioNetTest, virtio_5_1_3_1_no_segmentation_without_checksums_and_no_merging_without_mergeable_buffers) {
  start((kEverything & ~bits({kNetFeatureChecksum, kNetFeatureMergeableBuffers})) | kPlain);
  EXPECT_EQ(transport->accepted & bits({kNetFeatureHostTcp4, kNetFeatureHostTcp6, kNetFeatureGuestTcp4, kNetFeatureGuestTcp6}), kPlain);
  EXPECT_FALSE(net->properties().tcp4_segmentation);
}

TEST_F(VirtioNetTest, refuses_a_legacy_device_and_tiny_queues) {
  auto legacy = std::make_unique<FakeTransport>();
  EXPECT_EQ(VirtioNet::create(std::move(legacy)).error().code(), ENODEV);
  auto tiny = std::make_unique<FakeTransport>();
  tiny->offered = kPlain;
  tiny->size_max = 16;
  EXPECT_EQ(VirtioNet::create(std::move(tiny)).error().code(), ENODEV);
}

TEST_F(VirtioNetTest, works_without_event_index) {
  start(feature_bit(kFeatureVersion1));
  deliver(pattern(60));
  EXPECT_TRUE(net->receive());
  EXPECT_FALSE(net->receive());
}

TEST_F(VirtioNetTest, a_jumbo_frame_without_mergeable_buffers_fits_in_one) {
  start(bits({kNetFeatureMtu}), 256, 9000);
  EXPECT_EQ(deliver(pattern(9014)), 1);
  PacketPtr packet = net->receive();
  ASSERT_TRUE(packet);
  EXPECT_EQ(bytes_of(*packet), pattern(9014));
}

// --- receiving -----------------------------------------------------------------------------------------------------

TEST_F(VirtioNetTest, virtio_5_1_6_4_merged_packet_of_64_kib_comes_as_slices_of_the_devices_buffers) {
  start(kEverything);
  NetHeader header{0, kNetSegmentTcp4, 54, 1460, 0, 0, 0};
  std::string frame = pattern(65549);
  EXPECT_EQ(deliver(frame, header), 5);
  PacketPtr packet = net->receive();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->slices().size(), 5u);
  EXPECT_EQ(bytes_of(*packet), frame);
  EXPECT_EQ(packet->segmentation, Segmentation::tcp4);
  EXPECT_EQ(packet->segment_size, 1460);
  EXPECT_FALSE(net->receive());
  EXPECT_EQ(deliver(frame, header), 5);  // and there is always room for another
  EXPECT_TRUE(net->receive());
  EXPECT_EQ(net->statistics().packets_received, 2u);
  EXPECT_EQ(net->statistics().bytes_received, 2 * frame.size());
}

TEST_F(VirtioNetTest, buffers_are_pages_in_a_small_machine) {
  mem::free_memory = 4 * kMiB;
  start(kEverything);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(deliver(pattern(65549)), 17);
    PacketPtr packet = net->receive();
    ASSERT_TRUE(packet);
    EXPECT_EQ(bytes_of(*packet), pattern(65549));
    EXPECT_FALSE(net->receive());
  }
}

TEST_F(VirtioNetTest, a_small_frame_holds_little_memory_and_the_device_gets_its_buffer_back) {
  start(kEverything);
  std::vector<PacketPtr> held;
  for (u32 size : {60u, 1514u, Buffer::kSmall - 12, Buffer::kSmall - 11}) {
    u32 offered = rx->offered();
    EXPECT_EQ(deliver(pattern(size)), 1);
    PacketPtr packet = net->receive();
    ASSERT_TRUE(packet);
    EXPECT_EQ(bytes_of(*packet), pattern(size));
    EXPECT_EQ(packet->cost() < 2 * Buffer::kSmall, size + 12 <= Buffer::kSmall) << size;
    held.push_back(std::move(packet));
    EXPECT_FALSE(net->receive());
    EXPECT_EQ(rx->offered(), offered);
  }
}

// Buffers that go back at once are shown to the device also while the queue is never found empty.
TEST_F(VirtioNetTest, the_device_does_not_run_dry_in_a_long_burst_of_small_frames) {
  start(kEverything);
  for (int i = 0; i < 4; ++i) ASSERT_EQ(deliver(pattern(60)), 1);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(deliver(pattern(60)), 1) << i;
    ASSERT_TRUE(net->receive());
  }
}

TEST_F(VirtioNetTest, virtio_5_1_6_4_2_checksum_flags) {
  start(kEverything);
  deliver(pattern(100), {kNetDataValid, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(net->receive()->checksum, Checksum::verified);
  deliver(pattern(100), {kNetNeedsChecksum, 0, 0, 0, 34, 16, 0});
  PacketPtr partial = net->receive();
  EXPECT_EQ(partial->checksum, Checksum::partial);
  EXPECT_EQ(partial->checksum_start, 34);
  EXPECT_EQ(partial->checksum_offset, 16);
  start(kMergeable);
  deliver(pattern(100), {kNetDataValid, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(net->receive()->checksum, Checksum::unknown);  // not agreed
}

TEST_F(VirtioNetTest, starts_with_few_buffers_and_gets_more_when_traffic_uses_them_up) {
  start(kMergeable);
  EXPECT_EQ(rx->offered(), VirtioNet::kBuffersAtFirst);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 2; ++i) deliver(pattern(60));
    while (net->receive()) {}
  }
  EXPECT_EQ(net->receive_target(), VirtioNet::kBuffersAtFirst);  // no need
  for (int round = 0; round < 6; ++round) {
    while (deliver(pattern(60)) != 0) {}
    while (net->receive()) {}
  }
  EXPECT_EQ(net->receive_target(), 256u);
  EXPECT_EQ(rx->offered(), 256u);
}

TEST_F(VirtioNetTest, does_not_grow_in_a_small_machine) {
  mem::free_memory = 4 * kMiB;
  start(kMergeable);
  for (int round = 0; round < 6; ++round) {
    while (deliver(pattern(60)) != 0) {}
    while (net->receive()) {}
  }
  EXPECT_EQ(net->receive_target(), 64u);
}

TEST_F(VirtioNetTest, without_memory_packets_are_dropped_and_the_device_keeps_its_buffers) {
  start(kMergeable);
  no_memory = true;
  int received = 0;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(deliver(pattern(60)), 1);
    if (net->receive()) ++received;
  }
  no_memory = false;
  EXPECT_EQ(received, 0);
  EXPECT_EQ(net->statistics().dropped_received, 1000u);
  EXPECT_FALSE(net->receive());
  deliver(pattern(60));
  EXPECT_TRUE(net->receive());
  EXPECT_FALSE(net->receive());
  EXPECT_EQ(rx->offered(), VirtioNet::kBuffersAtFirst);
}

TEST_F(VirtioNetTest, without_memory_merged_packets_are_dropped_whole) {
  start(kEverything);
  for (bool memory : {false, true}) {
    no_memory = !memory;
    deliver(pattern(20000));
    EXPECT_EQ(net->receive() != nullptr, memory);
  }
}

TEST_F(VirtioNetTest, virtio_2_7_7_an_interrupt_is_wanted_when_the_queue_was_found_empty_and_only_then) {
  start(kMergeable);
  EXPECT_TRUE(interrupt_wanted(*rx));
  deliver(pattern(60));
  deliver(pattern(60));
  EXPECT_FALSE(interrupt_wanted(*rx));
  EXPECT_TRUE(net->receive());
  EXPECT_FALSE(interrupt_wanted(*rx));
  EXPECT_TRUE(net->receive());
  EXPECT_FALSE(net->receive());
  EXPECT_TRUE(interrupt_wanted(*rx));
  EXPECT_FALSE(interrupt_wanted(*tx));
}

struct Lie {
  const char* name;
  std::string frame;
  NetHeader header;
  int count;  // of buffers; -1: the truth
};
class VirtioNetLies : public VirtioNetTest, public testing::WithParamInterface<Lie> {};

TEST_P(VirtioNetLies, packet_is_dropped_and_counted_and_the_device_goes_on) {
  start(kEverything & ~feature_bit(kNetFeatureGuestTcp6));
  deliver(GetParam().frame, GetParam().header, GetParam().count);
  EXPECT_FALSE(net->receive());
  EXPECT_EQ(net->statistics().errors, 1u);
  EXPECT_EQ(net->statistics().packets_received, 0u);
  deliver(pattern(60));
  EXPECT_TRUE(net->receive());
  EXPECT_FALSE(net->stopped());
}

INSTANTIATE_TEST_SUITE_P(all, VirtioNetLies,
                         testing::Values(Lie{"no_frame_at_all", "", {}, -1}, Lie{"frame_without_ethernet_header", pattern(13), {}, -1},
                                         Lie{"more_buffers_than_there_are", pattern(100), {}, 3}, Lie{"too_many_buffers", pattern(100), {}, 21},
                                         Lie{"very_many_buffers", pattern(100), {}, 65535},
                                         Lie{"checksum_behind_the_end", pattern(100), {1, 0, 0, 0, 90, 9, 0}, -1},
                                         Lie{"checksum_far_away", pattern(100), {1, 0, 0, 0, 65535, 65535, 0}, -1},
                                         Lie{"segments_of_nothing", pattern(100), {0, kNetSegmentTcp4, 54, 0, 0, 0, 0}, -1},
                                         Lie{"segmentation_not_agreed", pattern(100), {0, kNetSegmentTcp6, 54, 1000, 0, 0, 0}, -1},
                                         Lie{"segmentation_of_datagrams", pattern(100), {0, kNetSegmentUdp, 54, 1000, 0, 0, 0}, -1},
                                         Lie{"segmentation_unknown", pattern(100), {0, 77, 54, 1000, 0, 0, 0}, -1}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

TEST_F(VirtioNetTest, header_cut_off_is_dropped) {
  start(kMergeable);
  deliver(pattern(60), {}, -1, -61);  // 11 bytes
  EXPECT_FALSE(net->receive());
  EXPECT_EQ(net->statistics().errors, 1u);
  deliver(pattern(60));
  EXPECT_TRUE(net->receive());
}

TEST_F(VirtioNetTest, impossible_entry_stops_the_device_once_and_for_all) {
  start(kMergeable);
  DeviceQueue::Chain chain;
  ASSERT_TRUE(rx->next(&chain));
  rx->finish(chain.id, chain.parts[0].length + 1);
  EXPECT_FALSE(net->receive());
  EXPECT_FALSE(net->receive());
  EXPECT_TRUE(net->stopped());
  EXPECT_EQ(transport->stops, 1);
  EXPECT_EQ(log_lines, 1);
  PacketPtr packet = make_packet(pattern(60));
  EXPECT_TRUE(net->transmit(packet));  // nobody waits for room that never comes
  EXPECT_FALSE(packet);
  EXPECT_EQ(net->statistics().dropped_sent, 1u);
}

TEST_F(VirtioNetTest, completion_of_what_was_never_sent_stops_the_device) {
  start(kMergeable);
  tx->finish(5, 0);
  (void)net->prepare_to_sleep();
  EXPECT_TRUE(net->stopped());
  EXPECT_FALSE(net->receive());
}

// --- sending -----------------------------------------------------------------------------------------------------

TEST_F(VirtioNetTest, virtio_5_1_6_2_header_lies_before_the_packet_in_one_descriptor) {
  start(kEverything);
  PacketPtr packet = make_packet(pattern(60));
  packet->checksum = Checksum::partial;
  packet->checksum_start = 34;
  packet->checksum_offset = 6;
  packet->segmentation = Segmentation::tcp6;
  packet->segment_size = 1440;
  packet->header_size = 54;
  EXPECT_TRUE(net->transmit(packet));
  EXPECT_FALSE(packet);
  EXPECT_EQ(tx->offered(), 0u);  // not before flush()
  net->flush();
  DeviceQueue::Chain chain;
  ASSERT_TRUE(tx->next(&chain));
  ASSERT_EQ(chain.parts.size(), 1u);
  ASSERT_EQ(chain.parts[0].length, 72u);
  NetHeader header;
  memcpy(&header, reinterpret_cast<void*>(chain.parts[0].address), sizeof(header));
  EXPECT_EQ(header.flags, kNetNeedsChecksum);
  EXPECT_EQ(header.segmentation, kNetSegmentTcp6);
  EXPECT_EQ(header.header_size, 54);
  EXPECT_EQ(header.segment_size, 1440);
  EXPECT_EQ(header.checksum_start, 34);
  EXPECT_EQ(header.checksum_offset, 6);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(chain.parts[0].address) + 12, 60), pattern(60));
  EXPECT_EQ(net->statistics().bytes_sent, 60u);
}

TEST_F(VirtioNetTest, data_is_sent_from_where_it_is_and_a_shared_first_slice_is_not_written) {
  start(kMergeable);
  PacketPtr packet = make_packet(pattern(200));
  PacketPtr copy = packet->clone().value();
  const u8* data = packet->head().data();
  EXPECT_TRUE(net->transmit(copy));
  net->flush();
  DeviceQueue::Chain chain;
  ASSERT_TRUE(tx->next(&chain));
  ASSERT_EQ(chain.parts.size(), 2u);
  EXPECT_EQ(chain.parts[1].address, reinterpret_cast<u64>(data));
  EXPECT_EQ(bytes_of(*packet), pattern(200));
}

TEST_F(VirtioNetTest, one_doorbell_for_many_packets_and_none_if_the_device_is_awake) {
  start(kMergeable);
  transport->doorbells = 0;
  tx->set_available_event(0);
  for (int i = 0; i < 5; ++i) {
    PacketPtr packet = make_packet(pattern(60));
    EXPECT_TRUE(net->transmit(packet));
  }
  net->flush();
  net->flush();
  EXPECT_EQ(transport->doorbells, 1);
  PacketPtr packet = make_packet(pattern(60));
  EXPECT_TRUE(net->transmit(packet));
  net->flush();
  EXPECT_EQ(transport->doorbells, 1);
  EXPECT_EQ(sent().size(), 6u);
}

TEST_F(VirtioNetTest, full_queue_refuses_and_says_when_there_is_room_again) {
  start(kMergeable, 64);
  int accepted = 0;
  PacketPtr packet;
  for (;; ++accepted) {
    packet = make_packet(pattern(60));
    if (!net->transmit(packet)) break;
    ASSERT_LT(accepted, 65);
  }
  EXPECT_TRUE(packet);  // it stays
  EXPECT_EQ(packet->size(), 60u);
  EXPECT_GE(accepted, 60);
  EXPECT_FALSE(net->room_again());
  EXPECT_EQ(sent().size(), static_cast<size_t>(accepted));
  finish_sent(5);
  EXPECT_FALSE(net->room_again());  // not worth it
  u16 done = tx->used()->index;
  finish_sent(100);
  EXPECT_TRUE(event_is_due(tx->used_event(), tx->used()->index, done));  // the interrupt came
  EXPECT_TRUE(net->room_again());
  EXPECT_FALSE(net->room_again());  // once
  EXPECT_FALSE(interrupt_wanted(*tx));
  EXPECT_TRUE(net->transmit(packet));
}

TEST_F(VirtioNetTest, virtio_2_7_7_sending_wants_no_interrupt_however_much_is_sent) {
  start(kMergeable);
  for (int i = 0; i < 70000; ++i) {
    PacketPtr packet = make_packet(pattern(60));
    ASSERT_TRUE(net->transmit(packet));
    net->flush();
    sent();
    ASSERT_FALSE(interrupt_wanted(*tx)) << i;
    finish_sent(1);
  }
}

TEST_F(VirtioNetTest, what_was_sent_is_given_back_before_the_machine_sleeps_and_in_batches) {
  start(kMergeable);
  PacketPtr packet = make_packet(pattern(1000));
  auto memory = packet->slices()[0].buffer;
  EXPECT_TRUE(net->transmit(packet));
  net->flush();
  EXPECT_TRUE(memory->shared());
  sent();
  EXPECT_FALSE(net->prepare_to_sleep());
  EXPECT_TRUE(memory->shared());  // still the device's
  finish_sent(1);
  EXPECT_FALSE(net->prepare_to_sleep());
  EXPECT_FALSE(memory->shared());
  for (int i = 0; i < 1000; ++i) {
    packet = make_packet(pattern(60));
    ASSERT_TRUE(net->transmit(packet));
    net->flush();
    sent();
    finish_sent(1);
  }
}

TEST_F(VirtioNetTest, without_memory_for_the_header_the_packet_is_dropped) {
  start(kMergeable);
  PacketPtr packet = make_packet(pattern(60));
  PacketPtr copy = packet->clone().value();
  no_memory = true;
  EXPECT_TRUE(net->transmit(copy));
  no_memory = false;
  EXPECT_FALSE(copy);
  EXPECT_EQ(net->statistics().dropped_sent, 1u);
}

}  // namespace
}  // namespace drivers
}  // namespace husk
