// The network device between a driver in fake guest memory and one end of a socket pair; with `vnet_header` the pair plays a TAP interface.
#include "vmm/devices/net.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "vmm/devices/fake_guest.h"
#include "vmm/devices/mmio_transport.h"

namespace husk::vmm {
namespace {

using namespace abi::virtio;
using testing::FakeGuest;

constexpr u64 kEverything = ~u64{0};
constexpr u64 kBuffer = FakeGuest::kBuffers;

std::string frame_of(size_t size, char fill = 'f') { return std::string(size, fill); }

class Net {
 public:
  explicit Net(bool vnet_header, u64 features = kEverything) {
    FakeGuest::add_memory(memory);
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds) != 0) abort();
    inside = fds[0];
    outside = fds[1];
    NetDevice::Link link{.fd = inside, .vnet_header = vnet_header, .mac = {2, 3, 4, 5, 6, 7}};
    link.accepted = [this](u64 now) { accepted = now; };
    link.capture = [this](std::span<const iovec> parts) {
      std::string frame;
      for (const iovec& part : parts) frame.append(static_cast<const char*>(part.iov_base), part.iov_len);
      captured.push_back(frame);
    };
    device = std::make_unique<NetDevice>(std::move(link));
    device->notify_guest = [this] { ++notified; };
    transport = std::make_unique<MmioTransport>(*device, memory, [] {});
    start(features & device->features());
  }
  ~Net() {
    close(inside);
    close(outside);
  }
  void set(u64 offset, u64 value) { transport->store(offset, 4, static_cast<u32>(value)); }
  void start(u64 features) {
    features |= feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
    for (u32 half = 0; half < 2; ++half) {
      set(kMmioDriverFeaturesSelect, half);
      set(kMmioDriverFeatures, features >> (32 * half));
    }
    const FakeGuest* guests[] = {&receive, &transmit};
    for (u32 i = 0; i < 2; ++i) {
      set(kMmioQueueSelect, i);
      set(kMmioQueueSize, guests[i]->layout.size);
      set(kMmioQueueDescriptorsLow, guests[i]->layout.descriptors);
      set(kMmioQueueAvailableLow, guests[i]->layout.available);
      set(kMmioQueueUsedLow, guests[i]->layout.used);
      set(kMmioQueueReady, 1);
    }
    set(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  }
  // Receive buffers of these sizes, a chain each, one after the other in memory.
  void offer(std::initializer_list<u32> sizes) {
    for (u32 size : sizes) {
      receive.descriptor(memory, next_, buffers_, size, kDescriptorWrite);
      receive.offer(memory, next_++);
      buffers_ += size;
    }
  }
  void send(const NetHeader& header, std::string_view frame) {
    memory.write(PhysAddr{kBuffer + 0x80000}, header);
    FakeGuest::put(memory, kBuffer + 0x80000 + sizeof(header), frame);
    transmit.descriptor(memory, 0, kBuffer + 0x80000, static_cast<u32>(sizeof(header) + frame.size()), 0);
    transmit.offer(memory, 0);
    device->process();
  }
  // What came out at the other end; "" for nothing.
  std::string arrived() {
    std::string bytes(1 << 17, 0);
    ssize_t count = read(outside, bytes.data(), bytes.size());
    bytes.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
    return bytes;
  }
  void arrive(std::string_view bytes) {
    ASSERT_EQ(write(outside, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    device->set_ready(true, false);
    device->process();
  }
  NetHeader header_at(u64 address) {
    NetHeader header{};
    memcpy(&header, memory.readable({address}, sizeof(header)).data(), sizeof(header));
    return header;
  }

  GuestMemory memory;
  FakeGuest receive{0, 32}, transmit{0x5000, 8};
  int inside, outside, notified = 0;
  u64 accepted = 0;
  std::vector<std::string> captured;
  std::unique_ptr<NetDevice> device;
  std::unique_ptr<MmioTransport> transport;

 private:
  u16 next_ = 0;
  u64 buffers_ = kBuffer;
};

std::string with_header(const NetHeader& header, std::string_view frame) {
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + std::string(frame);
}
NetHeader segment_header() {
  NetHeader header{};
  header.flags = kNetNeedsChecksum;
  header.segmentation = kNetSegmentTcp4;
  header.header_size = 54;
  header.segment_size = 1448;
  header.checksum_start = 34;
  header.checksum_offset = 16;
  return header;
}

TEST(NetDevice, configuration_says_who_the_guest_is) {
  Net net(false);
  EXPECT_EQ(net.transport->load(kMmioConfig, 1), 2u);
  EXPECT_EQ(net.transport->load(kMmioConfig + 5, 1), 7u);
  EXPECT_EQ(net.transport->load(kMmioConfig + 6, 2), kNetLinkUp);
  EXPECT_EQ(net.transport->load(kMmioConfig + 10, 2), 1500u);
  EXPECT_EQ(net.accepted & feature_bit(kNetFeatureChecksum), 0u);
}

TEST(NetDevice, frame_leaves_without_its_header) {
  Net net(false);
  net.send({}, frame_of(60));
  EXPECT_EQ(net.arrived(), frame_of(60));
  EXPECT_EQ(net.transmit.used_index(net.memory), 1);
  EXPECT_EQ(net.device->counters().sent, 1u);
  EXPECT_EQ(net.captured, std::vector{frame_of(60)});
}

TEST(NetDevice, header_split_anywhere_is_put_together) {
  Net net(true);
  NetHeader header = segment_header();
  std::string bytes = with_header(header, frame_of(3000));
  FakeGuest::put(net.memory, kBuffer, bytes);
  net.transmit.descriptor(net.memory, 0, kBuffer, 5, kDescriptorNext, 1);
  net.transmit.descriptor(net.memory, 1, kBuffer + 5, 20, kDescriptorNext, 2);
  net.transmit.descriptor(net.memory, 2, kBuffer + 25, static_cast<u32>(bytes.size()) - 25, 0);
  net.transmit.offer(net.memory, 0);
  net.device->process();
  EXPECT_EQ(net.arrived(), bytes);
  EXPECT_EQ(net.captured, std::vector{frame_of(3000)});
}

TEST(NetDevice, lies_in_a_header_drop_the_frame_and_nothing_else) {
  Net net(true);
  auto lie = [&](auto change, size_t size = 4000) {
    NetHeader header = segment_header();
    change(header);
    u64 before = net.device->counters().dropped_sent;
    net.send(header, frame_of(size));
    EXPECT_EQ(net.arrived(), "");
    EXPECT_EQ(net.device->counters().dropped_sent, before + 1);
    EXPECT_EQ(net.device->error(), "");
  };
  lie([](NetHeader& h) { h.checksum_start = 65535; });
  lie([](NetHeader& h) { h.checksum_start = 3985; });
  lie([](NetHeader& h) { h.checksum_start = 0; });
  lie([](NetHeader& h) { h.checksum_offset = 15; });
  lie([](NetHeader& h) { h.segment_size = 0; });
  lie([](NetHeader& h) { h.header_size = 53; });
  lie([](NetHeader& h) { h.header_size = 4001; });
  lie([](NetHeader& h) { h.flags = 0; });
  lie([](NetHeader& h) { h.segmentation = kNetSegmentUdp; });
  lie([](NetHeader& h) { h.segmentation |= kNetSegmentEcn; });
  lie([](NetHeader& h) { h.segmentation = 77; });
  lie([](NetHeader& h) { h.segmentation = kNetSegmentNone; });  // 4000 bytes unsegmented
  lie([](NetHeader& h) { h.checksum_start = 60, h.checksum_offset = 10; }, 60);
  lie([](NetHeader&) {}, 13);
  lie([](NetHeader&) {}, 70000);
  EXPECT_EQ(net.transmit.used_index(net.memory), 15);
}

TEST(NetDevice, offloads_that_were_not_negotiated_are_refused) {
  Net net(true, feature_bit(kNetFeatureMac));
  EXPECT_EQ(net.accepted & feature_bit(kNetFeatureGuestTcp4), 0u);
  net.send(segment_header(), frame_of(3000));
  NetHeader partial = segment_header();
  partial.segmentation = kNetSegmentNone;
  net.send(partial, frame_of(100));
  EXPECT_EQ(net.arrived(), "");
  net.offer({2048});
  net.arrive(with_header(segment_header(), frame_of(100)));
  net.arrive(with_header(partial, frame_of(100)));
  EXPECT_EQ(net.receive.used_index(net.memory), 0);
  EXPECT_EQ(net.device->counters().dropped_received, 2u);
  NetHeader valid{};
  valid.flags = kNetDataValid;
  net.arrive(with_header(valid, frame_of(100)));
  EXPECT_EQ(net.receive.used_index(net.memory), 1);
  EXPECT_EQ(net.header_at(kBuffer).flags, 0);
}

TEST(NetDevice, leftovers_in_a_header_do_not_reach_the_other_side) {
  Net net(true);
  NetHeader header = segment_header();
  header.flags = 0xfe;
  header.segmentation = kNetSegmentNone;
  header.buffer_count = 9;
  net.send(header, frame_of(60));
  EXPECT_EQ(net.arrived(), with_header({}, frame_of(60)));
}

TEST(NetDevice, full_descriptor_holds_frames_back_until_it_is_writable) {
  Net net(false);
  int sent = 0;
  while (net.device->is_drained() && net.transmit.used_index(net.memory) == sent) {
    net.send({}, frame_of(1500));
    if (net.transmit.used_index(net.memory) == sent) break;
    ASSERT_LT(++sent, 10000);
  }
  EXPECT_TRUE(net.device->is_drained());  // power off does not wait for it
  EXPECT_FALSE(net.device->process());
  for (int i = 0; i < sent; ++i) EXPECT_EQ(net.arrived().size(), 1500u);
  EXPECT_EQ(net.arrived(), "");
  net.device->set_ready(false, true);
  net.device->process();
  EXPECT_EQ(net.arrived().size(), 1500u);
  EXPECT_EQ(net.device->counters().dropped_sent, 0u);
}

TEST(NetDevice, peer_that_is_gone_costs_frames_only) {
  Net net(false);
  signal(SIGPIPE, SIG_IGN);
  close(net.outside);
  net.offer({2048});
  net.device->set_ready(true, true);
  EXPECT_FALSE(net.device->process());
  net.send({}, frame_of(60));
  EXPECT_EQ(net.device->counters().dropped_sent, 1u);
  EXPECT_EQ(net.device->error(), "");
  EXPECT_EQ(net.transport->load(kMmioConfig + 6, 2), 0u);
  net.outside = -1;
}

TEST(NetDevice, virtio_5_1_6_4_received_frame_has_a_header_and_one_buffer) {
  Net net(false);
  net.offer({2048});
  net.arrive(frame_of(60));
  EXPECT_EQ(net.receive.used(net.memory, 0).length, 72u);
  EXPECT_EQ(net.header_at(kBuffer).flags, kNetDataValid);
  EXPECT_EQ(net.header_at(kBuffer).buffer_count, 1);
  EXPECT_EQ(FakeGuest::get(net.memory, kBuffer + 12, 60), frame_of(60));
  EXPECT_EQ(net.notified, 1);
  EXPECT_EQ(net.captured, std::vector{frame_of(60)});
}

TEST(NetDevice, received_frame_is_spread_over_mergeable_buffers) {
  Net net(true);
  net.offer({100, 12, 300, 4000});
  std::string frame;
  for (int i = 0; i < 1000; ++i) frame += static_cast<char>(i * 7);
  NetHeader header = segment_header();
  net.arrive(with_header(header, frame));
  EXPECT_EQ(net.receive.used_index(net.memory), 4);
  EXPECT_EQ(net.header_at(kBuffer).buffer_count, 4);
  EXPECT_EQ(net.header_at(kBuffer).segment_size, 1448);
  EXPECT_EQ(FakeGuest::get(net.memory, kBuffer + 12, 1000), frame);
  u32 lengths[] = {100, 12, 300, 600};
  for (u16 i = 0; i < 4; ++i) EXPECT_EQ(net.receive.used(net.memory, i).length, lengths[i]);
  EXPECT_EQ(net.captured, std::vector{frame});
}

TEST(NetDevice, largest_frame_waits_for_room_and_arrives_whole) {
  Net net(true);
  net.offer({20000, 20000});
  std::string frame;
  for (u32 i = 0; i < 65535 + 14; ++i) frame += static_cast<char>(i * 11 >> 3);
  net.arrive(with_header(segment_header(), frame));
  EXPECT_EQ(net.receive.used_index(net.memory), 0);
  net.offer({20000});
  net.device->process();
  EXPECT_EQ(net.receive.used_index(net.memory), 0);
  net.offer({20000});
  net.device->process();
  EXPECT_EQ(net.receive.used_index(net.memory), 4);
  EXPECT_EQ(net.header_at(kBuffer).buffer_count, 4);
  EXPECT_EQ(FakeGuest::get(net.memory, kBuffer + 12, frame.size()), frame);
}

TEST(NetDevice, frame_larger_than_all_that_can_be_offered_is_dropped) {
  Net net(true);
  for (int i = 0; i < 32; ++i) net.offer({100});
  net.arrive(with_header(segment_header(), frame_of(5000)));
  EXPECT_EQ(net.device->counters().dropped_received, 1u);
  net.arrive(with_header({}, frame_of(80, 'g')));
  EXPECT_EQ(net.receive.used_index(net.memory), 1);
  EXPECT_EQ(FakeGuest::get(net.memory, kBuffer + 12, 80), frame_of(80, 'g'));
}

TEST(NetDevice, without_mergeable_buffers_a_frame_is_one_chain_or_lost) {
  Net net(false, feature_bit(kNetFeatureMac));
  net.offer({100});
  net.arrive(frame_of(200));
  EXPECT_EQ(net.device->counters().dropped_received, 1u);
  net.arrive(frame_of(88));
  EXPECT_EQ(net.receive.used_index(net.memory), 1);
  EXPECT_EQ(net.header_at(kBuffer).flags, 0);
}

TEST(NetDevice, short_and_oversized_arrivals_are_dropped) {
  Net net(true, feature_bit(kNetFeatureMac) | feature_bit(kNetFeatureMergeableBuffers));
  net.offer({4096});
  net.arrive("short");
  net.arrive(with_header({}, frame_of(13)));
  net.arrive(with_header({}, frame_of(1519)));
  net.arrive(with_header({}, frame_of(100000)));
  EXPECT_EQ(net.device->counters().dropped_received, 4u);
  net.arrive(with_header({}, frame_of(1518)));
  EXPECT_EQ(net.receive.used_index(net.memory), 1);
}

TEST(NetDevice, nothing_is_read_while_the_guest_offers_nothing) {
  Net net(false);
  net.arrive(frame_of(60));
  net.arrive(frame_of(61));
  EXPECT_EQ(net.device->counters().dropped_received, 0u);
  net.offer({2048, 2048});
  net.device->process();
  EXPECT_EQ(net.receive.used_index(net.memory), 2);
  EXPECT_EQ(net.receive.used(net.memory, 1).length, 73u);
}

TEST(NetDevice, chains_that_break_the_rules_end_the_device_with_words) {
  {
    Net net(false);
    net.transmit.descriptor(net.memory, 0, kBuffer, 11, 0);
    net.transmit.offer(net.memory, 0);
    net.device->process();
    EXPECT_EQ(net.device->error(), "net: a frame to send is shorter than its header");
  }
  {
    Net net(false);
    net.transmit.descriptor(net.memory, 0, kBuffer, 100, kDescriptorWrite);
    net.transmit.offer(net.memory, 0);
    net.device->process();
    EXPECT_EQ(net.device->error(), "net: a frame to send has room to be written to");
  }
  {
    Net net(false);
    net.offer({11});
    net.arrive(frame_of(60));
    EXPECT_EQ(net.device->error(), "net: a receive buffer is smaller than the header");
  }
  {
    Net net(false);
    net.receive.descriptor(net.memory, 0, kBuffer, 100, 0);
    net.receive.offer(net.memory, 0);
    net.arrive(frame_of(60));
    EXPECT_EQ(net.device->error(), "net: a receive buffer has something to read");
  }
  {
    Net net(false);
    net.transmit.descriptor(net.memory, 0, FakeGuest::kMemory - 8, 100, 0);
    net.transmit.offer(net.memory, 0);
    net.device->process();
    EXPECT_EQ(net.device->error(), "net, queue 1: buffer is outside the guest's memory");
  }
}

TEST(NetDevice, reset_forgets_held_chains_and_a_waiting_frame) {
  Net net(true);
  net.offer({2000});
  net.arrive(with_header(segment_header(), frame_of(3000)));
  net.set(kMmioStatus, 0);
  net.device->process();
  EXPECT_EQ(net.receive.used_index(net.memory), 0);
  EXPECT_EQ(net.device->error(), "");
}

TEST(NetDevice, unheeded_until_the_guest_moves_its_wish) {
  Net net(false);
  net.offer({2048, 2048, 2048});
  EXPECT_EQ(net.device->unheeded(), 0u);
  net.arrive(frame_of(60));
  u64 first = net.device->unheeded();
  EXPECT_NE(first, 0u);
  net.arrive(frame_of(60));  // the guest looks by itself: it is not told again
  EXPECT_EQ(net.notified, 1);
  EXPECT_EQ(net.device->unheeded(), first);
  net.receive.set_used_event(net.memory, 2);
  EXPECT_EQ(net.device->unheeded(), 0u);
  net.arrive(frame_of(60));
  EXPECT_EQ(net.notified, 2);
  EXPECT_NE(net.device->unheeded(), 0u);
  EXPECT_NE(net.device->unheeded(), first);
}

TEST(NetDevice, doorbell_is_asked_for_once_no_answer_came) {
  Net net(false);
  auto wish = [&net] {
    u16 value = 0;
    net.memory.read(PhysAddr{net.transmit.layout.used + available_event_offset(net.transmit.layout.size)}, &value);
    return value;
  };
  net.offer({2048, 2048});
  net.send({}, frame_of(60));
  EXPECT_EQ(wish(), 1);
  net.arrive(frame_of(60));
  EXPECT_EQ(wish(), 0);  // which has passed
  for (int i = 0; net.device->process(); ++i) ASSERT_LT(i, 10000000);
  EXPECT_EQ(wish(), 1);
  net.arrive(frame_of(60));  // not again at once
  EXPECT_EQ(wish(), 1);
  EXPECT_FALSE(net.device->process());
}

TEST(NetDevice, polled_asks_for_no_doorbell_and_moves_frames_both_ways) {
  Net net(false);
  auto wish = [&net] {
    u16 value = 0;
    net.memory.read(PhysAddr{net.transmit.layout.used + available_event_offset(net.transmit.layout.size)}, &value);
    return value;
  };
  net.offer({2048, 2048});
  net.device->set_polled(true);
  net.send({}, frame_of(60, 'a'));
  EXPECT_EQ(net.arrived(), frame_of(60, 'a'));
  EXPECT_NE(wish(), 1);
  net.arrive(frame_of(60, 'b'));
  EXPECT_EQ(net.device->counters().received, 1u);
  EXPECT_FALSE(net.device->process());  // nobody waits for an answer
  EXPECT_NE(wish(), 1);
  net.device->set_polled(false);
  EXPECT_FALSE(net.device->process());
  EXPECT_EQ(wish(), 1);
}

// Two frames, of which the first is handed over.
void hand_over_the_first(Net& net) {
  for (u16 i = 0; i < 2; ++i) {
    FakeGuest::put(net.memory, kBuffer + 0x1000 * i, with_header({}, frame_of(60, static_cast<char>('a' + i))));
    net.transmit.descriptor(net.memory, i, kBuffer + 0x1000 * i, sizeof(NetHeader) + 60, 0);
  }
  net.transmit.offer(net.memory, 0);
  ASSERT_TRUE(net.device->hand_over(1, 64));
  net.transmit.offer(net.memory, 1);
}

TEST(NetDevice, handed_frames_leave_when_they_are_written_and_before_later_ones) {
  Net net(false);
  hand_over_the_first(net);
  EXPECT_FALSE(net.device->is_drained());
  net.device->process();
  EXPECT_FALSE(net.device->hand_over(1, 64));
  EXPECT_EQ(net.arrived(), "");
  EXPECT_EQ(net.transmit.used_index(net.memory), 0);
  net.device->write_handed();
  EXPECT_EQ(net.arrived(), frame_of(60, 'a'));
  net.device->write_handed();  // they are gone
  EXPECT_EQ(net.arrived(), "");
  net.device->process();
  EXPECT_EQ(net.arrived(), frame_of(60, 'b'));
  EXPECT_EQ(net.transmit.used_index(net.memory), 2);
  EXPECT_EQ(net.device->counters().sent, 2u);
  EXPECT_EQ(net.device->metrics().bytes_out, 120u);
  EXPECT_TRUE(net.device->is_drained());
  EXPECT_EQ(net.captured, (std::vector{frame_of(60, 'a'), frame_of(60, 'b')}));
}

TEST(NetDevice, hands_over_only_the_last_frames_and_only_if_there_are_enough) {
  Net net(false);
  auto send = [&net](char last) {
    for (u16 i = 0; i <= last - 'a'; ++i) {
      FakeGuest::put(net.memory, kBuffer + 0x1000 * i, with_header({}, frame_of(60, static_cast<char>('a' + i))));
      net.transmit.descriptor(net.memory, i, kBuffer + 0x1000 * i, sizeof(NetHeader) + 60, 0);
      net.transmit.offer(net.memory, i);
    }
  };
  send('c');
  EXPECT_FALSE(net.device->hand_over(4, 64));
  EXPECT_EQ(net.arrived(), "");
  EXPECT_TRUE(net.device->hand_over(3, 1));
  EXPECT_EQ(net.arrived(), frame_of(60, 'a'));
  EXPECT_EQ(net.arrived(), frame_of(60, 'b'));
  EXPECT_EQ(net.arrived(), "");
  EXPECT_EQ(net.transmit.used_index(net.memory), 2);
  EXPECT_EQ(net.device->write_handed(), 1u);
  EXPECT_EQ(net.arrived(), frame_of(60, 'c'));
  EXPECT_EQ(net.device->write_handed(), 0u);
  net.device->process();
  EXPECT_EQ(net.device->counters().sent, 3u);
}

TEST(HandedFrames, each_is_written_once_by_whichever_thread_claims_it) {
  HandedFrames handed;
  std::atomic<size_t> written = 0;
  std::atomic<bool> over = false;
  auto write = [&written](HandedFrame& frame) {
    ++frame.size;
    ++written;
  };
  std::thread other([&] {
    while (!over) handed.write_all(write);
  });
  size_t sent = 0;
  for (size_t round = 0; round < 20000; ++round) {
    for (size_t i = 0; i <= round % 7; ++i, ++sent) handed.add().size = 0;
    handed.send_out();
    if (round % 2 == 0) handed.write_all(write);
    while (handed.are_out()) std::this_thread::yield();
    for (const HandedFrame& frame : handed.frames()) ASSERT_EQ(frame.size, 1u);
    handed.clear();
  }
  over = true;
  other.join();
  EXPECT_EQ(written, sent);
}

TEST(NetDevice, guest_hears_of_handed_frames_that_are_given_back_although_others_are_out) {
  Net net(false);
  hand_over_the_first(net);
  net.device->write_handed();
  EXPECT_TRUE(net.device->hand_over(1, 64));
  EXPECT_EQ(net.transmit.used_index(net.memory), 1);
  EXPECT_EQ(net.notified, 1);
}

TEST(NetDevice, handed_frame_keeps_its_header_and_is_checked) {
  Net net(true);
  NetHeader wrong = segment_header();
  wrong.segment_size = 0;
  FakeGuest::put(net.memory, kBuffer, with_header(wrong, frame_of(3000)));
  FakeGuest::put(net.memory, kBuffer + 0x1000, with_header(segment_header(), frame_of(3000)));
  for (u16 i = 0; i < 2; ++i) {
    net.transmit.descriptor(net.memory, i, kBuffer + 0x1000 * i, sizeof(NetHeader) + 3000, 0);
    net.transmit.offer(net.memory, i);
  }
  ASSERT_TRUE(net.device->hand_over(1, 64));
  net.device->write_handed();
  EXPECT_EQ(net.arrived(), with_header(segment_header(), frame_of(3000)));
  net.device->process();
  EXPECT_EQ(net.transmit.used_index(net.memory), 2);
  EXPECT_EQ(net.device->counters().dropped_sent, 1u);
}

TEST(NetDevice, handed_frame_that_the_descriptor_does_not_take_is_lost_and_counted) {
  Net net(false);
  std::string filling = frame_of(1000);
  while (write(net.inside, filling.data(), filling.size()) > 0) {}
  hand_over_the_first(net);
  net.device->write_handed();
  while (net.arrived() == filling) {}
  net.device->process();
  EXPECT_EQ(net.arrived(), frame_of(60, 'b'));
  EXPECT_EQ(net.transmit.used_index(net.memory), 2);
  EXPECT_EQ(net.device->counters().dropped_sent, 1u);
  EXPECT_EQ(net.device->counters().sent, 1u);
}

// Whether they were written before it or after it.
class HandedBeforeReset : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(NetDevice, HandedBeforeReset, ::testing::Bool());
TEST_P(HandedBeforeReset, is_not_given_back_after_it) {
  Net net(false);
  hand_over_the_first(net);
  if (GetParam()) net.device->write_handed();
  net.set(kMmioStatus, 0);
  net.transmit = FakeGuest(0x5000, 8);
  net.memory.write(PhysAddr{net.transmit.layout.used + 2}, u16{0});
  net.memory.write(PhysAddr{net.transmit.layout.available + 2}, u16{0});
  net.start(net.device->features());
  net.device->write_handed();
  net.device->process();
  EXPECT_EQ(net.transmit.used_index(net.memory), 0);
  EXPECT_EQ(net.arrived(), frame_of(60, 'a'));
  net.send({}, frame_of(60, 'c'));
  EXPECT_EQ(net.arrived(), frame_of(60, 'c'));
  EXPECT_EQ(net.transmit.used_index(net.memory), 1);
}

}  // namespace
}  // namespace husk::vmm
