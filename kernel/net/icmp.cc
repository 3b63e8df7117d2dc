// ICMP (RFC 792, RFC 1122 §3.2.2): echo, errors to and from; the parts that ICMPv6 shares. Errors are bounded in rate (RFC 1812 §4.3.2.8).
#include <algorithm>

#include "kernel/net/stack_state.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace husk::net {

using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;

namespace {

constexpr u32 kIcmpHeader = sizeof(wire::IcmpHeader);
constexpr u32 kQuoteMax = 128;  // of a packet of ours: all headers that say whose it was

// What Linux's sockets see (icmp(7)).
int error_of(u8 type, u8 code) {
  if (type == wire::kIcmpTimeExceeded) return EHOSTUNREACH;
  if (type == wire::kIcmpParameterProblem) return EPROTO;
  constexpr u8 kErrors[] = {ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT,  ECONNREFUSED, EMSGSIZE,     EOPNOTSUPP,   ENETUNREACH,  EHOSTDOWN,
                            ENONET,      ENETUNREACH,  EHOSTUNREACH, ENETUNREACH,  EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH};
  return code < sizeof(kErrors) ? kErrors[code] : 0;
}

// What a UDP socket hears of; the rest may pass (RFC 1122 §4.1.3.3 leaves it to the host).
bool is_hard(int error) { return error == ECONNREFUSED || error == ENOPROTOOPT || error == EACCES || error == EMSGSIZE || error == EPROTO; }

// RFC 1191 §7.1: for routers that do not say.
u16 plateau_below(u32 size) {
  for (u16 mtu : {u16{32000}, u16{17914}, u16{8166}, u16{4352}, u16{2002}, u16{1492}, u16{1006}}) {
    if (mtu < size) return mtu;
  }
  return kMtuMin4;
}

bool is_icmp_error(const Received& received, const Packet& packet) {
  u8 type;
  bool v4 = received.source.is_v4();
  if (received.protocol != (v4 ? wire::kProtocolIcmp : wire::kProtocolIcmpv6)) return false;
  if (packet.size() <= received.transport) return true;
  packet.copy_out(received.transport, &type, 1);
  if (!v4) return type < 128 || type == wire::kIcmpv6Redirect;
  return type != wire::kIcmpEchoRequest && type != wire::kIcmpEchoReply;
}

}  // namespace

void StackState::icmp_input(const Received& received, PacketPtr packet) {
  ++statistics_.icmp_in;
  u32 at = received.transport;
  wire::Checksum sum;
  add_bytes(sum, *packet, at);
  if (!packet->pull_up(std::min(packet->size(), at + kIcmpHeader + kQuoteMax)) || packet->size() < at + kIcmpHeader ||
      (packet->checksum == Checksum::unknown && !sum.valid())) {
    ++statistics_.icmp_in_errors;
    return;
  }
  ++statistics_.in_delivers;
  auto icmp = *wire::Icmp::parse(packet->head().subspan(at));
  switch (icmp.type()) {
    case wire::kIcmpEchoRequest:
      if (!received.group) echo_reply(received, std::move(packet), wire::kIcmpEchoReply);
      return;
    case wire::kIcmpEchoReply: {
      Endpoint from{received.source, 0, 0}, to{received.destination, icmp.header->echo_identifier(), received.interface.index};
      u32 size = packet->size() - at;
      if (auto* socket = udp_.find(udp::Kind::ping, from, to)) socket->queue(received, from, to, std::move(packet), at, size);
      return;
    }
    case wire::kIcmpUnreachable:
    case wire::kIcmpTimeExceeded:
    case wire::kIcmpParameterProblem: {
      int error = error_of(icmp.type(), icmp.code());
      u16 mtu = error == EMSGSIZE ? icmp.next_hop_mtu() : u16{0};
      if (error == EMSGSIZE && mtu == 0 && icmp.body.size() >= 4) mtu = plateau_below(wire::load_be16(&icmp.body[2]));
      return quoted_error(received.interface, icmp.body, Family::v4, error, mtu);
    }
  }
}

