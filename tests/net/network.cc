// See tests/net/network.h.
#include "tests/net/network.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>

#if defined(__SANITIZE_ADDRESS__)
extern "C" size_t __sanitizer_get_current_allocated_bytes();  // sanitizer/allocator_interface.h, which not every compiler brings
#endif

namespace husk::simulation {

Host::Host(Network& network, u32 number, const HostOptions& options)
    : network_(network),
      number_(number),
      port_(network.lan().add_port(options.mtu, options.offloads, options.conditions)),
      device_(port_, options.faults, network.random().next()),
      random_(network.random().next()) {
  auto stack = net::Stack::create(*this, options.limits);
  HUSK_ASSERT(stack.ok());
  stack_ = stack.release();
  auto index = stack_->add_interface(device_, "eth0", net::Configure::manually, "host");
  HUSK_ASSERT(index.ok());
  interface_ = *index;
  if (!options.addresses) return;
  HUSK_ASSERT(stack_->add_address(interface_, address(net::Family::v4), 24).ok());
  HUSK_ASSERT(stack_->add_address(interface_, address(net::Family::v6), 64).ok());
}

u64 Host::now_ns() { return network_.now_ns(); }

void Host::random(void* to, size_t size) {
  for (size_t i = 0; i < size; ++i) static_cast<u8*>(to)[i] = static_cast<u8>(random_.next());
}

net::IpAddress Host::address(net::Family family) const {
  u8 number = static_cast<u8>(number_);
  if (family == net::Family::v4) return net::IpAddress::v4(10, 0, 0, number);
  return {{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number}};
}

// The clock begins anywhere, now and then right before something wraps.
Network::Network(u64 seed) : random_(seed), lan_(random_.next(), random_.between(1, 1000) * kSecond + random_.below(kSecond)) {}

Host& Network::add_host(const HostOptions& options) {
  hosts_.emplace_back(new Host(*this, static_cast<u32>(hosts_.size() + 1), options));
  return *hosts_.back();
}

bool Network::settle() {
  for (u32 round = 0; round < 100'000; ++round) {
    bool moved = false;
    for (auto& host : hosts_) moved |= host->stack().run();
    for (size_t i = 0; i < actors_.size(); ++i) moved |= !actors_[i]->done() && actors_[i]->step(now_ns());  // actors make actors
    if (lan_.violation != nullptr) {
      trouble = lan_.violation;
      return false;
    }
    if (!moved) return true;
  }
  trouble = "something moves for ever while the clock stands still";
  return false;
}

u64 Network::next_ns() {
  u64 next = lan_.next_event_ns();
  for (const auto& host : hosts_) {
    next = std::min(next, host->stack().next_deadline_ns());
    if (host->device().take_wake()) next = std::min(next, now_ns() + 10'000);
  }
  for (const auto& actor : actors_) {
    if (!actor->done()) next = std::min(next, actor->wake_ns());
  }
  return next;
}

bool Network::run_until(const std::function<bool()>& condition, u64 limit_ns) {
  u64 end = now_ns() + limit_ns;
  u32 overdue = 0;
  while (true) {
    if (!settle()) return false;
    if (condition()) return true;
    u64 next = next_ns();
    if (next > end) {
      lan_.advance(end);
      trouble = next == kNever ? "everybody waits for nothing" : "took too long";
      return false;
    }
    overdue = next <= now_ns() ? overdue + 1 : 0;
    if (overdue > 1000) {
      trouble = "a deadline passes again and again without being met:";
      if (lan_.next_event_ns() <= now_ns()) trouble += " a frame is not received, or room not used";
      for (const auto& host : hosts_) {
        if (host->stack().next_deadline_ns() <= now_ns())
          trouble += " stack " + std::to_string(host->number_) + (host->stack().tcp().next_deadline_ns() <= now_ns() ? " tcp" : "");
      }
      return false;
    }
    lan_.advance(std::max(next, now_ns() + (overdue > 1 ? 1000 : 0)));
  }
}

bool Network::run_to_end(u64 limit_ns) {
  return run_until([this] { return std::all_of(actors_.begin(), actors_.end(), [](auto& actor) { return actor->done(); }); }, limit_ns);
}

void Network::forget_finished_actors() {
  std::erase_if(actors_, [](auto& actor) { return actor->done(); });
}

size_t Network::actors_left() const {
  return static_cast<size_t>(std::count_if(actors_.begin(), actors_.end(), [](auto& actor) { return !actor->done(); }));
}

void for_seeds(u32 count, const std::function<void(u64 seed)>& body) {
  if (const char* text = getenv("HUSK_NET_SEEDS")) count = static_cast<u32>(strtoul(text, nullptr, 10));
  u64 first = 1;
  if (const char* text = getenv("HUSK_NET_FIRST_SEED")) first = strtoull(text, nullptr, 10);
  for (u64 seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("HUSK_NET_SEEDS=1 HUSK_NET_FIRST_SEED=" + std::to_string(seed));
    body(seed);
    if (testing::Test::HasFailure()) return;
  }
}

size_t heap_bytes() {
#if defined(__SANITIZE_ADDRESS__)
  return __sanitizer_get_current_allocated_bytes();
#else
  return 0;
#endif
}

}  // namespace husk::simulation
