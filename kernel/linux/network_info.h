// What the stack knows about interfaces, in the words of Linux: for ioctls, netlink, /proc/net and /sys/class/net.
#pragma once
#undef linux

#include "kernel/net/stack.h"

namespace husk::linux {

struct InterfaceList {
  static constexpr size_t kMax = 8;
  net::InterfaceStatus interfaces[kMax];
  size_t count = 0;
  static Result<InterfaceList> of(const net::Stack& stack);
  const net::InterfaceStatus* begin() const { return interfaces; }
  const net::InterfaceStatus* end() const { return interfaces + count; }
};

struct AddressList {
  static constexpr size_t kMax = 16;
  net::InterfaceAddress addresses[kMax];
  size_t count = 0;
  AddressList(const net::Stack& stack, u32 interface);
  const net::InterfaceAddress* begin() const { return addresses; }
  const net::InterfaceAddress* end() const { return addresses + count; }
};

u8 linux_tcp_state(net::tcp::State state);                      // TCP_ESTABLISHED is 1, ...
u32 linux_interface_flags(const net::InterfaceStatus& status);  // IFF_*
u16 linux_interface_type(const net::InterfaceStatus& status);   // ARPHRD_*
net::IpAddress net_mask(u8 prefix_bits);                        // IPv4
net::IpAddress broadcast_of(const net::InterfaceAddress& own);  // IPv4

}  // namespace husk::linux
