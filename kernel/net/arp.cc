// ARP (RFC 826), as RFC 5227 and caution refine it: only what is addressed to us, or answers us, is learnt.
#include "kernel/net/dhcp.h"
#include "kernel/net/stack_state.h"
#include "wire/arp.h"

namespace husk::net {

using packet::Packet;
using packet::PacketPtr;

void StackState::arp_input(Interface& interface, PacketPtr packet) {
  if (!packet->pull_up(sizeof(wire::ArpPacket))) return;
  auto arp = wire::Arp::parse(packet->head());
  if (!arp) return;
  const wire::ArpPacket& fields = *arp->packet;
  IpAddress sender = IpAddress::v4(fields.sender_address), target = IpAddress::v4(fields.target_address);
  u8 mac[6];
  memcpy(mac, fields.sender_mac, 6);
  if ((mac[0] & 1) != 0 || memcmp(mac, interface.mac, 6) == 0) return;
  // Somebody else has, or asks for, what we took: DHCP gives it back (RFC 2131 §3.1.5); otherwise we stay (RFC 5227 §2.4 (c)).
  bool ours = interface.find(target) != nullptr;
  if (interface.dhcp && interface.dhcp->conflict(sender.is_any() ? target : sender, coarse_now_ns_)) return;
  if (interface.find(sender) != nullptr || sender.is_multicast() || sender.is_limited_broadcast()) return;
  if (!sender.is_any()) {
    NeighbourEntry* entry = neighbours_.find(interface, sender);
    // RFC 826 "Packet Reception": an entry that is there is updated by anything; one is made only if we are the target.
    if (entry == nullptr && ours && arp->request()) entry = neighbours_.find_or_create(interface, sender);
    if (entry != nullptr) neighbours_.resolved(*entry, mac, !arp->request() && ours ? Neighbours::Solicited::yes : Neighbours::Solicited::no);
  }
  if (ours && arp->request()) send_arp(interface, wire::kArpReply, target, sender, mac);
}

void StackState::send_arp(Interface& interface, u16 operation, const IpAddress& source, const IpAddress& target, const u8* mac) {
  auto made = Packet::create(sizeof(wire::ArpPacket));
  if (!made.ok()) return;
  PacketPtr packet = made.release();
  wire::build_arp(packet->head(), static_cast<wire::ArpOperation>(operation), interface.mac, source.v4_bytes(), mac, target.v4_bytes());
  auto room = packet->push_front(kEthernetSize);
  if (!room.ok()) return;
  wire::build_ethernet({*room, kEthernetSize}, mac != nullptr ? mac : wire::kMacBroadcast, interface.mac, wire::kEtherTypeArp);
  transmit(interface, std::move(packet));
}

// Asks who has the entry's address; mac: whether he still has it.
void StackState::solicit(NeighbourEntry& entry, const u8* mac) {
  Interface& interface = *entry.interface;
  const InterfaceAddress* source = choose_source(interface, entry.address, entry.address);
  if (source == nullptr) return;
  if (!entry.address.is_v4()) return send_solicitation(interface, source->address, entry.address, mac);
  send_arp(interface, wire::kArpRequest, source->address, entry.address, mac);
}

}  // namespace husk::net
