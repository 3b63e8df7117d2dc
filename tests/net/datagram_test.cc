// UDP and ping between machines in virtual time: datagrams arrive as they were sent or not at all.
#include <gtest/gtest.h>

#include "kernel/vfs/io.h"
#include "tests/net/traffic.h"

namespace husk::simulation {
namespace {

using net::Family;

void run_datagrams(u64 seed, bool nasty) {
  Network network(seed);
  Random& random = network.random();
  u32 size_max = random.chance(500'000) ? 1200 : 60'000;
  HostOptions options;
  options.conditions = {.bits_per_second = 1'000'000'000, .delay_ns = random.magnitude(1000, 10 * kMillisecond), .queue_bytes = 4 << 20};
  if (nasty) {
    options.conditions.loss = static_cast<u32>(random.below(30'000));
    options.conditions.duplicate = static_cast<u32>(random.below(50'000));
    options.conditions.reorder = static_cast<u32>(random.below(300'000));
    options.faults = {.refuse = 50'000, .repeat_received = 10'000, .shorten_received = 10'000};
    // One wrong bit is always found; two, in two fragments or on the line and in the device, may cancel out in the checksum.
    if (size_max <= 1200) options.conditions.corrupt = static_cast<u32>(random.below(100'000));
  }
  options.offloads.checksum = random.chance(500'000);
  if (random.chance(500'000)) options.offloads.slice = 300;
  options.limits.fragments = 1 << 20;
  options.mtu = random.chance(500'000) ? 1500 : 1280;
  Host& a = network.add_host(options);
  Host& b = network.add_host(options);
  network.run_until_configured();
  Family family = random.chance(500'000) ? Family::v4 : Family::v6;
  auto& first = network.add<DatagramEnd>(network, a, family, 1000);
  auto& second = network.add<DatagramEnd>(network, b, family, 2000);
  auto& third = network.add<DatagramEnd>(network, b, family, 2001);
  constexpr u32 kCount = 200;
  // One small one first, until the neighbours know each other: many would fill the queue in front of an unknown neighbour.
  first.send_to({b.address(family), 2000}, 1, 100, 0);
  second.send_to({a.address(family), 1000}, 1, 100, 0);
  network.run_for(kSecond);
  first.send_to({b.address(family), 2000}, kCount - 1, size_max, 2 * kMillisecond);
  second.send_to({a.address(family), 1000}, kCount - 1, size_max, 2 * kMillisecond);
  third.send_to({a.address(family), 1000}, kCount, size_max, 2 * kMillisecond);
  network.run_for(60 * kSecond);
  if (testing::Test::HasFailure()) return;
  auto report = [](const char* name, const DatagramEnd& end, Host& host) {
    auto statistics = host.stack().statistics();
    return std::string(name) + ": sent " + std::to_string(end.sent) + " received " + std::to_string(end.received) + " errors " +
           std::to_string(end.errors) + "; line lost " + std::to_string(host.port().lost) + "; stack: reassembly failed " +
           std::to_string(statistics.reassembly_failed) + ", discarded in " + std::to_string(statistics.in_discards) + ", out " +
           std::to_string(statistics.out_discards) + ", bad checksums " + std::to_string(statistics.checksum_errors) + ", overflows " +
           std::to_string(statistics.udp_receive_buffer_errors) + "\n";
  };
  SCOPED_TRACE(report("a", first, a) + report("b", second, b));
  EXPECT_EQ(first.sent, kCount);
  EXPECT_EQ(second.sent + third.sent, 2 * kCount);
  if (nasty) {
    // 46 fragments or one, each lost or damaged with so much chance; some always get through.
    EXPECT_GT(first.received + second.received, size_max > 1200 ? 1u : 2 * kCount);
    return;
  }
  // A reader that is late once loses what does not fit into its buffer; that is counted, and nothing else is lost.
  auto overflows = [](Host& host) { return host.stack().statistics().udp_receive_buffer_errors; };
  EXPECT_EQ(second.received + overflows(b), kCount);
  EXPECT_EQ(first.received + overflows(a), 2 * kCount);
  EXPECT_LE(overflows(a) + overflows(b), kCount / 20);
  EXPECT_EQ(first.duplicates + second.duplicates, 0u);
  EXPECT_EQ(first.errors + second.errors + third.errors, 0u);
}

TEST(Datagram, good_lines_lose_nothing) {
  for_seeds(10, [](u64 seed) { run_datagrams(seed, false); });
}

TEST(Datagram, bad_lines_damage_and_merge_nothing) {
  for_seeds(15, [](u64 seed) { run_datagrams(seed, true); });
}

TEST(Datagram, a_closed_port_is_refused) {
  for (Family family : {Family::v4, Family::v6}) {
    Network network(1);
    Host& a = network.add_host();
    Host& b = network.add_host();
    network.run_until_configured();
    auto& end = network.add<DatagramEnd>(network, a, family, 1000);
    EXPECT_TRUE(end.socket().connect({b.address(family), 7}).ok());
    end.send_to({b.address(family), 7}, 1, 100, 0);
    network.run_for(10 * kSecond);
    EXPECT_EQ(end.errors, 1u);
    EXPECT_EQ(b.stack().statistics().udp_no_ports, 1u);
  }
}

TEST(Datagram, ping) {
  for (Family family : {Family::v4, Family::v6}) {
    Network network(2);
    Host& a = network.add_host();
    Host& b = network.add_host();
    network.run_until_configured();
    auto socket = a.stack().ping_socket(family).release();
    u8 message[24] = {static_cast<u8>(family == Family::v4 ? 8 : 128), 0, 0, 0, 0, 0, 0, 7, 'h', 'u', 's', 'k'};
    net::Endpoint to{b.address(family)};
    vfs::IoSegment out = vfs::IoBuffer::kernel_segment(message, sizeof(message));
    vfs::IoBuffer from({&out, 1}, vfs::IoBuffer::Memory::kernel);
    ASSERT_TRUE(socket->send(from, &to, nullptr).ok());
    network.run_for(kSecond);
    u8 answer[64] = {};
    vfs::IoSegment in = vfs::IoBuffer::kernel_segment(answer, sizeof(answer));
    vfs::IoBuffer buffer({&in, 1}, vfs::IoBuffer::Memory::kernel);
    auto received = socket->receive(buffer, net::udp::Socket::Peek::no);
    ASSERT_TRUE(received.ok());
    EXPECT_EQ(received->size, sizeof(message));
    EXPECT_EQ(answer[0], family == Family::v4 ? 0 : 129);
    EXPECT_EQ(memcmp(answer + 6, message + 6, sizeof(message) - 6), 0);
    EXPECT_EQ(received->from.address, b.address(family));
    socket->close();
  }
}

}  // namespace
}  // namespace husk::simulation
