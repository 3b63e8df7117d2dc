// ICMPv6 (RFC 4443), neighbour discovery (RFC 4861) with router information for hosts: prefixes (RFC 4862), MTU, DNS (RFC 8106); and MLDv1/v2 type numbers.
//
// The messages themselves are as in ICMP: wire/icmp.h's IcmpHeader and build_icmp(), with the IPv6 pseudo header in the checksum.
#pragma once

#include <optional>
#include <span>

#include "wire/ethernet.h"
#include "wire/icmp.h"

namespace husk::wire {

enum Icmpv6Type : u8 {
  kIcmpv6Unreachable = 1,
  kIcmpv6PacketTooBig = 2,
  kIcmpv6TimeExceeded = 3,
  kIcmpv6ParameterProblem = 4,
  kIcmpv6EchoRequest = 128,
  kIcmpv6EchoReply = 129,
  kIcmpv6ListenerQuery = 130,
  kIcmpv6ListenerReport = 131,
  kIcmpv6ListenerDone = 132,
  kIcmpv6RouterSolicitation = 133,
  kIcmpv6RouterAdvertisement = 134,
  kIcmpv6NeighbourSolicitation = 135,
  kIcmpv6NeighbourAdvertisement = 136,
  kIcmpv6Redirect = 137,
  kIcmpv6ListenerReport2 = 143,
};
enum Icmpv6UnreachableCode : u8 {
  kIcmpv6NoRoute = 0,
  kIcmpv6AdministrativelyProhibited = 1,
  kIcmpv6BeyondScope = 2,
  kIcmpv6AddressUnreachable = 3,
  kIcmpv6PortUnreachable = 4,
};

struct Icmpv6 {
  const IcmpHeader* header;
  std::span<const u8> body;

  static std::optional<Icmpv6> parse(std::span<const u8> bytes) {
    auto* header = view_at<IcmpHeader>(bytes);
    if (header == nullptr) return std::nullopt;
    return Icmpv6{header, bytes.subspan(sizeof(IcmpHeader))};
  }
  u8 type() const { return header->type; }
  u8 code() const { return header->code; }
  bool is_error() const { return header->type < 128; }
  // Packet too big: the MTU. Parameter problem: the pointer.
  u32 parameter() const { return static_cast<u32>(header->first) << 16 | header->second; }
};

// --- neighbour discovery (RFC 4861 §4) ------------------------------------------------------------------------------------------------------------------

enum NdpOptionKind : u8 { kNdpSourceLink = 1, kNdpTargetLink = 2, kNdpPrefix = 3, kNdpRedirected = 4, kNdpMtu = 5, kNdpRdnss = 25, kNdpDnssl = 31 };

struct NdpOption {
  u8 kind;
  std::span<const u8> bytes;  // all of it, kind and length included: a multiple of 8

  const u8* link_address() const { return bytes.data() + 2; }  // kNdpSourceLink, kNdpTargetLink: six bytes (RFC 2464 §6)
  // kNdpMtu, judged by the caller; 0 for any other.
  u32 mtu() const { return kind == kNdpMtu ? load_be32(&bytes[4]) : 0; }
};

class NdpOptionReader {
 public:
  explicit NdpOptionReader(std::span<const u8> bytes) : rest_(bytes) {}
  std::optional<NdpOption> next() {
    if (rest_.empty()) return std::nullopt;
    size_t size = rest_.size() < 8 ? 0 : rest_[1] * 8u;
    if (size == 0 || size > rest_.size()) {
      malformed_ = true;
      rest_ = {};
      return std::nullopt;
    }
    NdpOption option{rest_[0], rest_.first(size)};
    rest_ = rest_.subspan(size);
    return option;
  }
  bool malformed() const { return malformed_; }

 private:
  std::span<const u8> rest_;
  bool malformed_ = false;
};

// RFC 4861 §6.1: the four messages have a length and options that are right, or are dropped whole.
inline bool ndp_options_valid(std::span<const u8> options) {
  NdpOptionReader reader(options);
  while (reader.next()) {}
  return !reader.malformed();
}

struct NeighbourMessage {  // solicitation and advertisement; the same form (§4.3, §4.4)
  IcmpHeader icmp;
  u8 target[16];
};
static_assert(sizeof(NeighbourMessage) == 24);
enum NeighbourFlags : u8 { kNeighbourRouter = 0x80, kNeighbourSolicited = 0x40, kNeighbourOverride = 0x20 };

struct Neighbour {
  const NeighbourMessage* message;
  const u8* link_address;  // the source's (solicitation) or the target's (advertisement); null: not there

