// See kernel/net/slaac.h.
#include "kernel/net/slaac.h"

#include <algorithm>

#include "kernel/net/stack_state.h"

namespace husk::net {

namespace {

constexpr u32 kForever = ~u32{0};
constexpr u64 kSolicitInterval = 4 * kSecond, kDetection = 1 * kSecond;  // RFC 4861 §10
constexpr u8 kSolicitations = 3;
constexpr u32 kRouterMetric = 1024;
constexpr u64 kTwoHours = 7200 * kSecond;

u64 until(u32 lifetime_s, u64 now_ns) { return lifetime_s == kForever ? kNever : now_ns + lifetime_s * kSecond; }

}  // namespace

// RFC 4291 appendix A, RFC 2464 §4.
IpAddress Slaac::address_in(const u8* prefix) const {
  IpAddress address;
  const u8* mac = interface_.mac;
  const u8 identifier[8] = {static_cast<u8>(mac[0] ^ 2), mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
  memcpy(address.bytes, prefix, 8);
  memcpy(address.bytes + 8, identifier, 8);
  return address;
}

Result<void> Slaac::start(u64 now_ns) {
  constexpr u8 kLinkLocal[8] = {0xfe, 0x80};
  TRY(stack_.assign(interface_, {address_in(kLinkLocal), 64}));
  solicit_at_ns_ = now_ns;
  return {};
}

Result<void> Slaac::detect_duplicates(InterfaceAddress& address, u64 now_ns) {
  address.tentative = true;
  IpAddress which = address.address;
  TRY(detections_.push_back({which, now_ns + kDetection}));
  TRY(stack_.join(interface_, solicited_node(which)));
  stack_.send_solicitation(interface_, {}, which, nullptr);
  return {};
}

// RFC 4862 §5.4.5. A link-local address made of the MAC is given up as well: IPv6 stays off.
void Slaac::duplicate(const IpAddress& address) {
  for (size_t i = detections_.size(); i-- > 0;) {
    if (detections_[i].address == address) detections_.erase(i);
  }
  stack_.withdraw(interface_, IpAddress(address));
}

void Slaac::advertised(const Received& received, std::span<const u8> message, u64 now_ns) {
  auto parsed = wire::RouterAdvertisement::parse(message);
  if (!parsed || !received.source.is_link_local() || !automatic_) return;
  solicit_at_ns_ = kNever;
  stack_.timer_changed();
  router(received.source, parsed->message->lifetime_s, now_ns);
  wire::NdpOptionReader reader(parsed->options);
  while (auto option = reader.next()) {
    if (option->kind == wire::kNdpSourceLink && (option->link_address()[0] & 1) == 0) {
      NeighbourEntry* entry = stack_.neighbour_cache().find_or_create(interface_, received.source);
      if (entry != nullptr) stack_.neighbour_cache().resolved(*entry, option->link_address(), Neighbours::Solicited::no);
    }
    u32 mtu = option->mtu();
    if (mtu >= kMtuMin6 && mtu <= interface_.device.properties().mtu && mtu != interface_.mtu6) {
      interface_.mtu6 = static_cast<u16>(mtu);
      stack_.forget_destinations();
    }
    if (auto* found = wire::NdpPrefix::parse(*option)) prefix(*found, now_ns);
    if (auto servers = wire::NdpRdnss::parse(*option)) name_servers(*servers, now_ns);
    if (auto domains = wire::NdpDnssl::parse(*option); domains && domains->lifetime_s != 0 && stack_.search_domain().empty()) {
      char name[256];
      stack_.set_search_domain({name, domains->first_name(name)});
    }
  }
}

// RFC 4861 §6.3.4.
void Slaac::router(const IpAddress& gateway, u16 lifetime_s, u64 now_ns) {
  Route route{{}, 0, true, gateway, interface_.index, kRouterMetric};
  if (lifetime_s == 0) return stack_.remove_route(route, Origin::advertised);
  (void)stack_.put_route({route, Origin::advertised, until(lifetime_s, now_ns)});
}

// RFC 4861 §6.3.4 for the link, RFC 4862 §5.5.3 for addresses.
void Slaac::prefix(const wire::NdpPrefix& prefix, u64 now_ns) {
  IpAddress network = IpAddress::v6(prefix.prefix);
  if (network.is_link_local() || network.is_multicast() || network.is_v4()) return;
  u64 valid = until(prefix.valid_s, now_ns), preferred = until(prefix.preferred_s, now_ns);
  if (prefix.on_link()) {
    Route route{network, prefix.prefix_bits, false, {}, interface_.index, 0};
    if (prefix.valid_s == 0) {
      stack_.remove_route(route, Origin::advertised);
    } else {
      (void)stack_.put_route({route, Origin::advertised, valid});
    }
  }
  if (!prefix.autonomous() || prefix.prefix_bits != 64 || prefix.preferred_s > prefix.valid_s) return;
  IpAddress address = address_in(prefix.prefix);
  if (InterfaceAddress* have = interface_.find(address)) {
    if (!is_ours(address)) return;
    // (e): nobody without authentication shortens a life below two hours.
    u64 remaining = have->valid_until_ns == kNever ? kNever : have->valid_until_ns - std::min(have->valid_until_ns, now_ns);
    if (prefix.valid_s == kForever || prefix.valid_s * kSecond > kTwoHours || valid > have->valid_until_ns) {
      have->valid_until_ns = valid;
    } else if (remaining > kTwoHours) {
      have->valid_until_ns = now_ns + kTwoHours;
    }
    have->preferred_until_ns = preferred;
    stack_.forget_destinations();
  } else if (prefix.valid_s != 0) {
    if (stack_.assign(interface_, {address, 64, false, preferred, valid}).ok()) remember(address);
  }
}

void Slaac::remember(const IpAddress& address) {
  if (is_ours(address)) return;
  if (made_.size() >= 32) made_.erase(0);
  (void)made_.push_back(address);
}

bool Slaac::is_ours(const IpAddress& address) const {
  for (const IpAddress& made : made_) {
    if (made == address) return true;
  }
  return false;
}

// RFC 8106 §5.3.1.
void Slaac::name_servers(const wire::NdpRdnss& servers, u64 now_ns) {
  IpAddress list[4];
  size_t count = std::min(servers.count(), std::size(list));
  for (size_t i = 0; i < count; ++i) list[i] = IpAddress::v6(servers.address(i));
  (void)stack_.set_name_servers(Origin::advertised, {list, count}, until(servers.lifetime_s, now_ns));
}

void Slaac::run(u64 now_ns) {
  for (size_t i = detections_.size(); i-- > 0;) {
    if (detections_[i].deadline_ns > now_ns) continue;
    if (InterfaceAddress* address = interface_.find(detections_[i].address)) address->tentative = false;
    detections_.erase(i);
  }
  if (now_ns < solicit_at_ns_) return;
  ++solicitations_;
  solicit_at_ns_ = solicitations_ < kSolicitations ? now_ns + kSolicitInterval : kNever;
  stack_.send_router_solicitation(interface_);
}

u64 Slaac::next_deadline_ns() const {
  u64 deadline = solicit_at_ns_;
  for (const Detection& detection : detections_) deadline = std::min(deadline, detection.deadline_ns);
  return deadline;
}

}  // namespace husk::net
