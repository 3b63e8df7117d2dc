// The stack as its owner sees it: made, run, and asked when it wants to run next.
#include "kernel/net/stack.h"

#include <algorithm>

#include "kernel/net/dhcp.h"
#include "kernel/net/slaac.h"
#include "kernel/net/stack_state.h"

namespace husk::net {

Stack::Limits Stack::Limits::for_memory(u64 bytes) {
  Limits limits;
  limits.tcp.memory = std::clamp<u64>(bytes / 4, 2 * kMiB, kGiB);
  limits.tcp.connections = static_cast<u32>(std::clamp<u64>(bytes / (16 * kKiB), 1024, 1u << 20));
  limits.tcp.send_buffer_max = static_cast<u32>(std::clamp<u64>(bytes / 32, 256 * kKiB, 4 * kMiB));
  limits.tcp.receive_buffer_max = static_cast<u32>(std::clamp<u64>(bytes / 32, 256 * kKiB, 6 * kMiB));
  limits.neighbours = static_cast<u32>(std::clamp<u64>(bytes / (128 * kKiB), 128, 4096));
  limits.fragments = static_cast<u32>(std::clamp<u64>(bytes / 128, 256 * kKiB, 4 * kMiB));
  limits.udp_memory = static_cast<u32>(std::clamp<u64>(bytes / 16, kMiB, 64 * kMiB));
  return limits;
}

Result<Owned<Stack>> Stack::create(Environment& environment, const Limits& limits) {
  auto made = TRY(make_owned<StackState>(environment, limits));
  TRY(made->start());
  return Owned<Stack>(std::move(made));
}

StackState::StackState(Environment& environment, const Limits& limits)
    : environment_(environment),
      limits_(limits),
      neighbours_(*this, limits.neighbours),
      reassembly_(limits.fragments),
      udp_(*this, limits.udp_memory) {}

StackState::~StackState() = default;

Result<void> StackState::start() {
  coarse_now_ns_ = now_ns();
  hash_secret_ = random_u32();
  random(identifications_, sizeof(identifications_));
  auto index = TRY(add_interface(loopback_, "lo", Configure::manually, {}));
  TRY(add_address(index, IpAddress::v4(127, 0, 0, 1), 8));
  TRY(add_address(index, IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, 128));
  tcp_ = TRY(tcp::Tcp::create(*this, limits_.tcp));
  return {};
}

bool StackState::run() {
  coarse_now_ns_ = now_ns();
  bool moved = false;
  for (auto& interface : interfaces_) moved |= receive_some(*interface);
  tcp_->run();
  if (timers_dirty_ || coarse_now_ns_ >= std::min(slow_deadline_ns_, neighbours_.next_deadline_ns())) run_timers(coarse_now_ns_);
  for (auto& interface : interfaces_) {
    if (interface->backlog_count != 0) drain_backlog(*interface);
    if (!interface->unflushed) continue;
    interface->unflushed = false;
    interface->device.flush();
  }
  if (udp_.waiting_for_room) udp_.room_again();
  return std::exchange(moved_, false) || moved;
}

void StackState::run_timers(u64 now) {
  timers_dirty_ = false;
  neighbours_.run(now);
  for (Reassembly::Overdue overdue; reassembly_.expire(now, &overdue); overdue = {}) {
    Interface* interface = interface_at(overdue.interface);
    if (!overdue.first || interface == nullptr || !overdue.first->pull_up(20)) continue;
    const u8* header = overdue.first->head().data();
    bool v4 = header[0] >> 4 == 4;  // RFC 792, RFC 4443 §3.3
    if (!v4 && !overdue.first->pull_up(40)) continue;
    header = overdue.first->head().data();
    Received received{*interface, v4 ? IpAddress::v4(header + 12) : IpAddress::v6(header + 8),
                      v4 ? IpAddress::v4(header + 16) : IpAddress::v6(header + 24), v4 ? 20u : 40u, v4 ? header[9] : header[6]};
    received.group = received.destination.is_multicast() || interface->is_broadcast(received.destination);
    send_icmp_error(received, *overdue.first, v4 ? u8{wire::kIcmpTimeExceeded} : u8{wire::kIcmpv6TimeExceeded}, wire::kIcmpReassemblyTimeExceeded, 0);
  }
  for (auto& interface : interfaces_) {
    if (interface->dhcp) interface->dhcp->run(now);
    if (interface->slaac) interface->slaac->run(now);
  }
  if (expire(now)) environment_.names_changed();
  slow_deadline_ns_ = slow_deadline_ns();
}

// Lifetimes of addresses, routes and name servers. True if a name server went.
bool StackState::expire(u64 now) {
  for (auto& interface : interfaces_) {
    for (size_t i = interface->addresses.size(); i-- > 0;) {
      if (interface->addresses[i].valid_until_ns <= now) withdraw(*interface, IpAddress(interface->addresses[i].address));
    }
  }
  for (size_t i = routes_.size(); i-- > 0;) {
    if (routes_[i].valid_until_ns > now) continue;
    routes_.erase(i);
    ++generation_;
  }
  bool names = false;
  for (size_t i = name_servers_.size(); i-- > 0;) {
    if (name_servers_[i].valid_until_ns > now) continue;
    name_servers_.erase(i);
    names = true;
  }
  return names;
}

u64 StackState::slow_deadline_ns() const {
  u64 deadline = std::min(neighbours_.next_deadline_ns(), reassembly_.next_deadline_ns());
  for (const auto& interface : interfaces_) {
    if (interface->dhcp) deadline = std::min(deadline, interface->dhcp->next_deadline_ns());
    if (interface->slaac) deadline = std::min(deadline, interface->slaac->next_deadline_ns());
    for (const auto& address : interface->addresses) deadline = std::min(deadline, address.valid_until_ns);
  }
  for (const auto& entry : routes_) deadline = std::min(deadline, entry.valid_until_ns);
  for (const auto& server : name_servers_) deadline = std::min(deadline, server.valid_until_ns);
  return deadline;
}

u64 StackState::next_deadline_ns() const {
  if (timers_dirty_) return coarse_now_ns_;
  return std::min({slow_deadline_ns_, neighbours_.next_deadline_ns(), tcp_->next_deadline_ns()});
}

bool StackState::configured() const {
  for (const auto& interface : interfaces_) {
    if (interface->dhcp && !interface->dhcp->settled()) return false;
  }
  return true;
}

Result<void> StackState::set_name_servers(Origin origin, std::span<const IpAddress> servers, u64 valid_until_ns) {
  constexpr size_t kMax = 8;
  bool changed = false;
  for (size_t i = name_servers_.size(); origin == Origin::dhcp && i-- > 0;) {  // a lease's list replaces that of the one before
    if (name_servers_[i].origin != origin) continue;
    name_servers_.erase(i);
    changed = true;
  }
  for (const IpAddress& server : servers) {
    NameServer* known = std::find_if(name_servers_.begin(), name_servers_.end(), [&](auto& have) { return have.address == server; });
    if (known != name_servers_.end()) {
      known->valid_until_ns = valid_until_ns;
      continue;
    }
    if (name_servers_.size() >= kMax) break;
    TRY(name_servers_.push_back({server, origin, valid_until_ns}));
    changed = true;
  }
  timers_dirty_ = true;
  if (changed) environment_.names_changed();
  return {};
}

void StackState::set_search_domain(std::string_view domain) {
  // A stranger says it, and it goes into a file of lines.
  if (!std::all_of(domain.begin(), domain.end(), [](char c) { return c > ' ' && c < 0x7f; })) return;
  auto copy = String::from(domain);
  if (!copy.ok()) return;
  search_domain_ = copy.release();
  environment_.names_changed();
}

}  // namespace husk::net