  // `bytes`: the whole ICMPv6 message. Hop limit 255 and the addresses are the caller's to judge.
  static std::optional<Neighbour> parse(std::span<const u8> bytes) {
    auto* message = view_at<NeighbourMessage>(bytes);
    if (message == nullptr || message->icmp.code != 0 || message->target[0] == 0xff) return std::nullopt;
    bool solicitation = message->icmp.type == kIcmpv6NeighbourSolicitation;
    if (!solicitation && message->icmp.type != kIcmpv6NeighbourAdvertisement) return std::nullopt;
    Neighbour result{message, nullptr};
    NdpOptionReader reader(bytes.subspan(sizeof(NeighbourMessage)));
    while (auto option = reader.next()) {
      if (option->kind == (solicitation ? kNdpSourceLink : kNdpTargetLink)) result.link_address = option->link_address();
    }
    if (reader.malformed()) return std::nullopt;
    return result;
  }
  bool solicitation() const { return message->icmp.type == kIcmpv6NeighbourSolicitation; }
  u8 flags() const { return static_cast<u8>(message->icmp.first >> 8); }  // NeighbourFlags, of an advertisement
};

// With the link address as an option unless it is null. `initial`: the pseudo header's sum, for kNeighbourSize bytes (24 without the option).
constexpr u32 kNeighbourSize = sizeof(NeighbourMessage) + 8;
inline size_t build_neighbour(std::span<u8> out, Icmpv6Type type, u8 flags, const u8* target, const u8* link_address, const Checksum& initial) {
  size_t size = link_address != nullptr ? kNeighbourSize : sizeof(NeighbourMessage);
  if (out.size() < size) return 0;
  memcpy(&out[8], target, 16);
  if (link_address != nullptr) {
    out[24] = type == kIcmpv6NeighbourSolicitation ? kNdpSourceLink : kNdpTargetLink, out[25] = 1;
    memcpy(&out[26], link_address, kMacSize);
  }
  build_icmp(out, type, 0, static_cast<u16>(flags << 8), 0, out.subspan(8, size - 8), initial);
  return size;
}

struct RouterAdvertisementMessage {  // §4.2
  u8 type, code;
  Be16 checksum;
  u8 hop_limit, flags;  // 0x80: addresses by DHCPv6, 0x40: other things by DHCPv6
  Be16 lifetime_s;      // 0: not a default router
  Be32 reachable_ms, retransmit_ms;
};
static_assert(sizeof(RouterAdvertisementMessage) == 16);

struct RouterAdvertisement {
  const RouterAdvertisementMessage* message;
  std::span<const u8> options;  // valid: for NdpOptionReader

  static std::optional<RouterAdvertisement> parse(std::span<const u8> bytes) {
    auto* message = view_at<RouterAdvertisementMessage>(bytes);
    if (message == nullptr || message->type != kIcmpv6RouterAdvertisement || message->code != 0) return std::nullopt;
    auto options = bytes.subspan(sizeof(RouterAdvertisementMessage));
    if (!ndp_options_valid(options)) return std::nullopt;
    return RouterAdvertisement{message, options};
  }
};

struct RouterSolicitation {
  const IcmpHeader* header;
  const u8* link_address;  // null: not there

  static std::optional<RouterSolicitation> parse(std::span<const u8> bytes) {
    auto* header = view_at<IcmpHeader>(bytes);
    if (header == nullptr || header->type != kIcmpv6RouterSolicitation || header->code != 0) return std::nullopt;
    RouterSolicitation result{header, nullptr};
    NdpOptionReader reader(bytes.subspan(sizeof(IcmpHeader)));
    while (auto option = reader.next()) {
      if (option->kind == kNdpSourceLink) result.link_address = option->link_address();
    }
    if (reader.malformed()) return std::nullopt;
    return result;
  }
};

constexpr u32 kRouterSolicitationSize = sizeof(IcmpHeader) + 8;
inline size_t build_router_solicitation(std::span<u8> out, const u8* link_address, const Checksum& initial) {
  size_t size = link_address != nullptr ? kRouterSolicitationSize : sizeof(IcmpHeader);
  if (out.size() < size) return 0;
  if (link_address != nullptr) {
    out[8] = kNdpSourceLink, out[9] = 1;
    memcpy(&out[10], link_address, kMacSize);
  }
  build_icmp(out, kIcmpv6RouterSolicitation, 0, 0, 0, out.subspan(8, size - 8), initial);
  return size;
}

// --- options of router advertisements -------------------------------------------------------------------------------------------------------------------

struct NdpPrefix {  // §4.6.2
  u8 kind, words, prefix_bits, flags;
  Be32 valid_s, preferred_s, reserved;  // ~0: for ever
  u8 prefix[16];

  static const NdpPrefix* parse(const NdpOption& option) {
    auto* prefix = option.kind == kNdpPrefix && option.bytes.size() == sizeof(NdpPrefix) ? view_at<NdpPrefix>(option.bytes) : nullptr;
    return prefix != nullptr && prefix->prefix_bits <= 128 ? prefix : nullptr;
  }
  bool on_link() const { return (flags & 0x80) != 0; }
  bool autonomous() const { return (flags & 0x40) != 0; }
};
static_assert(sizeof(NdpPrefix) == 32);

struct NdpRdnss {  // RFC 8106 §5.1
  u32 lifetime_s;
  std::span<const u8> addresses;  // 16 bytes each, at least one

  static std::optional<NdpRdnss> parse(const NdpOption& option) {
    if (option.kind != kNdpRdnss || option.bytes.size() < 24 || option.bytes.size() % 16 != 8) return std::nullopt;
    return NdpRdnss{load_be32(&option.bytes[4]), option.bytes.subspan(8)};
  }
  size_t count() const { return addresses.size() / 16; }
  const u8* address(size_t index) const { return addresses.subspan(index * 16, 16).data(); }
};

struct NdpDnssl {  // RFC 8106 §5.2
  u32 lifetime_s;
  std::span<const u8> names;

  static std::optional<NdpDnssl> parse(const NdpOption& option) {
    if (option.kind != kNdpDnssl || option.bytes.size() < 16) return std::nullopt;
    return NdpDnssl{load_be32(&option.bytes[4]), option.bytes.subspan(8)};
  }
  // The first name with dots, without a NUL; its size, or 0 if it is malformed, empty or does not fit.
  size_t first_name(std::span<char> out) const;
};

}  // namespace husk::wire
