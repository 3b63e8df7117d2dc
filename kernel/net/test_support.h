// A stack between a fake clock, a fake device and a fake TCP, and frames to and from it. Hosted tests only.
#pragma once

#include <gtest/gtest.h>
#include <string.h>

#include <deque>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernel/net/stack.h"
#include "wire/arp.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace husk::net::testing {

using Bytes = std::vector<u8>;
constexpr u64 kSecond = 1'000'000'000, kMillisecond = 1'000'000;
constexpr u8 kOurMac[6] = {2, 0, 0, 0, 0, 1}, kPeerMac[6] = {2, 0, 0, 0, 0, 2}, kOtherMac[6] = {2, 0, 0, 0, 0, 3};
constexpr IpAddress kOurs = IpAddress::v4(10, 0, 0, 1), kPeer = IpAddress::v4(10, 0, 0, 2), kGateway = IpAddress::v4(10, 0, 0, 254);
constexpr IpAddress kOurs6 = {{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, kPeer6 = {{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};

constexpr IpAddress kAllNodesOfTest = {{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Bytes text(std::string_view view) { return {view.begin(), view.end()}; }
inline Bytes pattern(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<u8>(i * 7 + i / 256);
  return bytes;
}

class FakeDevice final : public packet::NetDevice {
 public:
  FakeDevice() { memcpy(properties_.mac, kOurMac, 6); }
  Properties properties_;
  std::deque<packet::PacketPtr> in, sent;
  size_t room = ~size_t{0}, flushes = 0;

  const Properties& properties() const override { return properties_; }
  packet::PacketPtr receive() override {
    if (in.empty()) return nullptr;
    auto packet = std::move(in.front());
    in.pop_front();
    return packet;
  }
  bool transmit(packet::PacketPtr& packet) override {
    if (sent.size() >= room) return false;
    sent.push_back(std::move(packet));
    return true;
  }
  void flush() override { ++flushes; }
  bool room_again() override { return sent.size() < room; }
  Statistics statistics() const override { return {}; }
};

// Notes what it is told; owners of tests send through `lower`.
class FakeTcp final : public tcp::Tcp {
 public:
  struct Input {
    Flow flow;
    tcp::Segment segment;
    Bytes payload;
    u32 pieces;
  };
  struct Failure {
    Flow flow;
    tcp::SeqNum sequence;
    int error;
    u16 mtu;
  };
  explicit FakeTcp(tcp::Lower& of) : lower(of) { last = this; }
  static inline FakeTcp* last = nullptr;
  tcp::Lower& lower;
  std::vector<Input> inputs;
  std::vector<Failure> failures;

  Result<Ref<tcp::Socket>> socket(Family) override { return Error(ENOSYS); }
  void input(const Flow& flow, const tcp::Segment& segment, packet::PacketPtr payload, u32 pieces) override {
    Bytes bytes(payload ? payload->size() : 0);
    if (payload) payload->copy_out(0, bytes.data(), payload->size());
    inputs.push_back({flow, segment, bytes, pieces});
  }
  void network_error(const Flow& flow, tcp::SeqNum sequence, int error, u16 mtu) override { failures.push_back({flow, sequence, error, mtu}); }
  void run() override {}
  u64 next_deadline_ns() const override { return ~u64{0}; }
  Statistics statistics() const override { return {}; }
  void visit(Visitor&) const override {}
};

// What a socket's owner hears.
struct Observer final : SocketObserver {
  u32 heard = 0;
  void socket_changed(u32 events) override { heard |= events; }
};

class World : public ::testing::Test, public Environment {
 protected:
  u64 now_ns() override { return now; }
  void random(void* to, size_t size) override {
    for (size_t i = 0; i < size; ++i) static_cast<u8*>(to)[i] = static_cast<u8>(generator());
  }
  void names_changed() override { ++names; }

  void SetUp() override { create({}); }
  void create(const Stack::Limits& limits) {
    stack.reset();
    auto made = Stack::create(*this, limits);
    ASSERT_TRUE(made.ok());
    stack = made.release();
    tcp = FakeTcp::last;
  }
  void add(Configure configure = Configure::manually) {
    auto index = stack->add_interface(device, "eth0", configure, "husk");
    ASSERT_TRUE(index.ok());
    eth = *index;
  }
  // An interface with 10.0.0.1/24 and fd00::1/64, whose peers are known, and a default route.
  void configure() {
    add();
    ASSERT_TRUE(stack->add_address(eth, kOurs, 24).ok());
    ASSERT_TRUE(stack->add_address(eth, kOurs6, 64).ok());
    ASSERT_TRUE(stack->add_route({IpAddress::v4(0, 0, 0, 0), 0, true, kGateway, eth, 0}).ok());
    run();
    pass(2 * kSecond);
    meet();
    device.sent.clear();
  }
  // The peer asks for us, so that we know it.
  void meet() {
    inject(arp(wire::kArpRequest, kPeerMac, kPeer, nullptr, kOurs));
    inject(arp(wire::kArpRequest, kPeerMac, kGateway, nullptr, kOurs));
    inject(ndp(wire::kIcmpv6NeighbourSolicitation, kPeer6, kOurs6, 0, kOurs6, kPeerMac));
  }

  void run() {
    while (stack->run()) {}
  }
  void pass(u64 ns) {  // as a machine would: by the deadlines
    u64 end = now + ns;
    while (stack->next_deadline_ns() <= end) {
      now = std::max(now, stack->next_deadline_ns());
      run();
    }
    now = end;
    run();
  }
  packet::PacketPtr packet_of(const Bytes& bytes) {
    auto packet = packet::Packet::create(static_cast<u32>(bytes.size()));
    if (!bytes.empty()) memcpy((*packet)->head().data(), bytes.data(), bytes.size());
    return packet.release();
  }
  void inject(const Bytes& frame) { inject(packet_of(frame)); }
  void inject(packet::PacketPtr packet) {
    device.in.push_back(std::move(packet));
    run();
  }
  // The next frame that was sent; empty: none.
  Bytes take() {
    if (device.sent.empty()) return {};
    auto packet = std::move(device.sent.front());
    device.sent.pop_front();
    Bytes bytes(packet->size());
    packet->copy_out(0, bytes.data(), packet->size());
    return bytes;
  }
  // The IP packet of the next frame.
  Bytes take_ip() {
    Bytes frame = take();
    return frame.size() < 14 ? Bytes{} : Bytes(frame.begin() + 14, frame.end());
  }

  // The next ICMP message that was sent, without its IP header; others are skipped.
  Bytes take_icmp(u8 type) {
    while (!device.sent.empty()) {
      Bytes packet = take_ip();
      u32 header = packet.empty() ? 0 : packet[0] >> 4 == 4 ? 20 : 40;
      if (packet.size() < header + 8 || packet[header == 20 ? 9 : 6] != (header == 20 ? 1 : 58) || packet[header] != type) continue;
      return Bytes(packet.begin() + header, packet.end());
    }
    return {};
  }

  // --- frames ------------------------------------------------------------------
  static Bytes ethernet(u16 type, const Bytes& payload, const u8* to = kOurMac, const u8* from = kPeerMac) {
    Bytes frame(14);
    wire::build_ethernet(frame, to, from, type);
    return frame + payload;
  }
  static Bytes arp(u16 operation, const u8* mac, const IpAddress& sender, const u8* target_mac, const IpAddress& target) {
    Bytes message(28);
    wire::build_arp(message, static_cast<wire::ArpOperation>(operation), mac, sender.v4_bytes(), target_mac, target.v4_bytes());
    return ethernet(wire::kEtherTypeArp, message, operation == wire::kArpRequest ? wire::kMacBroadcast : kOurMac, mac);
  }
  static Bytes ip4(const IpAddress& from, const IpAddress& to, u8 protocol, const Bytes& payload, u16 fragment = 0, u16 identification = 7) {
    Bytes header(20);
    wire::build_ipv4(header, {0, 64, protocol, identification, fragment, from.v4_bytes(), to.v4_bytes()}, static_cast<u32>(payload.size()));
    return header + payload;
  }
  static Bytes ip6(const IpAddress& from, const IpAddress& to, u8 protocol, const Bytes& payload, u8 hop_limit = 64) {
    Bytes header(40);
    wire::build_ipv6(header, {0, hop_limit, protocol, 0, from.bytes, to.bytes}, static_cast<u32>(payload.size()));
    return header + payload;
  }
  static Bytes frame_of(const Bytes& ip) { return ethernet(ip[0] >> 4 == 4 ? wire::kEtherTypeIpv4 : wire::kEtherTypeIpv6, ip); }
  static wire::Checksum pseudo(const IpAddress& from, const IpAddress& to, u8 protocol, size_t size) {
    wire::Checksum sum;
    if (from.is_v4()) {
      sum.add_pseudo_v4(from.v4_bytes(), to.v4_bytes(), protocol, static_cast<u32>(size));
    } else {
      sum.add_pseudo_v6(from.bytes, to.bytes, protocol, static_cast<u32>(size));
    }
    return sum;
  }
  static Bytes udp_message(const IpAddress& from, u16 source, const IpAddress& to, u16 destination, const Bytes& payload) {
    Bytes message(8);
    wire::build_udp(message, source, destination, static_cast<u32>(payload.size()));
    message = message + payload;
    auto sum = pseudo(from, to, wire::kProtocolUdp, message.size());
    sum.add(message);
    reinterpret_cast<wire::UdpHeader*>(message.data())->checksum = sum.finish_udp();
    return message;
  }
  static Bytes udp(const IpAddress& from, u16 source, const IpAddress& to, u16 destination, const Bytes& payload) {
    Bytes message = udp_message(from, source, to, destination, payload);
    return from.is_v4() ? ip4(from, to, wire::kProtocolUdp, message) : ip6(from, to, wire::kProtocolUdp, message);
  }
  static Bytes icmp4(u8 type, u8 code, u16 first, u16 second, const Bytes& body) {
    Bytes header(8);
    wire::build_icmp(header, type, code, first, second, body);
    return header + body;
  }
  static Bytes icmp6(const IpAddress& from, const IpAddress& to, u8 type, u8 code, u32 parameter, const Bytes& body) {
    Bytes header(8);
    wire::build_icmp(header, type, code, static_cast<u16>(parameter >> 16), static_cast<u16>(parameter), body,
                     pseudo(from, to, wire::kProtocolIcmpv6, body.size() + 8));
    return header + body;
  }
  static Bytes ndp(wire::Icmpv6Type type, const IpAddress& from, const IpAddress& to, u8 flags, const IpAddress& target, const u8* mac,
                   u8 hop_limit = 255) {
    size_t size = mac != nullptr ? 32 : 24;
    Bytes message(size);
    wire::build_neighbour(message, type, flags, target.bytes, mac, pseudo(from, to, wire::kProtocolIcmpv6, size));
    return ethernet(wire::kEtherTypeIpv6, ip6(from, to, wire::kProtocolIcmpv6, message, hop_limit));
  }

  // --- sockets -----------------------------------------------------------------
  Ref<udp::Socket> udp_socket(Family family = Family::v4) { return stack->udp_socket(family).release(); }
  static Result<size_t> send(udp::Socket& socket, const Bytes& bytes, const Endpoint* to = nullptr, const Endpoint* source = nullptr) {
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(bytes.data(), bytes.size());
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    return socket.send(buffer, to, source);
  }
  struct Datagram {
    int error = 0;
    udp::Datagram about;
    Bytes bytes;
  };
  static Datagram receive(udp::Socket& socket, udp::Socket::Peek peek = udp::Socket::Peek::no, size_t room = 65536) {
    Datagram result;
    result.bytes.resize(room);
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(result.bytes.data(), room);
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    auto got = socket.receive(buffer, peek);
    result.bytes.resize(buffer.done());
    if (got.ok()) result.about = *got;
    if (!got.ok()) result.error = got.error().code();
    return result;
  }

  u64 now = 100 * kSecond;
  std::mt19937 generator{1};
  int names = 0;
  FakeDevice device;
  Owned<Stack> stack;
  FakeTcp* tcp = nullptr;
  u32 eth = 0;
};

}  // namespace husk::net::testing
