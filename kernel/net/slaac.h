// IPv6 of one interface: duplicate address detection for all addresses, and stateless configuration (RFC 4862) if it is automatic.
//
// Interface identifiers are made of the MAC (RFC 4291 appendix A): the machine keeps nothing that RFC 7217's secret could be kept in.
// Addresses are used while detection runs (RFC 4429, optimistic), and withdrawn when somebody objects.
#pragma once

#include "kernel/net/interface.h"
#include "wire/icmpv6.h"

namespace husk::net {

class StackState;
struct Received;

class Slaac {
 public:
  Slaac(StackState& stack, Interface& interface, bool automatic) : stack_(stack), interface_(interface), automatic_(automatic) {}
  Result<void> start(u64 now_ns);  // the link-local address, and asks for routers
  Result<void> detect_duplicates(InterfaceAddress& address, u64 now_ns);
  void duplicate(const IpAddress& address);
  void advertised(const Received& received, std::span<const u8> message, u64 now_ns);
  void run(u64 now_ns);
  u64 next_deadline_ns() const;

 private:
  struct Detection {
    IpAddress address;
    u64 deadline_ns;
  };
  IpAddress address_in(const u8* prefix) const;
  void router(const IpAddress& gateway, u16 lifetime_s, u64 now_ns);
  void prefix(const wire::NdpPrefix& prefix, u64 now_ns);
  void remember(const IpAddress& address);
  bool is_ours(const IpAddress& address) const;
  void name_servers(const wire::NdpRdnss& servers, u64 now_ns);
  StackState& stack_;
  Interface& interface_;
  bool automatic_;
  u8 solicitations_ = 0;
  u64 solicit_at_ns_ = ~u64{0};
  Vec<Detection> detections_;
  Vec<IpAddress> made_;  // of prefixes; others are not a router's to change
};

}  // namespace husk::net
