// See network_info.h.
#undef linux
#include "kernel/linux/network_info.h"

#include <linux/if.h>
#include <linux/if_arp.h>

#include <algorithm>

namespace husk::linux {

Result<InterfaceList> InterfaceList::of(const net::Stack& stack) {
  InterfaceList list;
  list.count = std::min<size_t>(TRY(stack.interfaces(list.interfaces)), kMax);
  for (size_t i = 0; i < list.count; ++i) {
    if (list.interfaces[i].loopback) list.interfaces[i].mtu = 65536;  // as everywhere on Linux; it carries what any socket sends
  }
  return list;
}

AddressList::AddressList(const net::Stack& stack, u32 interface) { count = std::min<size_t>(stack.addresses(interface, addresses), kMax); }

// include/net/tcp_states.h of Linux.
u8 linux_tcp_state(net::tcp::State state) {
  constexpr u8 kNumbers[] = {7, 10, 2, 3, 1, 4, 5, 8, 11, 9, 6};
  return kNumbers[static_cast<u8>(state)];
}

u32 linux_interface_flags(const net::InterfaceStatus& status) {
  u32 flags = status.loopback ? IFF_LOOPBACK : IFF_BROADCAST | IFF_MULTICAST;
  return status.up ? flags | IFF_UP | IFF_RUNNING : flags;
}
u16 linux_interface_type(const net::InterfaceStatus& status) { return status.loopback ? ARPHRD_LOOPBACK : ARPHRD_ETHER; }

net::IpAddress net_mask(u8 prefix_bits) {
  net::IpAddress mask = net::IpAddress::v4(0, 0, 0, 0);
  u32 bits = prefix_bits == 0 ? 0 : __builtin_bswap32(~u32{0} << (32 - prefix_bits));
  memcpy(mask.bytes + 12, &bits, 4);
  return mask;
}

net::IpAddress broadcast_of(const net::InterfaceAddress& own) {
  net::IpAddress result = own.address, mask = net_mask(own.prefix_bits);
  for (u32 i = 12; i < 16; ++i) result.bytes[i] = static_cast<u8>(result.bytes[i] | ~mask.bytes[i]);
  return result;
}

}  // namespace husk::linux
