// ARP for IPv4 over ethernet (RFC 826), with probes and announcements (RFC 5227).
#pragma once

#include <optional>
#include <span>

#include "wire/ethernet.h"

namespace husk::wire {

enum ArpOperation : u16 { kArpRequest = 1, kArpReply = 2 };

struct ArpPacket {
  Be16 hardware, protocol;
  u8 hardware_size, protocol_size;
  Be16 operation;
  u8 sender_mac[kMacSize], sender_address[4];
  u8 target_mac[kMacSize], target_address[4];
};
static_assert(sizeof(ArpPacket) == 28);

struct Arp {
  const ArpPacket* packet;

  // RFC 826 "Packet Reception": only what speaks of ethernet and IPv4, request or reply.
  static std::optional<Arp> parse(std::span<const u8> bytes) {
    auto* packet = view_at<ArpPacket>(bytes);
    if (packet == nullptr || packet->hardware != 1 || packet->protocol != kEtherTypeIpv4) return std::nullopt;
    if (packet->hardware_size != kMacSize || packet->protocol_size != 4) return std::nullopt;
    if (packet->operation != kArpRequest && packet->operation != kArpReply) return std::nullopt;
    return Arp{packet};
  }
  bool request() const { return packet->operation == kArpRequest; }
  // RFC 5227 §1.1: asks whether somebody has the address, without claiming it.
  bool probe() const { return request() && load_be32(packet->sender_address) == 0; }
};

// `target_mac` null: unknown (zeros).
inline size_t build_arp(std::span<u8> out, ArpOperation operation, const u8* sender_mac, const u8* sender_address, const u8* target_mac,
                        const u8* target_address) {
  auto* packet = place_at<ArpPacket>(out);
  if (packet == nullptr) return 0;
  *packet = {1, kEtherTypeIpv4, kMacSize, 4, operation, {}, {}, {}, {}};
  memcpy(packet->sender_mac, sender_mac, kMacSize);
  memcpy(packet->sender_address, sender_address, 4);
  if (target_mac != nullptr) memcpy(packet->target_mac, target_mac, kMacSize);
  memcpy(packet->target_address, target_address, 4);
  return sizeof(ArpPacket);
}

}  // namespace husk::wire
