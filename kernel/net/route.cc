// Where packets go: routes by longest prefix, source addresses (the simple part of RFC 6724 §5), path MTUs (RFC 1191, RFC 8201), and the
// cache in front of all that, which every packet's way out begins with.
#include <algorithm>
#include <bit>

#include "kernel/net/stack_state.h"

namespace husk::net {

namespace {

constexpr u64 kPathMtuLife = 600 * kSecond;  // RFC 8201 §4: a larger one is tried after ten minutes

u32 common_bits(const IpAddress& a, const IpAddress& b) {
  for (u32 i = 0; i < 16; ++i) {
    u8 difference = a.bytes[i] ^ b.bytes[i];
    if (difference != 0) return i * 8 + static_cast<u32>(std::countl_zero(difference));
  }
  return 128;
}

bool is_link_scope(const IpAddress& address) {
  if (address.is_link_local()) return true;
  return !address.is_v4() && address.is_multicast() && (address.bytes[1] & 15) <= 2;
}

IpAddress masked(IpAddress address, u32 prefix_bits) {
  u32 bits = prefix_bits + (address.is_v4() ? 96 : 0);
  for (u32 i = 0; i < 16; ++i) {
    u32 kept = bits <= i * 8 ? 0 : std::min(8u, bits - i * 8);
    address.bytes[i] &= static_cast<u8>(0xff00u >> kept);
  }
  return address;
}

bool same_route(const Route& a, const Route& b) {
  return a.network == b.network && a.prefix_bits == b.prefix_bits && a.interface == b.interface && a.has_gateway == b.has_gateway &&
         (!a.has_gateway || a.gateway == b.gateway);
}

// RFC 4861 §6.3.6, RFC 1122 §3.3.1.4: rather through a gateway that has not failed, or that failed longest ago, so that all are tried in turn.
bool better(const RouteEntry& a, const RouteEntry& b) {
  if (a.route.prefix_bits != b.route.prefix_bits) return a.route.prefix_bits > b.route.prefix_bits;
  return a.failed_ns != b.failed_ns ? a.failed_ns < b.failed_ns : a.route.metric < b.route.metric;
}

}  // namespace

[[gnu::noinline]] Destination& StackState::destination_line(const IpAddress& remote, u32 scope) {
  u64 hash = (remote.word(8) ^ remote.word(0) ^ hash_secret_ ^ scope) * 0x9e3779b97f4a7c15;
  static_assert(kDestinations == 1u << 7);
  return destinations_[hash >> 57];
}

bool StackState::knows_token(const IpAddress& remote, u32 interface, u32 quoted) {
  u32 mask = remote.is_v4() ? 0xffff : 0xfffff;
  for (u32 scope : {u32{0}, interface}) {
    const Destination& line = destination_line(remote, scope);
    if (line.remote == remote && line.token != 0 && ((line.token ^ quoted) & mask) == 0) return true;
  }
  return false;
}

// Every packet out passes here.
Result<Destination*> StackState::destination(const IpAddress& remote, u32 scope) {
  Destination& line = destination_line(remote, scope);
  if (line.generation == generation_ && coarse_now_ns_ < line.valid_until_ns && line.remote == remote && line.scope == scope) return &line;
  Destination fresh;
  fresh.remote = remote;
  fresh.scope = scope;
  TRY(resolve(fresh));
  fresh.generation = generation_;
  fresh.token = line.remote == remote && line.token != 0 ? line.token : random_u32() | 1;
  line = fresh;
  return &line;
}

Result<void> StackState::resolve(Destination& to) {
  const IpAddress& remote = to.remote;
  if (remote.is_any()) return Error(ENETUNREACH);
  to.next_hop = to.source = remote;
  if (remote.is_loopback() || (interface_of(remote) != nullptr && !remote.is_multicast())) {
    to.interface = interfaces_[kLoopbackIndex - 1].get();
    to.path_mtu = to.interface->mtu;
    if (remote.is_v4() && remote.is_loopback()) to.source = IpAddress::v4(127, 0, 0, 1);
    return {};
  }
  to.interface = scoped_interface(remote, to.scope);
  if (to.interface == nullptr) {
    const RouteEntry* found = find_route(remote, to.scope);
    if (found == nullptr) {
      ++statistics_.out_no_routes;
      return Error(ENETUNREACH);
    }
    to.interface = interface_at(found->route.interface);
    if (found->route.has_gateway) to.next_hop = found->route.gateway;
  }
  to.reach = remote.is_multicast() ? Reach::multicast : to.interface->is_broadcast(remote) ? Reach::broadcast : Reach::unicast;
  to.path_mtu = remote.is_v4() ? to.interface->mtu : to.interface->mtu6;
  limit_path_mtu(to);
  const InterfaceAddress* source = choose_source(*to.interface, remote, to.next_hop);
  if (source == nullptr) return Error(EADDRNOTAVAIL);
  to.source = source->address;
  if (coarse_now_ns_ < source->preferred_until_ns) to.valid_until_ns = std::min(to.valid_until_ns, source->preferred_until_ns);
  return {};
}

// Of link-local destinations and groups: the one that is asked for, or that of the default route, or the first with a link.
Interface* StackState::scoped_interface(const IpAddress& remote, u32 scope) const {
  if (!is_link_scope(remote) && !remote.is_multicast() && !remote.is_limited_broadcast()) return nullptr;
  if (scope != 0) return interface_at(scope);
  if (remote.is_v4() && remote.is_link_local()) return nullptr;  // has routes as any other network
  for (const RouteEntry& entry : routes_) {
    if (entry.route.prefix_bits == 0 && entry.route.network.is_v4() == remote.is_v4()) return interface_at(entry.route.interface);
  }
  for (const auto& interface : interfaces_) {
    if (!interface->loopback) return interface.get();
  }
  return nullptr;
}

const RouteEntry* StackState::find_route(const IpAddress& remote, u32 scope) const {
  const RouteEntry* best = nullptr;
  for (const RouteEntry& entry : routes_) {
    const net::Route& route = entry.route;
    if ((scope != 0 && route.interface != scope) || !remote.in_network(route.network, route.prefix_bits)) continue;
    if (best == nullptr || better(entry, *best)) best = &entry;
  }
  return best;
}

// RFC 6724 §5, rules 2 (scope), 3 (deprecated), 5 (interface), 8 (longest prefix); what shares a network with the next hop comes before these last.
const InterfaceAddress* StackState::choose_source(const Interface& outgoing, const IpAddress& remote, const IpAddress& next_hop) const {
  const InterfaceAddress* best = nullptr;
  u32 best_score = 0;
  for (const auto& interface : interfaces_) {
    for (const InterfaceAddress& have : interface->addresses) {
      const IpAddress& address = have.address;
      if (address.is_v4() != remote.is_v4() || address.is_loopback()) continue;
      bool here = interface.get() == &outgoing;
      if (!here && address.is_link_local()) continue;
      u32 score = 1 + common_bits(address, remote);
      if (address.in_network(next_hop, have.prefix_bits)) score += 1 << 8;
      if (here) score += 1 << 9;
      if (coarse_now_ns_ < have.preferred_until_ns) score += 1 << 10;
      if (address.is_link_local() == is_link_scope(remote)) score += 1 << 11;
      if (score > best_score) best = &have, best_score = score;
    }
  }
  return best;
}

Result<void> StackState::put_route(const RouteEntry& entry) {
  RouteEntry wanted = entry;
  wanted.route.network = masked(entry.route.network, entry.route.prefix_bits);
  ++generation_;
  timers_dirty_ = true;
  for (RouteEntry& have : routes_) {
    if (!same_route(have.route, wanted.route)) continue;
    if (have.origin != Origin::manual || wanted.origin == Origin::manual) have = wanted;
    return {};
  }
  size_t advertised = 0;
  for (const RouteEntry& have : routes_) advertised += have.origin == Origin::advertised;
  bool full = wanted.origin == Origin::advertised && advertised >= kAdvertisedRoutesMax;  // anybody on the link may advertise
  if (full || routes_.size() >= kRoutesMax) return Error(ENOBUFS);
  return routes_.push_back(wanted);
}

Result<void> StackState::add_route(const net::Route& route) {
  const IpAddress& network = route.network;
  if (interface_at(route.interface) == nullptr) return Error(ENODEV);
  if (route.prefix_bits > (network.is_v4() ? 32 : 128) || network.is_multicast()) return Error(EINVAL);
  if (route.has_gateway && (route.gateway.is_v4() != network.is_v4() || route.gateway.is_any() || route.gateway.is_multicast())) return Error(EINVAL);
  return put_route({route});
}

void StackState::remove_routes(const Interface& interface, Origin origin) {
  ++generation_;
  for (size_t i = routes_.size(); i-- > 0;) {
    if (routes_[i].origin == origin && routes_[i].route.interface == interface.index) routes_.erase(i);
  }
}

void StackState::remove_route(const net::Route& route, Origin origin) {
  net::Route wanted = route;
  wanted.network = masked(route.network, route.prefix_bits);
  ++generation_;
  for (size_t i = routes_.size(); i-- > 0;) {
    if (routes_[i].origin == origin && same_route(routes_[i].route, wanted)) routes_.erase(i);
  }
}

void StackState::mark_gateway(const NeighbourEntry& gateway, u64 failed_ns) {
  for (RouteEntry& entry : routes_) {
    const net::Route& route = entry.route;
    if (route.has_gateway && route.interface == gateway.interface->index && route.gateway == gateway.address) entry.failed_ns = failed_ns;
  }
}

size_t StackState::routes(std::span<net::Route> out) const {
  for (size_t i = 0; i < std::min(out.size(), routes_.size()); ++i) out[i] = routes_[i].route;
  return routes_.size();
}

void StackState::limit_path_mtu(Destination& to) const {
  for (const PathMtu& line : path_mtus_) {
    if (line.mtu == 0 || coarse_now_ns_ >= line.until_ns || !(line.remote == to.remote)) continue;
    to.path_mtu = std::min(line.mtu, to.path_mtu);
    to.valid_until_ns = line.until_ns;
  }
}

// RFC 1191 §3, RFC 8201 §4: never up, never below the least; the oldest line goes.
void StackState::path_mtu_learnt(const IpAddress& remote, u16 mtu) {
  mtu = std::max(mtu, remote.is_v4() ? kMtuMin4 : kMtuMin6);
  PathMtu* line = &path_mtus_[0];
  for (PathMtu& have : path_mtus_) {
    if (have.remote == remote) {
      line = &have;
      break;
    }
    if (have.until_ns < line->until_ns) line = &have;
  }
  bool current = line->remote == remote && coarse_now_ns_ < line->until_ns;
  if (current && line->mtu <= mtu) return;
  *line = {remote, mtu, coarse_now_ns_ + kPathMtuLife};
  ++generation_;
}

}  // namespace husk::net
