// ICMP and ICMPv6: echo, what is answered with an error and what never, and what errors do.
#include "kernel/net/test_support.h"

namespace husk::net::testing {

class IcmpTest : public World {
 protected:
  void SetUp() override {
    World::SetUp();
    configure();
  }
  Bytes tcp_segment(const IpAddress& from, const IpAddress& to, u32 sequence) {
    Bytes bytes(20);
    *reinterpret_cast<wire::TcpHeader*>(bytes.data()) = {40000, 80, sequence, 0, 0x50, 16, 1000, 0, 0};
    Bytes big = bytes + Bytes(1400);
    return from.is_v4() ? ip4(from, to, 6, big, 0x4000) : ip6(from, to, 6, big);
  }
};

TEST_F(IcmpTest, rfc1122_3_2_2_6_echo_is_answered) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{56}, size_t{1452}}) {
    inject(frame_of(ip4(kPeer, kOurs, 1, icmp4(8, 0, 0x1234, 9, pattern(size)))));
    EXPECT_EQ(take_icmp(0), icmp4(0, 0, 0x1234, 9, pattern(size)));
    inject(frame_of(ip6(kPeer6, kOurs6, 58, icmp6(kPeer6, kOurs6, 128, 0, 0x12340009, pattern(size)))));
    EXPECT_EQ(take_icmp(129), icmp6(kOurs6, kPeer6, 129, 0, 0x12340009, pattern(size)));
  }
}

TEST_F(IcmpTest, rfc1122_3_2_2_6_a_fragmented_echo_is_answered_in_fragments) {
  Bytes message = icmp4(8, 0, 1, 1, pattern(3000));
  for (u32 at = 0; at < message.size(); at += 1480) {
    u32 end = std::min<u32>(at + 1480, static_cast<u32>(message.size()));
    inject(frame_of(
        ip4(kPeer, kOurs, 1, Bytes(message.begin() + at, message.begin() + end), static_cast<u16>(at / 8 | (end < message.size() ? 0x2000 : 0)))));
  }
  Bytes reply;
  for (int i = 0; i < 3; ++i) {
    Bytes packet = take_ip();
    ASSERT_GT(packet.size(), 20u);
    reply.insert(reply.end(), packet.begin() + 20, packet.end());
  }
  EXPECT_EQ(reply, icmp4(0, 0, 1, 1, pattern(3000)));
}

TEST_F(IcmpTest, broken_messages_are_dropped) {
  Bytes bad = icmp4(8, 0, 1, 1, pattern(8));
  bad[9] ^= 1;
  inject(frame_of(ip4(kPeer, kOurs, 1, bad)));
  inject(frame_of(ip4(kPeer, kOurs, 1, Bytes(7))));
  inject(frame_of(ip4(kPeer, IpAddress::v4(10, 0, 0, 255), 1, icmp4(8, 0, 1, 1, {}))));  // no smurf
  Bytes bad6 = icmp6(kPeer6, kOurs6, 128, 0, 0, pattern(8));
  bad6[9] ^= 1;
  inject(frame_of(ip6(kPeer6, kOurs6, 58, bad6)));
  EXPECT_TRUE(device.sent.empty());
  EXPECT_EQ(stack->statistics().icmp_in_errors, 3u);
}

