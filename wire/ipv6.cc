// The walk over IPv6 extension headers, bounded in headers and by the contiguous bytes. Built small: packets with such headers are rare.
#include "wire/ipv6.h"

namespace husk::wire {

namespace {

using End = Ipv6Walk::End;

// RFC 8200 §4.2: the options of a hop-by-hop or destination options header that begins at walk->offset. True to go on.
bool walk_options(std::span<const u8> options, u32 offset, Ipv6Walk* walk) {
  size_t at = 0;
  while (at < options.size()) {
    u8 type = options[at];
    if (type == 0) {  // Pad1
      ++at;
      continue;
    }
    if (options.size() - at < 2 || options.size() - at - 2 < options[at + 1]) {
      walk->end = End::malformed;
      return false;
    }
    if (type == 5 && options[at + 1] == 2) {
      walk->router_alert = true;
    } else if (type != 1 && type >> 6 != 0) {  // PadN is known; the two upper bits say what to do with one that is not
      walk->end = type >> 6 == 1 ? End::discard : type >> 6 == 2 ? End::problem : End::problem_unicast;
      walk->code = 2;
      walk->pointer = offset + static_cast<u32>(at);
      return false;
    }
    at += 2u + options[at + 1];
  }
  return true;
}

}  // namespace

Ipv6Walk walk_ipv6(const Ipv6& packet) {
  Ipv6Walk walk;
  auto rest = packet.payload;
  walk.protocol = packet.header->next_header;
  walk.offset = sizeof(Ipv6Header);
  for (u32 count = 0; count < Ipv6Walk::kHeadersMax; ++count) {
    u8 kind = walk.protocol;
    bool options = kind == kProtocolHopByHop || kind == kProtocolDestinationOptions;
    if (!options && kind != kProtocolRouting && kind != kProtocolFragment) {
      walk.end = End::upper;
      return walk;
    }
    if (rest.size() < 8) return walk;
    if (kind == kProtocolHopByHop && count != 0) {  // §4.1: only first; elsewhere it is an unrecognised next header (§4)
      walk.end = End::problem, walk.code = 1, walk.pointer = walk.next_header_at;
      return walk;
    }
    size_t size = kind == kProtocolFragment ? 8 : 8u + rest[1] * 8u;
    if (size > rest.size()) return walk;
    if (options && !walk_options(rest.subspan(2, size - 2), walk.offset + 2, &walk)) return walk;
    if (kind == kProtocolRouting && rest[3] != 0) {  // §4.4: segments left, of a type that nobody here knows (type 0: RFC 5095)
      walk.end = End::problem, walk.code = 0, walk.pointer = walk.offset + 2;
      return walk;
    }
    if (kind == kProtocolFragment) {
      auto* fragment = view_at<Ipv6FragmentHeader>(rest);
      if (fragment->offset() != 0 || fragment->more()) {
        walk.end = End::fragment, walk.fragment = fragment, walk.protocol = fragment->next_header;
        return walk;
      }
    }
    walk.protocol = rest[0];
    walk.next_header_at = walk.offset;
    walk.offset += static_cast<u32>(size);
    rest = rest.subspan(size);
  }
  return walk;
}

}  // namespace husk::wire
