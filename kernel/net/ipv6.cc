// IPv6 input (RFC 8200): extension headers, fragments, and which destinations are ours. Output is shared with IPv4: ipv4.cc.
#include "kernel/net/stack_state.h"
#include "wire/ipv6.h"

namespace husk::net {

using packet::PacketPtr;

namespace {

constexpr u32 kHeaderSize = sizeof(wire::Ipv6Header);
constexpr u32 kExtensionsMax = 512;  // of contiguous extension headers that are looked at

bool is_extension(u8 kind) {
  return kind == wire::kProtocolHopByHop || kind == wire::kProtocolDestinationOptions || kind == wire::kProtocolRouting ||
         kind == wire::kProtocolFragment;
}

}  // namespace

bool StackState::accepts6(Interface& interface, Received& received) {
  const IpAddress &from = received.source, &to = received.destination;
  if (from.is_multicast() || from.is_v4() || to.is_v4() || to.is_any()) return false;  // mapped addresses do not go over a wire
  // Duplicate address detection's (RFC 4291 §2.5.2). What answered anything else would answer to this very host.
  if (from.is_any() && received.protocol != wire::kProtocolIcmpv6) return false;
  received.group = to.is_multicast();
  if (interface.loopback) return true;
  if (to.is_loopback() || from.is_loopback()) return false;  // RFC 4291 §2.5.3
  // A solicitation of ours for duplicate addresses may be reflected; everything else from ourselves is forged.
  if (!from.is_any() && interface_of(from) != nullptr && received.protocol != wire::kProtocolIcmpv6) return false;
  if (received.group) return interface.in_group(to);
  // Link-local addresses belong to their interface; others to the machine.
  return interface.find(to) != nullptr || (!to.is_link_local() && interface_of(to) != nullptr);
}

void StackState::ipv6_input(Interface& interface, PacketPtr packet) {
  ++statistics_.in_receives;
  bool link_group = interface.ethernet && packet->header_size != 0;
  auto malformed = [&] { ++statistics_.in_header_errors; };
  if (!packet->pull_up(kHeaderSize)) return malformed();
  auto parsed = wire::Ipv6::parse(packet->head(), packet->size());
  if (!parsed) return malformed();
  u32 total = kHeaderSize + parsed->payload_size;
  if (packet->size() > total) packet->trim_back(packet->size() - total);
  bool extended = is_extension(parsed->header->next_header);
  if (extended) {
    if (!packet->pull_up(std::min(packet->size(), kExtensionsMax))) return malformed();
    parsed = wire::Ipv6::parse(packet->head(), packet->size());
  }
  const wire::Ipv6Header& header = *parsed->header;
  Received received{interface,        IpAddress::v6(header.source), IpAddress::v6(header.destination), kHeaderSize, header.next_header,
                    header.hop_limit, parsed->traffic_class()};
  if (!accepts6(interface, received) || (link_group && !received.group)) {
    ++statistics_.in_address_errors;
    return;
  }
  if (!extended) return deliver(received, std::move(packet));

  wire::Ipv6Walk walk = wire::walk_ipv6(*parsed);
  received.transport = walk.offset;
  received.protocol = walk.protocol;
  switch (walk.end) {
    case wire::Ipv6Walk::End::upper: return deliver(received, std::move(packet));
    case wire::Ipv6Walk::End::problem_unicast:
      if (received.group) return malformed();
      [[fallthrough]];
    case wire::Ipv6Walk::End::problem: malformed(); return send_icmp_error(received, *packet, wire::kIcmpv6ParameterProblem, walk.code, walk.pointer);
    case wire::Ipv6Walk::End::malformed:
    case wire::Ipv6Walk::End::discard: return malformed();
    case wire::Ipv6Walk::End::fragment: break;
  }

  ++statistics_.reassembly_needed;
  u32 offset = walk.fragment->offset(), data = walk.offset + static_cast<u32>(sizeof(wire::Ipv6FragmentHeader));
  bool more = walk.fragment->more();
  if (more && (total - data) % 8 != 0) {  // RFC 8200 §4.5
    malformed();
    received.protocol = wire::kProtocolFragment;
    return send_icmp_error(received, *packet, wire::kIcmpv6ParameterProblem, 0, 4);
  }
  FragmentKey key{received.source, received.destination, walk.fragment->identification, interface.index, 0};
  wire::Ipv6Header first = header;  // what stood between it and the fragment header has been dealt with
  first.next_header = walk.protocol;
  if (packet->checksum == packet::Checksum::partial) packet->checksum = packet::Checksum::unknown;
  packet->trim_front(data);
  PacketPtr whole = reassembly_.add(key, offset, more, {reinterpret_cast<const u8*>(&first), kHeaderSize}, std::move(packet), coarse_now_ns_);
  timers_dirty_ = true;
  if (!whole) return;
  ++statistics_.reassembled;
  u32 size = whole->size() - kHeaderSize;
  if (size > 0xffff) return malformed();
  reinterpret_cast<wire::Ipv6Header*>(whole->head().data())->payload_size = static_cast<u16>(size);
  // Once more from the top: behind a fragment header may stand destination options. It is no fragment any more, or else is dropped here.
  parsed = wire::Ipv6::parse(whole->head(), whole->size());
  if (!parsed) return malformed();
  walk = wire::walk_ipv6(*parsed);
  if (walk.end != wire::Ipv6Walk::End::upper) return malformed();
  received.transport = walk.offset;
  received.protocol = walk.protocol;
  deliver(received, std::move(whole));
}

}  // namespace husk::net
