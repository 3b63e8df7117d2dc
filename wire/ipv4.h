// IPv4 headers (RFC 791): lengths, options, fragments.
#pragma once

#include <optional>
#include <span>

#include "wire/checksum.h"
#include "wire/options.h"

namespace husk::wire {

enum IpProtocol : u8 {
  kProtocolHopByHop = 0,
  kProtocolIcmp = 1,
  kProtocolIgmp = 2,
  kProtocolTcp = 6,
  kProtocolUdp = 17,
  kProtocolRouting = 43,
  kProtocolFragment = 44,
  kProtocolIcmpv6 = 58,
  kProtocolNone = 59,
  kProtocolDestinationOptions = 60,
};

struct Ipv4Header {
  u8 version_and_size, traffic_class;
  Be16 total_size, identification, fragment;
  u8 hop_limit, protocol;
  Be16 checksum;
  u8 source[4], destination[4];
};
static_assert(sizeof(Ipv4Header) == 20);
constexpr u16 kIpv4DontFragment = 0x4000, kIpv4MoreFragments = 0x2000;

struct Ipv4 {
  const Ipv4Header* header;
  u32 header_size, payload_size;
  std::span<const u8> options;
  std::span<const u8> payload;  // what of it lies in `bytes`; padding cut off

  // `bytes` is the contiguous beginning of a packet of `whole` bytes, link-layer padding included. The header's checksum is another question.
  static std::optional<Ipv4> parse(std::span<const u8> bytes, size_t whole) {
    auto* header = view_at<Ipv4Header>(bytes);
    if (header == nullptr || header->version_and_size >> 4 != 4) return std::nullopt;
    u32 size = (header->version_and_size & 15u) * 4, total = header->total_size;
    if (size < sizeof(Ipv4Header) || size > bytes.size() || total < size || total > whole) return std::nullopt;
    auto within = bytes.first(total < bytes.size() ? total : bytes.size());
    return Ipv4{header, size, total - size, within.subspan(sizeof(Ipv4Header), size - sizeof(Ipv4Header)), within.subspan(size)};
  }
  static std::optional<Ipv4> parse(std::span<const u8> bytes) { return parse(bytes, bytes.size()); }

  std::span<const u8> header_bytes() const { return {reinterpret_cast<const u8*>(header), header_size}; }
  bool checksum_valid() const { return wire::checksum_valid(header_bytes()); }
  bool dont_fragment() const { return (header->fragment & kIpv4DontFragment) != 0; }
  bool more_fragments() const { return (header->fragment & kIpv4MoreFragments) != 0; }
  u32 fragment_offset() const { return (header->fragment & 0x1fffu) * 8; }  // bytes
  bool is_fragment() const { return more_fragments() || fragment_offset() != 0; }
  // RFC 1122 §3.2.1.8: source routes are not for a host (options 131 and 137).
  bool has_source_route() const {
    OptionReader reader(options);
    while (auto option = reader.next()) {
      if (option->kind == 131 || option->kind == 137) return true;
    }
    return reader.malformed();
  }
};

struct Ipv4Fields {
  u8 traffic_class = 0, hop_limit = 64, protocol = 0;
  u16 identification = 0;
  u16 fragment = kIpv4DontFragment;  // flags, and the offset in units of 8 bytes
  const u8* source = nullptr;
  const u8* destination = nullptr;
};
// A header without options and with its checksum, for so many bytes behind it.
inline size_t build_ipv4(std::span<u8> out, const Ipv4Fields& fields, u32 payload_size) {
  auto* header = place_at<Ipv4Header>(out);
  if (header == nullptr || payload_size > 0xffff - sizeof(Ipv4Header)) return 0;
  header->version_and_size = 0x45;
  header->traffic_class = fields.traffic_class;
  header->total_size = static_cast<u16>(sizeof(Ipv4Header) + payload_size);
  header->identification = fields.identification;
  header->fragment = fields.fragment;
  header->hop_limit = fields.hop_limit;
  header->protocol = fields.protocol;
  header->checksum = 0;
  memcpy(header->source, fields.source, 4);
  memcpy(header->destination, fields.destination, 4);
  header->checksum = checksum_of(out.first(sizeof(Ipv4Header)));
  return sizeof(Ipv4Header);
}

}  // namespace husk::wire
