// Neighbour discovery (RFC 4861) as a host does it; routers' advertisements go on to Slaac. Redirects are ignored.
#include "kernel/net/slaac.h"
#include "kernel/net/stack_state.h"
#include "wire/icmpv6.h"

namespace husk::net {

using packet::Packet;
using packet::PacketPtr;

namespace {

// On this very link, whatever the routes say.
Destination on_link(Interface& interface, const IpAddress& source, const IpAddress& remote) {
  Destination to;
  to.remote = to.next_hop = remote;
  to.interface = &interface;
  to.source = source;
  to.path_mtu = interface.mtu6;
  to.reach = remote.is_multicast() ? Reach::multicast : Reach::unicast;
  return to;
}

PacketPtr message_of(u32 size) {
  PacketPtr packet = Packet::create(size).value_or(nullptr);
  if (packet) packet->checksum = packet::Checksum::complete;
  return packet;
}

constexpr IpFields kFields{wire::kProtocolIcmpv6, 255, 0};

}  // namespace

void StackState::ndp_input(const Received& received, std::span<const u8> message) {
  Interface& interface = received.interface;
  if (message[0] == wire::kIcmpv6RouterAdvertisement) return interface.slaac->advertised(received, message, coarse_now_ns_);
  auto parsed = wire::Neighbour::parse(message);
  if (!parsed) {
    ++statistics_.icmp_in_errors;
    return;
  }
  if (parsed->link_address != nullptr && (parsed->link_address[0] & 1) != 0) return;
  IpAddress target = IpAddress::v6(parsed->message->target);
  if (parsed->solicitation()) {
    solicited(received, target, parsed->link_address);
  } else {
    advertised(received, target, parsed->link_address, parsed->flags());
  }
}

// RFC 4861 §7.2.3, §7.2.4; RFC 4862 §5.4.3.
void StackState::solicited(const Received& received, const IpAddress& target, const u8* link_address) {
  Interface& interface = received.interface;
  const InterfaceAddress* ours = interface.find(target);
  bool detection = received.source.is_any();
  if (ours == nullptr || (detection && (link_address != nullptr || !(received.destination == solicited_node(target))))) return;
  if (detection && ours->tentative) return interface.slaac->duplicate(target);
  if (!detection && link_address != nullptr) {
    NeighbourEntry* entry = neighbours_.find_or_create(interface, received.source);
    if (entry != nullptr) neighbours_.resolved(*entry, link_address, Neighbours::Solicited::no);
  }
  PacketPtr packet = message_of(wire::kNeighbourSize);
  if (!packet) return;
  IpAddress remote = detection ? kAllNodes : received.source;
  // RFC 4429 §3.3: an address that is not ours for certain overrides nothing.
  u8 flags = static_cast<u8>((detection ? 0 : wire::kNeighbourSolicited) | (ours->tentative ? 0 : wire::kNeighbourOverride));
  wire::build_neighbour(packet->head(), wire::kIcmpv6NeighbourAdvertisement, flags, target.bytes, interface.mac,
                        pseudo_header(target, remote, wire::kProtocolIcmpv6, wire::kNeighbourSize));
  Destination to = on_link(interface, target, remote);
  (void)send_ip(to, target, kFields, std::move(packet));
}

// RFC 4861 §7.1.2, §7.2.5.
void StackState::advertised(const Received& received, const IpAddress& target, const u8* link_address, u8 flags) {
  Interface& interface = received.interface;
  if (received.group && (flags & wire::kNeighbourSolicited) != 0) return;
  if (const InterfaceAddress* ours = interface.find(target)) {
    if (ours->tentative) interface.slaac->duplicate(target);
    return;
  }
  NeighbourEntry* entry = neighbours_.find(interface, target);
  if (entry == nullptr) return;
  bool waits = entry->state == NeighbourState::incomplete;
  if (link_address == nullptr && waits) return;
  bool other = link_address != nullptr && memcmp(entry->mac, link_address, 6) != 0;
  entry->router = (flags & wire::kNeighbourRouter) != 0;
  if (!waits && other && (flags & wire::kNeighbourOverride) == 0) {
    if (entry->state == NeighbourState::reachable) entry->state = NeighbourState::stale;
    return;
  }
  u8 mac[6];
  memcpy(mac, link_address != nullptr ? link_address : entry->mac, 6);
  neighbours_.resolved(*entry, mac, (flags & wire::kNeighbourSolicited) != 0 ? Neighbours::Solicited::yes : Neighbours::Solicited::no);
}

void StackState::send_solicitation(Interface& interface, const IpAddress& source, const IpAddress& target, const u8* mac) {
  // RFC 4429 §3.2: with a tentative source, the link address would be learnt.
  const InterfaceAddress* own = interface.find(source);
  const u8* link_address = own == nullptr || own->tentative ? nullptr : interface.mac;
  u32 size = link_address != nullptr ? wire::kNeighbourSize : u32{sizeof(wire::NeighbourMessage)};
  IpAddress remote = mac != nullptr ? target : solicited_node(target);
  PacketPtr packet = message_of(size);
  if (!packet) return;
  wire::build_neighbour(packet->head(), wire::kIcmpv6NeighbourSolicitation, 0, target.bytes, link_address,
                        pseudo_header(source, remote, wire::kProtocolIcmpv6, size));
  Destination to = on_link(interface, source, remote);
  if (mac == nullptr) return (void)send_ip(to, source, kFields, std::move(packet));
  if (push_ip(to, source, kFields, 0, 0, *packet)) send_frame(interface, mac, std::move(packet));
}

void StackState::send_router_solicitation(Interface& interface) {
  const InterfaceAddress* own = interface.first(Family::v6, true);
  IpAddress source = own != nullptr && !own->tentative ? own->address : IpAddress{};
  u32 size = own != nullptr && !own->tentative ? wire::kRouterSolicitationSize : u32{sizeof(wire::IcmpHeader)};
  PacketPtr packet = message_of(size);
  if (!packet) return;
  wire::build_router_solicitation(packet->head(), source.is_any() ? nullptr : interface.mac,
                                  pseudo_header(source, kAllRouters, wire::kProtocolIcmpv6, size));
  Destination to = on_link(interface, source, kAllRouters);
  (void)send_ip(to, source, kFields, std::move(packet));
}

}  // namespace husk::net
