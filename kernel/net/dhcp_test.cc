// The DHCP client against a server made of frames.
#include "kernel/net/test_support.h"
#include "wire/dhcp.h"

namespace husk::net::testing {

class DhcpTest : public World {
 protected:
  static constexpr IpAddress kServer = IpAddress::v4(10, 0, 0, 254);

  void SetUp() override {
    World::SetUp();
    add(Configure::automatically);
    run();
  }
  // The client's next message; others are skipped.
  std::optional<wire::Dhcp> next() {
    while (!device.sent.empty()) {
      message = take_ip();
      if (message.size() < 28 + 240 || message[0] != 0x45 || message[9] != 17 || wire::load_be16(&message[22]) != 67) continue;
      auto sum = pseudo(IpAddress::v4(&message[12]), IpAddress::v4(&message[16]), 17, message.size() - 20);
      sum.add({message.data() + 20, message.size() - 20});
      EXPECT_TRUE(sum.valid());
      auto parsed = wire::Dhcp::parse({message.data() + 28, message.size() - 28});
      if (parsed) transaction = parsed->header->transaction;
      return parsed;
    }
    return std::nullopt;
  }
  void answer(wire::DhcpType type, const IpAddress& yours = kOurs, bool broadcast = true, const std::function<void(wire::DhcpBuilder&)>& more = {}) {
    Bytes bytes(576);
    wire::DhcpBuilder builder(bytes, type, transaction, kOurMac);
    builder.header()->operation = 2;
    memcpy(builder.header()->your_address, yours.v4_bytes(), 4);
    builder.add(wire::kDhcpServerIdentifier, {kServer.v4_bytes(), 4});
    if (type != wire::kDhcpNak) {
      builder.add_u32(wire::kDhcpLeaseTime, lease);
      builder.add_u32(wire::kDhcpSubnetMask, 0xffffff00);
      builder.add(wire::kDhcpRouter, {kServer.v4_bytes(), 4});
      u8 dns[8] = {10, 0, 0, 254, 8, 8, 8, 8};
      builder.add(wire::kDhcpDnsServer, dns);
      builder.add(wire::kDhcpDomainName, text("example.org"));
      builder.add_u16(wire::kDhcpInterfaceMtu, 1400);
    }
    if (more) more(builder);
    bytes.resize(builder.finish());
    IpAddress to = broadcast ? IpAddress::v4(255, 255, 255, 255) : yours;
    inject(ethernet(wire::kEtherTypeIpv4, udp(kServer, 67, to, 68, bytes), broadcast ? wire::kMacBroadcast : kOurMac));
  }
  void obtain() {
    ASSERT_TRUE(next());
    answer(wire::kDhcpOffer);
    ASSERT_TRUE(next());
    answer(wire::kDhcpAck);
  }
  bool has_address() {
    InterfaceAddress out[8];
    size_t count = stack->addresses(eth, out);
    for (size_t i = 0; i < count; ++i) {
      if (out[i].address == kOurs) return true;
    }
    return false;
  }
  Bytes message;
  u32 transaction = 0, lease = 3600;
};

TEST_F(DhcpTest, rfc2131_4_4_1_discover_offer_request_ack) {
  EXPECT_FALSE(stack->configured());
  auto discover = next();
  ASSERT_TRUE(discover);
  EXPECT_EQ(discover->type(), wire::kDhcpDiscover);
  EXPECT_EQ(IpAddress::v4(&message[12]), IpAddress::v4(0, 0, 0, 0));
  auto name = discover->find(wire::kDhcpHostName);
  EXPECT_EQ(Bytes(name.begin(), name.end()), text("husk"));
  answer(wire::kDhcpOffer);
  auto request = next();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->type(), wire::kDhcpRequest);
  EXPECT_EQ(IpAddress::v4(request->address(wire::kDhcpRequestedAddress)), kOurs);
  EXPECT_EQ(IpAddress::v4(request->address(wire::kDhcpServerIdentifier)), kServer);
  EXPECT_FALSE(has_address());
  answer(wire::kDhcpAck, kOurs, false);  // by unicast to an address that is not there yet
  EXPECT_TRUE(has_address());
  EXPECT_TRUE(stack->configured());
  IpAddress servers[4];
  EXPECT_EQ(stack->name_servers(servers), 2u);
  EXPECT_EQ(stack->search_domain(), "example.org");
  auto route = tcp->lower.route({IpAddress::v4(8, 8, 8, 8), 53}, {});
  ASSERT_TRUE(route.ok());
  EXPECT_EQ(route->local, kOurs);
  EXPECT_EQ(route->mtu, 1400);
}

TEST_F(DhcpTest, rfc2131_4_1_discovers_are_repeated_with_backoff) {
  std::vector<u64> times;
  u64 start = now;
  for (int i = 0; i < 200; ++i) {
    while (auto discover = next()) times.push_back(now - start);
    pass(500 * kMillisecond);
  }
  ASSERT_GE(times.size(), 6u);
  ASSERT_LE(times.size(), 9u);
  for (size_t i = 2; i < times.size(); ++i) EXPECT_GE(times[i] - times[i - 1] + kSecond, times[i - 1] - times[i - 2]);
  EXPECT_TRUE(stack->configured());  // nobody is there: the machine goes on
}

