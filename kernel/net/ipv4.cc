// IPv4: what is taken in (RFC 791, RFC 1122 §3.2.1), and headers and fragments for what goes out (RFC 6864 for identifications).
#include <algorithm>

#include "kernel/net/stack_state.h"
#include "wire/ipv4.h"

namespace husk::net {

using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;

namespace {

constexpr u32 kHeaderSize = sizeof(wire::Ipv4Header);

// RFC 1122 §3.2.1.3: may not be a source. 0.0.0.0 is DHCP's alone, and no server sends it.
bool bad_source(const IpAddress& source) {
  u8 first = source.v4_bytes()[0];
  return first == 0 || first >= 224;
}

}  // namespace

// Whether this packet is for us, and whether to a group.
bool StackState::accepts4(Interface& interface, Received& received, bool unconfigured) {
  const IpAddress& to = received.destination;
  if (interface.loopback) {
    received.group = to.is_multicast() || to.is_limited_broadcast() || (!is_local(to) && !to.is_loopback());
    return true;
  }
  // Martians: 127/8 does not leave a host (RFC 1122 §3.2.1.3 (g)), and we do not send to ourselves through a wire.
  if (to.is_loopback() || received.source.is_loopback() || interface_of(received.source) != nullptr) return false;
  if (interface.find(to) != nullptr) return true;
  received.group = true;
  if (interface.is_broadcast(to)) return true;
  if (to.is_multicast()) return interface.in_group(to);
  received.group = false;
  return unconfigured || interface_of(to) != nullptr;
}

void StackState::ipv4_input(Interface& interface, PacketPtr packet) {
  ++statistics_.in_receives;
  bool link_group = interface.ethernet && packet->header_size != 0;
  auto malformed = [&] { ++statistics_.in_header_errors; };
  if (!packet->pull_up(kHeaderSize)) return malformed();
  u32 header_size = (packet->head()[0] & 15u) * 4;
  if (header_size > kHeaderSize && !packet->pull_up(header_size)) return malformed();
  auto parsed = wire::Ipv4::parse(packet->head(), packet->size());
  if (!parsed || !parsed->checksum_valid()) return malformed();
  if (header_size > kHeaderSize && parsed->has_source_route()) return malformed();
  const wire::Ipv4Header& header = *parsed->header;
  Received received{interface,        IpAddress::v4(header.source), IpAddress::v4(header.destination), header_size, header.protocol,
                    header.hop_limit, header.traffic_class};
  // A server may answer to the address that it is about to give (RFC 2131 §4.1).
  bool unconfigured = interface.dhcp != nullptr && header.protocol == wire::kProtocolUdp && interface.first(Family::v4, false) == nullptr;
  if (bad_source(received.source) || !accepts4(interface, received, unconfigured) || (link_group && !received.group && !unconfigured)) {
    ++statistics_.in_address_errors;
    return;
  }
  u32 total = header_size + parsed->payload_size;
  if (packet->size() > total) packet->trim_back(packet->size() - total);
  if (!parsed->is_fragment()) return deliver(received, std::move(packet));

  ++statistics_.reassembly_needed;
  FragmentKey key{received.source, received.destination, header.identification, interface.index, header.protocol};
  wire::Ipv4Header first = header;
  first.version_and_size = 0x45;  // options are not for us, and the first fragment's would have to be counted
  u32 offset = parsed->fragment_offset();
  bool more = parsed->more_fragments();
  if (packet->checksum == Checksum::partial) packet->checksum = Checksum::unknown;
  packet->trim_front(header_size);
  PacketPtr whole = reassembly_.add(key, offset, more, {reinterpret_cast<const u8*>(&first), kHeaderSize}, std::move(packet), coarse_now_ns_);
  timers_dirty_ = true;
  if (!whole) return;
  ++statistics_.reassembled;
  auto* header_of_whole = reinterpret_cast<wire::Ipv4Header*>(whole->head().data());
  header_of_whole->fragment = 0;
  header_of_whole->total_size = static_cast<u16>(whole->size());
  received.transport = kHeaderSize;
  deliver(received, std::move(whole));
}

void StackState::deliver(const Received& received, PacketPtr packet) {
  switch (received.protocol) {
    case wire::kProtocolTcp: return tcp_input(received, std::move(packet));
    case wire::kProtocolUdp: return udp_input(received, std::move(packet));
    case wire::kProtocolIcmp:
      if (received.source.is_v4()) return icmp_input(received, std::move(packet));
      break;
    case wire::kProtocolIcmpv6:
      if (!received.source.is_v4()) return icmpv6_input(received, std::move(packet));
      break;
    case wire::kProtocolIgmp:
      if (received.source.is_v4() && packet->pull_up(packet->size())) igmp_input(received, packet->head().subspan(received.transport));
      return;
    case wire::kProtocolNone: return;
  }
  ++statistics_.in_unknown_protocols;
  if (received.source.is_v4()) {
    send_icmp_error(received, *packet, wire::kIcmpUnreachable, wire::kIcmpProtocolUnreachable, 0);
  } else {  // RFC 8200 §4: the pointer says where the number stands; behind extension headers that is not the fixed header's field
    send_icmp_error(received, *packet, wire::kIcmpv6ParameterProblem, 1, received.transport == 40 ? 6 : 40);
  }
}

bool StackState::push_ip(const Destination& to, const IpAddress& source, const IpFields& fields, u32 label, u16 fragment, Packet& packet) {
  bool v4 = to.remote.is_v4();
  u32 payload = packet.size(), header_size = v4 ? kHeaderSize : sizeof(wire::Ipv6Header);
  auto room = packet.push_front(header_size);
  if (!room.ok()) return false;
  size_t built = v4 ? wire::build_ipv4({*room, header_size},
                                       {fields.traffic_class, fields.hop_limit, fields.protocol, static_cast<u16>(label), fragment, source.v4_bytes(),
                                        to.remote.v4_bytes()},
                                       payload)
                    : wire::build_ipv6({*room, header_size},
                                       {fields.traffic_class, fields.hop_limit, fields.protocol, label, source.bytes, to.remote.bytes}, payload);
  if (built == 0) return false;  // longer than a header can say
  if (packet.checksum == Checksum::partial) packet.checksum_start = static_cast<u16>(packet.checksum_start + header_size);
  if (packet.segment_size != 0) packet.header_size = static_cast<u16>(packet.header_size + header_size);
  ++statistics_.out_requests;
  return true;
}

Result<void> StackState::send_ip(Destination& to, const IpAddress& source, const IpFields& fields, PacketPtr packet) {
  u32 header_size = to.remote.is_v4() ? kHeaderSize : sizeof(wire::Ipv6Header);
  if (packet->size() + header_size > to.path_mtu) return fragment(to, source, fields, std::move(packet));
  // An atomic datagram's identification may be anything (RFC 6864 §4.1).
  if (!push_ip(to, source, fields, to.token, wire::kIpv4DontFragment, *packet)) {
    ++statistics_.out_discards;
    return Error(ENOBUFS);
  }
  send_link(to, std::move(packet));
  return {};
}

// A secret sequence for each hash of the destination (RFC 7739 §5.3).
u16 StackState::next_identification(const IpAddress& remote) {
  u64 hash = (remote.word(8) ^ remote.word(0) ^ hash_secret_) * 0x9e3779b97f4a7c15;
  return identifications_[hash >> 32 & (kIdentifications - 1)]++;
}

Result<PacketPtr> part_of(const Packet& whole, u32 from, u32 size) {
  auto part = TRY(Packet::create());
  for (const packet::Slice& slice : whole.slices()) {
    if (from >= slice.size) {
      from -= slice.size;
      continue;
    }
    u32 step = std::min(size, slice.size - from);
    if (step == 0) break;
    TRY(part->append({slice.buffer, slice.offset + from, step}));
    size -= step;
    from = 0;
  }
  part->checksum = Checksum::complete;
  return part;
}

// RFC 791 §2.3, RFC 8200 §4.5. The upper layer's checksum is complete.
Result<void> StackState::fragment(Destination& to, const IpAddress& source, const IpFields& fields, PacketPtr packet) {
  bool v4 = to.remote.is_v4();
  u32 header_size = v4 ? kHeaderSize : sizeof(wire::Ipv6Header) + sizeof(wire::Ipv6FragmentHeader);
  u32 most = (to.path_mtu - header_size) & ~7u, size = packet->size();
  if (size > 0xffff - (v4 ? kHeaderSize : 0u)) return Error(EMSGSIZE);
  u32 identification = v4 ? next_identification(to.remote) : random_u32();
  IpFields part_fields = fields;
  if (!v4) part_fields.protocol = wire::kProtocolFragment;
  for (u32 offset = 0; offset < size; offset += most) {
    u32 step = std::min(most, size - offset);
    bool more = offset + step < size;
    auto part = TRY(part_of(*packet, offset, step));
    u16 field = static_cast<u16>(offset / 8 | (more ? wire::kIpv4MoreFragments : 0));
    if (!v4) {
      u8* room = TRY(part->push_front(sizeof(wire::Ipv6FragmentHeader)));
      *reinterpret_cast<wire::Ipv6FragmentHeader*>(room) = {fields.protocol, 0, static_cast<u16>(offset | (more ? 1 : 0)), identification};
    }
    if (!push_ip(to, source, part_fields, v4 ? identification : to.token, field, *part)) return Error(ENOBUFS);
    ++statistics_.fragments_created;
    send_link(to, std::move(part));
  }
  return {};
}

}  // namespace husk::net
