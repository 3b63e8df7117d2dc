// What may be said about a guest's ethernet frame before libslirp sees it. Pure; the frame is not trusted.
#pragma once

#include <string.h>

#include <algorithm>
#include <bitset>
#include <optional>
#include <span>

#include "base/types.h"

namespace husk::vmm::net {

enum class FrameUse {
  drop,    // nothing that user-mode networking serves, or an address that would be the host's own loopback
  idle,    // what every machine says when its interface comes up: not worth loading libslirp for
  forward  // a request
};

inline FrameUse judge_frame(std::span<const u8> frame) {
  constexpr size_t kEthernet = 14, kArpSize = 28, kIp4Size = 20, kIp6Size = 40;
  if (frame.size() < kEthernet) return FrameUse::drop;
  std::span<const u8> packet = frame.subspan(kEthernet);
  auto all_zero = [](std::span<const u8> bytes) { return std::all_of(bytes.begin(), bytes.end(), [](u8 byte) { return byte == 0; }); };
  switch (frame[12] << 8 | frame[13]) {
    case 0x0806: {  // ARP: a probe (RFC 5227) has no sender, an announcement is about the sender itself
      if (packet.size() < kArpSize) return FrameUse::drop;
      bool probe = all_zero(packet.subspan(14, 4)), announcement = memcmp(&packet[14], &packet[24], 4) == 0;
      return probe || announcement ? FrameUse::idle : FrameUse::forward;
    }
    case 0x0800: {  // 127.0.0.0/8 and 0.0.0.0/8 would reach the host's own services
      if (packet.size() < kIp4Size) return FrameUse::drop;
      return packet[16] == 127 || packet[16] == 0 ? FrameUse::drop : FrameUse::forward;
    }
    case 0x86dd: {  // ::, ::1, and IPv4 addresses inside IPv6 ones
      if (packet.size() < kIp6Size || all_zero(packet.subspan(24, 10))) return FrameUse::drop;
      bool no_source = all_zero(packet.subspan(8, 16));  // duplicate address detection, listener reports (RFC 4862, 3810)
      bool to_routers = packet[24] == 0xff && packet[25] == 0x02 && all_zero(packet.subspan(26, 13)) && (packet[39] == 0x02 || packet[39] == 0x16);
      return no_source || to_routers ? FrameUse::idle : FrameUse::forward;
    }
    default: return FrameUse::drop;
  }
}

// libslirp's own refusal of the host's loopback also swallows a guest's answers to clients that came from there to a published UDP port. Where
// such ports are published this takes its place: to the gateway go only connections that began outside, and answers to clients seen before.
class LoopbackGuard {
 public:
  void note_to_guest(std::span<const u8> frame) {
    auto packet = transport_of(frame);
    if (!packet || packet->protocol != kUdp || !is_alias(packet->source)) return;
    u32 port = packet->ports[0] << 8 | packet->ports[1];
    if (!is_name_server(packet->source, port)) clients_.set(port);
  }
  bool allows_from_guest(std::span<const u8> frame) const {
    if (frame.size() < kEthernet || (frame[12] == 0x08 && frame[13] == 0x06)) return true;
    auto packet = transport_of(frame);
    if (!packet) return false;
    if (!is_alias(packet->destination)) return true;
    u32 port = packet->ports[2] << 8 | packet->ports[3];
    bool name_server = is_name_server(packet->destination, port), dhcp = is_dhcp_server(packet->destination, port);
    if (packet->protocol == kTcp) return name_server || (packet->flags & (kSyn | kAck)) != kSyn;
    if (packet->protocol == kUdp) return name_server || dhcp || clients_.test(port);
    return packet->protocol == kIcmp4 || packet->protocol == kIcmp6;
  }

 private:
  static constexpr size_t kEthernet = 14;
  static constexpr u8 kIcmp4 = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58, kSyn = 2, kAck = 16;
  struct Packet {
    std::span<const u8> source, destination;
    u8 protocol = 0;
    const u8* ports = nullptr;  // source and destination
    u8 flags = 0;               // TCP's
  };
  // Nothing for what is too short or, towards the gateway, comes in fragments: its ports cannot be judged.
  static std::optional<Packet> transport_of(std::span<const u8> frame) {
    if (frame.size() < kEthernet + 20) return std::nullopt;
    bool ip6 = frame[12] == 0x86;
    std::span<const u8> ip = frame.subspan(kEthernet);
    size_t header = ip6 ? 40 : (ip[0] & 15) * size_t{4};
    if (header < 20 || ip.size() < header + 4) return std::nullopt;
    Packet packet = ip6 ? Packet{ip.subspan(8, 16), ip.subspan(24, 16), ip[6]} : Packet{ip.subspan(12, 4), ip.subspan(16, 4), ip[9]};
    bool fragment = !ip6 && ((ip[6] & 0x3f) != 0 || ip[7] != 0);
    if (fragment && is_alias(packet.destination)) return std::nullopt;
    packet.ports = ip.data() + header;
    if (packet.protocol == kTcp && !fragment) {
      if (ip.size() < header + 14) return std::nullopt;
      packet.flags = ip[header + 13];
    }
    return packet;
  }
  // Addresses that libslirp takes for the host: all of its own network, broadcast, and all nodes (ff02::1).
  static bool is_alias(std::span<const u8> address) {
    constexpr u8 kNetwork4[] = {10, 0, 2}, kNetwork6[] = {0xfd, 0x68, 0x75, 0x73, 0x6b, 0, 0, 0}, kBroadcast[] = {255, 255, 255, 255};
    auto begins_with = [&](std::span<const u8> start) { return memcmp(address.data(), start.data(), start.size()) == 0; };
    constexpr u8 kAllNodes[] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    return address.size() == 4 ? begins_with(kNetwork4) || begins_with(kBroadcast) : begins_with(kNetwork6) || begins_with(kAllNodes);
  }
  // Of an alias: the two that libslirp does not take for the host at these ports, and no other address.
  static bool is_name_server(std::span<const u8> address, u32 port) {
    auto between = address.subspan(address.size() == 4 ? 3 : 8);
    return port == 53 && between.back() == 3 && std::all_of(between.begin(), between.end() - 1, [](u8 byte) { return byte == 0; });
  }
  static bool is_dhcp_server(std::span<const u8> address, u32 port) {
    return port == 67 && address.size() == 4 && (address[0] == 255 || address[3] == 2);
  }

  std::bitset<65536> clients_;
};

}  // namespace husk::vmm::net