void StackState::quoted_error(Interface& interface, std::span<const u8> quoted, Family family, int error, u16 mtu) {
  IpAddress source, remote;
  u32 at, size, token;
  u8 protocol;
  if (family == Family::v4) {
    auto inner = wire::Ipv4::parse(quoted, 65535);
    if (!inner || inner->fragment_offset() != 0) return;
    source = IpAddress::v4(inner->header->source), remote = IpAddress::v4(inner->header->destination);
    at = inner->header_size, protocol = inner->header->protocol, size = inner->header->total_size;
    token = inner->header->identification;
  } else {
    auto inner = wire::Ipv6::parse(quoted, 65535 + 40);
    if (!inner) return;
    auto walk = wire::walk_ipv6(*inner);
    bool first = walk.end == wire::Ipv6Walk::End::fragment && walk.fragment->offset() == 0;
    if (walk.end != wire::Ipv6Walk::End::upper && !first) return;
    source = IpAddress::v6(inner->header->source), remote = IpAddress::v6(inner->header->destination);
    at = walk.offset + (first ? 8u : 0u), protocol = walk.protocol, size = inner->payload_size + 40;
    token = inner->header->version_class_flow;
  }
  if (error == 0 || quoted.size() < at + 8 || !is_local(source) || source.is_any()) return;
  if (error == EMSGSIZE && mtu >= size) return;  // it did fit
  if (error == EMSGSIZE) mtu = std::max(mtu, family == Family::v4 ? kMtuMin4 : kMtuMin6);
  auto bytes = quoted.subspan(at);
  auto scope = [&](const IpAddress& address) { return address.is_link_local() ? interface.index : 0; };
  Endpoint local{source, wire::load_be16(&bytes[0]), scope(source)}, peer{remote, wire::load_be16(&bytes[2]), scope(remote)};
  if (protocol == wire::kProtocolTcp) return tcp_->network_error({local, peer}, {wire::load_be32(&bytes[4])}, error, mtu);
  if (protocol != wire::kProtocolUdp) return;
  udp::SocketState* socket = udp_.find(udp::Kind::udp, peer, {source, local.port, interface.index});
  if (socket == nullptr) return;
  // RFC 5927 §7: of TCP the sequence number is proof enough; of datagrams ports and sizes can be guessed.
  if (error == EMSGSIZE && !knows_token(remote, interface.index, token)) return;
  if (error == EMSGSIZE) path_mtu_learnt(remote, mtu);
  socket->set_error(error, is_hard(error));
}

void StackState::undeliverable(const Packet& packet) {
  u8 bytes[kQuoteMax];
  u32 size = std::min(packet.size(), kQuoteMax);
  packet.copy_out(0, bytes, size);
  if (size == 0) return;
  quoted_error(*interfaces_[kLoopbackIndex - 1], {bytes, size}, bytes[0] >> 4 == 4 ? Family::v4 : Family::v6, EHOSTUNREACH, 0);
}

void StackState::echo_reply(const Received& received, PacketPtr packet, u8 type) {
  auto to = destination(received.source, received.source.is_link_local() ? received.interface.index : 0);
  if (!to.ok() || (*to)->reach != Reach::unicast) return;
  u32 at = received.transport;
  auto request = *reinterpret_cast<const wire::IcmpHeader*>(packet->head().data() + at);
  packet->trim_front(at + kIcmpHeader);
  auto room = packet->push_front(kIcmpHeader);
  if (!room.ok()) return;
  *reinterpret_cast<wire::IcmpHeader*>(*room) = {type, 0, 0, request.first, request.second};
  packet->segment_size = packet->header_size = 0;
  packet->segmentation = packet::Segmentation::none;
  (void)send_icmp(**to, received.group ? (*to)->source : received.destination, kHopLimit, std::move(packet));
}

void StackState::send_icmp_error(const Received& received, const Packet& packet, u8 type, u8 code, u32 parameter) {
  bool v4 = received.source.is_v4();
  // RFC 1122 §3.2.2, RFC 4443 §2.4 (e); (e.3) allows an unrecognised option in a packet to a group.
  bool group_allowed = !v4 && type == wire::kIcmpv6ParameterProblem && code == 2;
  if ((received.group && !group_allowed) || received.source.is_any() || received.source.is_multicast() || is_icmp_error(received, packet)) return;
  if (received.interface.is_broadcast(received.source) || !icmp_limit_.allow(coarse_now_ns_)) return;
  auto to = destination(received.source, received.source.is_link_local() ? received.interface.index : 0);
  if (!to.ok() || (*to)->reach != Reach::unicast) return;
  // RFC 1812 §4.3.2.3: as much as fits into 576 bytes; RFC 4443 §2.4 (c): into 1,280.
  u32 quote = std::min(packet.size(), v4 ? 576u - 28 : 1280u - 48);
  auto made = Packet::create(kIcmpHeader + quote);
  if (!made.ok()) return;
  u8* bytes = (*made)->head().data();
  *reinterpret_cast<wire::IcmpHeader*>(bytes) = {type, code, 0, static_cast<u16>(parameter >> 16), static_cast<u16>(parameter)};
  packet.copy_out(0, bytes + kIcmpHeader, quote);
  (void)send_icmp(**to, received.group ? (*to)->source : received.destination, kHopLimit, made.release());
}

Result<void> StackState::send_icmp(Destination& to, const IpAddress& source, u8 hop_limit, PacketPtr message) {
  u8 protocol = to.remote.is_v4() ? wire::kProtocolIcmp : wire::kProtocolIcmpv6;
  wire::Checksum sum;
  if (!to.remote.is_v4()) sum = pseudo_header(source, to.remote, protocol, message->size());
  auto& header = *reinterpret_cast<wire::IcmpHeader*>(message->head().data());
  header.checksum = 0;
  add_bytes(sum, *message, 0);
  header.checksum = sum.finish();
  message->checksum = Checksum::complete;
  ++statistics_.icmp_out;
  return send_ip(to, source, {protocol, hop_limit}, std::move(message));
}

}  // namespace husk::net
