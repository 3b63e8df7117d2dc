// Frames: from the devices to the protocols, and from the protocols to the devices. RFC 894, RFC 1122 §2.3.3. Runs for every packet.
#include "kernel/net/stack_state.h"
#include "wire/ethernet.h"

namespace husk::net {

using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;

static_assert(sizeof(wire::EthernetHeader) == kEthernetSize);

bool StackState::receive_some(Interface& interface) {
  u32 count = 0;
  while (count < kBudget) {
    PacketPtr frame = interface.device.receive();
    if (!frame) break;
    ++count;
    frame_input(interface, std::move(frame));
  }
  return count > 0;
}

void StackState::frame_input(Interface& interface, PacketPtr frame) {
  if (!interface.ethernet) {
    if (!frame->pull_up(1)) return;
    return frame->head()[0] >> 4 == 4 ? ipv4_input(interface, std::move(frame)) : ipv6_input(interface, std::move(frame));
  }
  if (!frame->pull_up(kEthernetSize)) return;
  auto* header = reinterpret_cast<const wire::EthernetHeader*>(frame->head().data());
  u16 type = header->type;
  bool group = (header->destination[0] & 1) != 0;
  // A bridge floods what is for others (and, a frame of ours that comes back, from us).
  if (!group && memcmp(header->destination, interface.mac, 6) != 0) return;
  if ((header->source[0] & 1) != 0 || (group && memcmp(header->source, interface.mac, 6) == 0)) return;
  frame->trim_front(kEthernetSize);
  if (type == wire::kEtherTypeArp) return arp_input(interface, std::move(frame));
  if (type != wire::kEtherTypeIpv4 && type != wire::kEtherTypeIpv6) return;
  // RFC 1122 §3.3.6: what the link sent to all must be for a group in IP as well. Told by header_size, which has no other use on the way up.
  frame->header_size = group ? 1 : 0;
  if (type == wire::kEtherTypeIpv4) return ipv4_input(interface, std::move(frame));
  ipv6_input(interface, std::move(frame));
}

void StackState::send_link(Destination& to, PacketPtr packet) {
  Interface& interface = *to.interface;
  if (!interface.ethernet) return transmit(interface, std::move(packet));
  if (to.reach == Reach::unicast) {
    if (to.neighbour == nullptr) {
      to.neighbour = neighbours_.find_or_create(interface, to.next_hop);
      if (to.neighbour == nullptr) {
        ++statistics_.out_discards;
        return;
      }
    }
    return neighbours_.send(*to.neighbour, std::move(packet));
  }
  u8 mac[6];
  if (to.reach == Reach::broadcast) {
    memcpy(mac, wire::kMacBroadcast, 6);
  } else if (to.remote.is_v4()) {
    wire::multicast_mac_v4(to.remote.v4_bytes(), mac);
  } else {
    wire::multicast_mac_v6(to.remote.bytes, mac);
  }
  send_frame(interface, mac, std::move(packet));
}

void StackState::send_frame(Interface& interface, const u8* mac, PacketPtr packet) {
  u16 type = packet->head()[0] >> 4 == 4 ? wire::kEtherTypeIpv4 : wire::kEtherTypeIpv6;
  auto room = packet->push_front(kEthernetSize);
  if (!room.ok()) {
    ++statistics_.out_discards;
    return;
  }
  wire::build_ethernet({*room, kEthernetSize}, mac, interface.mac, type);
  if (packet->checksum == Checksum::partial) packet->checksum_start = static_cast<u16>(packet->checksum_start + kEthernetSize);
  if (packet->segment_size != 0) packet->header_size = static_cast<u16>(packet->header_size + kEthernetSize);
  transmit(interface, std::move(packet));
}

void StackState::transmit(Interface& interface, PacketPtr frame) {
  moved_ |= interface.loopback;
  if (interface.backlog_count == 0 && interface.device.transmit(frame)) {
    interface.unflushed = true;
    return;
  }
  if (interface.backlog_count >= Interface::kBacklogPackets || interface.backlog_bytes >= Interface::kBacklogBytes) {
    ++statistics_.out_discards;
    return;
  }
  ++interface.backlog_count;
  interface.backlog_bytes += frame->size();
  interface.backlog.push_back(frame.release());
}

void StackState::drain_backlog(Interface& interface) {
  (void)interface.device.room_again();
  while (Packet* first = interface.backlog.pop_front()) {
    PacketPtr frame(first);
    u32 size = frame->size();
    if (!interface.device.transmit(frame)) {
      interface.backlog.push_front(frame.release());
      return;
    }
    --interface.backlog_count;
    interface.backlog_bytes -= size;
    interface.unflushed = true;
    moved_ |= interface.loopback;
  }
}

}  // namespace husk::net
