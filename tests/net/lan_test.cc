// The simulated line itself, with endpoints that only send and count: what the other tests rely on.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/net/faulty_device.h"
#include "tests/net/lan.h"
#include "tests/net/nic.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"

namespace husk::simulation {
namespace {

constexpr u32 kAlways = 1'000'000;

packet::PacketPtr frame_to(const Port& to, u32 number, u32 size) {
  Frame frame;
  frame.bytes.resize(size);
  wire::build_ethernet(frame.bytes, to.properties().mac, wire::kMacBroadcast, wire::kEtherTypeIpv4);
  wire::store_be32(&frame.bytes[14], number);
  return packet_of(frame, 0);
}
u32 number_of(const packet::Packet& packet) {
  u8 bytes[4];
  packet.copy_out(14, bytes, 4);
  return wire::load_be32(bytes);
}
bool send(Port& from, const Port& to, u32 number, u32 size = 100) {
  auto packet = frame_to(to, number, size);
  bool taken = from.transmit(packet);
  from.flush();
  return taken;
}
struct Arrival {
  u64 at_ns;
  u32 number;
};
std::vector<Arrival> arrivals(Lan& lan, Port& at) {
  std::vector<Arrival> result;
  while (lan.next_event_ns() != kNever) {
    lan.advance(lan.next_event_ns());
    while (auto packet = at.receive()) result.push_back({lan.now_ns(), number_of(*packet)});
  }
  return result;
}

TEST(Lan, bandwidth_and_delay_say_when_a_frame_arrives) {
  Lan lan(1, kSecond);
  Conditions conditions{.bits_per_second = 8'000'000, .delay_ns = 5 * kMillisecond};
  Port& a = lan.add_port(1500, {}, conditions);
  Port& b = lan.add_port(1500, {}, {});
  send(a, b, 0, 976), send(a, b, 1, 976);
  auto got = arrivals(lan, b);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].at_ns, kSecond + 6 * kMillisecond);
  EXPECT_EQ(got[1].at_ns, kSecond + 7 * kMillisecond);
}

TEST(Lan, jitter_keeps_the_order_and_reordering_does_not) {
  Lan lan(2, 0);
  Port& a = lan.add_port(1500, {}, {.jitter_ns = 10 * kMillisecond});
  Port& b = lan.add_port(1500, {}, {});
  auto ordered = [](auto& got) { return std::is_sorted(got.begin(), got.end(), [](auto& x, auto& y) { return x.number < y.number; }); };
  for (u32 i = 0; i < 100; ++i) send(a, b, i);
  auto got = arrivals(lan, b);
  EXPECT_EQ(got.size(), 100u);
  EXPECT_TRUE(ordered(got));
  a.conditions.reorder = kAlways / 10;
  for (u32 i = 0; i < 100; ++i) send(a, b, i);
  got = arrivals(lan, b);
  EXPECT_EQ(got.size(), 100u);
  EXPECT_FALSE(ordered(got));
}

