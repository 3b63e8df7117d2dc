// See kernel/net/dhcp.h. The states are those of RFC 2131 §4.4, figure 5.
#include "kernel/net/dhcp.h"

#include <algorithm>
#include <bit>

#include "kernel/net/stack_state.h"
#include "wire/udp.h"

namespace husk::net {

using packet::Packet;
using packet::PacketPtr;
using wire::Dhcp;

namespace {

constexpr u64 kFirstRetry = 1 * kSecond, kAfterDecline = 10 * kSecond, kProbing = 3 * kSecond, kRenewRetryMin = 60 * kSecond;
constexpr u32 kDiscoversToSettle = 4, kRequestsMax = 4, kMessageMax = 576 - 28, kMetric = 100;
constexpr IpAddress kNone = IpAddress::v4(0, 0, 0, 0), kEverybody = IpAddress::v4(255, 255, 255, 255);

}  // namespace

Result<void> DhcpClient::set_host_name(std::string_view name) {
  host_name_ = TRY(String::from(name.substr(0, 63)));
  return {};
}

void DhcpClient::start(u64 now_ns) {
  state_ = State::init;
  deadline_ns_ = now_ns;
  started_ns_ = now_ns;
  stack_.timer_changed();
}

// RFC 2131 §4.1: doubled each time, up to 64 s, with a second of randomness at most.
u64 DhcpClient::backoff(u64 first_ns, u32 limit) {
  u64 wait = first_ns << std::min(tries_, limit);
  return wait - wait / 8 + stack_.random_u32() % (wait / 4);
}

void DhcpClient::run(u64 now_ns) {
  if (now_ns < deadline_ns_) return;
  switch (state_) {
    case State::init:
      transaction_ = stack_.random_u32();
      tries_ = 0;
      state_ = State::selecting;
      [[fallthrough]];
    case State::selecting: return discover(now_ns);
    case State::requesting:
      if (tries_ >= kRequestsMax) return lose(now_ns, 0);
      return request(now_ns);
    case State::bound:
      transaction_ = stack_.random_u32();
      started_ns_ = now_ns;
      state_ = State::renewing;
      [[fallthrough]];
    case State::renewing:
    case State::rebinding:
      if (now_ns >= times_.end_ns) return lose(now_ns, 0);
      if (now_ns >= times_.rebind_ns) state_ = State::rebinding;
      u64 next = state_ == State::renewing ? times_.rebind_ns : times_.end_ns;
      // §4.4.5: half of the time that is left, at least a minute.
      deadline_ns_ = std::min(next, now_ns + std::max(kRenewRetryMin, (next - now_ns) / 2));
      asked_ns_ = now_ns;
      return send(wire::kDhcpRequest, now_ns);
  }
}

void DhcpClient::discover(u64 now_ns) {
  if (tries_ >= kDiscoversToSettle) unanswered_ = true;
  deadline_ns_ = now_ns + backoff(kFirstRetry, 6);
  ++tries_;
  send(wire::kDhcpDiscover, now_ns);
}

void DhcpClient::request(u64 now_ns) {
  deadline_ns_ = now_ns + backoff(kFirstRetry, 6);
  ++tries_;
  asked_ns_ = now_ns;
  send(wire::kDhcpRequest, now_ns);
}

// Back to the beginning, without the lease if there was one.
void DhcpClient::lose(u64 now_ns, u64 pause_ns) {
  if (state_ >= State::bound) {
    stack_.remove_routes(interface_, Origin::dhcp);
    stack_.withdraw(interface_, offered_);
    (void)stack_.set_name_servers(Origin::dhcp, {}, 0);
  }
  start(now_ns + pause_ns);
}

bool DhcpClient::conflict(const IpAddress& address, u64 now_ns) {
  if (state_ != State::bound || now_ns >= probing_until_ns_ || !(address == offered_)) return false;
  send(wire::kDhcpDecline, now_ns);
  lose(now_ns, kAfterDecline);
  return true;
}

void DhcpClient::input(std::span<const u8> bytes, u64 now_ns) {
  auto message = Dhcp::parse(bytes);
  if (!message || message->header->operation != 2 || message->header->transaction != transaction_) return;
  if (memcmp(message->header->client_mac, interface_.mac, 6) != 0) return;
  const u8* server = message->address(wire::kDhcpServerIdentifier);
  u8 type = message->type();
  if (type == wire::kDhcpOffer && state_ == State::selecting) {
    IpAddress offered = IpAddress::v4(message->header->your_address);
    if (server == nullptr || offered.is_any() || offered.is_multicast() || offered.is_loopback() || offered.is_limited_broadcast()) return;
    offered_ = offered;
    server_ = IpAddress::v4(server);
    state_ = State::requesting;
    tries_ = 0;
    stack_.timer_changed();
    return request(now_ns);
  }
  if (state_ != State::requesting && state_ != State::renewing && state_ != State::rebinding) return;
  if (state_ != State::rebinding && (server == nullptr || !(IpAddress::v4(server) == server_))) return;  // rebinding asks any server
  if (type == wire::kDhcpNak) return lose(now_ns, 0);
  if (type != wire::kDhcpAck || !(IpAddress::v4(message->header->your_address) == offered_)) return;
  if (server != nullptr) server_ = IpAddress::v4(server);
  bind(*message, now_ns);
}

// RFC 2131 §4.4.5, counted from the moment the request was sent.
DhcpClient::Times DhcpClient::times_of(const Dhcp& message, u64 now_ns) const {
  u32 lease = message.number(wire::kDhcpLeaseTime).value_or(3600);
  if (lease == ~u32{0}) return {kNever, kNever, kNever};
  lease = std::max(lease, 60u);
  u32 renew = message.number(wire::kDhcpRenewalTime).value_or(lease / 2), rebind = message.number(wire::kDhcpRebindingTime).value_or(lease / 8 * 7);
  if (renew >= rebind || rebind >= lease) renew = lease / 2, rebind = lease / 8 * 7;
  u64 from = std::min(asked_ns_, now_ns);
  return {from + renew * kSecond, from + rebind * kSecond, from + lease * kSecond};
}

void DhcpClient::bind(const Dhcp& message, u64 now_ns) {
  bool fresh = state_ == State::requesting;
  times_ = times_of(message, now_ns);
  state_ = State::bound;
  deadline_ns_ = times_.renew_ns;
  stack_.timer_changed();
  if (fresh) {
    probing_until_ns_ = now_ns + kProbing;
    stack_.send_arp(interface_, 1, kNone, offered_, nullptr);
  }
  apply(message);
}

void DhcpClient::apply(const Dhcp& message) {
  u32 mask = message.number(wire::kDhcpSubnetMask).value_or(0xffffff00);
  u8 bits = static_cast<u8>(std::countl_one(mask));
  if (interface_.find(offered_) == nullptr) (void)stack_.assign(interface_, {offered_, bits});
  stack_.remove_routes(interface_, Origin::dhcp);
  (void)stack_.put_route({{offered_, bits, false, {}, interface_.index, 0}, Origin::dhcp});
  apply_routes(message, kNever);
  auto mtu = message.find(wire::kDhcpInterfaceMtu, 2);
  if (!mtu.empty() && wire::load_be16(mtu.data()) >= 576) interface_.mtu = std::min(wire::load_be16(mtu.data()), interface_.device.properties().mtu);
  u8 list[16];
  IpAddress servers[4];
  size_t count = message.copy(wire::kDhcpDnsServer, list) / 4;
  for (size_t i = 0; i < count; ++i) servers[i] = IpAddress::v4(list + 4 * i);
  (void)stack_.set_name_servers(Origin::dhcp, {servers, count}, kNever);
  u8 domain[255];
  size_t size = message.copy(wire::kDhcpDomainName, domain);
  while (size > 0 && domain[size - 1] == 0) --size;
  if (size > 0) stack_.set_search_domain({reinterpret_cast<char*>(domain), size});
}

// RFC 3442: classless routes replace the router option.
void DhcpClient::apply_routes(const Dhcp& message, u64 until_ns) {
  auto put = [&](const IpAddress& network, u8 bits, const u8* gateway) {
    IpAddress via = IpAddress::v4(gateway);
    bool direct = via.is_any();
    if (!direct && !via.in_network(offered_, 32) && interface_.is_broadcast(via)) return;
    (void)stack_.put_route({{network, bits, !direct, via, interface_.index, kMetric}, Origin::dhcp, until_ns});
  };
  u8 list[255];
  size_t size = message.copy(wire::kDhcpClasslessRoutes, list);
  if (size > 0) {
    wire::DhcpRouteReader reader({list, size});
    while (auto route = reader.next()) put(IpAddress::v4(route->network), route->prefix_bits, route->router);
  } else if (const u8* router = message.address(wire::kDhcpRouter)) {
    put(kNone, 0, router);
  }
}

void DhcpClient::send(wire::DhcpType type, u64 now_ns) {
  constexpr u32 kUdpHeader = sizeof(wire::UdpHeader);
  auto made = Packet::create(kMessageMax);
  if (!made.ok()) return;
  PacketPtr packet = made.release();
  wire::DhcpBuilder builder(packet->head(), type, transaction_, interface_.mac);
  bool has_address = state_ >= State::renewing, asks = type != wire::kDhcpDecline;
  builder.header()->seconds = static_cast<u16>(std::min<u64>((now_ns - started_ns_) / kSecond, 0xffff));
  if (has_address) memcpy(builder.header()->client_address, offered_.v4_bytes(), 4);
  if (!has_address && asks) builder.header()->flags = 0x8000;
  // Table 5 of §4.4.1: a request says what was offered by whom, a renewal has it in the header.
  if (!has_address && type != wire::kDhcpDiscover) {
    builder.add(wire::kDhcpRequestedAddress, {offered_.v4_bytes(), 4});
    builder.add(wire::kDhcpServerIdentifier, {server_.v4_bytes(), 4});
  }
  if (asks) {
    constexpr u8 kWanted[] = {wire::kDhcpSubnetMask, wire::kDhcpClasslessRoutes, wire::kDhcpRouter,
                              wire::kDhcpDnsServer,  wire::kDhcpDomainName,      wire::kDhcpInterfaceMtu,
                              wire::kDhcpLeaseTime,  wire::kDhcpRenewalTime,     wire::kDhcpRebindingTime};
    builder.add(wire::kDhcpParameterList, kWanted);
    builder.add_u16(wire::kDhcpMaximumSize, 1500);
    if (!host_name_.empty()) builder.add(wire::kDhcpHostName, {reinterpret_cast<const u8*>(host_name_.c_str()), host_name_.size()});
  }
  u32 size = static_cast<u32>(builder.finish());
  if (size == 0) return;
  packet->trim_back(packet->size() - size);
  auto room = packet->push_front(kUdpHeader);
  if (!room.ok()) return;
  IpAddress source = has_address ? offered_ : kNone, remote = state_ == State::renewing ? server_ : kEverybody;
  wire::build_udp({*room, kUdpHeader}, wire::kDhcpClientPort, wire::kDhcpServerPort, size);
  wire::Checksum sum = StackState::pseudo_header(source, remote, wire::kProtocolUdp, packet->size());
  StackState::add_bytes(sum, *packet, 0);
  reinterpret_cast<wire::UdpHeader*>(*room)->checksum = sum.finish_udp();
  packet->checksum = packet::Checksum::complete;
  IpFields fields{wire::kProtocolUdp};
  if (state_ == State::renewing) {
    auto to = stack_.destination(remote, interface_.index);
    if (to.ok()) (void)stack_.send_ip(**to, source, fields, std::move(packet));
    return;
  }
  Destination to;
  to.remote = remote;
  to.interface = &interface_;
  to.path_mtu = interface_.mtu;
  to.reach = Reach::broadcast;
  (void)stack_.send_ip(to, source, fields, std::move(packet));
}

}  // namespace husk::net
