// UDP and ping sockets: who gets which datagram, errors, bounds.
#include "kernel/net/test_support.h"

namespace husk::net::testing {

class UdpTest : public World {
 protected:
  void SetUp() override {
    World::SetUp();
    configure();
  }
  void TearDown() override {
    for (auto& socket : opened) socket->close();
  }
  Ref<udp::Socket> open(const Endpoint& local, Family family = Family::v4, const udp::Options* options = nullptr) {
    auto socket = udp_socket(family);
    if (options != nullptr) socket->set_options(*options);
    EXPECT_TRUE(socket->bind(local).ok());
    opened.push_back(socket);
    return socket;
  }
  void from_peer(const Bytes& payload, u16 port = 9, const IpAddress& to = kOurs) { inject(frame_of(udp(kPeer, port, to, 7, payload))); }
  static constexpr IpAddress any = IpAddress::v4(0, 0, 0, 0);
  std::vector<Ref<udp::Socket>> opened;
};

TEST_F(UdpTest, rfc768_a_datagram_goes_both_ways) {
  auto socket = open({any, 7});
  Observer observer;
  socket->set_observer(&observer);
  from_peer(text("ping"));
  EXPECT_TRUE(observer.heard & kReadable);
  EXPECT_EQ(socket->readable_bytes(), 4u);
  auto got = receive(*socket);
  EXPECT_EQ(got.bytes, text("ping"));
  EXPECT_EQ(got.about.from, (Endpoint{kPeer, 9}));
  EXPECT_EQ(got.about.to, (Endpoint{kOurs, 7, eth}));
  EXPECT_EQ(got.about.hop_limit, 64);
  ASSERT_TRUE(send(*socket, text("pong"), &got.about.from).ok());
  run();
  Bytes sent = take_ip();
  ASSERT_GE(sent.size(), 20u);
  EXPECT_EQ(sent, ip4(kOurs, kPeer, 17, udp_message(kOurs, 7, kPeer, 9, text("pong")), 0x4000, wire::load_be16(&sent[4])));
}

TEST_F(UdpTest, rfc768_checksum_is_verified_unless_absent_or_vouched_for) {
  auto socket = open({any, 7});
  Bytes bad = udp(kPeer, 9, kOurs, 7, text("bad"));
  bad[26] ^= 1;
  inject(frame_of(bad));
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  EXPECT_EQ(stack->statistics().checksum_errors, 1u);
  bad[26] = bad[27] = 0;
  inject(frame_of(bad));
  EXPECT_EQ(receive(*socket).bytes, text("bad"));
  bad[26] = 1;
  for (auto vouched : {packet::Checksum::verified, packet::Checksum::partial}) {
    auto packet = packet_of(frame_of(bad));
    packet->checksum = vouched;
    inject(std::move(packet));
    EXPECT_EQ(receive(*socket).bytes, text("bad"));
  }
}

TEST_F(UdpTest, rfc8200_8_1_ipv6_needs_a_checksum) {
  auto socket = open({{}, 7}, Family::v6);
  Bytes packet = udp(kPeer6, 9, kOurs6, 7, text("x"));
  inject(frame_of(packet));
  EXPECT_EQ(receive(*socket).bytes, text("x"));
  packet[46] = packet[47] = 0;
  inject(frame_of(packet));
  EXPECT_EQ(receive(*socket).error, EAGAIN);
}

// An answer to it would go to this very host.
TEST_F(UdpTest, rfc4291_2_5_2_the_unspecified_address_is_no_source_of_datagrams) {
  auto socket = open({{}, 7}, Family::v6);
  inject(frame_of(udp({}, 9, kOurs6, 7, text("x"))));
  EXPECT_EQ(receive(*socket).error, EAGAIN);
}

TEST_F(UdpTest, lengths_are_checked) {
  auto socket = open({any, 7});
  for (u16 size : {u16{0}, u16{7}, u16{13}, u16{60000}}) {
    Bytes packet = udp(kPeer, 9, kOurs, 7, text("four"));
    wire::store_be16(&packet[24], size);
    packet[26] = packet[27] = 0;
    inject(frame_of(packet));
    EXPECT_EQ(receive(*socket).error, EAGAIN) << size;
  }
  from_peer({});
  EXPECT_TRUE(socket->events() & kReadable);
  auto got = receive(*socket);
  EXPECT_EQ(got.error, 0);
  EXPECT_EQ(got.about.size, 0u);
  EXPECT_EQ(got.about.from.port, 9);
}

TEST_F(UdpTest, rfc1122_4_1_3_1_closed_port_is_answered) {
  from_peer(text("nobody"));
  Bytes message = take_icmp(wire::kIcmpUnreachable);
  ASSERT_EQ(message.size(), 8u + 28 + 6);
  EXPECT_EQ(message[1], wire::kIcmpPortUnreachable);
  inject(frame_of(udp(kPeer6, 9, kOurs6, 7, text("nobody"))));
  message = take_icmp(wire::kIcmpv6Unreachable);
  ASSERT_EQ(message.size(), 8u + 48 + 6);
  EXPECT_EQ(message[1], wire::kIcmpv6PortUnreachable);
  EXPECT_EQ(stack->statistics().udp_no_ports, 2u);
}

TEST_F(UdpTest, rfc1122_4_1_3_3_errors_reach_the_connected_socket) {
  auto connected = open({any, 7}), other = open({any, 8});
  ASSERT_TRUE(connected->connect({kPeer, 9}).ok());
  auto quote = [&](u16 port) { return icmp4(wire::kIcmpUnreachable, wire::kIcmpPortUnreachable, 0, 0, udp(kOurs, port, kPeer, 9, text("x"))); };
  for (u16 port : {u16{7}, u16{8}}) inject(frame_of(ip4(kPeer, kOurs, 1, quote(port))));
  EXPECT_TRUE(connected->events() & kError);
  EXPECT_EQ(receive(*connected).error, ECONNREFUSED);
  EXPECT_EQ(receive(*connected).error, EAGAIN);
  EXPECT_EQ(other->take_error(), 0);
  // Quoting what we never sent changes nothing.
  inject(frame_of(ip4(kPeer, kOurs, 1, icmp4(wire::kIcmpUnreachable, wire::kIcmpPortUnreachable, 0, 0, udp(kPeer, 7, kOurs, 9, text("x"))))));
  EXPECT_EQ(connected->take_error(), 0);
}

TEST_F(UdpTest, the_best_fit_gets_it) {
  udp::Options options;
  options.reuse_address = true;
  auto wild = open({any, 7}, Family::v4, &options), bound = open({kOurs, 7}, Family::v4, &options),
       connected = open({kOurs, 7}, Family::v4, &options);
  auto dual = open({{}, 7}, Family::v6, &options);
  ASSERT_TRUE(connected->connect({kPeer, 9}).ok());
  from_peer(text("a"), 9);
  from_peer(text("b"), 10);
  inject(frame_of(udp(kPeer6, 9, kOurs6, 7, text("c"))));
  EXPECT_EQ(receive(*connected).bytes, text("a"));
  EXPECT_EQ(receive(*bound).bytes, text("b"));
  EXPECT_EQ(receive(*dual).bytes, text("c"));
  bound->close();
  connected->close();
  from_peer(text("d"), 11);
  EXPECT_EQ(receive(*wild).bytes, text("d"));
  wild->close();
  from_peer(text("e"), 11);
  EXPECT_EQ(receive(*dual).bytes, text("e"));  // mapped
  options.v6_only = true;
  dual->set_options(options);
  from_peer(text("f"), 11);
  EXPECT_EQ(receive(*dual).error, EAGAIN);
}

TEST_F(UdpTest, bind_conflicts) {
  auto first = open({kOurs, 7});
  auto fails = [&](const Endpoint& local, Family family, const udp::Options& options = {}) {
    auto socket = udp_socket(family);
    socket->set_options(options);
    auto result = socket->bind(local);
    socket->close();
    return result.ok() ? 0 : result.error().code();
  };
  udp::Options reuse, only6;
  reuse.reuse_port = true;
  only6.v6_only = true;
  EXPECT_EQ(fails({kOurs, 7}, Family::v4), EADDRINUSE);
  EXPECT_EQ(fails({any, 7}, Family::v4), EADDRINUSE);
  EXPECT_EQ(fails({any, 7}, Family::v4, reuse), EADDRINUSE);  // both must want it
  EXPECT_EQ(fails({{}, 7}, Family::v6), EADDRINUSE);
  EXPECT_EQ(fails({{}, 7}, Family::v6, only6), 0);
  EXPECT_EQ(fails({IpAddress::v4(127, 0, 0, 1), 7}, Family::v4), 0);
  EXPECT_EQ(fails({kPeer, 8}, Family::v4), EADDRNOTAVAIL);
  EXPECT_EQ(first->bind({kOurs, 8}).error().code(), EINVAL);
}

TEST_F(UdpTest, reuse_port_spreads_peers_and_keeps_each) {
  udp::Options options;
  options.reuse_port = true;
  std::vector<Ref<udp::Socket>> group;
  for (int i = 0; i < 4; ++i) group.push_back(open({any, 7}, Family::v4, &options));
  std::vector<int> count(4);
  for (u16 port = 1000; port < 1100; ++port) {
    int who = -1;
    for (int round = 0; round < 2; ++round) {
      from_peer(text("x"), port);
      for (int i = 0; i < 4; ++i) {
        if (receive(*group[static_cast<size_t>(i)]).error != 0) continue;
        EXPECT_TRUE(who == -1 || who == i);
        who = i;
      }
    }
    ASSERT_NE(who, -1);
    ++count[static_cast<size_t>(who)];
  }
  for (int each : count) EXPECT_GT(each, 5);
}

TEST_F(UdpTest, rfc6056_ephemeral_ports_differ_and_lie_in_the_range) {
  std::vector<u16> ports;
  for (int i = 0; i < 50; ++i) {
    u16 port = open({any, 0})->local().port;
    EXPECT_GE(port, 32768);
    EXPECT_LE(port, 60999);
    EXPECT_EQ(std::count(ports.begin(), ports.end(), port), 0);
    ports.push_back(port);
  }
  EXPECT_FALSE(std::is_sorted(ports.begin(), ports.end()));
}

TEST_F(UdpTest, send_says_why_not) {
  auto socket = udp_socket();
  opened.push_back(socket);
  EXPECT_EQ(send(*socket, text("x")).error().code(), EDESTADDRREQ);
  Endpoint peer{kPeer, 9}, broadcast{IpAddress::v4(255, 255, 255, 255), 9}, directed{IpAddress::v4(10, 0, 0, 255), 9}, none{kPeer, 0};
  EXPECT_EQ(send(*socket, Bytes(65508), &peer).error().code(), EMSGSIZE);
  EXPECT_EQ(send(*socket, text("x"), &broadcast).error().code(), EACCES);
  EXPECT_EQ(send(*socket, text("x"), &directed).error().code(), EACCES);
  EXPECT_EQ(send(*socket, text("x"), &none).error().code(), EINVAL);
  Endpoint source{kPeer, 0};
  EXPECT_EQ(send(*socket, text("x"), &peer, &source).error().code(), EADDRNOTAVAIL);
  udp::Options options;
  options.broadcast = true;
  socket->set_options(options);
  EXPECT_TRUE(send(*socket, text("x"), &directed).ok());
  run();
  EXPECT_EQ(memcmp(take().data(), wire::kMacBroadcast, 6), 0);
  socket->close();
  EXPECT_FALSE(send(*socket, text("x"), &peer).ok());
}

TEST_F(UdpTest, loopback_carries_every_size) {
  auto a = open({any, 7}), b = open({any, 8});
  for (size_t size : {size_t{0}, size_t{1}, size_t{1500}, size_t{5000}, size_t{65507}}) {
    for (auto to : {IpAddress::v4(127, 0, 0, 1), IpAddress::v4(127, 1, 2, 3), kOurs, any}) {
      Endpoint end{to, 8};
      ASSERT_TRUE(send(*a, pattern(size), &end).ok());
      run();
      auto got = receive(*b);
      EXPECT_EQ(got.error, 0);
      EXPECT_EQ(got.bytes, pattern(size));
    }
  }
  auto six = open({{}, 9}, Family::v6);
  Endpoint end{IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, 9};
  auto from = udp_socket(Family::v6);
  opened.push_back(from);
  for (size_t size : {size_t{3}, size_t{65507}}) {
    ASSERT_TRUE(send(*from, pattern(size), &end).ok());
    run();
    EXPECT_EQ(receive(*six).bytes, pattern(size));
  }
  EXPECT_TRUE(device.sent.empty());
}

TEST_F(UdpTest, peek_and_truncation) {
  auto socket = open({any, 7});
  for (size_t size : {size_t{100}, size_t{1400}}) {
    from_peer(pattern(size));
    EXPECT_EQ(receive(*socket, udp::Socket::Peek::yes).bytes, pattern(size));
    auto got = receive(*socket, udp::Socket::Peek::no, 10);
    EXPECT_EQ(got.about.size, size);
    EXPECT_EQ(got.bytes, pattern(10));
    EXPECT_EQ(receive(*socket).error, EAGAIN);
  }
}

TEST_F(UdpTest, queues_are_bounded) {
  udp::Options options;
  options.receive_buffer = 20000;
  auto socket = open({any, 7}, Family::v4, &options);
  for (int i = 0; i < 1000; ++i) from_peer(pattern(100));
  u64 dropped = stack->statistics().udp_receive_buffer_errors;
  EXPECT_GT(dropped, 800u);
  size_t got = 0;
  while (receive(*socket).error == 0) ++got;
  EXPECT_EQ(got + dropped, 1000u);
  EXPECT_GT(got, 50u);
  EXPECT_EQ(socket->queued_bytes(), 0u);
}

TEST_F(UdpTest, all_sockets_together_are_bounded) {
  Stack::Limits limits;
  limits.udp_memory = 50000;
  create(limits);
  configure();
  auto socket = open({any, 7}), other = open({any, 8});
  for (int i = 0; i < 300; ++i) from_peer(pattern(1000));
  inject(frame_of(udp(kPeer, 9, kOurs, 8, pattern(1000))));
  EXPECT_EQ(receive(*other).error, EAGAIN);
  socket->close();
  inject(frame_of(udp(kPeer, 9, kOurs, 8, pattern(1000))));
  EXPECT_EQ(receive(*other).error, 0);
  other->close();
  opened.clear();
}

TEST_F(UdpTest, rfc1112_groups_are_joined_reported_and_left) {
  IpAddress group = IpAddress::v4(239, 1, 2, 3);
  auto socket = open({any, 7});
  auto arrives = [&] {
    Bytes frame = ethernet(wire::kEtherTypeIpv4, udp(kPeer, 9, group, 7, text("x")), reinterpret_cast<const u8*>("\x01\0\x5e\x01\x02\x03"));
    inject(frame);
    return receive(*socket).error == 0;
  };
  EXPECT_FALSE(arrives());
  device.sent.clear();
  ASSERT_TRUE(socket->join(group, eth).ok());
  EXPECT_EQ(socket->join(group, eth).error().code(), EADDRINUSE);
  run();
  Bytes report = take_ip();
  ASSERT_EQ(report.size(), 32u);
  EXPECT_EQ(report[24], 0x16);
  EXPECT_TRUE(wire::checksum_valid({report.data(), 24}));
  EXPECT_TRUE(wire::checksum_valid({report.data() + 24, 8}));
  EXPECT_TRUE(arrives());
  // Our own are looped back, and go out with one hop.
  Endpoint end{group, 7};
  ASSERT_TRUE(send(*socket, text("own"), &end).ok());
  run();
  EXPECT_EQ(receive(*socket).bytes, text("own"));
  EXPECT_EQ(take_ip()[8], 1);
  device.sent.clear();
  ASSERT_TRUE(socket->leave(group, eth).ok());
  run();
  EXPECT_EQ(take_ip()[24], 0x17);
  EXPECT_FALSE(arrives());
}

TEST_F(UdpTest, rfc1112_6_1_a_looped_back_datagram_has_the_source_of_the_sent_one) {
  IpAddress second = IpAddress::v4(10, 0, 0, 9), group = IpAddress::v4(239, 1, 1, 1);
  ASSERT_TRUE(stack->add_address(eth, second, 24).ok());
  auto member = open({any, 7}), sender = open({second, 8});
  ASSERT_TRUE(member->join(group, eth).ok());
  Endpoint end{group, 7};
  ASSERT_TRUE(send(*sender, text("x"), &end).ok());
  run();
  EXPECT_EQ(receive(*member).about.from, (Endpoint{second, 8}));
}

TEST_F(UdpTest, broadcasts_reach_every_socket) {
  udp::Options options;
  options.reuse_address = true;
  auto a = open({any, 7}, Family::v4, &options), b = open({any, 7}, Family::v4, &options);
  inject(ethernet(wire::kEtherTypeIpv4, udp(kPeer, 9, IpAddress::v4(10, 0, 0, 255), 7, text("all")), wire::kMacBroadcast));
  EXPECT_EQ(receive(*a).bytes, text("all"));
  EXPECT_EQ(receive(*b).bytes, text("all"));
}

TEST_F(UdpTest, rfc1191_path_mtu_of_datagrams) {
  auto socket = open({any, 7});
  ASSERT_TRUE(socket->connect({kPeer, 9}).ok());
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  Bytes sent = take_ip();
  inject(frame_of(ip4(kGateway, kOurs, 1, icmp4(wire::kIcmpUnreachable, wire::kIcmpFragmentationNeeded, 0, 1000, sent))));
  EXPECT_EQ(socket->take_error(), EMSGSIZE);
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  EXPECT_LE(take_ip().size(), 1000u);
  EXPECT_LE(take_ip().size(), 1000u);
  EXPECT_TRUE(device.sent.empty());
  for (int i = 0; i < 700; ++i) {  // in use all the time, the neighbour answers
    ASSERT_TRUE(send(*socket, text("x")).ok());
    pass(kSecond);
    while (!device.sent.empty()) {
      Bytes frame = take();
      if (frame[13] == 6) inject(arp(wire::kArpReply, kPeerMac, IpAddress::v4(&frame[38]), kOurMac, kOurs));
    }
  }
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  EXPECT_EQ(take_ip().size(), 1428u);
}

TEST_F(UdpTest, rfc5927_7_path_mtu_from_one_who_has_not_seen_the_datagram) {
  auto socket = open({any, 7});
  ASSERT_TRUE(socket->connect({kPeer, 9}).ok());
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  Bytes sent = take_ip();
  for (u16 other : {u16{0}, u16{1}}) {  // ports and length may be guessed
    Bytes forged = sent;
    wire::store_be16(&forged[4], static_cast<u16>(wire::load_be16(&forged[4]) + 1 + other));
    inject(frame_of(ip4(kGateway, kOurs, 1, icmp4(wire::kIcmpUnreachable, wire::kIcmpFragmentationNeeded, 0, 600, forged))));
  }
  EXPECT_EQ(socket->take_error(), 0);
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  EXPECT_EQ(take_ip().size(), 1428u);
}

TEST_F(UdpTest, rfc8201_4_path_mtu_of_ipv6_datagrams) {
  auto socket = open({IpAddress{}, 7}, Family::v6);
  ASSERT_TRUE(socket->connect({kPeer6, 9}).ok());
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  Bytes sent = take_ip(), forged = sent;
  ASSERT_EQ(sent.size(), 1448u);
  forged[3] ^= 1;  // flow label
  auto too_big = [&](const Bytes& quoted) {
    inject(frame_of(ip6(kPeer6, kOurs6, 58, icmp6(kPeer6, kOurs6, wire::kIcmpv6PacketTooBig, 0, 1300, Bytes(quoted.begin(), quoted.begin() + 100)))));
  };
  too_big(forged);
  EXPECT_EQ(socket->take_error(), 0);
  too_big(sent);
  EXPECT_EQ(socket->take_error(), EMSGSIZE);
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  EXPECT_LE(take_ip().size(), 1300u);
}

TEST_F(UdpTest, rfc3542_11_packets_are_no_longer_than_the_program_wants) {
  udp::Options options;
  options.packet_max = 1280;
  auto socket = open({IpAddress{}, 7}, Family::v6, &options);
  ASSERT_TRUE(socket->connect({kPeer6, 9}).ok());
  ASSERT_TRUE(send(*socket, pattern(1400)).ok());
  run();
  EXPECT_LE(take_ip().size(), 1280u);
  EXPECT_EQ(take_ip()[6], 44u) << "the second fragment";
  ASSERT_TRUE(send(*socket, pattern(1000)).ok());
  run();
  EXPECT_EQ(take_ip().size(), 1048u);
}

TEST_F(UdpTest, rfc2236_3_queries_are_answered_within_a_limit) {
  auto socket = open({any, 7});
  for (u8 i = 0; i < 10; ++i) ASSERT_TRUE(socket->join(IpAddress::v4(239, 1, 2, i), eth).ok());
  run();
  device.sent.clear();
  auto query = [&](const IpAddress& group) {
    Bytes message = {0x11, 100, 0, 0, group.bytes[12], group.bytes[13], group.bytes[14], group.bytes[15]};
    wire::store_be16(&message[2], wire::checksum_of(message));
    IpAddress all = IpAddress::v4(224, 0, 0, 1);
    inject(ethernet(wire::kEtherTypeIpv4, ip4(kPeer, all, 2, message), reinterpret_cast<const u8*>("\x01\0\x5e\0\0\x01")));
  };
  for (int i = 0; i < 500; ++i) query(IpAddress::v4(0, 0, 0, 0));
  EXPECT_EQ(device.sent.size(), 10u);
  device.sent.clear();
  for (int i = 0; i < 500; ++i) query(IpAddress::v4(239, 1, 2, 3));
  EXPECT_GE(device.sent.size(), 10u);
  EXPECT_LE(device.sent.size(), 60u);
  device.sent.clear();
  pass(2 * kSecond);
  device.sent.clear();
  query(IpAddress::v4(0, 0, 0, 0));
  EXPECT_EQ(device.sent.size(), 10u);
}

TEST_F(UdpTest, the_device_fills_in_checksums_if_it_can) {
  device.properties_.checksum = true;
  auto socket = open({any, 7});
  Endpoint peer{kPeer, 9};
  ASSERT_TRUE(send(*socket, text("xyz"), &peer).ok());
  run();
  ASSERT_EQ(device.sent.size(), 1u);
  auto& packet = *device.sent.front();
  EXPECT_EQ(packet.checksum, packet::Checksum::partial);
  EXPECT_EQ(packet.checksum_start, 34);
  EXPECT_EQ(packet.checksum_offset, 6);
  Bytes bytes = take_ip();
  wire::Checksum sum;
  sum.add({bytes.data() + 20, bytes.size() - 20});
  wire::store_be16(&bytes[26], sum.finish());
  EXPECT_EQ(bytes, ip4(kOurs, kPeer, 17, udp_message(kOurs, 7, kPeer, 9, text("xyz")), 0x4000, wire::load_be16(&bytes[4])));
}

TEST_F(UdpTest, ping_sockets_get_the_answers_to_their_requests) {
  for (bool v4 : {true, false}) {
    auto socket = stack->ping_socket(v4 ? Family::v4 : Family::v6).release();
    opened.push_back(socket);
    Endpoint peer{v4 ? kPeer : kPeer6, 0};
    Bytes request = {static_cast<u8>(v4 ? 8 : 128), 0, 0, 0, 0, 0, 0, 1, 'h', 'i'};
    EXPECT_EQ(send(*socket, Bytes{0, 0, 0, 0, 0, 0, 0, 0}, &peer).error().code(), EINVAL);
    ASSERT_TRUE(send(*socket, request, &peer).ok());
    run();
    u16 identifier = socket->local().port;
    Bytes message = take_icmp(v4 ? 8 : 128);
    ASSERT_EQ(message.size(), 10u);
    EXPECT_EQ(wire::load_be16(&message[4]), identifier);
    Bytes body(message.begin() + 8, message.end());
    inject(frame_of(v4 ? ip4(kPeer, kOurs, 1, icmp4(0, 0, identifier, 1, body))
                       : ip6(kPeer6, kOurs6, 58, icmp6(kPeer6, kOurs6, 129, 0, u32{identifier} << 16 | 1, body))));
    auto got = receive(*socket);
    ASSERT_EQ(got.bytes.size(), 10u);
    EXPECT_EQ(got.bytes[0], v4 ? 0 : 129);
    EXPECT_EQ(got.bytes[8], 'h');
    EXPECT_EQ(got.about.from.address, peer.address);
  }
}

TEST_F(UdpTest, shutdown_and_disconnect) {
  auto socket = open({any, 7});
  ASSERT_TRUE(socket->connect({kPeer, 9}).ok());
  EXPECT_EQ(socket->local().address, kOurs);
  from_peer(text("stranger"), 10);
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  ASSERT_TRUE(socket->disconnect().ok());
  EXPECT_EQ(socket->remote().port, 0);
  EXPECT_TRUE(socket->local().address.is_any());
  from_peer(text("stranger"), 10);
  EXPECT_EQ(receive(*socket).error, 0);
  ASSERT_TRUE(socket->connect({kPeer, 9}).ok());
  ASSERT_TRUE(socket->shutdown(2).ok());
  EXPECT_EQ(send(*socket, text("x")).error().code(), EPIPE);
  from_peer(text("x"));  // is still taken
  EXPECT_EQ(receive(*socket).error, 0);
  EXPECT_EQ(receive(*socket).error, EAGAIN);
  EXPECT_EQ(socket->events(), kReadable | kReadHangUp | kWritable | kHangUp);
}

TEST_F(UdpTest, shutdown_of_an_unconnected_socket_says_so_and_is_done) {
  auto socket = open({any, 7});
  EXPECT_EQ(socket->shutdown(0).error().code(), ENOTCONN);
  EXPECT_TRUE(socket->events() & kReadHangUp);
  EXPECT_FALSE(socket->events() & kHangUp);
}

TEST_F(UdpTest, of_two_that_share_a_port_the_newer_has_it) {
  udp::Options options;
  options.reuse_address = true;
  auto older = open({any, 7}, Family::v4, &options), newer = open({any, 7}, Family::v4, &options);
  from_peer(text("x"));
  EXPECT_EQ(receive(*older).error, EAGAIN);
  EXPECT_EQ(receive(*newer).error, 0);
}

TEST_F(UdpTest, groups_that_another_socket_joined_are_for_all_who_do_not_refuse) {
  IpAddress group = IpAddress::v4(239, 1, 2, 3);
  udp::Options options;
  options.reuse_address = true;
  auto member = open({any, 7}, Family::v4, &options), stranger = open({any, 7}, Family::v4, &options);
  options.multicast_all = false;
  auto refuses = open({any, 7}, Family::v4, &options);
  ASSERT_TRUE(member->join(group, eth).ok());
  inject(ethernet(wire::kEtherTypeIpv4, udp(kPeer, 9, group, 7, text("x")), reinterpret_cast<const u8*>("\x01\0\x5e\x01\x02\x03")));
  EXPECT_EQ(receive(*member).error, 0);
  EXPECT_EQ(receive(*stranger).error, 0);
  EXPECT_EQ(receive(*refuses).error, EAGAIN);
}

TEST_F(UdpTest, sockets_outlive_their_stack_harmlessly) {
  auto socket = open({any, 7});
  from_peer(text("x"));
  stack.reset();
  Endpoint peer{kPeer, 9};
  EXPECT_FALSE(send(*socket, text("x"), &peer).ok());
  EXPECT_NE(receive(*socket).error, -1);
}

}  // namespace husk::net::testing
