// UDP below the sockets (RFC 768, RFC 1122 §4.1): received datagrams to their sockets, and the table of ports.
#include "wire/udp.h"

#include "kernel/net/dhcp.h"
#include "kernel/net/stack_state.h"

namespace husk::net {

using packet::Checksum;
using packet::PacketPtr;

void StackState::udp_input(const Received& received, PacketPtr packet) {
  u32 at = received.transport;
  ++statistics_.udp_in;
  auto malformed = [&] { ++statistics_.udp_in_errors; };
  if (!packet->pull_up(at + static_cast<u32>(sizeof(wire::UdpHeader)))) return malformed();
  auto parsed = wire::Udp::parse(packet->head().subspan(at), packet->size() - at);
  if (!parsed || parsed->header->destination_port == 0) return malformed();
  u32 length = parsed->size();
  bool v4 = received.source.is_v4();
  if (packet->size() > at + length) packet->trim_back(packet->size() - at - length);
  if (!parsed->has_checksum() && !v4) return malformed();
  if (parsed->has_checksum() && packet->checksum == Checksum::unknown) {
    wire::Checksum sum = pseudo_header(received.source, received.destination, wire::kProtocolUdp, length);
    add_bytes(sum, *packet, at);
    if (!sum.valid()) {
      ++statistics_.checksum_errors;
      return malformed();
    }
  }
  Interface& interface = received.interface;
  Endpoint from{received.source, parsed->header->source_port, received.source.is_link_local() ? interface.index : 0};
  Endpoint to{received.destination, parsed->header->destination_port, interface.index};
  ++statistics_.in_delivers;
  if (interface.dhcp && v4 && to.port == 68 && from.port == 67) {
    if (packet->pull_up(packet->size())) interface.dhcp->input(packet->head().subspan(at + sizeof(wire::UdpHeader)), coarse_now_ns_);
    return;
  }
  // Without an address, packets to any are let through as far as here, for DHCP.
  if (interface.dhcp && !received.group && !is_local(received.destination)) return;
  at += static_cast<u32>(sizeof(wire::UdpHeader));
  u32 size = length - static_cast<u32>(sizeof(wire::UdpHeader));
  if (received.group) {
    if (!udp_.input_group(received, from, to, *packet, at, size)) ++statistics_.udp_no_ports;
    return;
  }
  udp::SocketState* socket = udp_.find(udp::Kind::udp, from, to);
  if (socket != nullptr) return socket->queue(received, from, to, std::move(packet), at, size);
  ++statistics_.udp_no_ports;
  send_icmp_error(received, *packet, v4 ? u8{wire::kIcmpUnreachable} : u8{wire::kIcmpv6Unreachable},
                  v4 ? u8{wire::kIcmpPortUnreachable} : u8{wire::kIcmpv6PortUnreachable}, 0);
}

Result<Ref<udp::Socket>> StackState::udp_socket(Family family) {
  auto socket = TRY(make_ref<udp::SocketState>(*this, udp::Kind::udp, family));
  udp_.add(*socket);
  return Ref<udp::Socket>(std::move(socket));
}

Result<Ref<udp::Socket>> StackState::ping_socket(Family family) {
  auto socket = TRY(make_ref<udp::SocketState>(*this, udp::Kind::ping, family));
  udp_.add(*socket);
  return Ref<udp::Socket>(std::move(socket));
}

void StackState::visit_udp(UdpVisitor& visitor) const { udp_.visit(visitor); }

}  // namespace husk::net