TEST_F(DhcpTest, rfc2131_3_1_4_nak_starts_again) {
  ASSERT_TRUE(next());
  answer(wire::kDhcpOffer);
  ASSERT_TRUE(next());
  answer(wire::kDhcpNak, IpAddress::v4(0, 0, 0, 0));
  auto discover = next();
  ASSERT_TRUE(discover);
  EXPECT_EQ(discover->type(), wire::kDhcpDiscover);
  answer(wire::kDhcpOffer);
  ASSERT_TRUE(next());
  answer(wire::kDhcpAck);
  EXPECT_TRUE(has_address());
}

TEST_F(DhcpTest, rfc2131_4_4_5_renewal_by_unicast_then_rebinding_then_the_end) {
  obtain();
  device.sent.clear();
  inject(arp(wire::kArpRequest, kPeerMac, kServer, nullptr, kOurs));
  pass(1790 * kSecond);
  EXPECT_FALSE(next());
  pass(20 * kSecond);
  inject(arp(wire::kArpRequest, kPeerMac, kServer, nullptr, kOurs));
  auto renewal = next();
  ASSERT_TRUE(renewal);
  EXPECT_EQ(renewal->type(), wire::kDhcpRequest);
  EXPECT_EQ(IpAddress::v4(&message[16]), kServer);
  EXPECT_EQ(IpAddress::v4(renewal->header->client_address), kOurs);
  EXPECT_EQ(renewal->address(wire::kDhcpRequestedAddress), nullptr);
  answer(wire::kDhcpAck, kOurs, false);
  u64 renewed = now;
  device.sent.clear();
  pass(1700 * kSecond);
  EXPECT_FALSE(next());
  pass(renewed + 3160 * kSecond - now);  // behind T2 without an answer
  bool rebinding = false;
  while (auto request = next()) rebinding |= IpAddress::v4(&message[16]).is_limited_broadcast();
  EXPECT_TRUE(rebinding);
  EXPECT_TRUE(has_address());
  pass(500 * kSecond);
  EXPECT_FALSE(has_address());
  IpAddress servers[4];
  EXPECT_EQ(stack->name_servers(servers), 0u);
  EXPECT_FALSE(tcp->lower.route({IpAddress::v4(8, 8, 8, 8), 53}, {}).ok());
}

TEST_F(DhcpTest, rfc2131_3_1_5_an_address_in_use_is_declined) {
  obtain();
  EXPECT_TRUE(has_address());
  device.sent.clear();
  inject(arp(wire::kArpReply, kOtherMac, kOurs, kOurMac, IpAddress::v4(0, 0, 0, 0)));
  EXPECT_FALSE(has_address());
  auto decline = next();
  ASSERT_TRUE(decline);
  EXPECT_EQ(decline->type(), wire::kDhcpDecline);
  pass(9 * kSecond);
  EXPECT_FALSE(next());
  pass(2 * kSecond);
  EXPECT_TRUE(next());
}

TEST_F(DhcpTest, rfc3442_classless_routes_replace_the_router) {
  ASSERT_TRUE(next());
  answer(wire::kDhcpOffer);
  ASSERT_TRUE(next());
  answer(wire::kDhcpAck, kOurs, true, [](wire::DhcpBuilder& builder) {
    const u8 routes[] = {16, 172, 16, 10, 0, 0, 9};
    builder.add(wire::kDhcpClasslessRoutes, routes);
  });
  EXPECT_TRUE(tcp->lower.route({IpAddress::v4(172, 16, 3, 4), 53}, {}).ok());
  EXPECT_FALSE(tcp->lower.route({IpAddress::v4(8, 8, 8, 8), 53}, {}).ok());
}

TEST_F(DhcpTest, answers_to_others_are_ignored) {
  ASSERT_TRUE(next());
  ++transaction;
  answer(wire::kDhcpOffer);
  EXPECT_FALSE(next());
  --transaction;
  answer(wire::kDhcpAck);  // nothing was requested
  EXPECT_FALSE(has_address());
  answer(wire::kDhcpOffer, IpAddress::v4(127, 0, 0, 1));
  EXPECT_FALSE(next());
}

TEST_F(DhcpTest, rfc2131_4_1_before_there_is_an_address_only_dhcp_gets_through) {
  auto socket = udp_socket();
  ASSERT_TRUE(socket->bind({IpAddress::v4(0, 0, 0, 0), 7}).ok());
  inject(ethernet(wire::kEtherTypeIpv4, udp(kServer, 9, kOurs, 7, text("x"))));
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  socket->close();
}

TEST_F(DhcpTest, rubbish_is_harmless) {
  ASSERT_TRUE(next());
  std::mt19937 dice(7);
  for (int i = 0; i < 2000; ++i) {
    Bytes bytes(240 + dice() % 200);
    for (auto& byte : bytes) byte = static_cast<u8>(dice());
    auto* header = reinterpret_cast<wire::DhcpHeader*>(bytes.data());
    header->operation = 2, header->hardware = 1, header->hardware_size = 6;
    header->transaction = transaction, header->magic = wire::kDhcpMagic;
    memcpy(header->client_mac, kOurMac, 6);
    inject(ethernet(wire::kEtherTypeIpv4, udp(kServer, 67, kOurs, 68, bytes)));
  }
  EXPECT_FALSE(stack->configured());
}

}  // namespace husk::net::testing
