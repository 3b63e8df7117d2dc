// Options of TCP and UDP sockets: socket(7), tcp(7), ip(7), ipv6(7). What is a number is a row of the table below.
#undef linux
#include <asm/socket.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <algorithm>
#include <cstddef>

#include "kernel/linux/inet_socket.h"

namespace husk::linux {
namespace {

enum Kind : u8 { kBoolean, kByte, kHalf, kWord };  // of the field
enum For : u8 { kStream = 1, kDatagram = 2, kBoth = 3 };
constexpr i16 kNowhere = -1;  // only remembered
constexpr i32 kAny = -0x7fffffff - 1, kMost = 0x7fffffff;
constexpr u32 kBufferMax = 212992;  // net.core.wmem_max, rmem_max

#define HUSK_TCP(field) static_cast<i16>(offsetof(net::tcp::Options, field))
#define HUSK_UDP(field) static_cast<i16>(offsetof(net::udp::Options, field))

}  // namespace

struct InetSocket::Row {
  u8 level, option, kind, sockets;
  i16 tcp, udp;  // offsets in net's options
  i32 minimum, maximum, initial;
  u16 key() const { return static_cast<u16>(level << 8 | option); }
};

constexpr InetSocket::Row InetSocket::kRows[] = {
    {kLevelSocket, SO_REUSEADDR, kBoolean, kBoth, HUSK_TCP(reuse_address), HUSK_UDP(reuse_address), kAny, kMost, 0},
    {kLevelSocket, SO_REUSEPORT, kBoolean, kBoth, HUSK_TCP(reuse_port), HUSK_UDP(reuse_port), kAny, kMost, 0},
    {kLevelSocket, SO_KEEPALIVE, kBoolean, kBoth, HUSK_TCP(keep_alive), kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_BROADCAST, kBoolean, kBoth, kNowhere, HUSK_UDP(broadcast), kAny, kMost, 0},
    {kLevelSocket, SO_DEBUG, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_DONTROUTE, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_OOBINLINE, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_NO_CHECK, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_PRIORITY, kWord, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_RCVLOWAT, kWord, kBoth, kNowhere, kNowhere, kAny, kMost, 1},
    {kLevelSocket, SO_TIMESTAMP_OLD, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_TIMESTAMPNS_OLD, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_MARK, kWord, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_RXQ_OVFL, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelSocket, SO_BUSY_POLL, kWord, kBoth, kNowhere, kNowhere, 0, kMost, 0},
    {kLevelSocket, SO_MAX_PACING_RATE, kWord, kBoth, kNowhere, kNowhere, kAny, kMost, -1},
    {kLevelSocket, SO_INCOMING_CPU, kWord, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelTcp, TCP_NODELAY, kBoolean, kStream, HUSK_TCP(no_delay), kNowhere, kAny, kMost, 0},
    {kLevelTcp, TCP_CORK, kBoolean, kStream, HUSK_TCP(cork), kNowhere, kAny, kMost, 0},
    {kLevelTcp, TCP_QUICKACK, kBoolean, kStream, HUSK_TCP(quick_ack), kNowhere, kAny, kMost, 1},
    {kLevelTcp, TCP_KEEPIDLE, kWord, kStream, HUSK_TCP(keep_idle_s), kNowhere, 1, 32767, 7200},
    {kLevelTcp, TCP_KEEPINTVL, kWord, kStream, HUSK_TCP(keep_interval_s), kNowhere, 1, 32767, 75},
    {kLevelTcp, TCP_KEEPCNT, kWord, kStream, HUSK_TCP(keep_count), kNowhere, 1, 127, 9},
    {kLevelTcp, TCP_USER_TIMEOUT, kWord, kStream, HUSK_TCP(user_timeout_ms), kNowhere, 0, kMost, 0},
    {kLevelTcp, TCP_NOTSENT_LOWAT, kWord, kStream, HUSK_TCP(not_sent_low_water), kNowhere, kAny, kMost, 0},
    {kLevelTcp, TCP_DEFER_ACCEPT, kWord, kStream, HUSK_TCP(defer_accept_s), kNowhere, kAny, kMost, 0},
    {kLevelTcp, TCP_SYNCNT, kWord, kStream, kNowhere, kNowhere, 1, 127, 6},
    {kLevelTcp, TCP_LINGER2, kWord, kStream, kNowhere, kNowhere, kAny, 120, 60},
    {kLevelTcp, TCP_WINDOW_CLAMP, kWord, kStream, kNowhere, kNowhere, 0, kMost, 0},
    {kLevelTcp, TCP_FASTOPEN, kWord, kStream, kNowhere, kNowhere, 0, kMost, 0},
    {kLevelTcp, TCP_THIN_LINEAR_TIMEOUTS, kBoolean, kStream, kNowhere, kNowhere, 0, 1, 0},
    {kLevelIp, IP_TOS, kByte, kBoth, HUSK_TCP(traffic_class), HUSK_UDP(traffic_class), 0, 255, 0},
    {kLevelIp, IP_TTL, kByte, kBoth, HUSK_TCP(hop_limit), HUSK_UDP(hop_limit), -1, 255, 64},
    {kLevelIp, IP_PKTINFO, kBoolean, kBoth, kNowhere, HUSK_UDP(packet_information), kAny, kMost, 0},
    {kLevelIp, IP_RECVTTL, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp, IP_RECVTOS, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp, IP_RECVERR, kBoolean, kBoth, kNowhere, HUSK_UDP(receive_errors), kAny, kMost, 0},
    {kLevelIp, IP_RECVORIGDSTADDR, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp, IP_MTU_DISCOVER, kWord, kBoth, kNowhere, kNowhere, 0, 5, 1},
    {kLevelIp, IP_FREEBIND, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp, IP_MINTTL, kWord, kBoth, kNowhere, kNowhere, 0, 255, 0},
    {kLevelIp, IP_BIND_ADDRESS_NO_PORT, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp, IP_MULTICAST_TTL, kByte, kBoth, kNowhere, HUSK_UDP(multicast_hops), -1, 255, 1},
    {kLevelIp, IP_MULTICAST_LOOP, kBoolean, kBoth, kNowhere, HUSK_UDP(multicast_loop), kAny, kMost, 1},
    {kLevelIp, IP_MULTICAST_ALL, kBoolean, kBoth, kNowhere, HUSK_UDP(multicast_all), 0, 1, 1},
    {kLevelIp6, IPV6_V6ONLY, kBoolean, kBoth, HUSK_TCP(v6_only), HUSK_UDP(v6_only), kAny, kMost, 0},
    {kLevelIp6, IPV6_UNICAST_HOPS, kByte, kBoth, HUSK_TCP(hop_limit), HUSK_UDP(hop_limit), -1, 255, 64},
    {kLevelIp6, IPV6_MULTICAST_HOPS, kByte, kDatagram, kNowhere, HUSK_UDP(multicast_hops), -1, 255, 1},
    {kLevelIp6, IPV6_MULTICAST_LOOP, kBoolean, kBoth, kNowhere, HUSK_UDP(multicast_loop), 0, 1, 1},
    {kLevelIp6, IPV6_MULTICAST_ALL, kBoolean, kDatagram, kNowhere, HUSK_UDP(multicast_all), 0, 1, 1},
    {kLevelIp6, IPV6_TCLASS, kByte, kBoth, HUSK_TCP(traffic_class), HUSK_UDP(traffic_class), -1, 255, 0},
    {kLevelIp6, IPV6_RECVPKTINFO, kBoolean, kBoth, kNowhere, HUSK_UDP(packet_information), kAny, kMost, 0},
    {kLevelIp6, IPV6_RECVHOPLIMIT, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp6, IPV6_RECVTCLASS, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp6, IPV6_RECVERR, kBoolean, kBoth, kNowhere, HUSK_UDP(receive_errors), kAny, kMost, 0},
    {kLevelIp6, IPV6_MTU_DISCOVER, kWord, kBoth, kNowhere, kNowhere, 0, 5, 1},
    {kLevelIp6, IPV6_DONTFRAG, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp6, IPV6_FREEBIND, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 0},
    {kLevelIp6, IPV6_AUTOFLOWLABEL, kBoolean, kBoth, kNowhere, kNowhere, kAny, kMost, 1},
};

const InetSocket::Row* InetSocket::row(int level, int option) const {
  if (level == kLevelIp6 && domain == kInet) return nullptr;
  for (const Row& candidate : kRows) {
    if (candidate.level == level && candidate.option == option)
      return (candidate.sockets & (is_stream() ? kStream : kDatagram)) != 0 ? &candidate : nullptr;
  }
  return nullptr;
}

// --- numbers --------------------------------------------------------------------------------------------------------------------

int InetSocket::number(int level, int option, int initial) const {
  for (const Remembered& value : remembered_) {
    if (value.key == (level << 8 | option)) return value.value;
  }
  return initial;
}

int InetSocket::get_number(const Row& row) const {
  const i16 offset = is_stream() ? row.tcp : row.udp;
  if (offset == kNowhere) return number(row.level, row.option, row.initial);
  Options options;
  load(options);
  const u8* field = reinterpret_cast<const u8*>(&options) + offset;
  int value = 0;
  memcpy(&value, field, row.kind == kWord ? 4 : row.kind == kHalf ? 2 : 1);
  // 0 and -1 stand for the default.
  if ((row.option == IP_TTL || row.option == IPV6_UNICAST_HOPS) && row.kind == kByte && value == 0) return row.initial;
  return row.option == TCP_NOTSENT_LOWAT && row.level == kLevelTcp && value == -1 ? 0 : value;
}

Result<void> InetSocket::set_number(const Row& row, int value) {
  if (value < row.minimum || value > row.maximum) return Error(EINVAL);
  const bool is_hops = row.kind == kByte && row.minimum == -1;
  if (row.kind == kBoolean) value = value != 0 ? 1 : 0;
  if (row.level == kLevelIp && (row.option == IP_TTL ? value == 0 : row.option == IP_MULTICAST_TTL && is_stream())) return Error(EINVAL);
  if (row.level == kLevelSocket && row.option == SO_RCVLOWAT) value = value == 0 ? 1 : value < 0 ? kMost : value;
  if (row.level == kLevelIp6 && row.option == IPV6_V6ONLY && local().port != 0) return Error(EINVAL);
  if (row.level == kLevelTcp && row.option == TCP_NOTSENT_LOWAT && value == 0) value = -1;
  if (row.level == kLevelTcp && row.option == TCP_DEFER_ACCEPT && value > 0) {  // to the end of a retransmission, as on Linux
    int period = 1;
    while (period < value && period < 1023) period = 2 * period + 1;
    value = period;
  }
  const i16 offset = is_stream() ? row.tcp : row.udp;
  if (offset == kNowhere) {
    for (Remembered& known : remembered_) {
      if (known.key != row.key()) continue;
      known.value = value;
      return {};
    }
    return remembered_.push_back({row.key(), value});
  }
  if (is_hops && value == -1) value = row.option == IP_MULTICAST_TTL || row.option == IPV6_MULTICAST_HOPS ? 1 : 0;
  if (row.kind == kByte && is_stream() && row.level == kLevelIp && row.option == IP_TOS) value &= ~3;  // ECN is TCP's own
  Options options;
  load(options);
  memcpy(reinterpret_cast<u8*>(&options) + offset, &value, row.kind == kWord ? 4 : row.kind == kHalf ? 2 : 1);
  save(options);
  network_run();  // TCP_NODELAY and TCP_CORK send what was held back
  return {};
}

bool InetSocket::v6_only() const {
  Options options;
  load(options);
  return is_stream() ? options.tcp.v6_only : options.udp.v6_only;
}

// --- the others -----------------------------------------------------------------------------------------------------------------

Result<size_t> InetSocket::get_special(int, int, std::span<u8>) { return Error(ENOPROTOOPT); }
Result<void> InetSocket::set_special(int, int, std::span<const u8>) { return Error(ENOPROTOOPT); }
Result<void> InetSocket::change_membership(const net::IpAddress&, u32, bool) { return Error(EPROTO); }

Result<size_t> InetSocket::get_option(int level, int option, std::span<u8> out) {
  if (const Row* found = row(level, option)) {
    int value = get_number(*found);
    if (level == kLevelIp && out.size() < sizeof(int) && !out.empty() && value >= 0 && value <= 255) {  // a byte will do, as on Linux
      out[0] = static_cast<u8>(value);
      return size_t{1};
    }
    return put_value(out, value);
  }
  Options options;
  load(options);
  if (level == kLevelSocket) {
    switch (option) {
      case SO_ERROR: return put_value(out, take_error());
      case SO_ACCEPTCONN: return put_value(out, int{listening()});
      case SO_SNDLOWAT: return put_value(out, 1);
      case SO_SNDBUF: {
        u32 size = is_stream() ? options.tcp.send_buffer : options.udp.send_buffer;
        return put_value(out, size != 0 ? size : 16384);  // tcp_wmem, tcp_rmem: where automatic sizes begin
      }
      case SO_RCVBUF: {
        u32 size = is_stream() ? options.tcp.receive_buffer : options.udp.receive_buffer;
        return put_value(out, size != 0 ? size : 131072);
      }
      case SO_LINGER: {
        int linger[2] = {is_stream() && options.tcp.linger ? 1 : 0, is_stream() ? static_cast<int>(options.tcp.linger_s) : 0};
        return put_value(out, linger);
      }
      case SO_PEERCRED: return put_value(out, vfs::SocketCredentials{0, ~0u, ~0u});
      case SO_BINDTODEVICE: {
        if (bound_interface_ == 0) return size_t{0};
        net::InterfaceStatus interface = TRY(interface_at(bound_interface_));
        return put_value(out, interface.name);
      }
      case SO_PEERNAME: {
        vfs::SocketAddress peer = TRY(peer_name());
        memcpy(out.data(), peer.bytes, std::min<size_t>(out.size(), peer.size));
        return size_t{peer.size};
      }
      default: break;
    }
  }
  bool of_v4 = level == kLevelIp;
  if ((of_v4 && option == IP_MTU) || (level == kLevelIp6 && option == IPV6_MTU && domain == kInet6)) {
    if (remote().port == 0) return Error(ENOTCONN);
    net::InterfaceStatus interface = TRY(interface_at(TRY(interface_with(local().address))));
    return put_value(out, interface.mtu);
  }
  if (of_v4 && option == IP_MULTICAST_IF) return put_value(out, multicast_source_);
  if (level == kLevelIp6 && option == IPV6_MULTICAST_IF && domain == kInet6) return put_value(out, multicast_interface_);
  bool known = of_v4 || level == kLevelSocket || level == (is_stream() ? kLevelTcp : kLevelUdp) || domain == kInet6;
  return known ? get_special(level, option, out) : Error(EOPNOTSUPP);  // as Linux says it
}

Result<void> InetSocket::set_buffer(int option, u64 size) {
  bool sending = option == SO_SNDBUF || option == SO_SNDBUFFORCE;
  bool force = option == SO_SNDBUFFORCE || option == SO_RCVBUFFORCE;
  u32 doubled = static_cast<u32>(std::max<u64>(2 * std::min<u64>(size, force ? 64 * kMiB : kBufferMax), sending ? 4608 : 2304));
  Options options;
  load(options);
  (is_stream() ? (sending ? options.tcp.send_buffer : options.tcp.receive_buffer)
               : (sending ? options.udp.send_buffer : options.udp.receive_buffer)) = doubled;
  save(options);
  return {};
}

Result<void> InetSocket::set_device(std::span<const u8> value) {
  const char* text = reinterpret_cast<const char*>(value.data());
  std::string_view name(text, strnlen(text, std::min<size_t>(value.size(), 15)));
  bound_interface_ = name.empty() ? 0 : TRY(interface_named(name)).index;
  return {};
}

Result<void> InetSocket::set_membership(int level, int option, std::span<const u8> value) {
  net::IpAddress group;
  u32 interface = 0;
  bool join;
  if (option == MCAST_JOIN_GROUP || option == MCAST_LEAVE_GROUP) {
    auto request = TRY(take_value<group_req>(value));
    interface = request.gr_interface;
    join = option == MCAST_JOIN_GROUP;
    vfs::SocketAddress address;
    memcpy(address.bytes, &request.gr_group, address.size = sizeof(request.gr_group));
    group = TRY(read_address(address.family() == kInet ? kInet : kInet6, address, AddressUse::bind)).address;
  } else if (level == kLevelIp6) {
    auto request = TRY(take_value<ipv6_mreq>(value));
    group = net::IpAddress::v6(&request.ipv6mr_multiaddr);
    interface = static_cast<u32>(request.ipv6mr_ifindex);
    join = option == IPV6_ADD_MEMBERSHIP;
  } else {
    auto request = TRY(take_value<ip_mreq>(value));
    group = net::IpAddress::v4(&request.imr_multiaddr);
    join = option == IP_ADD_MEMBERSHIP;
    auto by_index = take_value<ip_mreqn>(value);
    if (by_index.ok() && by_index->imr_ifindex != 0) interface = static_cast<u32>(by_index->imr_ifindex);
    else if (request.imr_interface.s_addr != 0) interface = TRY(interface_with(net::IpAddress::v4(&request.imr_interface)));
  }
  if (!group.is_multicast()) return Error(EINVAL);
  TRY(change_membership(group, interface, join));
  network_run();
  return {};
}

Result<void> InetSocket::set_multicast_interface(int level, std::span<const u8> value) {
  u32 index = 0, source = 0;
  if (level == kLevelIp6) {
    index = TRY(take_value<u32>(value));
  } else if (auto by_index = take_value<ip_mreqn>(value); by_index.ok() && by_index->imr_ifindex != 0) {
    index = static_cast<u32>(by_index->imr_ifindex);
    source = by_index->imr_address.s_addr;
  } else {
    source = by_index.ok() ? by_index->imr_address.s_addr : TRY(take_value<u32>(value));
    if (source != 0) {
      auto found = interface_with(net::IpAddress::v4(&source));
      if (!found.ok()) return Error(EADDRNOTAVAIL);
      index = *found;
    }
  }
  if (index != 0) (void)TRY(interface_at(index));
  multicast_interface_ = index;
  if (level == kLevelIp) multicast_source_ = source;
  return {};
}

Result<void> InetSocket::set_option(int level, int option, std::span<const u8> value) {
  if (const Row* found = row(level, option)) {
    if (level == kLevelIp && value.size() < sizeof(int) && !value.empty()) return set_number(*found, value[0]);
    return set_number(*found, TRY(take_value<int>(value)));
  }
  if (level == kLevelSocket) {
    switch (option) {
      case SO_SNDBUF:
      case SO_RCVBUF:
      case SO_SNDBUFFORCE:
      case SO_RCVBUFFORCE: return set_buffer(option, TRY(take_value<u32>(value)));
      case SO_BINDTODEVICE: return set_device(value);
      case SO_LINGER: {
        struct Linger {
          int on, seconds;
        };
        Linger linger = TRY(take_value<Linger>(value));
        if (!is_stream()) return {};
        Options options;
        load(options);
        options.tcp.linger = linger.on != 0;
        if (linger.on != 0) options.tcp.linger_s = static_cast<u32>(linger.seconds);
        save(options);
        return {};
      }
      default: return Error(ENOPROTOOPT);
    }
  }
  bool v6 = level == kLevelIp6 && domain == kInet6;
  if ((level == kLevelIp && (option == IP_ADD_MEMBERSHIP || option == IP_DROP_MEMBERSHIP)) ||
      (v6 && (option == IPV6_ADD_MEMBERSHIP || option == IPV6_DROP_MEMBERSHIP)) ||
      ((level == kLevelIp || v6) && (option == MCAST_JOIN_GROUP || option == MCAST_LEAVE_GROUP))) {
    return set_membership(level, option, value);
  }
  if (v6 && option == IPV6_MTU) {
    constexpr int kLeast = 1280;  // RFC 8200 §5
    int size = TRY(take_value<int>(value));
    if (size != 0 && size < kLeast) return Error(EINVAL);
    if (is_stream()) return {};
    Options options;
    load(options);
    options.udp.packet_max = static_cast<u16>(std::min(size, 65535));
    save(options);
    return {};
  }
  if ((level == kLevelIp && option == IP_MULTICAST_IF) || (v6 && option == IPV6_MULTICAST_IF)) return set_multicast_interface(level, value);
  return set_special(level, option, value);
}

}  // namespace husk::linux
