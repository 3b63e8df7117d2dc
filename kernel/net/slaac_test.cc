// Neighbour discovery and stateless configuration.
#include "kernel/net/test_support.h"

namespace husk::net::testing {

class SlaacTest : public World {
 protected:
  static constexpr IpAddress kLinkLocal = {{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1}};
  static constexpr IpAddress kRouter = {{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe}};
  static constexpr IpAddress kGlobal = {{0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xfe, 0, 0, 1}};
  static constexpr IpAddress kOutside = {{0x20, 1, 0xd, 0xb8, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 1}};

  static Bytes prefix(u32 valid, u32 preferred, u8 flags = 0xc0, u8 bits = 64) {
    Bytes option(32);
    *reinterpret_cast<wire::NdpPrefix*>(option.data()) = {3, 4, bits, flags, valid, preferred, 0, {0x20, 1, 0xd, 0xb8, 0, 0, 0, 1}};
    return option;
  }
  static Bytes advertisement(const Bytes& options, u16 lifetime = 1800, const IpAddress& from = kRouter, u8 hop_limit = 255) {
    Bytes message(16);
    *reinterpret_cast<wire::RouterAdvertisementMessage*>(message.data()) = {134, 0, 0, 64, 0, lifetime, 0, 0};
    message = message + options;
    auto sum = pseudo(from, kAllNodesOfTest, 58, message.size());
    sum.add(message);
    wire::store_be16(&message[2], sum.finish());
    return ethernet(wire::kEtherTypeIpv6, ip6(from, kAllNodesOfTest, 58, message, hop_limit), reinterpret_cast<const u8*>("\x33\x33\0\0\0\x01"));
  }
  std::vector<InterfaceAddress> addresses() {
    std::vector<InterfaceAddress> out(16);
    out.resize(stack->addresses(eth, out));
    return out;
  }
  const InterfaceAddress* find(const IpAddress& address) {
    found = addresses();
    for (auto& one : found) {
      if (one.address == address) return &one;
    }
    return nullptr;
  }
  bool reaches_outside() { return tcp->lower.route({kOutside, 80}, {}).ok(); }
  std::vector<InterfaceAddress> found;
};

TEST_F(SlaacTest, rfc4862_5_3_link_local_address_with_detection_then_routers_are_asked) {
  add(Configure::automatically);
  run();
  ASSERT_NE(find(kLinkLocal), nullptr);
  EXPECT_TRUE(find(kLinkLocal)->tentative);
  Bytes solicitation = take_icmp(wire::kIcmpv6NeighbourSolicitation);
  ASSERT_EQ(solicitation.size(), 24u);  // no link address: the source is unspecified
  EXPECT_EQ(IpAddress::v6(&solicitation[8]), kLinkLocal);
  EXPECT_EQ(take_icmp(wire::kIcmpv6RouterSolicitation).size(), 8u);
  pass(1100 * kMillisecond);
  EXPECT_FALSE(find(kLinkLocal)->tentative);
  device.sent.clear();
  pass(20 * kSecond);
  size_t more = 0;
  while (!take_icmp(wire::kIcmpv6RouterSolicitation).empty()) ++more;
  EXPECT_EQ(more, 2u);  // RFC 4861 §6.3.7: three in all
}

TEST_F(SlaacTest, rfc4862_5_4_4_a_duplicate_is_given_up) {
  for (bool advertises : {true, false}) {
    create({});
    add(Configure::automatically);
    run();
    IpAddress all = kAllNodesOfTest, group = {{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1}};
    Bytes frame = advertises ? ndp(wire::kIcmpv6NeighbourAdvertisement, kLinkLocal, all, wire::kNeighbourOverride, kLinkLocal, kOtherMac)
                             : ndp(wire::kIcmpv6NeighbourSolicitation, {}, group, 0, kLinkLocal, nullptr);
    inject(frame);
    EXPECT_EQ(find(kLinkLocal), nullptr) << advertises;
  }
}

TEST_F(SlaacTest, rfc4862_5_5_3_prefix_gives_an_address_and_rfc4861_6_3_4_a_router) {
  add(Configure::automatically);
  run();
  EXPECT_FALSE(reaches_outside());
  Bytes link = {1, 1, 2, 0, 0, 0, 0, 2}, mtu = {5, 1, 0, 0, 0, 0, 5, 120}, dns = {25, 3, 0, 0, 0, 0, 2, 88};
  dns.insert(dns.end(), kPeer6.bytes, kPeer6.bytes + 16);
  inject(advertisement(prefix(7200, 3600) + link + mtu + dns));
  ASSERT_NE(find(kGlobal), nullptr);
  EXPECT_EQ(find(kGlobal)->prefix_bits, 64);
  EXPECT_TRUE(reaches_outside());
  EXPECT_EQ(tcp->lower.route({kOutside, 80}, {})->local, kGlobal);
  EXPECT_EQ(tcp->lower.route({kOutside, 80}, {})->mtu, 1400);
  IpAddress servers[4];
  ASSERT_EQ(stack->name_servers(servers), 1u);
  EXPECT_EQ(servers[0], kPeer6);
  EXPECT_GT(names, 0);
  pass(601 * kSecond);
  EXPECT_EQ(stack->name_servers(servers), 0u);
  pass(1300 * kSecond);
  EXPECT_FALSE(reaches_outside());  // the router's lifetime is over
  EXPECT_NE(find(kGlobal), nullptr);
  pass(5400 * kSecond);
  EXPECT_EQ(find(kGlobal), nullptr);
}

TEST_F(SlaacTest, rfc6724_5_rule_3_a_source_is_left_when_it_is_deprecated) {
  add(Configure::automatically);
  Bytes other = prefix(7200, 3600);
  other[19] = 0xb9;
  inject(advertisement(prefix(7200, 100) + other));
  EXPECT_EQ(tcp->lower.route({kOutside, 80}, {})->local, kGlobal);
  pass(101 * kSecond);
  EXPECT_EQ(tcp->lower.route({kOutside, 80}, {})->local.bytes[3], 0xb9);
}

TEST_F(SlaacTest, rfc8106_5_2_a_search_domain_is_one_word) {
  add(Configure::automatically);
  Bytes list = {31, 3, 0, 0, 0, 0, 2, 88, 5, 'a', '\n', 'b', ' ', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  inject(advertisement(list));
  EXPECT_EQ(stack->search_domain(), "");
  list[10] = list[12] = '-';
  inject(advertisement(list));
  EXPECT_EQ(stack->search_domain(), "a-b-c");
}

TEST_F(SlaacTest, rfc4861_6_3_4_lifetime_zero_removes_the_router) {
  add(Configure::automatically);
  inject(advertisement(prefix(7200, 3600)));
  EXPECT_TRUE(reaches_outside());
  inject(advertisement({}, 0));
  EXPECT_FALSE(reaches_outside());
}

TEST_F(SlaacTest, rfc4862_5_5_3_e_a_life_is_not_shortened_below_two_hours) {
  add(Configure::automatically);
  inject(advertisement(prefix(86400, 86400)));
  inject(advertisement(prefix(10, 10)));
  ASSERT_NE(find(kGlobal), nullptr);
  EXPECT_EQ(find(kGlobal)->valid_until_ns, now + 7200 * kSecond);
}

TEST_F(SlaacTest, rfc4861_6_1_2_forged_advertisements_are_dropped) {
  add(Configure::automatically);
  run();
  inject(advertisement(prefix(7200, 3600), 1800, kRouter, 254));
  inject(advertisement(prefix(7200, 3600), 1800, kPeer6));
  inject(advertisement(prefix(7200, 7300)));               // preferred longer than valid
  inject(advertisement(prefix(7200, 3600, 0xc0, 65), 0));  // no interface identifier fits
  inject(advertisement(prefix(7200, 3600) + Bytes{1, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(find(kGlobal), nullptr);
}

TEST_F(SlaacTest, manual_interfaces_listen_to_no_router) {
  configure();
  inject(advertisement(prefix(7200, 3600)));
  EXPECT_EQ(find(kGlobal), nullptr);
  EXPECT_FALSE(reaches_outside());
}

TEST_F(SlaacTest, prefixes_without_end_are_bounded) {
  add(Configure::automatically);
  for (u32 i = 0; i < 1000; ++i) {
    Bytes option = prefix(7200, 3600);
    wire::store_be32(&option[20], i);
    inject(advertisement(option));
  }
  EXPECT_LE(addresses().size(), 32u);
  Route routes[300];
  EXPECT_LE(stack->routes(routes), 256u);
  for (u8 i = 0; i < 100; ++i) {  // routers leave room for others
    EXPECT_TRUE(stack->add_route({IpAddress::v4(10, 1, i, 0), 24, true, kGateway, eth, 0}).ok());
  }
}

// Of two routers one dies: the other takes over.
TEST_F(SlaacTest, rfc4861_6_3_6_a_router_that_does_not_answer_is_not_preferred) {
  IpAddress second = kRouter;
  second.bytes[15] = 0xfd;
  add(Configure::automatically);
  inject(advertisement(prefix(7200, 3600)));
  inject(advertisement({}, 1800, second));
  pass(2 * kSecond);
  size_t sent[2] = {};
  u8 alive = 0xfd;
  auto talk = [&](int seconds) {
    sent[0] = sent[1] = 0;
    for (int i = 0; i < seconds; ++i) {
      tcp->lower.output({{kGlobal, 80}, {kOutside, 90}}, {}, nullptr, 0, 0, 0);
      pass(kSecond);
      while (!device.sent.empty()) {
        Bytes frame = take();
        if (frame.size() < 74 || frame[12] != 0x86) continue;
        if (frame[20] == wire::kProtocolTcp) ++sent[frame[5] == 3];
        if (frame[20] != wire::kProtocolIcmpv6 || frame[54] != wire::kIcmpv6NeighbourSolicitation || frame[77] != alive) continue;
        IpAddress target = IpAddress::v6(&frame[62]);
        u8 flags = wire::kNeighbourSolicited | wire::kNeighbourOverride | wire::kNeighbourRouter;
        inject(ndp(wire::kIcmpv6NeighbourAdvertisement, target, kLinkLocal, flags, target, alive == 0xfd ? kOtherMac : kPeerMac));
      }
    }
  };
  talk(300);
  EXPECT_EQ(sent[0], 0u);
  EXPECT_GT(sent[1], 290u);
  alive = 0xfe;  // and the other way round
  talk(300);
  EXPECT_GT(sent[0], 250u);
  EXPECT_LT(sent[1], 50u);
}

// --- RFC 4861 §7 --------------------------------------------------------------------------------------------------------------------

TEST_F(SlaacTest, rfc4861_7_2_4_solicitations_are_answered) {
  configure();
  inject(ndp(wire::kIcmpv6NeighbourSolicitation, kPeer6, kOurs6, 0, kOurs6, kPeerMac));
  Bytes answer = take_icmp(wire::kIcmpv6NeighbourAdvertisement);
  ASSERT_EQ(answer.size(), 32u);
  EXPECT_EQ(answer[4], wire::kNeighbourSolicited | wire::kNeighbourOverride);
  EXPECT_EQ(memcmp(&answer[26], kOurMac, 6), 0);
  inject(ndp(wire::kIcmpv6NeighbourSolicitation, kPeer6, kOurs6, 0, kOurs6, kPeerMac, 254));
  inject(ndp(wire::kIcmpv6NeighbourSolicitation, kPeer6, kOurs6, 0, kPeer6, kPeerMac));
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(SlaacTest, rfc4861_7_2_5_advertisements) {
  configure();
  auto mac_of = [&] {
    device.sent.clear();
    tcp->lower.output({{kOurs6, 80}, {kPeer6, 90}}, {}, nullptr, 0, 0, 0);
    run();
    Bytes frame = take();
    return Bytes(frame.begin(), frame.begin() + 6);
  };
  Bytes peer(kPeerMac, kPeerMac + 6), other(kOtherMac, kOtherMac + 6);
  EXPECT_EQ(mac_of(), peer);
  inject(ndp(wire::kIcmpv6NeighbourAdvertisement, kPeer6, kOurs6, 0, kPeer6, kOtherMac));
  EXPECT_EQ(mac_of(), peer);  // without override
  inject(ndp(wire::kIcmpv6NeighbourAdvertisement, kPeer6, kOurs6, wire::kNeighbourOverride, kPeer6, kOtherMac));
  EXPECT_EQ(mac_of(), other);
  IpAddress stranger = kPeer6;
  stranger.bytes[15] = 99;
  Neighbour out[8];
  size_t before = stack->neighbours(out);
  inject(ndp(wire::kIcmpv6NeighbourAdvertisement, stranger, kOurs6, wire::kNeighbourOverride, stranger, kOtherMac));
  EXPECT_EQ(stack->neighbours(out), before);
}

TEST_F(SlaacTest, rfc4861_7_2_2_resolution) {
  configure();
  IpAddress stranger = kPeer6;
  stranger.bytes[15] = 99;
  tcp->lower.output({{kOurs6, 80}, {stranger, 90}}, {}, nullptr, 0, 0, 0);
  run();
  Bytes frame = take();
  ASSERT_EQ(frame.size(), 14u + 40 + 32);
  EXPECT_EQ(memcmp(frame.data(), "\x33\x33\xff\0\0\x63", 6), 0);
  inject(ndp(wire::kIcmpv6NeighbourAdvertisement, stranger, kOurs6, wire::kNeighbourSolicited | wire::kNeighbourOverride, stranger, kOtherMac));
  EXPECT_EQ(take_ip().size(), 60u);
}

}  // namespace husk::net::testing
