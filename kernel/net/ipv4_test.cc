// IPv4: what is taken in, fragments in and out, routes, martians.
#include "kernel/net/test_support.h"

namespace husk::net::testing {

class Ipv4Test : public World {
 protected:
  void SetUp() override {
    World::SetUp();
    configure();
    socket = udp_socket();
    ASSERT_TRUE(socket->bind({kOurs, 7}).ok());
  }
  void TearDown() override {
    if (socket) socket->close();
  }
  // A datagram to port 7, in fragments of so many bytes.
  std::vector<Bytes> fragments(const Bytes& payload, u32 size, u16 identification = 1) {
    Bytes message = udp_message(kPeer, 9, kOurs, 7, payload);
    std::vector<Bytes> frames;
    for (u32 at = 0; at < message.size(); at += size) {
      u32 end = std::min<u32>(at + size, static_cast<u32>(message.size()));
      u16 field = static_cast<u16>(at / 8 | (end < message.size() ? 0x2000 : 0));
      frames.push_back(frame_of(ip4(kPeer, kOurs, 17, Bytes(message.begin() + at, message.begin() + end), field, identification)));
    }
    return frames;
  }
  Ref<udp::Socket> socket;
};

TEST_F(Ipv4Test, rfc791_3_1_header_is_validated) {
  auto good = udp(kPeer, 9, kOurs, 7, text("x"));
  struct Case {
    const char* what;
    size_t at;
    u8 value;
  };
  for (Case one :
       {Case{"version", 0, 0x55}, {"header size", 0, 0x44}, {"total size", 2, 0xff}, {"checksum", 10, 0x12}, {"header beyond packet", 0, 0x4f}}) {
    auto bad = good;
    bad[one.at] = one.value;
    inject(frame_of(good).size() > 0 ? ethernet(wire::kEtherTypeIpv4, bad) : Bytes{});
    EXPECT_EQ(receive(*socket).error, EAGAIN) << one.what;
  }
  EXPECT_EQ(stack->statistics().in_header_errors, 5u);
  inject(ethernet(wire::kEtherTypeIpv4, Bytes(good.begin(), good.begin() + 10)));
  EXPECT_EQ(stack->statistics().in_header_errors, 6u);
  inject(frame_of(good));
  EXPECT_EQ(receive(*socket).bytes, text("x"));
}

TEST_F(Ipv4Test, rfc894_padding_of_short_frames_is_cut_off) {
  auto frame = frame_of(udp(kPeer, 9, kOurs, 7, text("x")));
  frame.resize(60, 0xaa);
  inject(frame);
  EXPECT_EQ(receive(*socket).bytes, text("x"));
}

TEST_F(Ipv4Test, rfc1122_3_2_1_3_martians_are_dropped) {
  u64 before = stack->statistics().in_address_errors, count = 0;
  for (auto source :
       {IpAddress::v4(127, 0, 0, 1), IpAddress::v4(0, 0, 0, 0), IpAddress::v4(224, 0, 0, 1), IpAddress::v4(255, 255, 255, 255), kOurs}) {
    inject(frame_of(udp(source, 9, kOurs, 7, text("x"))));
    EXPECT_EQ(stack->statistics().in_address_errors, before + ++count);
  }
  for (auto destination : {IpAddress::v4(127, 0, 0, 1), IpAddress::v4(10, 0, 0, 77), IpAddress::v4(224, 1, 1, 1)}) {
    inject(frame_of(udp(kPeer, 9, destination, 7, text("x"))));
    EXPECT_EQ(stack->statistics().in_address_errors, before + ++count);
  }
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(Ipv4Test, rfc1122_3_3_6_link_broadcast_of_a_unicast_packet_is_dropped) {
  inject(ethernet(wire::kEtherTypeIpv4, udp(kPeer, 9, kOurs, 7, text("x")), wire::kMacBroadcast));
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  inject(ethernet(wire::kEtherTypeIpv4, udp(kPeer, 9, kOurs, 7, text("x")), kOtherMac));  // flooded by a bridge
  EXPECT_EQ(receive(*socket).error, EAGAIN);
}

TEST_F(Ipv4Test, rfc1122_3_2_1_8_options_are_skipped_and_source_routes_dropped) {
  auto with_options = [&](Bytes options) {
    Bytes message = udp_message(kPeer, 9, kOurs, 7, text("x"));
    Bytes packet = ip4(kPeer, kOurs, 17, options + message);
    packet[0] = static_cast<u8>(0x45 + options.size() / 4);
    packet[10] = packet[11] = 0;
    auto sum = wire::checksum_of({packet.data(), 20 + options.size()});
    memcpy(&packet[10], &sum, 2);
    return frame_of(packet);
  };
  inject(with_options({148, 4, 0, 0}));
  EXPECT_EQ(receive(*socket).bytes, text("x"));
  inject(with_options({131, 7, 4, 10, 0, 0, 9, 0}));
  EXPECT_EQ(receive(*socket).error, EAGAIN);
}

TEST_F(Ipv4Test, rfc1122_3_2_2_1_unknown_protocol_is_answered) {
  inject(frame_of(ip4(kPeer, kOurs, 99, text("what"))));
  Bytes packet = take_ip();
  ASSERT_GE(packet.size(), 28u + 24);
  EXPECT_EQ(packet[9], 1);
  EXPECT_EQ(packet[20], wire::kIcmpUnreachable);
  EXPECT_EQ(packet[21], wire::kIcmpProtocolUnreachable);
}

TEST_F(Ipv4Test, rfc791_3_2_fragments_in_any_order_make_the_datagram) {
  Bytes payload = pattern(5000);
  auto frames = fragments(payload, 1480);
  ASSERT_EQ(frames.size(), 4u);
  for (auto order : {std::vector<int>{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 1, 0, 3, 0, 2}}) {
    for (int i : order) inject(frames[static_cast<size_t>(i)]);
    EXPECT_EQ(receive(*socket).bytes, payload);
  }
  EXPECT_EQ(stack->statistics().reassembled, 4u);
}

TEST_F(Ipv4Test, rfc791_3_2_the_largest_datagram_is_reassembled) {
  Bytes payload = pattern(65507);
  for (auto& frame : fragments(payload, 1480)) inject(frame);
  EXPECT_EQ(receive(*socket).bytes, payload);
}

TEST_F(Ipv4Test, rfc791_ping_of_death_is_dropped) {
  inject(frame_of(ip4(kPeer, kOurs, 17, pattern(1480), 0x2000, 3)));
  inject(frame_of(ip4(kPeer, kOurs, 17, pattern(1480), 0x1fff, 3)));  // ends behind 65,535
  EXPECT_EQ(stack->statistics().reassembled, 0u);
}

TEST_F(Ipv4Test, rfc5722_overlapping_fragments_end_the_datagram) {
  Bytes payload = pattern(3000);
  auto frames = fragments(payload, 1480, 5);
  inject(frames[0]);
  inject(frame_of(ip4(kPeer, kOurs, 17, pattern(1480), static_cast<u16>(0x2000 | 1400 / 8), 5)));
  inject(frames[1]);
  inject(frames[2]);
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  EXPECT_EQ(stack->statistics().reassembly_failed, 1u);
  // The same with a tail that is longer than the last one said.
  for (size_t i : {size_t{2}, size_t{0}}) inject(fragments(payload, 1480, 6)[i]);
  inject(frame_of(ip4(kPeer, kOurs, 17, pattern(800), 2960 / 8, 6)));
  inject(fragments(payload, 1480, 6)[1]);
  EXPECT_EQ(receive(*socket).error, EAGAIN);
}

TEST_F(Ipv4Test, datagrams_that_ended_early_are_few) {
  constexpr u16 kMany = 1000;
  for (u16 i = 0; i < kMany; ++i) {
    inject(frame_of(ip4(kPeer, kOurs, 17, pattern(80), 0x2000, i)));
    inject(frame_of(ip4(kPeer, kOurs, 17, pattern(80), 0x2000 | 1, i)));
  }
  EXPECT_GT(stack->statistics().reassembly_failed, 2 * kMany - 200u);  // each once, and nearly all gave way to later ones
}

TEST_F(Ipv4Test, rfc1122_3_3_2_reassembly_times_out_and_says_so) {
  inject(fragments(pattern(3000), 1480)[0]);
  pass(59 * kSecond);
  EXPECT_TRUE(take_icmp(wire::kIcmpTimeExceeded).empty());
  pass(2 * kSecond);
  meet();
  pass(kSecond);
  Bytes message = take_icmp(wire::kIcmpTimeExceeded);
  ASSERT_GE(message.size(), 8u + 28);
  EXPECT_EQ(message[1], wire::kIcmpReassemblyTimeExceeded);
  EXPECT_EQ(stack->statistics().reassembly_failed, 1u);
  inject(fragments(pattern(3000), 1480)[1]);  // without the first, nothing is said
  pass(61 * kSecond);
  meet();
  EXPECT_TRUE(take_icmp(wire::kIcmpTimeExceeded).empty());
}

TEST_F(Ipv4Test, fragments_are_bounded_in_memory) {
  for (u16 i = 0; i < 2000; ++i) inject(frame_of(ip4(kPeer, kOurs, 17, pattern(1480), 0x2000, i)));
  EXPECT_GE(stack->statistics().reassembly_failed, 1800u);
  for (auto& frame : fragments(pattern(3000), 1480, 5000)) inject(frame);
  EXPECT_EQ(receive(*socket).bytes, pattern(3000));
}

TEST_F(Ipv4Test, rfc791_2_3_large_datagrams_are_fragmented) {
  Bytes payload = pattern(4000);
  Endpoint peer{kPeer, 9};
  ASSERT_TRUE(send(*socket, payload, &peer).ok());
  run();
  Bytes whole;
  u16 identification = 0;
  for (int i = 0; i < 3; ++i) {
    Bytes packet = take_ip();
    auto ip = wire::Ipv4::parse(packet);
    ASSERT_TRUE(ip && ip->checksum_valid());
    EXPECT_LE(packet.size(), 1500u);
    EXPECT_EQ(ip->fragment_offset(), whole.size());
    EXPECT_EQ(ip->more_fragments(), i < 2);
    EXPECT_FALSE(ip->dont_fragment());
    if (i == 0) identification = ip->header->identification;
    EXPECT_EQ(ip->header->identification, identification);
    whole = whole + Bytes(ip->payload.begin(), ip->payload.end());
  }
  EXPECT_EQ(whole, udp_message(kOurs, 7, kPeer, 9, payload));
  EXPECT_EQ(stack->statistics().fragments_created, 3u);
}

TEST_F(Ipv4Test, rfc1122_3_3_1_longest_prefix_then_metric) {
  IpAddress a = IpAddress::v4(10, 0, 0, 11), b = IpAddress::v4(10, 0, 0, 12);
  ASSERT_TRUE(stack->add_route({IpAddress::v4(20, 0, 0, 0), 8, true, a, eth, 5}).ok());
  ASSERT_TRUE(stack->add_route({IpAddress::v4(20, 0, 0, 0), 8, true, b, eth, 1}).ok());
  ASSERT_TRUE(stack->add_route({IpAddress::v4(20, 1, 0, 0), 16, true, a, eth, 9}).ok());
  auto asked = [&](IpAddress to) {
    device.sent.clear();
    Endpoint end{to, 9};
    EXPECT_TRUE(send(*socket, text("x"), &end).ok());
    run();
    Bytes frame = take();
    return frame.size() >= 42 && frame[13] == 6 ? IpAddress::v4(&frame[38]) : IpAddress{};
  };
  EXPECT_EQ(asked(IpAddress::v4(20, 2, 3, 4)), b);
  EXPECT_EQ(asked(IpAddress::v4(20, 1, 3, 4)), a);
  EXPECT_EQ(asked(IpAddress::v4(10, 0, 0, 99)), IpAddress::v4(10, 0, 0, 99));
}

TEST_F(Ipv4Test, no_route_is_enetunreach) {
  FakeDevice other;
  create({});
  Endpoint peer{kPeer, 9};
  auto lonely = udp_socket();
  EXPECT_EQ(send(*lonely, text("x"), &peer).error().code(), ENETUNREACH);
  lonely->close();
  socket = nullptr;
}

TEST_F(Ipv4Test, what_the_device_does_not_take_waits_in_order) {
  device.room = 2;
  Endpoint peer{kPeer, 9};
  size_t sent = 0;
  while (send(*socket, Bytes{static_cast<u8>(sent)}, &peer).ok()) ++sent;
  EXPECT_GT(sent, 10u);
  EXPECT_LT(sent, 200u);
  EXPECT_EQ(socket->events() & kWritable, 0u);
  Observer observer;
  socket->set_observer(&observer);
  for (size_t i = 0; i < sent; ++i) {
    run();
    Bytes packet = take_ip();
    ASSERT_EQ(packet.size(), 29u);
    EXPECT_EQ(packet[28], static_cast<u8>(i));
  }
  run();
  EXPECT_TRUE(observer.heard & kWritable);
  EXPECT_TRUE(socket->events() & kWritable);
}

}  // namespace husk::net::testing