TEST(Lan, loss_duplication_and_the_queue) {
  Lan lan(3, 0);
  Port& a = lan.add_port(1500, {}, {.loss = kAlways / 2, .ring = 10'000});
  Port& b = lan.add_port(1500, {}, {});
  for (u32 i = 0; i < 1000; ++i) send(a, b, i);
  size_t count = arrivals(lan, b).size();
  EXPECT_GT(count, 400u);
  EXPECT_LT(count, 600u);
  a.conditions.loss = 0, a.conditions.duplicate = kAlways;
  for (u32 i = 0; i < 10; ++i) send(a, b, i);
  EXPECT_EQ(arrivals(lan, b).size(), 20u);
  a.conditions.duplicate = 0, a.conditions.queue_bytes = 1000;
  for (u32 i = 0; i < 100; ++i) send(a, b, i);
  EXPECT_LT(arrivals(lan, b).size(), 12u);
}

TEST(Lan, full_ring_refuses_and_says_when_there_is_room) {
  Lan lan(4, 0);
  Port& a = lan.add_port(1500, {}, {.bits_per_second = 1'000'000, .ring = 2});
  Port& b = lan.add_port(1500, {}, {});
  EXPECT_TRUE(send(a, b, 0));
  EXPECT_TRUE(send(a, b, 1));
  EXPECT_FALSE(a.room_again());
  EXPECT_FALSE(send(a, b, 2));
  EXPECT_FALSE(a.room_again());
  lan.advance(a.next_event_ns());
  EXPECT_TRUE(a.room_again());
  EXPECT_FALSE(a.room_again());
  EXPECT_TRUE(send(a, b, 2));
  EXPECT_EQ(arrivals(lan, b).size(), 3u);
}

TEST(Lan, frames_go_to_whom_they_are_for) {
  Lan lan(5, 0);
  Port& a = lan.add_port(1500, {}, {});
  Port& b = lan.add_port(1500, {}, {});
  Port& c = lan.add_port(1500, {}, {});
  send(a, b, 1);
  EXPECT_EQ(arrivals(lan, b).size(), 1u);
  EXPECT_EQ(c.receive(), nullptr);
  Bytes everybody(60, 0xff);
  auto packet = packet_of({everybody}, 0);
  a.transmit(packet), a.flush();
  lan.advance(kSecond);
  EXPECT_NE(b.receive(), nullptr);
  EXPECT_NE(c.receive(), nullptr);
  EXPECT_EQ(a.receive(), nullptr);
  b.plugged = false;
  send(a, b, 2);
  EXPECT_TRUE(arrivals(lan, b).empty());
}

TEST(Lan, the_same_seed_gives_the_same_run) {
  auto run = [](u64 seed) {
    Lan lan(seed, 0);
    Port& a = lan.add_port(1500, {}, {.jitter_ns = kMillisecond, .loss = 100'000, .duplicate = 100'000, .corrupt = 100'000, .reorder = 100'000});
    Port& b = lan.add_port(1500, {}, {});
    for (u32 i = 0; i < 200; ++i) send(a, b, i);
    std::vector<u64> result;
    for (auto& arrival : arrivals(lan, b)) result.push_back(arrival.at_ns ^ u64{arrival.number} << 32);
    return result;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

// A TCP packet to be cut, with its checksum partial.
Frame large_packet(bool v6, u32 payload, u16 segment) {
  u32 ip = v6 ? 40 : 20, header = 14 + ip + 20;
  u8 source[16] = {10, 0, 0, 1}, destination[16] = {10, 0, 0, 2};
  Frame frame;
  frame.bytes.resize(header + payload);
  for (u32 i = 0; i < payload; ++i) frame.bytes[header + i] = static_cast<u8>(i * 7);
  auto bytes = std::span(frame.bytes);
  wire::build_ethernet(bytes, wire::kMacBroadcast, source, v6 ? wire::kEtherTypeIpv6 : wire::kEtherTypeIpv4);
  wire::Checksum sum;
  if (v6) {
    wire::build_ipv6(bytes.subspan(14), {0, 64, wire::kProtocolTcp, 0, source, destination}, 20 + payload);
    sum.add_pseudo_v6(source, destination, wire::kProtocolTcp, 20 + payload);
  } else {
    wire::build_ipv4(bytes.subspan(14), {0, 64, wire::kProtocolTcp, 100, wire::kIpv4DontFragment, source, destination}, 20 + payload);
    sum.add_pseudo_v4(source, destination, wire::kProtocolTcp, 20 + payload);
  }
  auto* tcp = wire::place_at<wire::TcpHeader>(bytes, 14 + ip);
  *tcp = {1, 2, 0xfffffff0, 5, 0x50, 0x19, 100, sum.folded(), 0};
  frame.checksum = packet::Checksum::partial;
  frame.checksum_start = static_cast<u16>(14 + ip), frame.checksum_offset = 16;
  frame.segmentation = v6 ? packet::Segmentation::tcp6 : packet::Segmentation::tcp4;
  frame.segment_size = segment, frame.header_size = static_cast<u16>(header);
  return frame;
}

TEST(Nic, cuts_large_packets_into_right_segments) {
  for (bool v6 : {false, true}) {
    Frame whole = large_packet(v6, 2500, 1000);
    auto pieces = cut(whole);
    ASSERT_EQ(pieces.size(), 3u);
    Bytes payload;
    for (size_t i = 0; i < 3; ++i) {
      auto bytes = std::span<const u8>(pieces[i].bytes).subspan(14);
      wire::Checksum sum;
      std::span<const u8> segment;
      if (v6) {
        auto ip = wire::Ipv6::parse(bytes);
        segment = ip->payload;
        sum.add_pseudo_v6(ip->header->source, ip->header->destination, wire::kProtocolTcp, ip->payload_size);
      } else {
        auto ip = wire::Ipv4::parse(bytes);
        EXPECT_TRUE(ip->checksum_valid());
        EXPECT_EQ(ip->header->identification, 100 + i);
        segment = ip->payload;
        sum.add_pseudo_v4(ip->header->source, ip->header->destination, wire::kProtocolTcp, ip->payload_size);
      }
      sum.add(segment);
      EXPECT_TRUE(sum.valid());
      auto tcp = wire::Tcp::parse(segment);
      EXPECT_EQ(tcp->header->sequence, static_cast<u32>(0xfffffff0u + payload.size()));
      EXPECT_EQ(tcp->header->flags, i == 2 ? 0x19 : 0x10);  // FIN and PSH on the last
      payload.insert(payload.end(), tcp->payload.begin(), tcp->payload.end());
    }
    EXPECT_EQ(payload, Bytes(whole.bytes.begin() + whole.header_size, whole.bytes.end()));
  }
}

TEST(Nic, a_port_without_offloads_gets_frames_that_need_none) {
  Lan lan(6, 0);
  Port& a = lan.add_port(1500, {.checksum = true, .segmentation = true, .merged = true}, {});
  Port& b = lan.add_port(1500, {.checksum = true, .segmentation = true, .merged = true, .slice = 300}, {});
  Port& c = lan.add_port(1500, {}, {});
  auto packet = packet_of(large_packet(false, 2500, 1000), 0);
  a.transmit(packet), a.flush();
  lan.advance(kSecond);
  auto whole = b.receive();
  EXPECT_EQ(whole->segment_size, 1000);
  EXPECT_EQ(whole->checksum, packet::Checksum::partial);
  EXPECT_GT(whole->slices().size(), 5u);
  int count = 0;
  while (auto piece = c.receive()) {
    ++count;
    EXPECT_EQ(piece->checksum, packet::Checksum::unknown);
  }
  EXPECT_EQ(count, 3);
}

TEST(FaultyDevice, does_what_it_is_told) {
  Lan lan(7, 0);
  Port& a = lan.add_port(1500, {}, {});
  Port& b = lan.add_port(1500, {}, {});
  FaultyDevice device(b, {.repeat_received = kAlways}, 1);
  send(a, b, 5);
  lan.advance(kSecond);
  EXPECT_EQ(number_of(*device.receive()), 5u);
  EXPECT_EQ(number_of(*device.receive()), 5u);
  EXPECT_EQ(device.receive(), nullptr);
  device.faults = {.refuse = kAlways};
  auto packet = frame_to(a, 1, 60);
  EXPECT_FALSE(device.transmit(packet));
  EXPECT_TRUE(device.room_again());
  device.faults = {.lose_received = kAlways};
  send(a, b, 6);
  lan.advance(2 * kSecond);
  EXPECT_EQ(device.receive(), nullptr);
  device.faults = {.shorten_received = kAlways};
  send(a, b, 7);
  lan.advance(3 * kSecond);
  EXPECT_LE(device.receive()->size(), 100u);
}

}  // namespace
}  // namespace husk::simulation
