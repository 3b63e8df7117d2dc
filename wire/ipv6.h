// IPv6 headers and the chain of extension headers (RFC 8200): hop-by-hop, routing, fragment, destination options.
#pragma once

#include <optional>
#include <span>

#include "wire/checksum.h"
#include "wire/ipv4.h"

namespace husk::wire {

struct Ipv6Header {
  Be32 version_class_flow;  // 4, 8 and 20 bits
  Be16 payload_size;
  u8 next_header, hop_limit;
  u8 source[16], destination[16];
};
static_assert(sizeof(Ipv6Header) == 40);

struct Ipv6FragmentHeader {
  u8 next_header, reserved;
  Be16 offset_and_more;  // offset in units of 8 bytes in the upper 13 bits, so bytes with the lower three masked; "more" in bit 0
  Be32 identification;

  u32 offset() const { return offset_and_more & 0xfff8u; }
  bool more() const { return (offset_and_more & 1) != 0; }
};
static_assert(sizeof(Ipv6FragmentHeader) == 8);

struct Ipv6 {
  const Ipv6Header* header;
  u32 payload_size;
  std::span<const u8> payload;  // extension headers and what follows, as far as it lies in `bytes`

  // `bytes` is the contiguous beginning of a packet of `whole` bytes. Jumbograms (RFC 2675) are too short for what they say, and dropped.
  static std::optional<Ipv6> parse(std::span<const u8> bytes, size_t whole) {
    auto* header = view_at<Ipv6Header>(bytes);
    if (header == nullptr || header->version_class_flow >> 28 != 6) return std::nullopt;
    u32 size = header->payload_size;
    if (whole < bytes.size() || size > whole - sizeof(Ipv6Header)) return std::nullopt;
    auto rest = bytes.subspan(sizeof(Ipv6Header));
    return Ipv6{header, size, rest.first(size < rest.size() ? size : rest.size())};
  }
  static std::optional<Ipv6> parse(std::span<const u8> bytes) { return parse(bytes, bytes.size()); }
  u8 traffic_class() const { return static_cast<u8>(header->version_class_flow >> 20); }
  u32 flow_label() const { return header->version_class_flow & 0xfffff; }
};

// Where the upper layer begins, or why the packet goes no further.
struct Ipv6Walk {
  enum class End : u8 {
    upper,            // an upper-layer protocol (known or not), or kProtocolNone
    fragment,         // a part of a packet: `fragment` says which; the walk goes on in the reassembled one
    malformed,        // to be dropped: does not lie in the contiguous beginning, or more than kHeadersMax headers
    discard,          // an option says so
    problem,          // ICMPv6 parameter problem with `code` and `pointer` (RFC 4443 §3.4)
    problem_unicast,  // the same, unless the packet was sent to a group
  };
  static constexpr u32 kHeadersMax = 8;
  End end = End::malformed;
  u8 protocol = 0;         // upper: of what begins at `offset`
  u8 code = 0;             // problem: 0 erroneous field, 1 unrecognised next header, 2 unrecognised option
  u32 offset = 0;          // from the first byte of the IPv6 header; fragment: of the fragment header
  u32 next_header_at = 6;  // offset of the byte that names `protocol` (reassembly; the pointer for an unrecognised next header)
  u32 pointer = 0;
  const Ipv6FragmentHeader* fragment = nullptr;
  bool router_alert = false;  // RFC 2711, asked of MLD packets
};

// RFC 8200 §4.1 to §4.6. An atomic fragment (RFC 6946) is walked through.
Ipv6Walk walk_ipv6(const Ipv6& packet);

struct Ipv6Fields {
  u8 traffic_class = 0, hop_limit = 64, next_header = 0;
  u32 flow_label = 0;
  const u8* source = nullptr;
  const u8* destination = nullptr;
};
inline size_t build_ipv6(std::span<u8> out, const Ipv6Fields& fields, u32 payload_size) {
  auto* header = place_at<Ipv6Header>(out);
  if (header == nullptr || payload_size > 0xffff) return 0;
  header->version_class_flow = u32{6} << 28 | static_cast<u32>(fields.traffic_class) << 20 | (fields.flow_label & 0xfffff);
  header->payload_size = static_cast<u16>(payload_size);
  header->next_header = fields.next_header;
  header->hop_limit = fields.hop_limit;
  memcpy(header->source, fields.source, 16);
  memcpy(header->destination, fields.destination, 16);
  return sizeof(Ipv6Header);
}

}  // namespace husk::wire
