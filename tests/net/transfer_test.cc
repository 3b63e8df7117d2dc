// Streams between two machines under random conditions: every byte once and in order, both ways; ends are seen; nothing waits for ever; nothing is left over.
#include <gtest/gtest.h>

#include "tests/net/traffic.h"

namespace husk::simulation {
namespace {

Conditions random_conditions(Random& random, bool nasty) {
  Conditions result;
  result.bits_per_second = random.magnitude(1'000'000, 10'000'000'000);
  result.delay_ns = random.magnitude(5'000, 100 * kMillisecond);
  if (random.chance(500'000)) result.jitter_ns = random.below(result.delay_ns);
  result.queue_bytes = static_cast<u32>(random.magnitude(16 * 1024, 1024 * 1024));
  result.ring = static_cast<u32>(random.magnitude(4, 256));
  if (!nasty) return result;
  if (random.chance(600'000)) result.loss = static_cast<u32>(random.below(50'000));
  if (random.chance(300'000)) result.duplicate = static_cast<u32>(random.below(30'000));
  if (random.chance(300'000)) result.corrupt = static_cast<u32>(random.below(20'000));
  if (random.chance(300'000)) result.reorder = static_cast<u32>(random.below(100'000));
  result.reorder_ns = random.magnitude(100'000, 50 * kMillisecond);
  return result;
}

HostOptions random_host(Random& random, bool nasty) {
  HostOptions options;
  options.conditions = random_conditions(random, nasty);
  options.offloads.checksum = random.chance(600'000);
  options.offloads.segmentation = options.offloads.checksum && random.chance(700'000);
  options.offloads.merged = options.offloads.segmentation && random.chance(500'000);
  if (random.chance(300'000)) options.offloads.slice = static_cast<u32>(random.between(256, 2048));
  constexpr u16 kMtus[] = {1500, 1500, 1500, 1280, 1400, 9000};
  options.mtu = kMtus[random.below(std::size(kMtus))];
  if (random.chance(300'000)) {
    options.faults.refuse = static_cast<u32>(random.below(100'000));
    options.faults.empty_received = static_cast<u32>(random.below(100'000));
    if (nasty) options.faults.lose_sent = options.faults.lose_received = options.faults.repeat_received = static_cast<u32>(random.below(10'000));
    if (nasty) options.faults.damage_received = options.faults.shorten_received = static_cast<u32>(random.below(5'000));
  }
  return options;
}

struct Pair {
  StreamPlan client, server;
};
Pair random_pair(Random& random, u64 number, u64 bytes_max) {
  Pair pair;
  pair.client.key_out = pair.server.key_in = number * 2;
  pair.client.key_in = pair.server.key_out = number * 2 + 1;
  pair.client.bytes_out = pair.server.bytes_in = random.chance(100'000) ? 0 : random.magnitude(std::min<u64>(bytes_max, 2000), bytes_max);
  pair.server.bytes_out = pair.client.bytes_in = random.chance(100'000) ? 0 : random.magnitude(std::min<u64>(bytes_max, 2000), bytes_max);
  for (StreamPlan* plan : {&pair.client, &pair.server}) {
    plan->send_max = static_cast<u32>(random.magnitude(16, 64 * 1024));
    plan->receive_max = static_cast<u32>(random.magnitude(16, 256 * 1024));
    if (random.chance(200'000)) plan->send_pause_ns = random.magnitude(1000, 20 * kMillisecond);
    if (random.chance(200'000)) plan->receive_pause_ns = random.magnitude(1000, 20 * kMillisecond);
    // Pauses go with calls: their number is bounded, so that virtual time is.
    if (plan->send_pause_ns != 0 || plan->receive_pause_ns != 0) plan->send_max = plan->receive_max = 64 * 1024;
  }
  // At least one side has to say where its stream ends by itself.
  pair.server.half_close = random.chance(800'000);
  pair.client.wait_for_end = pair.server.half_close && random.chance(200'000);
  pair.server.wait_for_end = !pair.client.wait_for_end && random.chance(200'000);
  return pair;
}

void expect_nothing_left(Host& host) {
  auto statistics = host.stack().tcp().statistics();
  EXPECT_EQ(statistics.memory_used, 0u);
  EXPECT_EQ(statistics.sockets, 0u);
  EXPECT_EQ(statistics.time_wait, 0u);
  EXPECT_EQ(statistics.current_established, 0u);
}

struct Shape {
  bool nasty;
  u32 connections_max;
  u64 bytes_max;
};

void run_transfers(u64 seed, const Shape& shape) {
  Network network(seed);
  Random& random = network.random();
  HostOptions first = random_host(random, shape.nasty), second = random_host(random, shape.nasty);
  // One wrong bit is always found, two in one segment may cancel out in the checksum.
  if (first.conditions.corrupt != 0 || second.conditions.corrupt != 0) first.faults.damage_received = second.faults.damage_received = 0;
  Host& a = network.add_host(first);
  Host& b = network.add_host(second);
  net::Family family = random.chance(500'000) ? net::Family::v4 : net::Family::v6;
  std::map<u16, StreamPlan> plans;
  Listener& listener = network.add<Listener>(network, b, family, 80, 64, [&](Ref<net::tcp::Socket> socket) {
    auto plan = plans.find(socket->remote().port);
    ASSERT_NE(plan, plans.end()) << "a connection that nobody made, from port " << socket->remote().port;
    network.add<Stream>(network, std::move(socket), plan->second);
  });
  u64 count = random.between(1, shape.connections_max);
  for (u64 i = 0; i < count; ++i) {
    auto socket = start_connect(a, b.address(family), 80);
    Pair pair = random_pair(random, i, shape.bytes_max);
    EXPECT_TRUE(plans.emplace(socket->local().port, pair.server).second);
    network.add<Stream>(network, std::move(socket), pair.client);
  }
  auto finished = [&] {
    if (testing::Test::HasFailure()) return true;
    return listener.accepted_count == count && network.actors_left() == 1;
  };
  EXPECT_TRUE(network.run_until(finished, 1800 * kSecond))
      << network.trouble << "; " << network.actors_left() - 1 << " streams left of " << 2 * count;
  if (testing::Test::HasFailure()) return;
  listener.close();
  network.run_for(300 * kSecond);  // TIME_WAIT
  expect_nothing_left(a);
  expect_nothing_left(b);
}

TEST(Transfer, clean_lines) {
  for_seeds(25, [](u64 seed) { run_transfers(seed, {false, 4, 512 * 1024}); });
}

TEST(Transfer, bad_lines) {
  for_seeds(60, [](u64 seed) { run_transfers(seed, {true, 4, 128 * 1024}); });
}

TEST(Transfer, many_small_connections_on_bad_lines) {
  for_seeds(6, [](u64 seed) { run_transfers(seed, {true, 100, 4096}); });
}

TEST(Transfer, a_long_stream_wraps_nothing_and_fills_the_line) {
  for (bool offloads : {false, true}) {
    Network network(offloads ? 1 : 2);
    HostOptions options;
    options.conditions = {.bits_per_second = 1'000'000'000, .delay_ns = 5 * kMillisecond, .queue_bytes = 2 * 1024 * 1024, .ring = 1024};
    options.offloads = {.checksum = offloads, .segmentation = offloads};
    Host& a = network.add_host(options);
    Host& b = network.add_host(options);
    StreamPlan client{.key_out = 1, .key_in = 2, .bytes_out = 16 << 20},
        server{.key_out = 2, .key_in = 1, .bytes_in = 16 << 20, .receive_max = 256 * 1024};
    u64 start = network.now_ns();
    network.add<Listener>(network, b, net::Family::v4, 80, 8, [&](auto socket) { network.add<Stream>(network, std::move(socket), server); });
    network.add<Stream>(network, start_connect(a, b.address(net::Family::v4), 80), client);
    EXPECT_TRUE(network.run_until([&] { return network.actors_left() == 1; }, 60 * kSecond)) << network.trouble;
    u64 rate = (u64{16} << 20) * 8 * 1000 / ((network.now_ns() - start) / kMillisecond);
    // 10 ms of round trip; slow start and buffers that grow take their time.
    EXPECT_GT(rate, 300'000'000u);
    RecordProperty("bits_per_second", std::to_string(rate));
  }
}

// The loopback interface carries packets of 64 KiB.
TEST(Transfer, to_oneself) {
  for_seeds(4, [](u64 seed) {
    Network network(seed);
    Host& host = network.add_host();
    for (auto address : {net::IpAddress::v4(127, 0, 0, 1), host.address(net::Family::v6), host.address(net::Family::v4)}) {
      Pair pair = random_pair(network.random(), 1, 1 << 20);
      u32 before = static_cast<u32>(network.actors_left());
      Listener& listener = network.add<Listener>(network, host, address.is_v4() ? net::Family::v4 : net::Family::v6, 80, 8,
                                                 [&](auto socket) { network.add<Stream>(network, std::move(socket), pair.server); });
      network.add<Stream>(network, start_connect(host, address, 80), pair.client);
      EXPECT_TRUE(network.run_until([&] { return listener.accepted_count == 1 && network.actors_left() == before + 1; }, 300 * kSecond))
          << network.trouble;
      listener.close();
    }
    network.run_for(300 * kSecond);
    expect_nothing_left(host);
  });
}

}  // namespace
}  // namespace husk::simulation
