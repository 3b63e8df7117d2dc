// ARP and the neighbour cache.
#include "kernel/net/test_support.h"

namespace husk::net::testing {

class NeighboursTest : public World {
 protected:
  void SetUp() override {
    World::SetUp();
    add();
    ASSERT_TRUE(stack->add_address(eth, kOurs, 24).ok());
    run();
    socket = udp_socket();
    ASSERT_TRUE(socket->bind({kOurs, 7}).ok());
  }
  void TearDown() override { socket->close(); }
  Bytes next_arp() {
    Bytes frame = take();
    if (frame.size() != 42 || frame[12] != 8 || frame[13] != 6) return {};
    return frame;
  }
  void say(std::string_view what, IpAddress to = kPeer) {
    Endpoint end{to, 9};
    ASSERT_TRUE(send(*socket, text(what), &end).ok());
    run();
  }
  size_t known() {
    Neighbour out[1];
    return stack->neighbours(out);
  }
  Ref<udp::Socket> socket;
};

TEST_F(NeighboursTest, rfc5227_2_3_an_address_is_announced) {
  Bytes frame = next_arp();
  ASSERT_FALSE(frame.empty());
  EXPECT_EQ(IpAddress::v4(&frame[28]), kOurs);
  EXPECT_EQ(IpAddress::v4(&frame[38]), kOurs);
  EXPECT_EQ(memcmp(&frame[0], wire::kMacBroadcast, 6), 0);
}

TEST_F(NeighboursTest, rfc826_a_request_for_us_is_answered_and_learnt) {
  device.sent.clear();
  inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs));
  Bytes frame = next_arp();
  ASSERT_FALSE(frame.empty());
  EXPECT_EQ(frame[21], wire::kArpReply);
  EXPECT_EQ(memcmp(&frame[0], kPeerMac, 6), 0);
  EXPECT_EQ(memcmp(&frame[22], kOurMac, 6), 0);
  EXPECT_EQ(known(), 1u);
  say("hello");
  EXPECT_EQ(take_ip().size(), 33u);
}

TEST_F(NeighboursTest, rfc826_what_is_not_for_us_teaches_nothing) {
  device.sent.clear();
  inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kGateway));
  inject(arp(wire::kArpReply, kPeerMac, kPeer, kOurMac, kOurs));
  EXPECT_EQ(known(), 0u);
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(NeighboursTest, rfc5227_1_1_a_probe_is_answered_and_not_learnt) {
  device.sent.clear();
  inject(arp(wire::kArpRequest, kPeerMac, IpAddress::v4(0, 0, 0, 0), nullptr, kOurs));
  EXPECT_EQ(device.sent.size(), 1u);
  EXPECT_EQ(known(), 0u);
}

TEST_F(NeighboursTest, rfc1122_2_3_2_2_packets_wait_for_the_answer) {
  device.sent.clear();
  for (int i = 0; i < 1000; ++i) say(std::to_string(i));
  Bytes request = next_arp();
  ASSERT_FALSE(request.empty());
  EXPECT_EQ(IpAddress::v4(&request[38]), kPeer);
  EXPECT_TRUE(device.sent.empty());
  inject(arp(wire::kArpReply, kPeerMac, kPeer, kOurMac, kOurs));
  size_t waited = device.sent.size();  // the last ones
  EXPECT_GT(waited, 100u);
  EXPECT_EQ(waited + stack->statistics().out_discards, 1000u);
  Bytes first = take_ip();
  EXPECT_EQ(Bytes(first.begin() + 28, first.end()), text(std::to_string(1000 - waited)));
}

TEST_F(NeighboursTest, rfc4861_7_2_2_all_fragments_of_a_datagram_wait) {
  device.sent.clear();
  say(std::string(65507, 'x'));
  device.sent.clear();
  inject(arp(wire::kArpReply, kPeerMac, kPeer, kOurMac, kOurs));
  EXPECT_EQ(device.sent.size(), 45u);
  EXPECT_EQ(stack->statistics().out_discards, 0u);
}

TEST_F(NeighboursTest, rfc1122_2_3_2_1_requests_are_repeated_once_a_second_and_given_up) {
  device.sent.clear();
  say("lost");
  pass(10 * kSecond);
  size_t requests = 0;
  while (!next_arp().empty()) ++requests;
  EXPECT_EQ(requests, 3u);
  EXPECT_EQ(known(), 0u);
}

TEST_F(NeighboursTest, tcp_hears_of_a_host_that_does_not_answer) {
  tcp::Segment syn;
  syn.seq = {1000};
  syn.flags = tcp::kSyn;
  tcp->lower.output({{kOurs, 40000}, {kPeer, 80}}, syn, nullptr, 0, 0, 0);
  pass(4 * kSecond);
  ASSERT_EQ(tcp->failures.size(), 1u);
  EXPECT_EQ(tcp->failures[0].error, EHOSTUNREACH);
  EXPECT_EQ(tcp->failures[0].sequence.value, 1000u);
  EXPECT_EQ(tcp->failures[0].flow.remote, (Endpoint{kPeer, 80}));
}

