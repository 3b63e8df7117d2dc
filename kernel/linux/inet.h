// Makers of the sockets of AF_INET, AF_INET6 and AF_NETLINK: kernel/net's sockets as open files. For the socket calls (sockets*.cc).
#pragma once
#undef linux

#include "base/ref.h"
#include "base/result.h"
#include "kernel/vfs/socket.h"

namespace husk::linux {

// `domain`: AF_INET or AF_INET6; `type`: SOCK_STREAM (TCP), SOCK_DGRAM (UDP, or with IPPROTO_ICMP and IPPROTO_ICMPV6 echo messages: ping), without SOCK_NONBLOCK
// and SOCK_CLOEXEC; `file_flags`: O_NONBLOCK or 0. SOCK_RAW: EPERM. The first one starts the network, see network.h.
Result<Ref<vfs::Socket>> make_inet_socket(int domain, int type, int protocol, u32 file_flags);
// `type`: SOCK_RAW or SOCK_DGRAM; `protocol`: NETLINK_ROUTE, for questions only; others EPROTONOSUPPORT.
Result<Ref<vfs::Socket>> make_netlink_socket(int type, int protocol, u32 file_flags);

// SIOCGIF*: questions about interfaces, which every socket answers, AF_UNIX ones too. ENOTTY: no such request.
Result<i64> interface_ioctl(u32 request, u64 argument);

}  // namespace husk::linux