TEST_F(IcmpTest, rfc1122_3_2_2_no_error_about_errors_groups_or_nobody) {
  Bytes quoted = udp(kOurs, 99, kPeer, 9, text("x"));
  IpAddress broadcast = IpAddress::v4(10, 0, 0, 255);
  inject(frame_of(ip4(kPeer, kOurs, 1, icmp4(wire::kIcmpUnreachable, 3, 0, 0, quoted))));
  inject(ethernet(wire::kEtherTypeIpv4, udp(kPeer, 9, broadcast, 99, text("x")), wire::kMacBroadcast));
  inject(frame_of(ip4(broadcast, kOurs, 99, text("x"))));
  inject(frame_of(ip4(kPeer, kOurs, 99, text("12345678"), 10)));  // a later fragment
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(IcmpTest, rfc1812_4_3_2_8_errors_are_limited_in_rate) {
  for (int i = 0; i < 1000; ++i) inject(frame_of(udp(kPeer, 9, kOurs, 99, text("x"))));
  size_t first = device.sent.size();
  EXPECT_GE(first, 40u);
  EXPECT_LE(first, 60u);
  pass(kSecond);
  device.sent.clear();
  for (int i = 0; i < 1000; ++i) inject(frame_of(udp(kPeer, 9, kOurs, 99, text("x"))));
  EXPECT_LE(device.sent.size(), 60u);
  EXPECT_GE(device.sent.size(), 40u);
}

TEST_F(IcmpTest, rfc5927_4_errors_go_to_tcp_with_the_sequence_number) {
  struct Case {
    u8 code;
    u16 mtu;
    int error;
    u16 told;
  };
  for (Case one : {Case{0, 0, ENETUNREACH, 0},
                   {1, 0, EHOSTUNREACH, 0},
                   {3, 0, ECONNREFUSED, 0},
                   {4, 1200, EMSGSIZE, 1200},
                   {4, 60, EMSGSIZE, 552},
                   {4, 0, EMSGSIZE, 1006}}) {
    tcp->failures.clear();
    inject(frame_of(ip4(kGateway, kOurs, 1, icmp4(wire::kIcmpUnreachable, one.code, 0, one.mtu, tcp_segment(kOurs, kPeer, 77)))));
    ASSERT_EQ(tcp->failures.size(), 1u);
    EXPECT_EQ(tcp->failures[0].error, one.error);
    EXPECT_EQ(tcp->failures[0].mtu, one.told);
    EXPECT_EQ(tcp->failures[0].sequence.value, 77u);
    EXPECT_EQ(tcp->failures[0].flow, (Flow{{kOurs, 40000}, {kPeer, 80}}));
  }
  tcp->failures.clear();
  // Not about us; too little quoted; larger than what we sent.
  inject(frame_of(ip4(kGateway, kOurs, 1, icmp4(wire::kIcmpUnreachable, 3, 0, 0, tcp_segment(kPeer, kOurs, 77)))));
  Bytes little = tcp_segment(kOurs, kPeer, 77);
  little.resize(27);
  inject(frame_of(ip4(kGateway, kOurs, 1, icmp4(wire::kIcmpUnreachable, 3, 0, 0, little))));
  inject(frame_of(ip4(kGateway, kOurs, 1, icmp4(wire::kIcmpUnreachable, 4, 0, 9000, tcp_segment(kOurs, kPeer, 77)))));
  EXPECT_TRUE(tcp->failures.empty());
}

TEST_F(IcmpTest, rfc8201_packet_too_big) {
  Bytes quoted = tcp_segment(kOurs6, kPeer6, 5);
  for (u32 mtu : {1400u, 100u, 100000u}) {
    inject(frame_of(ip6(kPeer6, kOurs6, 58, icmp6(kPeer6, kOurs6, wire::kIcmpv6PacketTooBig, 0, mtu, quoted))));
  }
  ASSERT_EQ(tcp->failures.size(), 2u);
  EXPECT_EQ(tcp->failures[0].mtu, 1400);
  EXPECT_EQ(tcp->failures[1].mtu, 1280);
}

// --- IPv6 itself --------------------------------------------------------------------------------------------------------------------

TEST_F(IcmpTest, rfc8200_4_extension_headers_are_walked) {
  Bytes echo = icmp6(kPeer6, kOurs6, 128, 0, 7, pattern(8));
  Bytes hop = {60, 0, 1, 4, 0, 0, 0, 0}, destination = {43, 0, 1, 4, 0, 0, 0, 0}, routing = {58, 0, 0, 0, 0, 0, 0, 0};
  inject(frame_of(ip6(kPeer6, kOurs6, 0, hop + destination + routing + echo)));
  EXPECT_EQ(take_icmp(129), icmp6(kOurs6, kPeer6, 129, 0, 7, pattern(8)));
}

TEST_F(IcmpTest, rfc8200_4_problems_are_reported) {
  struct Case {
    const char* what;
    u8 next;
    Bytes headers;
    u8 code;
    u32 pointer;
  };
  Bytes echo = icmp6(kPeer6, kOurs6, 128, 0, 7, {});
  for (const Case& one : {Case{"unrecognised option", 60, {58, 0, 0x80, 4, 0, 0, 0, 0}, 2, 42},
                          {"routing header with segments left", 43, {58, 0, 0, 1, 0, 0, 0, 0}, 0, 42},
                          {"unrecognised next header", 99, {}, 1, 6}}) {
    inject(frame_of(ip6(kPeer6, kOurs6, one.next, one.headers + echo)));
    Bytes message = take_icmp(wire::kIcmpv6ParameterProblem);
    ASSERT_GE(message.size(), 8u) << one.what;
    EXPECT_EQ(message[1], one.code) << one.what;
    EXPECT_EQ(wire::load_be32(&message[4]), one.pointer) << one.what;
  }
  inject(frame_of(ip6(kPeer6, kOurs6, 60, Bytes{58, 0, 0x40, 4, 0, 0, 0, 0} + echo)));  // to be dropped in silence
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(IcmpTest, rfc8200_4_5_fragments) {
  Bytes message = icmp6(kPeer6, kOurs6, 128, 0, 7, pattern(4000));
  auto part = [&](u32 at, u32 end, u32 identification) {
    Bytes header = {58, 0, 0, 0, 0, 0, 0, 0};
    wire::store_be16(&header[2], static_cast<u16>(at | (end < message.size() ? 1 : 0)));
    wire::store_be32(&header[4], identification);
    return frame_of(
        ip6(kPeer6, kOurs6, 44, header + Bytes(message.begin() + at, message.begin() + std::min<u32>(end, static_cast<u32>(message.size())))));
  };
  for (u32 at : {2800u, 0u, 1400u}) inject(part(at, at + 1400, 1));
  Bytes reply;
  while (!device.sent.empty()) {
    Bytes packet = take_ip();
    ASSERT_EQ(packet[6], 44);
    EXPECT_LE(packet.size(), 1500u);
    reply.insert(reply.end(), packet.begin() + 48, packet.end());
  }
  EXPECT_EQ(reply, icmp6(kOurs6, kPeer6, 129, 0, 7, pattern(4000)));
  // RFC 5722: an overlap ends it.
  inject(part(0, 1400, 2));
  inject(part(1392, 2800, 2));
  inject(part(1400, 2800, 2));
  inject(part(2800, 4200, 2));
  EXPECT_TRUE(device.sent.empty());
  // A fragment that is not the last and no multiple of 8.
  inject(part(0, 1401, 3));
  Bytes problem = take_icmp(wire::kIcmpv6ParameterProblem);
  ASSERT_GE(problem.size(), 8u);
  EXPECT_EQ(wire::load_be32(&problem[4]), 4u);
}

TEST_F(IcmpTest, rfc4291_2_5_3_martians) {
  for (auto source : {IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, kAllNodesOfTest, IpAddress::v4(10, 0, 0, 2)}) {
    inject(frame_of(ip6(source, kOurs6, 58, icmp6(source, kOurs6, 128, 0, 7, {}))));
  }
  EXPECT_TRUE(device.sent.empty());
  EXPECT_EQ(stack->statistics().in_address_errors, 3u);
}

}  // namespace husk::net::testing