TEST_F(NeighboursTest, rfc4861_7_3_3_a_neighbour_in_use_is_probed_and_forgotten_when_silent) {
  inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs));
  device.sent.clear();
  say("x");  // stale → delay
  device.sent.clear();
  pass(4900 * kMillisecond);
  EXPECT_TRUE(device.sent.empty());
  pass(200 * kMillisecond);
  Bytes probe = next_arp();
  ASSERT_FALSE(probe.empty());
  EXPECT_EQ(memcmp(&probe[0], kPeerMac, 6), 0);  // unicast
  inject(arp(wire::kArpReply, kPeerMac, kPeer, kOurMac, kOurs));
  pass(20 * kSecond);
  EXPECT_TRUE(device.sent.empty());  // confirmed
  pass(15 * kSecond);
  say("y");  // no longer reachable → delay → probes → gone
  pass(20 * kSecond);
  EXPECT_EQ(known(), 0u);
}

TEST_F(NeighboursTest, rfc1122_3_3_1_4_another_gateway_is_taken_until_the_better_one_says_something) {
  IpAddress network = IpAddress::v4(192, 0, 2, 0);
  ASSERT_TRUE(stack->add_route({network, 24, true, kPeer, eth, 1}).ok());
  ASSERT_TRUE(stack->add_route({network, 24, true, kGateway, eth, 0}).ok());
  inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs));
  device.sent.clear();
  auto gateway_of = [&](u8 host) {
    say("x", IpAddress::v4(192, 0, 2, host));
    Bytes frame = take();
    return frame[13] == 0 ? frame[5] : 0;
  };
  EXPECT_EQ(gateway_of(1), 0);  // asks
  pass(4 * kSecond);
  device.sent.clear();
  EXPECT_EQ(gateway_of(1), kPeerMac[5]);
  EXPECT_EQ(gateway_of(2), kPeerMac[5]);
  inject(arp(wire::kArpRequest, kOtherMac, kGateway, nullptr, kOurs));
  device.sent.clear();
  EXPECT_EQ(gateway_of(3), kOtherMac[5]);
}

TEST_F(NeighboursTest, gratuitous_arp_updates_what_is_known_only) {
  inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs));
  inject(arp(wire::kArpRequest, kOtherMac, kGateway, nullptr, kGateway));
  EXPECT_EQ(known(), 1u);
  inject(arp(wire::kArpRequest, kOtherMac, kPeer, nullptr, kPeer));  // moved
  device.sent.clear();
  say("x");
  EXPECT_EQ(memcmp(take().data(), kOtherMac, 6), 0);
}

TEST_F(NeighboursTest, somebody_who_claims_our_address_is_ignored) {
  device.sent.clear();
  inject(arp(wire::kArpRequest, kOtherMac, kOurs, nullptr, kOurs));
  EXPECT_EQ(known(), 0u);
  InterfaceAddress addresses[4];
  EXPECT_EQ(stack->addresses(eth, addresses), 1u);
}

TEST_F(NeighboursTest, a_flood_of_requests_is_bounded_and_spares_neighbours_in_use) {
  inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs));
  say("x");
  for (u32 i = 0; i < 5000; ++i) {
    u8 mac[6] = {2, 9, 0, 0, static_cast<u8>(i >> 8), static_cast<u8>(i)};
    inject(arp(wire::kArpRequest, mac, IpAddress::v4(10, 0, static_cast<u8>(i >> 8), static_cast<u8>(i)), nullptr, kOurs));
    device.sent.clear();
  }
  EXPECT_LE(known(), 512u);
  say("y");
  EXPECT_EQ(take_ip().back(), 'y');
}

TEST_F(NeighboursTest, malformed_arp_is_dropped) {
  device.sent.clear();
  Bytes good = arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs);
  for (size_t at : {14, 16, 18, 19, 20}) {
    Bytes bad = good;
    bad[at] ^= 0x40;
    inject(bad);
  }
  for (size_t size = 0; size < good.size(); ++size) inject(Bytes(good.begin(), good.begin() + static_cast<long>(size)));
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(NeighboursTest, what_waits_for_neighbours_is_bounded) {
  std::string large(1400, 'x');
  for (u8 host = 10; host < 250; ++host) {
    for (int i = 0; i < 4; ++i) say(large, IpAddress::v4(10, 0, 0, host));
  }
  u64 discarded = stack->statistics().out_discards;
  EXPECT_GT(discarded, 50u);
  EXPECT_LT(discarded, 480u);
  pass(10 * kSecond);  // all of them have failed: there is room again
  device.sent.clear();
  say("again");
  EXPECT_EQ(stack->statistics().out_discards, discarded);
}

}  // namespace husk::net::testing
