// What TCP stands on: segments to packets and back, checksums, segmentation, routes.
#include "kernel/net/test_support.h"

namespace husk::net::testing {

class TcpLowerTest : public World {
 protected:
  void SetUp() override {
    World::SetUp();
    configure();
  }
  static tcp::Segment segment_with_everything() {
    tcp::Segment segment;
    segment.seq = {1000}, segment.ack = {2000};
    segment.flags = tcp::kAck | tcp::kPsh;
    segment.window = 500;
    segment.has_timestamps = true, segment.timestamp_value = 11, segment.timestamp_echo = 22;
    return segment;
  }
  static Bytes segment_bytes(const IpAddress& from, const IpAddress& to, const Bytes& options, const Bytes& payload, u32 sequence = 1000) {
    Bytes bytes(20);
    *reinterpret_cast<wire::TcpHeader*>(bytes.data()) = {80, 40000, sequence, 2000, static_cast<u8>((20 + options.size()) / 4 << 4), 24, 500, 0, 0};
    bytes = bytes + options + payload;
    auto sum = pseudo(from, to, 6, bytes.size());
    sum.add(bytes);
    reinterpret_cast<wire::TcpHeader*>(bytes.data())->checksum = sum.finish();
    return from.is_v4() ? ip4(from, to, 6, bytes, 0x4000, 0) : ip6(from, to, 6, bytes);
  }
  Flow flow{{kOurs, 80}, {kPeer, 40000}}, flow6{{kOurs6, 80}, {kPeer6, 40000}};
};

TEST_F(TcpLowerTest, rfc9293_3_1_segments_are_decoded) {
  Bytes stamps = {1, 1, 8, 10, 0, 0, 0, 11, 0, 0, 0, 22};
  for (bool v4 : {true, false}) {
    auto from = v4 ? kPeer : kPeer6, to = v4 ? kOurs : kOurs6;
    Bytes bytes = segment_bytes(from, to, stamps, text("data"));
    inject(frame_of(bytes));
    ASSERT_EQ(tcp->inputs.size(), 1u);
    auto& got = tcp->inputs[0];
    EXPECT_EQ(got.flow, (Flow{{to, 40000, eth}, {from, 80, eth}}));
    EXPECT_EQ(got.segment.seq.value, 1000u);
    EXPECT_EQ(got.segment.ack.value, 2000u);
    EXPECT_EQ(got.segment.flags, 24);
    EXPECT_EQ(got.segment.window, 500);
    EXPECT_TRUE(got.segment.has_timestamps);
    EXPECT_EQ(got.segment.timestamp_echo, 22u);
    EXPECT_EQ(got.payload, text("data"));
    EXPECT_EQ(got.pieces, 1u);
    tcp->inputs.clear();
    bytes.back() ^= 1;
    inject(frame_of(bytes));
    EXPECT_TRUE(tcp->inputs.empty());
  }
  EXPECT_EQ(stack->statistics().checksum_errors, 2u);
  Bytes options = {2, 4, 5, 180, 4, 2, 3, 3, 7, 0, 0, 0};
  inject(frame_of(segment_bytes(kPeer, kOurs, options, {})));
  ASSERT_EQ(tcp->inputs.size(), 1u);
  EXPECT_EQ(tcp->inputs[0].segment.mss, 1460);
  EXPECT_EQ(tcp->inputs[0].segment.window_scale, 7);
  EXPECT_TRUE(tcp->inputs[0].segment.sack_permitted);
}

TEST_F(TcpLowerTest, rfc1122_4_2_3_10_never_from_or_to_a_group) {
  inject(ethernet(wire::kEtherTypeIpv4, segment_bytes(kPeer, IpAddress::v4(10, 0, 0, 255), {}, {}), wire::kMacBroadcast));
  EXPECT_TRUE(tcp->inputs.empty());
}

TEST_F(TcpLowerTest, merged_packets_say_how_many_they_were) {
  auto packet = packet_of(frame_of(segment_bytes(kPeer, kOurs, {}, pattern(1200))));
  packet->segment_size = 500;
  packet->checksum = packet::Checksum::partial;
  inject(std::move(packet));
  ASSERT_EQ(tcp->inputs.size(), 1u);
  EXPECT_EQ(tcp->inputs[0].pieces, 3u);
  EXPECT_EQ(tcp->inputs[0].payload, pattern(1200));
}

TEST_F(TcpLowerTest, scattered_packets_are_read) {
  Bytes frame = frame_of(segment_bytes(kPeer, kOurs, {1, 1, 1, 1}, pattern(100)));
  for (size_t cut : {size_t{1}, size_t{13}, size_t{14}, size_t{20}, size_t{34}, size_t{40}, size_t{57}, size_t{58}, size_t{99}}) {
    auto first = packet_of(Bytes(frame.begin(), frame.begin() + static_cast<long>(cut)));
    auto second = packet_of(Bytes(frame.begin() + static_cast<long>(cut), frame.end()));
    for (auto& slice : second->slices()) ASSERT_TRUE(first->append(slice).ok());
    inject(std::move(first));
    ASSERT_EQ(tcp->inputs.size(), 1u) << cut;
    EXPECT_EQ(tcp->inputs[0].payload, pattern(100));
    tcp->inputs.clear();
  }
}

TEST_F(TcpLowerTest, rfc9293_3_1_segments_are_built) {
  auto segment = segment_with_everything();
  for (const Flow& one : {flow, flow6}) {
    segment.payload_size = 5;
    tcp->lower.output(one, segment, packet_of(text("hello")), 0, 0, 0);
    Bytes expected = segment_bytes(one.local.address, one.remote.address, {1, 1, 8, 10, 0, 0, 0, 11, 0, 0, 0, 22}, text("hello"));
    EXPECT_EQ(take_ip(), expected);
    segment.payload_size = 0;
    tcp->lower.output(one, segment, nullptr, 0, 0, 0);
    EXPECT_EQ(take_ip(), segment_bytes(one.local.address, one.remote.address, {1, 1, 8, 10, 0, 0, 0, 11, 0, 0, 0, 22}, {}));
  }
}

TEST_F(TcpLowerTest, without_the_device_segments_are_cut_here) {
  auto segment = segment_with_everything();
  segment.has_timestamps = false;
  segment.flags |= tcp::kFin | tcp::kCwr;
  Bytes payload = pattern(3500);
  segment.payload_size = 3500;
  tcp->lower.output(flow, segment, packet_of(payload), 1000, 0, 0);
  ASSERT_EQ(device.sent.size(), 4u);
  Bytes all;
  for (int i = 0; i < 4; ++i) {
    Bytes packet = take_ip();
    auto ip = wire::Ipv4::parse(packet);
    auto parsed = wire::Tcp::parse(ip->payload);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->header->sequence, 1000u + 1000u * static_cast<u32>(i));
    EXPECT_EQ(parsed->header->flags & (tcp::kFin | tcp::kPsh), i == 3 ? tcp::kFin | tcp::kPsh : 0);
    EXPECT_EQ(parsed->header->flags & tcp::kCwr, i == 0 ? tcp::kCwr : 0);
    auto sum = pseudo(kOurs, kPeer, 6, ip->payload_size);
    sum.add(ip->payload);
    EXPECT_TRUE(sum.valid());
    all.insert(all.end(), parsed->payload.begin(), parsed->payload.end());
  }
  EXPECT_EQ(all, payload);
}

