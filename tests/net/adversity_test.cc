// What goes wrong on purpose: readers that do not read, peers that vanish, storms, floods, blind attacks. Virtual time.
#include <gtest/gtest.h>

#include "tests/net/traffic.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace husk::simulation {
namespace {

using net::Family;
using net::IpAddress;
using net::tcp::State;

struct TwoHosts {
  Network network;
  Host& a;
  Host& b;
  Ref<net::tcp::Socket> client, server;
  explicit TwoHosts(u64 seed, const HostOptions& options = {}) : network(seed), a(network.add_host(options)), b(network.add_host(options)) {
    network.run_until_configured();
  }

  // An established connection from a to b; the listener is gone again.
  void connect(Family family = Family::v4) {
    Listener& listener = network.add<Listener>(network, b, family, 80, 8, [&](auto socket) { server = std::move(socket); });
    client = start_connect(a, b.address(family), 80);
    EXPECT_TRUE(network.run_until([&] { return server && client->state() == State::established; }, 10 * kSecond)) << network.trouble;
    listener.close();
  }
  void expect_nothing_left(Host& host) {
    auto statistics = host.stack().tcp().statistics();
    EXPECT_EQ(statistics.memory_used, 0u);
    EXPECT_EQ(statistics.sockets, 0u);
  }
};

u64 seconds_since(const Network& network, u64 start_ns) { return (network.now_ns() - start_ns) / kSecond; }

// --- readers -----------------------------------------------------------------

TEST(Adversity, rfc9293_3_8_6_1_zero_window_reader_gets_all_when_it_reads_again) {
  for (u32 loss : {0u, 200'000u}) {
    TwoHosts hosts(3 + loss);
    hosts.connect();
    Network& network = hosts.network;
    u64 start = network.now_ns();
    constexpr u64 kBytes = 16 << 20;  // more than all buffers together
    network.add<Stream>(network, hosts.client, StreamPlan{.key_out = 1, .key_in = 2, .bytes_out = kBytes});
    auto& reader = network.add<Stream>(
        network, hosts.server,
        StreamPlan{.key_out = 2, .key_in = 1, .bytes_in = kBytes, .receive_max = 256 * 1024, .first_receive_ns = start + 600 * kSecond});
    network.run_for(30 * kSecond);
    u64 frames = hosts.a.port().line_frames;
    hosts.a.port().conditions.loss = hosts.b.port().conditions.loss = loss;
    network.run_for(565 * kSecond);
    EXPECT_EQ(reader.received(), 0u);
    EXPECT_LT(hosts.a.port().line_frames - frames, 200u) << "probes back off";
    EXPECT_GT(hosts.a.port().line_frames - frames, 4u) << "probes go on";
    EXPECT_EQ(hosts.client->state(), State::close_wait);
    network.run_for(6 * kSecond);  // the window opens into the loss
    hosts.a.port().conditions.loss = hosts.b.port().conditions.loss = 0;
    EXPECT_TRUE(network.run_to_end(400 * kSecond)) << network.trouble;
    hosts.client = hosts.server = nullptr;
    network.run_for(300 * kSecond);
    hosts.expect_nothing_left(hosts.a);
    hosts.expect_nothing_left(hosts.b);
  }
}

TEST(Adversity, a_reader_of_single_bytes_does_not_make_silly_windows) {
  TwoHosts hosts(5);
  hosts.connect();
  Network& network = hosts.network;
  constexpr u64 kBytes = 20'000;
  network.add<Stream>(network, hosts.client, StreamPlan{.key_out = 1, .key_in = 2, .bytes_out = kBytes});
  network.add<Stream>(network, hosts.server,
                      StreamPlan{.key_out = 2, .key_in = 1, .bytes_in = kBytes, .receive_max = 1, .receive_pause_ns = kMillisecond});
  u64 frames = hosts.a.port().line_frames;
  EXPECT_TRUE(network.run_to_end(200 * kSecond)) << network.trouble;
  EXPECT_LT(hosts.a.port().line_frames - frames, 60u);
}

// --- sizes -------------------------------------------------------------------

// Streams both ways under loss: full segments leave while SACK blocks are due. The line refuses what is larger than the MTU.
TEST(Adversity, rfc6691_3_options_do_not_make_segments_larger_than_the_mtu) {
  for (bool segmentation : {false, true}) {
    HostOptions options;
    options.conditions = {.bits_per_second = 100'000'000, .delay_ns = 2 * kMillisecond, .loss = 20'000};
    options.offloads = {.checksum = segmentation, .segmentation = segmentation};
    TwoHosts hosts(6, options);
    hosts.connect();
    constexpr u64 kBytes = 500'000;
    hosts.network.add<Stream>(hosts.network, hosts.client, StreamPlan{.key_out = 1, .key_in = 2, .bytes_out = kBytes, .bytes_in = kBytes});
    hosts.network.add<Stream>(hosts.network, hosts.server, StreamPlan{.key_out = 2, .key_in = 1, .bytes_out = kBytes, .bytes_in = kBytes});
    EXPECT_TRUE(hosts.network.run_to_end(300 * kSecond)) << hosts.network.trouble;
  }
}

// --- peers that vanish ---------------------------------------------------------

TEST(Adversity, rfc9293_3_8_4_keep_alive_finds_a_dead_peer) {
  TwoHosts hosts(7);
  hosts.connect();
  auto options = hosts.client->options();
  options.keep_alive = true, options.keep_idle_s = 10, options.keep_interval_s = 5, options.keep_count = 3;
  hosts.client->set_options(options);
  Network& network = hosts.network;
  auto& stream = network.add<Stream>(network, hosts.client, StreamPlan{.key_out = 1, .bytes_in = 1, .half_close = false});
  stream.errors_expected = true;
  network.run_for(100 * kSecond);
  EXPECT_FALSE(stream.done()) << "a live peer answers";
  hosts.b.port().plugged = false;
  u64 start = network.now_ns();
  EXPECT_TRUE(network.run_until([&] { return stream.done(); }, 60 * kSecond)) << network.trouble;
  EXPECT_EQ(stream.error, ETIMEDOUT);
  EXPECT_GE(seconds_since(network, start), 14u);
  EXPECT_LE(seconds_since(network, start), 31u);
  EXPECT_NE(stream.events_seen & net::kError, 0u);
}

TEST(Adversity, rfc5482_user_timeout_ends_what_is_not_acknowledged) {
  TwoHosts hosts(8);
  hosts.connect();
  auto options = hosts.client->options();
  options.user_timeout_ms = 5000;
  hosts.client->set_options(options);
  Network& network = hosts.network;
  hosts.b.port().plugged = false;
  u64 start = network.now_ns();
  auto& stream = network.add<Stream>(network, hosts.client, StreamPlan{.key_out = 1, .bytes_out = 1 << 20});
  stream.errors_expected = true;
  EXPECT_TRUE(network.run_until([&] { return stream.done(); }, 60 * kSecond)) << network.trouble;
  EXPECT_EQ(stream.error, ETIMEDOUT);
  EXPECT_GE(seconds_since(network, start), 4u);
  EXPECT_LE(seconds_since(network, start), 10u);
}

TEST(Adversity, rfc9293_3_8_3_r2_ends_retransmission_and_frees_the_memory) {
  TwoHosts hosts(9);
  hosts.connect();
  Network& network = hosts.network;
  hosts.b.port().plugged = false;
  u64 start = network.now_ns();
  auto& stream = network.add<Stream>(network, hosts.client, StreamPlan{.key_out = 1, .bytes_out = 1 << 20});
  stream.errors_expected = true;
  EXPECT_TRUE(network.run_until([&] { return stream.done(); }, 3600 * kSecond)) << network.trouble;
  EXPECT_TRUE(stream.error == ETIMEDOUT || stream.error == EHOSTUNREACH) << stream.error;
  EXPECT_GE(seconds_since(network, start), 100u);  // R2 is at least 100 seconds
  hosts.client = nullptr;
  network.run_for(10 * kSecond);
  hosts.expect_nothing_left(hosts.a);
}

TEST(Adversity, a_closed_socket_with_unsent_data_and_a_dead_peer_does_not_stay_for_ever) {
  TwoHosts hosts(10);
  hosts.connect();
  Network& network = hosts.network;
  hosts.b.port().plugged = false;
  // Sends what fits and closes.
  network.add<Stream>(network, hosts.client, StreamPlan{.key_out = 1, .bytes_out = 10'000, .half_close = false});
  EXPECT_TRUE(network.run_to_end(kSecond));
  hosts.client = nullptr;
  network.run_for(3600 * kSecond);
  hosts.expect_nothing_left(hosts.a);
}

TEST(Adversity, fin_wait_2_without_a_peer_ends) {
  TwoHosts hosts(11);
  hosts.connect();
  hosts.client->close();
  hosts.client = nullptr;
  hosts.network.run_for(kSecond);
  hosts.b.port().plugged = false;
  hosts.network.run_for(3600 * kSecond);
  hosts.expect_nothing_left(hosts.a);
}

// --- connecting ------------------------------------------------------------------

int connect_error(Network& network, Host& from, const IpAddress& to, u64 limit_ns) {
  auto& stream = network.add<Stream>(network, start_connect(from, to, 81), StreamPlan{});
  stream.errors_expected = true;
  EXPECT_TRUE(network.run_until([&] { return stream.done(); }, limit_ns)) << network.trouble;
  return stream.error;
}

TEST(Adversity, connecting_to_nobody) {
  for (Family family : {Family::v4, Family::v6}) {
    TwoHosts hosts(12);
    u64 start = hosts.network.now_ns();
    EXPECT_EQ(connect_error(hosts.network, hosts.a, hosts.b.address(family), 10 * kSecond), ECONNREFUSED);
    EXPECT_EQ(seconds_since(hosts.network, start), 0u);
    IpAddress nobody = hosts.b.address(family);
    nobody.bytes[15] = 99;
    start = hosts.network.now_ns();
    EXPECT_EQ(connect_error(hosts.network, hosts.a, nobody, 200 * kSecond), EHOSTUNREACH);
    EXPECT_LE(seconds_since(hosts.network, start), 10u);
    hosts.b.port().plugged = false;  // known, but silent
    int error = connect_error(hosts.network, hosts.a, hosts.b.address(family), 300 * kSecond);
    EXPECT_TRUE(error == ETIMEDOUT || error == EHOSTUNREACH) << error;
    hosts.expect_nothing_left(hosts.a);
  }
}

TEST(Adversity, a_storm_of_connections_on_a_small_backlog) {
  for_seeds(1, [](u64 seed) {
    TwoHosts hosts(seed);
    Network& network = hosts.network;
    constexpr u32 kConnections = 400;
    auto& listener = network.add<Listener>(network, hosts.b, Family::v4, 80, 16, [&](auto socket) {
      u64 port = socket->remote().port;
      network.add<Stream>(network, std::move(socket), StreamPlan{.key_out = port, .key_in = port + 1, .bytes_out = 3000, .bytes_in = 300});
    });
    for (u32 i = 0; i < kConnections; ++i) {
      auto socket = start_connect(hosts.a, hosts.b.address(Family::v4), 80);
      u64 port = socket->local().port;
      network.add<Stream>(network, std::move(socket), StreamPlan{.key_out = port + 1, .key_in = port, .bytes_out = 300, .bytes_in = 3000});
    }
    EXPECT_TRUE(network.run_until([&] { return network.actors_left() == 1; }, 300 * kSecond)) << network.trouble;
    EXPECT_EQ(listener.accepted_count, kConnections);
    listener.close();
    network.forget_finished_actors();
    network.run_for(300 * kSecond);
    hosts.expect_nothing_left(hosts.a);
    hosts.expect_nothing_left(hosts.b);
  });
}

TEST(Adversity, connections_one_after_the_other_leave_nothing_behind) {
  TwoHosts hosts(14);
  Network& network = hosts.network;
  network.add<Listener>(network, hosts.b, Family::v4, 80, 16, [&](auto socket) {
    network.add<Stream>(network, std::move(socket), StreamPlan{.key_out = 1, .key_in = 2, .bytes_out = 100, .bytes_in = 100});
  });
  size_t before = 0;
  for (u32 i = 0; i < 1500; ++i) {
    if (i == 500) network.run_for(300 * kSecond), before = heap_bytes();
    network.add<Stream>(network, start_connect(hosts.a, hosts.b.address(Family::v4), 80),
                        StreamPlan{.key_out = 2, .key_in = 1, .bytes_out = 100, .bytes_in = 100});
    EXPECT_TRUE(network.run_until([&] { return network.actors_left() == 1; }, 10 * kSecond)) << network.trouble << ", connection " << i;
    network.forget_finished_actors();
    if (testing::Test::HasFailure()) return;
  }
  network.run_for(300 * kSecond);
  EXPECT_LE(heap_bytes(), before + 64 * 1024);
}

// --- floods and blind attacks ------------------------------------------------------

struct Forged {
  IpAddress source, destination;
  u16 source_port, destination_port;
  u32 sequence = 0, acknowledgement = 0;
  u8 flags = 0;
  u32 payload = 0;
};
constexpr u8 kSyn = 2, kRst = 4, kAck = 16;

Bytes forge(const Port& to, const Forged& forged) {
  Bytes bytes(14 + 20 + 20 + forged.payload);
  const u8 attacker[6] = {2, 0, 0, 0, 0, 0xee};
  auto span = std::span(bytes);
  wire::build_ethernet(span, to.properties().mac, attacker, wire::kEtherTypeIpv4);
  u32 length = 20 + forged.payload;
  wire::build_ipv4(span.subspan(14), {0, 64, wire::kProtocolTcp, 1, 0x4000, forged.source.v4_bytes(), forged.destination.v4_bytes()}, length);
  auto* tcp = wire::place_at<wire::TcpHeader>(span, 34);
  *tcp = {forged.source_port, forged.destination_port, forged.sequence, forged.acknowledgement, 0x50, forged.flags, 1000, 0, 0};
  wire::Checksum sum;
  sum.add_pseudo_v4(forged.source.v4_bytes(), forged.destination.v4_bytes(), wire::kProtocolTcp, length);
  sum.add(span.subspan(34));
  tcp->checksum = sum.finish();
  return bytes;
}

TEST(Adversity, rfc4987_3_6_an_honest_client_gets_through_a_syn_flood) {
  for (bool on_link : {false, true}) {
    TwoHosts hosts(15);
    Network& network = hosts.network;
    EXPECT_TRUE(hosts.b.stack().add_route({IpAddress::v4(0, 0, 0, 0), 0, true, hosts.a.address(Family::v4), hosts.b.interface(), 0}).ok());
    network.add<Listener>(network, hosts.b, Family::v4, 80, 128, [&](auto socket) {
      network.add<Stream>(network, std::move(socket), StreamPlan{.key_out = 1, .key_in = 2, .bytes_out = 50'000, .bytes_in = 5000});
    });
    network.run_for(kSecond);
    size_t before = heap_bytes(), most = 0;
    u64 memory_most = 0;
    u32 honest = 0;
    for (u32 i = 0; i < 4000; ++i) {
      for (u32 n = 0; n < 10; ++n) {
        u64 chance = network.random().next();
        IpAddress source =
            IpAddress::v4(on_link ? 10 : 198, on_link ? 0 : 18, on_link ? 0 : static_cast<u8>(chance >> 8), static_cast<u8>(chance | 4));
        network.lan().inject(hosts.b.port(), forge(hosts.b.port(), {source, hosts.b.address(Family::v4), static_cast<u16>(chance >> 16), 80,
                                                                    static_cast<u32>(chance >> 32), 0, kSyn}));
      }
      if (i % 1000 == 500) {
        network.add<Stream>(network, start_connect(hosts.a, hosts.b.address(Family::v4), 80),
                            StreamPlan{.key_out = 2, .key_in = 1, .bytes_out = 5000, .bytes_in = 50'000});
        ++honest;
      }
      network.run_for(kMillisecond);
      most = std::max(most, heap_bytes());
      memory_most = std::max(memory_most, hosts.b.stack().tcp().statistics().memory_used);
    }
    EXPECT_TRUE(network.run_until([&] { return network.actors_left() == 1; }, 60 * kSecond))
        << network.trouble << ", " << network.actors_left() << " left";
    auto statistics = hosts.b.stack().tcp().statistics();
    EXPECT_EQ(statistics.passive_opens, honest);
    EXPECT_GT(statistics.syn_cookies_sent, 1000u);
    EXPECT_LT(most, before + 4 * kMiB);
    EXPECT_LT(memory_most, kMiB);
    network.run_for(300 * kSecond);  // what was half open is gone
    EXPECT_EQ(hosts.b.stack().tcp().statistics().memory_used, 0u);
  }
}

TEST(Adversity, rfc5961_blind_segments_do_not_end_a_connection) {
  TwoHosts hosts(16);
  hosts.connect();
  Network& network = hosts.network;
  net::Endpoint from = hosts.client->local(), to = hosts.client->remote();
  constexpr u64 kBytes = 200'000;
  network.add<Stream>(network, hosts.client,
                      StreamPlan{.key_out = 1, .key_in = 2, .bytes_out = kBytes, .bytes_in = kBytes, .send_pause_ns = kMillisecond});
  network.add<Stream>(network, hosts.server,
                      StreamPlan{.key_out = 2, .key_in = 1, .bytes_out = kBytes, .bytes_in = kBytes, .send_pause_ns = kMillisecond});
  u64 frames = hosts.b.port().line_frames;
  for (u32 i = 0; i < 5000; ++i) {
    constexpr u8 kFlags[] = {kRst, kRst | kAck, kSyn, kSyn | kAck, kAck, kAck | 1, 0, 0xff};
    Random& random = network.random();
    Forged forged{from.address,
                  to.address,
                  from.port,
                  to.port,
                  static_cast<u32>(random.next()),
                  static_cast<u32>(random.next()),
                  kFlags[random.below(std::size(kFlags))]};
    if ((forged.flags & kAck) != 0) forged.payload = static_cast<u32>(random.below(1000));
    network.lan().inject(hosts.b.port(), forge(hosts.b.port(), forged));
    if (i % 10 == 0) network.run_for(20'000);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_TRUE(network.run_to_end(60 * kSecond)) << network.trouble;
  EXPECT_LT(hosts.b.port().line_frames - frames, 5000u) << "challenges are limited";
}

TEST(Adversity, strangers_fragments_and_neighbours_do_not_fill_the_memory) {
  TwoHosts hosts(17);
  Network& network = hosts.network;
  network.run_for(5 * kSecond);
  size_t before = heap_bytes(), most = 0;
  for (u32 i = 0; i < 3000; ++i) {
    Random& random = network.random();
    // A UDP fragment that never gets whole, from a neighbour that does not exist; it also asks for an answer to be sent to that one.
    Bytes bytes(14 + 20 + 512);
    auto span = std::span(bytes);
    const u8 attacker[6] = {2, 0, 0, 0, 0, 0xee}, source[4] = {10, 0, 0, static_cast<u8>(random.between(4, 250))};
    wire::build_ethernet(span, hosts.b.port().properties().mac, attacker, wire::kEtherTypeIpv4);
    u16 fragment = i % 2 == 0 ? static_cast<u16>(wire::kIpv4MoreFragments | random.below(100)) : u16{0};
    wire::build_ipv4(span.subspan(14),
                     {0, 64, wire::kProtocolUdp, static_cast<u16>(random.next()), fragment, source, hosts.b.address(Family::v4).v4_bytes()}, 512);
    wire::build_udp(span.subspan(34), 1000, 1001, 504);
    network.lan().inject(hosts.b.port(), bytes);
    if (i % 4 == 0) network.run_for(kMillisecond);
    most = std::max(most, heap_bytes());
  }
  EXPECT_LT(most, before + 2 * kMiB);
  network.run_for(120 * kSecond);
  EXPECT_LT(heap_bytes(), before + 128 * 1024);
  hosts.connect();  // and it still works
}

}  // namespace
}  // namespace husk::simulation
