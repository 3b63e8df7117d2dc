// ICMPv6 (RFC 4443): dispatch; echo and errors are shared with ICMP in icmp.cc.
#include "wire/icmpv6.h"

#include <algorithm>

#include "kernel/net/stack_state.h"

namespace husk::net {

using packet::Checksum;
using packet::PacketPtr;

namespace {

constexpr u32 kContiguous = 1500;  // what neighbour discovery may need of a message

int error_of(u8 type, u8 code) {
  if (type == wire::kIcmpv6PacketTooBig) return EMSGSIZE;
  if (type == wire::kIcmpv6TimeExceeded) return EHOSTUNREACH;
  if (type == wire::kIcmpv6ParameterProblem) return EPROTO;
  constexpr u8 kErrors[] = {ENETUNREACH, EACCES, EHOSTUNREACH, EHOSTUNREACH, ECONNREFUSED, EACCES, EACCES};
  return code < sizeof(kErrors) ? kErrors[code] : 0;
}

}  // namespace

void StackState::icmpv6_input(const Received& received, PacketPtr packet) {
  ++statistics_.icmp_in;
  u32 at = received.transport;
  auto malformed = [&] { ++statistics_.icmp_in_errors; };
  if (packet->size() < at + sizeof(wire::IcmpHeader) || !packet->pull_up(std::min(packet->size(), at + kContiguous))) return malformed();
  if (packet->checksum == Checksum::unknown) {
    wire::Checksum sum = pseudo_header(received.source, received.destination, wire::kProtocolIcmpv6, packet->size() - at);
    add_bytes(sum, *packet, at);
    if (!sum.valid()) return malformed();
  }
  ++statistics_.in_delivers;
  auto message = packet->head().subspan(at);
  auto icmp = *wire::Icmpv6::parse(message);
  switch (icmp.type()) {
    case wire::kIcmpv6Unreachable:
    case wire::kIcmpv6PacketTooBig:
    case wire::kIcmpv6TimeExceeded:
    case wire::kIcmpv6ParameterProblem: {
      u16 mtu = icmp.type() == wire::kIcmpv6PacketTooBig ? static_cast<u16>(std::min(icmp.parameter(), 65535u)) : u16{0};
      return quoted_error(received.interface, icmp.body, Family::v6, error_of(icmp.type(), icmp.code()), mtu);
    }
    case wire::kIcmpv6EchoRequest: return echo_reply(received, std::move(packet), wire::kIcmpv6EchoReply);
    case wire::kIcmpv6EchoReply: {
      u32 scope = received.source.is_link_local() ? received.interface.index : 0;
      Endpoint from{received.source, 0, scope}, to{received.destination, icmp.header->echo_identifier(), received.interface.index};
      u32 size = packet->size() - at;
      if (auto* socket = udp_.find(udp::Kind::ping, from, to)) socket->queue(received, from, to, std::move(packet), at, size);
      return;
    }
    case wire::kIcmpv6ListenerQuery: return mld_input(received, message);
    case wire::kIcmpv6RouterAdvertisement:
    case wire::kIcmpv6NeighbourSolicitation:
    case wire::kIcmpv6NeighbourAdvertisement:
      // RFC 4861 §6.1, §7.1: what has passed a router is forged.
      if (received.hop_limit != 255 || received.interface.slaac == nullptr) return malformed();
      return ndp_input(received, message);
  }
}

}  // namespace husk::net