TEST_F(TcpLowerTest, virtio_5_1_6_2_what_the_device_needs_for_offloading) {
  device.properties_.checksum = device.properties_.tcp4_segmentation = device.properties_.tcp6_segmentation = true;
  for (const Flow& one : {flow, flow6}) {
    bool v4 = one.remote.address.is_v4();
    auto segment = segment_with_everything();
    segment.payload_size = 30000;
    tcp->lower.output(one, segment, packet_of(pattern(30000)), 1400, 0, 0);
    ASSERT_EQ(device.sent.size(), 1u);
    auto& packet = *device.sent.front();
    u32 ip_size = v4 ? 20 : 40;
    EXPECT_EQ(packet.segmentation, v4 ? packet::Segmentation::tcp4 : packet::Segmentation::tcp6);
    EXPECT_EQ(packet.segment_size, 1400);
    EXPECT_EQ(packet.header_size, 14 + ip_size + 32);
    EXPECT_EQ(packet.checksum_start, 14 + ip_size);
    EXPECT_EQ(packet.checksum_offset, 16);
    EXPECT_EQ(packet.size(), 14 + ip_size + 32 + 30000);
    u16 field;
    packet.copy_out(14 + ip_size + 16, &field, 2);
    EXPECT_EQ(field, pseudo(one.local.address, one.remote.address, 6, 30032).folded().raw());
    device.sent.clear();
  }
}

