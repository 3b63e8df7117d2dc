// See inet_socket.h: makers, and addresses. ip(7), ipv6(7).
#undef linux
#include "kernel/linux/inet_socket.h"

#include <linux/in.h>
#include <linux/in6.h>

namespace husk::linux {
namespace {

constexpr u32 kSin6Minimum = 24;  // SIN6_LEN_RFC2133: without the scope
constexpr int kUnspecified = 0;

Result<net::Endpoint> read_v4(const vfs::SocketAddress& address) {
  sockaddr_in in;
  if (address.size < sizeof(in)) return Error(EINVAL);
  memcpy(&in, address.bytes, sizeof(in));
  return net::Endpoint{net::IpAddress::v4(&in.sin_addr), __builtin_bswap16(in.sin_port), 0};
}

Result<net::Endpoint> read_v6(const vfs::SocketAddress& address) {
  sockaddr_in6 in{};
  if (address.size < kSin6Minimum) return Error(EINVAL);
  memcpy(&in, address.bytes, address.size < sizeof(in) ? kSin6Minimum : sizeof(in));
  net::Endpoint result{net::IpAddress::v6(&in.sin6_addr), __builtin_bswap16(in.sin6_port), 0};
  const net::IpAddress& to = result.address;
  bool has_scope = to.is_link_local() || (to.is_multicast() && !to.is_v4() && (to.bytes[1] & 0xf) <= 2);
  if (has_scope && !to.is_v4()) result.interface = in.sin6_scope_id;
  return result;
}

}  // namespace

Result<net::Endpoint> read_address(int domain, const vfs::SocketAddress& address, AddressUse use) {
  if (address.size < sizeof(u16)) return Error(EINVAL);
  const int family = address.family();
  // sendto(2) of an IPv6 socket takes IPv4 addresses as they are; bind and sendto of an IPv4 socket take AF_UNSPEC for AF_INET.
  bool as_v4 =
      domain == kInet ? family == kInet || (family == kUnspecified && use != AddressUse::connect) : family == kInet && use != AddressUse::bind;
  if (!as_v4 && domain == kInet && address.size < sizeof(sockaddr_in)) return Error(EINVAL);
  if (!as_v4 && domain == kInet6 && address.size < kSin6Minimum) return Error(EINVAL);
  if (!as_v4 && (domain == kInet || family != kInet6)) return Error(domain == kInet6 && use == AddressUse::send ? EINVAL : EAFNOSUPPORT);
  net::Endpoint result = TRY(as_v4 ? read_v4(address) : read_v6(address));
  if (use == AddressUse::bind && family == kUnspecified && !result.address.is_any()) return Error(EAFNOSUPPORT);
  return result;
}

vfs::SocketAddress write_address(int domain, const net::Endpoint& endpoint) {
  vfs::SocketAddress result;
  if (domain == kInet) {
    sockaddr_in in{};
    in.sin_family = kInet;
    in.sin_port = __builtin_bswap16(endpoint.port);
    memcpy(&in.sin_addr, endpoint.address.v4_bytes(), 4);
    memcpy(result.bytes, &in, result.size = sizeof(in));
  } else {
    sockaddr_in6 in{};
    in.sin6_family = kInet6;
    in.sin6_port = __builtin_bswap16(endpoint.port);
    memcpy(&in.sin6_addr, endpoint.address.bytes, 16);
    if (endpoint.address.is_link_local() && !endpoint.address.is_v4()) in.sin6_scope_id = endpoint.interface;
    memcpy(result.bytes, &in, result.size = sizeof(in));
  }
  return result;
}

Result<net::Endpoint> InetSocket::endpoint(const vfs::SocketAddress& address, AddressUse use) const {
  net::Endpoint result = TRY(read_address(domain, address, use));
  if (use != AddressUse::bind && result.address.is_any()) {  // this machine, by the address that the socket is bound to
    const net::Endpoint own = local();
    const bool v4 = result.address.is_v4();
    if (!own.address.is_any() && own.address.is_v4() == v4) result = {own.address, result.port, own.interface};
    else result.address = v4 ? net::IpAddress::v4(127, 0, 0, 1) : net::IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
  }
  if (domain == kInet6 && result.address.is_v4() && v6_only()) return Error(use == AddressUse::bind ? EINVAL : ENETUNREACH);
  if (result.interface == 0) result.interface = bound_interface_;
  if (result.interface == 0 && use != AddressUse::bind && result.address.is_multicast()) result.interface = multicast_interface_;
  if (use == AddressUse::bind && result.interface == 0 && result.address.is_link_local() && !result.address.is_v4()) return Error(EINVAL);
  return result;
}

Result<vfs::SocketAddress> InetSocket::peer_name() {
  net::Endpoint to = remote();
  if (to.port == 0) return Error(ENOTCONN);
  return write_address(domain, to);
}

// The first time the network has its turn: what is awaited may be on its way already. Those who accept are woken one by one.
Result<void> InetSocket::wait_for_change(Patience& patience) {
  if (patience.deadline_ns == 0) {
    network_run();
    patience.deadline_ns = deadline_of(patience.timeout_ns);
    return {};
  }
  sched::expect_events();
  if (listening()) return wait_exclusive(queue_, patience.deadline_ns);
  return wait(queue_, patience.message_flags, patience.deadline_ns);
}

Result<Ref<vfs::Socket>> make_inet_socket(int domain, int type, int protocol, u32 file_flags) {
  const int ping = domain == kInet ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  switch (type) {
    case 1:  // SOCK_STREAM
      if (protocol != 0 && protocol != IPPROTO_TCP) return Error(EPROTONOSUPPORT);
      return make_stream_socket(domain, file_flags);
    case 2:  // SOCK_DGRAM
      if (protocol != 0 && protocol != IPPROTO_UDP && protocol != ping) return Error(EPROTONOSUPPORT);
      return make_datagram_socket(domain, protocol == 0 ? int{IPPROTO_UDP} : protocol, file_flags);
    case 3: return Error(protocol == 0 ? EPROTONOSUPPORT : EPERM);  // SOCK_RAW
    default: return Error(ESOCKTNOSUPPORT);
  }
}

}  // namespace husk::linux
