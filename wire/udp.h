// UDP headers (RFC 768).
#pragma once

#include <optional>
#include <span>

#include "wire/endian.h"

namespace husk::wire {

struct UdpHeader {
  Be16 source_port, destination_port, size, checksum;
};
static_assert(sizeof(UdpHeader) == 8);

struct Udp {
  const UdpHeader* header;
  u32 payload_size;
  std::span<const u8> payload;  // what of it lies in `bytes`

  // `bytes` is the contiguous beginning of an IP payload of `whole` bytes; what is behind UDP's own length does not belong to the datagram.
  static std::optional<Udp> parse(std::span<const u8> bytes, size_t whole) {
    auto* header = view_at<UdpHeader>(bytes);
    if (header == nullptr || header->size < sizeof(UdpHeader) || header->size > whole) return std::nullopt;
    u32 size = header->size;
    auto within = bytes.first(size < bytes.size() ? size : bytes.size());
    return Udp{header, size - static_cast<u32>(sizeof(UdpHeader)), within.subspan(sizeof(UdpHeader))};
  }
  static std::optional<Udp> parse(std::span<const u8> bytes) { return parse(bytes, bytes.size()); }
  u32 size() const { return header->size; }
  // Without one: allowed in IPv4 only (RFC 8200 §8.1).
  bool has_checksum() const { return header->checksum.raw() != 0; }
};

// With an empty checksum field.
inline size_t build_udp(std::span<u8> out, u16 source_port, u16 destination_port, u32 payload_size) {
  auto* header = place_at<UdpHeader>(out);
  if (header == nullptr || payload_size > 0xffff - sizeof(UdpHeader)) return 0;
  *header = {source_port, destination_port, static_cast<u16>(sizeof(UdpHeader) + payload_size), 0};
  return sizeof(UdpHeader);
}

}  // namespace husk::wire
