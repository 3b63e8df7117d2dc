// Ethernet II frames (RFC 894), without the frame check sequence.
#pragma once

#include <optional>
#include <span>

#include "wire/endian.h"

namespace husk::wire {

enum EtherType : u16 { kEtherTypeIpv4 = 0x0800, kEtherTypeArp = 0x0806, kEtherTypeVlan = 0x8100, kEtherTypeIpv6 = 0x86dd };
constexpr u32 kMacSize = 6;
constexpr u8 kMacBroadcast[kMacSize] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct EthernetHeader {
  u8 destination[kMacSize], source[kMacSize];
  Be16 type;
};
static_assert(sizeof(EthernetHeader) == 14);

struct Ethernet {
  const EthernetHeader* header;
  std::span<const u8> payload;  // padding included

  // RFC 1122 §2.3.3: a type below 0x600 is a length (IEEE 802.3), which nobody here speaks.
  static std::optional<Ethernet> parse(std::span<const u8> bytes) {
    auto* header = view_at<EthernetHeader>(bytes);
    if (header == nullptr || header->type < 0x600) return std::nullopt;
    return Ethernet{header, bytes.subspan(sizeof(EthernetHeader))};
  }
  u16 type() const { return header->type; }
  bool to_broadcast() const { return memcmp(header->destination, kMacBroadcast, kMacSize) == 0; }
  bool to_group() const { return (header->destination[0] & 1) != 0; }  // broadcast too
  bool from_group() const { return (header->source[0] & 1) != 0; }     // never right
};

// Bytes written, or 0 if there is no room; so do all builders here.
inline size_t build_ethernet(std::span<u8> out, const u8* destination, const u8* source, u16 type) {
  auto* header = place_at<EthernetHeader>(out);
  if (header == nullptr) return 0;
  memcpy(header->destination, destination, kMacSize);
  memcpy(header->source, source, kMacSize);
  header->type = type;
  return sizeof(EthernetHeader);
}

// RFC 1112 §6.4 and RFC 2464 §7: where a group's packets go on ethernet.
inline void multicast_mac_v4(const u8* address, u8* mac) {
  const u8 bytes[kMacSize] = {0x01, 0x00, 0x5e, static_cast<u8>(address[1] & 0x7f), address[2], address[3]};
  memcpy(mac, bytes, kMacSize);
}
inline void multicast_mac_v6(const u8* address, u8* mac) {
  mac[0] = mac[1] = 0x33;
  memcpy(mac + 2, address + 12, 4);
}

}  // namespace husk::wire