TEST_F(TcpLowerTest, payload_of_the_send_queue_is_not_written) {
  auto payload = packet_of(pattern(100));
  auto clone = payload->clone().release();
  auto segment = segment_with_everything();
  segment.payload_size = 100;
  Bytes before(payload->slices()[0].buffer->data(), payload->slices()[0].buffer->data() + payload->slices()[0].buffer->capacity());
  tcp->lower.output(flow, segment, std::move(clone), 0, 0, 0);
  EXPECT_EQ(memcmp(before.data(), payload->slices()[0].buffer->data(), before.size()), 0);
}

TEST_F(TcpLowerTest, routes) {
  auto route = [&](const IpAddress& to, const IpAddress& bound = {}) { return tcp->lower.route({to, 80}, bound); };
  EXPECT_EQ(route(kPeer)->local, kOurs);
  EXPECT_EQ(route(kPeer)->mtu, 1500);
  EXPECT_GT(route(kPeer)->segmentation_max, 60000u);
  EXPECT_EQ(route(kPeer6)->local, kOurs6);
  EXPECT_EQ(route(IpAddress::v4(127, 0, 0, 1))->local, IpAddress::v4(127, 0, 0, 1));
  EXPECT_EQ(route(IpAddress::v4(127, 0, 0, 1))->mtu, 65535);
  EXPECT_EQ(route(kOurs)->local, kOurs);
  EXPECT_EQ(route(kOurs6)->mtu, 65535);
  EXPECT_EQ(route(kPeer, kPeer).error().code(), EADDRNOTAVAIL);
  EXPECT_EQ(route(IpAddress{{0x20, 1}}).error().code(), ENETUNREACH);
  EXPECT_EQ(route(IpAddress::v4(10, 0, 0, 255)).error().code(), ENETUNREACH);
  EXPECT_EQ(route(IpAddress::v4(224, 0, 0, 1)).error().code(), ENETUNREACH);
  EXPECT_TRUE(tcp->lower.is_local(IpAddress::v4(127, 9, 9, 9)));
  EXPECT_FALSE(tcp->lower.is_local(kPeer));
}

TEST_F(TcpLowerTest, loopback_carries_segments_whole_and_without_recursion) {
  IpAddress home = IpAddress::v4(127, 0, 0, 1);
  auto segment = segment_with_everything();
  segment.payload_size = 60000;
  tcp->lower.output({{home, 80}, {home, 40000}}, segment, packet_of(pattern(60000)), 1000, 0, 0);
  EXPECT_TRUE(tcp->inputs.empty());
  EXPECT_TRUE(stack->run());
  ASSERT_EQ(tcp->inputs.size(), 1u);
  EXPECT_EQ(tcp->inputs[0].payload, pattern(60000));
  EXPECT_EQ(tcp->inputs[0].pieces, 60u);
  EXPECT_EQ(tcp->inputs[0].flow, (Flow{{home, 40000, 1}, {home, 80, 1}}));
}

TEST_F(TcpLowerTest, run_is_quiet_when_there_is_nothing) {
  EXPECT_FALSE(stack->run());
  device.flushes = 0;
  EXPECT_FALSE(stack->run());
  EXPECT_EQ(device.flushes, 0u);
  tcp->lower.output(flow, segment_with_everything(), nullptr, 0, 0, 0);
  EXPECT_FALSE(stack->run());  // the device has it
  EXPECT_EQ(device.flushes, 1u);
}

}  // namespace husk::net::testing