namespace husk::net::udp {

namespace {

constexpr u16 kPortFirst = 32768, kPortLast = 60999;

// Of two bound sockets: might one datagram be for both?
bool overlap(const SocketState& a, const SocketState& b) {
  Endpoint left = a.local(), right = b.local();
  if (left.interface != 0 && right.interface != 0 && left.interface != right.interface) return false;
  auto takes = [](const SocketState& socket, const IpAddress& address, bool v4) {
    if (!address.is_any()) return address.is_v4() == v4;
    return socket.family() == Family::v4 || address.is_v4() ? v4 : !v4 || !socket.options().v6_only;
  };
  for (bool v4 : {false, true}) {
    if (!takes(a, left.address, v4) || !takes(b, right.address, v4)) continue;
    if (left.address.is_any() || right.address.is_any() || left.address == right.address) return true;
  }
  return false;
}

}  // namespace

Table::~Table() {
  for (Bucket& one : buckets_) {
    while (SocketState* socket = one.pop_front()) socket->detach();
  }
}

bool Table::conflicts(const SocketState& socket, u16 port) {
  const Options& wanted = socket.options();
  for (SocketState& other : bucket(socket.kind(), port)) {
    if (&other == &socket || other.local().port != port || !overlap(socket, other)) continue;
    const Options& have = other.options();
    if ((wanted.reuse_address && have.reuse_address) || (wanted.reuse_port && have.reuse_port)) continue;
    return true;
  }
  return false;
}

Result<void> Table::bind(SocketState& socket, u16 port) {
  if (port == 0) {
    constexpr u32 kCount = kPortLast - kPortFirst + 1;
    u32 at = stack_.random_u32() % kCount;
    for (u32 i = 0; i < kCount && port == 0; ++i, at = (at + 1) % kCount) {
      u16 candidate = static_cast<u16>(kPortFirst + at);
      if (!conflicts(socket, candidate)) port = candidate;
    }
    if (port == 0) return Error(EADDRINUSE);
  } else if (conflicts(socket, port)) {
    return Error(EADDRINUSE);
  }
  socket.ListNode<PortTag>::unlink();
  socket.local_.port = port;
  bucket(socket.kind(), port).push_front(&socket);  // of equals find() takes the newest
  return {};
}

// The best fit; of equals (SO_REUSEPORT) one by the ends' hash, so that a peer stays with its socket.
SocketState* Table::find(Kind kind, const Endpoint& from, const Endpoint& to) {
  SocketState* best = nullptr;
  u32 best_score = 0, ties = 0;
  u64 hash = 0;
  for (SocketState& socket : bucket(kind, to.port)) {
    u32 score = socket.score(from, to);
    if (score == 0 || score < best_score) continue;
    if (score > best_score) {
      best = &socket, best_score = score, ties = 1;
      continue;
    }
    if (!socket.options().reuse_port) continue;
    if (hash == 0) hash = (from.address.word(8) ^ from.address.word(0) ^ from.port) | 1;
    hash *= 0x9e3779b97f4a7c15;
    if ((hash >> 32) % ++ties == 0) best = &socket;
  }
  return best;
}

bool Table::input_group(const Received& received, const Endpoint& from, const Endpoint& to, const packet::Packet& packet, u32 at, u32 size) {
  bool any = false;
  for (SocketState& socket : bucket(Kind::udp, to.port)) {
    if (socket.score(from, to) == 0) continue;
    if (to.address.is_multicast() && !socket.wants_group(to.address, received.interface.index)) continue;
    any = true;
    if (!socket.queue_copy(received, from, to, packet, at, size)) ++stack_.count().udp_receive_buffer_errors;
  }
  return any;
}

void Table::room_again() {
  constexpr u32 kEnough = 16;
  for (auto& interface : stack_.all_interfaces()) {
    if (interface->backlog_count > kEnough) return;
  }
  waiting_for_room = false;
  for (Bucket& one : buckets_) {
    for (SocketState& socket : one) socket.room_again();
  }
}

void Table::visit(Stack::UdpVisitor& visitor) const {
  for (u32 i = 0; i < kBuckets; ++i) {
    for (SocketState& socket : buckets_[i]) {
      if (socket.local().port != 0) visitor.visit(socket);
    }
  }
}

}  // namespace husk::net::udp
