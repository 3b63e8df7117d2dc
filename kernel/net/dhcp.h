// The DHCP client of one interface (RFC 2131, options RFC 2132, routes RFC 3442).
//
// DEVIATES: the first retransmission comes after 1 s, not 4 (§4.1): machines start in milliseconds. The address is used while ARP asks whether
// somebody else has it (§4.4.1 would wait); if so it is declined.
#pragma once

#include "kernel/net/interface.h"
#include "wire/dhcp.h"

namespace husk::net {

class StackState;

class DhcpClient {
 public:
  DhcpClient(StackState& stack, Interface& interface) : stack_(stack), interface_(interface) {}
  Result<void> set_host_name(std::string_view name);
  void start(u64 now_ns);
  void input(std::span<const u8> message, u64 now_ns);
  // ARP says that another machine has `address`. True if that was the lease's, which is given back.
  bool conflict(const IpAddress& address, u64 now_ns);
  void run(u64 now_ns);
  u64 next_deadline_ns() const { return deadline_ns_; }
  // There is an address, or nobody has answered for long; it is asked on all the same.
  bool settled() const { return state_ >= State::bound || unanswered_; }

 private:
  enum class State : u8 { init, selecting, requesting, bound, renewing, rebinding };
  struct Times {
    u64 renew_ns, rebind_ns, end_ns;
  };
  void discover(u64 now_ns);
  void request(u64 now_ns);
  void lose(u64 now_ns, u64 pause_ns);
  void bind(const wire::Dhcp& message, u64 now_ns);
  void apply(const wire::Dhcp& message);
  void apply_routes(const wire::Dhcp& message, u64 until_ns);
  Times times_of(const wire::Dhcp& message, u64 now_ns) const;
  u64 backoff(u64 first_ns, u32 limit);
  void send(wire::DhcpType type, u64 now_ns);
  StackState& stack_;
  Interface& interface_;
  String host_name_;
  State state_ = State::init;
  bool unanswered_ = false;
  u32 tries_ = 0, transaction_ = 0;
  u64 deadline_ns_ = ~u64{0}, started_ns_ = 0, asked_ns_ = 0, probing_until_ns_ = 0;
  IpAddress offered_ = IpAddress::v4(0, 0, 0, 0), server_ = IpAddress::v4(0, 0, 0, 0);
  Times times_{};
};

}  // namespace husk::net
