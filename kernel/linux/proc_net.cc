// /proc/net, the settings of the network in /proc/sys/net, and /sys/class/net. proc(5), sysfs(5).
//
// Who looks starts the network: what is shown is then true. Without memory for that the files are there, and empty.
#undef linux
#include <string.h>

#include <cstddef>
#include <iterator>

#include "base/format.h"
#include "kernel/linux/network.h"
#include "kernel/linux/network_info.h"
#include "kernel/linux/network_settings.h"
#include "kernel/linux/proc.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

using ull = unsigned long long;
using net::IpAddress;

// An IPv4 address, or a quarter of an IPv6 one, as /proc prints it: the number that its bytes are on x86.
u32 word_of(const u8* bytes) {
  u32 word;
  memcpy(&word, bytes, sizeof(word));
  return word;
}

Result<void> print_endpoint(String& out, const net::Endpoint& end, bool v4) {
  for (u32 i = v4 ? 12 : 0; i < 16; i += 4) TRY(print(out, "%08X", v4 && !end.address.is_v4() ? 0 : word_of(end.address.bytes + i)));
  return print(out, ":%04X ", end.port);
}

Result<void> print_packed(String& out, const IpAddress& address) {  // IPv6, for if_inet6 and ipv6_route
  for (u8 byte : address.bytes) TRY(print(out, "%02x", byte));
  return {};
}

// --- interfaces -----------------------------------------------------------------------------------------------------------------

Result<void> dev_text(void*, String& out) {
  TRY(
      out.append("Inter-|   Receive                                                |  Transmit\n"
                 " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"));
  InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
  for (const net::InterfaceStatus& status : list) {
    const auto& from = status.statistics;
    TRY(print(out, "%6s: %7llu %7llu %4llu %4llu    0     0          0         0 %8llu %7llu    0 %4llu    0     0       0          0\n", status.name,
              static_cast<ull>(from.bytes_received), static_cast<ull>(from.packets_received), static_cast<ull>(from.errors),
              static_cast<ull>(from.dropped_received), static_cast<ull>(from.bytes_sent), static_cast<ull>(from.packets_sent),
              static_cast<ull>(from.dropped_sent)));
  }
  return {};
}

Result<void> if_inet6_text(void*, String& out) {
  net::Stack& stack = *TRY(network());
  InterfaceList list = TRY(InterfaceList::of(stack));
  for (const net::InterfaceStatus& status : list) {
    for (const net::InterfaceAddress& own : AddressList(stack, status.index)) {
      if (own.address.is_v4()) continue;
      u32 scope = own.address.is_loopback() ? 0x10 : own.address.is_link_local() ? 0x20 : 0;
      TRY(print_packed(out, own.address));
      TRY(print(out, " %02x %02x %02x %02x %8s\n", status.index, own.prefix_bits, scope, own.tentative ? 0x40 : 0x80, status.name));
    }
  }
  return {};
}

struct Names {
  explicit Names(const InterfaceList& from) : list(from) {}
  const char* of(u32 index) const {
    for (const net::InterfaceStatus& status : list) {
      if (status.index == index) return status.name;
    }
    return "*";
  }
  const InterfaceList& list;
};

Result<void> print_routes(String& out, bool v4) {
  constexpr size_t kMost = 32;
  net::Stack& stack = *TRY(network());
  InterfaceList list = TRY(InterfaceList::of(stack));
  Names names(list);
  net::Route all[kMost];
  size_t count = stack.routes(all);
  for (const net::Route& route : std::span(all, count < kMost ? count : kMost)) {
    if (route.network.is_v4() != v4) continue;
    const u32 flags = route.has_gateway ? 3 : 1;  // RTF_UP, RTF_GATEWAY
    if (v4) {
      TRY(print(out, "%s\t%08X\t%08X\t%04X\t0\t0\t%u\t%08X\t0\t0\t0\n", names.of(route.interface), word_of(route.network.v4_bytes()),
                route.has_gateway ? word_of(route.gateway.v4_bytes()) : 0, flags, route.metric, word_of(net_mask(route.prefix_bits).v4_bytes())));
      continue;
    }
    TRY(print_packed(out, route.network));
    TRY(print(out, " %02x %032x 00 ", route.prefix_bits, 0));
    TRY(print_packed(out, route.has_gateway ? route.gateway : IpAddress{}));
    TRY(print(out, " %08x 00000001 00000000 %08x %8s\n", route.metric, flags, names.of(route.interface)));
  }
  return {};
}

Result<void> route_text(void*, String& out) {
  TRY(out.append("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"));
  return print_routes(out, true);
}
Result<void> ipv6_route_text(void*, String& out) { return print_routes(out, false); }

Result<void> arp_text(void*, String& out) {
  constexpr size_t kMost = 64;
  TRY(out.append("IP address       HW type     Flags       HW address            Mask     Device\n"));
  net::Stack& stack = *TRY(network());
  InterfaceList list = TRY(InterfaceList::of(stack));
  net::Neighbour all[kMost];
  size_t count = stack.neighbours(all);
  for (const net::Neighbour& entry : std::span(all, count < kMost ? count : kMost)) {
    if (!entry.address.is_v4()) continue;
    char text[kAddressText];
    const u8* mac = entry.mac;
    (void)address_text(entry.address, text);
    TRY(print(out, "%-16s 0x1         0x%x         %02x:%02x:%02x:%02x:%02x:%02x     *        %s\n", text, entry.reachable ? 2 : 0, mac[0], mac[1],
              mac[2], mac[3], mac[4], mac[5], Names(list).of(entry.interface)));
  }
  return {};
}

// --- sockets --------------------------------------------------------------------------------------------------------------------

Result<void> print_socket(String& out, u32 number, const net::Flow& flow, bool v4, u32 state, u32 send_queue, u32 receive_queue, u32 retransmits) {
  TRY(print(out, "%4u: ", number));
  TRY(print_endpoint(out, flow.local, v4));
  TRY(print_endpoint(out, flow.remote, v4));
  return print(out, "%02X %08X:%08X 00:00000000 %08X     0        0 0 1 0000000000000000", state, send_queue, receive_queue, retransmits);
}

// A socket is IPv4's if one of its ends is an IPv4 address; the stack shows the any-address of its family.
bool is_v4(const net::Flow& flow) { return flow.local.address.is_v4() || flow.remote.address.is_v4(); }

class TcpPrinter final : public net::tcp::Tcp::Visitor {
 public:
  TcpPrinter(String& out, bool v4) : out_(out), v4_(v4) {}
  void visit(const net::Flow& flow, const net::tcp::Information& information) override {
    if (!result.ok() || is_v4(flow) != v4_) return;
    result = print_socket(out_, count_++, flow, v4_, linux_tcp_state(information.state), information.send_queue, information.receive_queue,
                          information.retransmits);
    if (result.ok()) result = print(out_, " %u 4 0 %u -1\n", information.rto_us / 10000, information.congestion_window);
  }
  Result<void> result;

 private:
  String& out_;
  bool v4_;
  u32 count_ = 0;
};

class UdpPrinter final : public net::Stack::UdpVisitor {
 public:
  UdpPrinter(String& out, bool v4) : out_(out), v4_(v4) {}
  void visit(const net::udp::Socket& socket) override {
    net::Flow flow{socket.local(), socket.remote()};
    if (!result.ok() || is_v4(flow) != v4_) return;
    result = print_socket(out_, count_++, flow, v4_, flow.remote.port != 0 ? 1 : 7, 0, static_cast<u32>(socket.queued_bytes()), 0);
    if (result.ok()) result = out_.append(" 0\n");
  }
  Result<void> result;

 private:
  String& out_;
  bool v4_;
  u32 count_ = 0;
};

bool context_is_v4(void* context) { return context == nullptr; }
char is_v6;  // its address, as a context, says so

Result<void> print_head(String& out, const char* indent, bool v4, const char* more) {
  return print(out, "%s  sl  local_address %s st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode%s\n", indent,
               v4 ? "rem_address  " : "                        remote_address                       ", more);
}

Result<void> tcp_text(void* context, String& out) {
  bool v4 = context_is_v4(context);
  TRY(print_head(out, "", v4, ""));
  TcpPrinter printer(out, v4);
  TRY(network())->tcp().visit(printer);
  return std::move(printer.result);
}

Result<void> udp_text(void* context, String& out) {
  bool v4 = context_is_v4(context);
  TRY(print_head(out, v4 ? " " : "", v4, " ref pointer drops"));
  UdpPrinter printer(out, v4);
  TRY(network())->visit_udp(printer);
  return std::move(printer.result);
}

Result<void> unix_text(void*, String& out) { return out.append("Num       RefCount Protocol Flags    Type St Inode Path\n"); }

// --- counters -------------------------------------------------------------------------------------------------------------------

// Where the values of a group are in their struct of u64; kZero and above: the constant value - kZero.
constexpr u8 kZero = 128;

Result<void> print_counters(String& out, const char* group, const char* names, const void* base, std::span<const u8> positions) {
  TRY(print(out, "%s: %s\n%s:", group, names, group));
  for (u8 position : positions) {
    TRY(print(out, " %llu", position < kZero ? static_cast<const ull*>(base)[position] : ull{position} - kZero));
  }
  return out.append("\n");
}
#define HUSK_AT(type, field) static_cast<u8>(offsetof(type, field) / sizeof(u64))
#define HUSK_IP(field) HUSK_AT(net::Stack::Statistics, field)
#define HUSK_TCP(field) HUSK_AT(net::tcp::Tcp::Statistics, field)

constexpr u8 kIp[] = {kZero + 2,
                      kZero + 64,
                      HUSK_IP(in_receives),
                      HUSK_IP(in_header_errors),
                      HUSK_IP(in_address_errors),
                      kZero,
                      HUSK_IP(in_unknown_protocols),
                      HUSK_IP(in_discards),
                      HUSK_IP(in_delivers),
                      HUSK_IP(out_requests),
                      HUSK_IP(out_discards),
                      HUSK_IP(out_no_routes),
                      kZero,
                      HUSK_IP(reassembly_needed),
                      HUSK_IP(reassembled),
                      HUSK_IP(reassembly_failed),
                      kZero,
                      kZero,
                      HUSK_IP(fragments_created)};
constexpr u8 kIcmp[] = {HUSK_IP(icmp_in), HUSK_IP(icmp_in_errors), HUSK_IP(icmp_out)};
constexpr u8 kTcp[] = {HUSK_TCP(active_opens),        HUSK_TCP(passive_opens), HUSK_TCP(attempt_fails), HUSK_TCP(estab_resets),
                       HUSK_TCP(current_established), HUSK_TCP(in_segments),   HUSK_TCP(out_segments),  HUSK_TCP(retransmitted),
                       HUSK_TCP(in_errors),           HUSK_TCP(out_resets)};
constexpr u8 kUdp[] = {HUSK_IP(udp_in), HUSK_IP(udp_no_ports), HUSK_IP(udp_in_errors), HUSK_IP(udp_out), HUSK_IP(udp_receive_buffer_errors)};
constexpr u8 kTcpExtended[] = {HUSK_TCP(syn_cookies_sent), HUSK_TCP(syn_cookies_received), HUSK_TCP(syn_cookies_failed), HUSK_TCP(paws_dropped),
                               HUSK_TCP(listen_overflows), HUSK_TCP(fast_retransmits),     HUSK_TCP(timeouts),           HUSK_TCP(challenge_acks)};

Result<void> snmp_text(void*, String& out) {
  net::Stack& stack = *TRY(network());
  const net::Stack::Statistics s = stack.statistics();
  const net::tcp::Tcp::Statistics t = stack.tcp().statistics();
  TRY(print_counters(
      out, "Ip",
      "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards "
      "OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates",
      &s, kIp));
  TRY(print_counters(out, "Icmp", "InMsgs InErrors OutMsgs", &s, kIcmp));
  TRY(print_counters(out, "Tcp", "ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts", &t, kTcp));
  return print_counters(out, "Udp", "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors", &s, kUdp);
}

Result<void> netstat_text(void*, String& out) {
  const net::tcp::Tcp::Statistics t = TRY(network())->tcp().statistics();
  return print_counters(out, "TcpExt",
                        "SyncookiesSent SyncookiesRecv SyncookiesFailed PAWSEstab ListenOverflows TCPFastRetrans TCPTimeouts TCPChallengeACK", &t,
                        kTcpExtended);
}

class UdpCounter final : public net::Stack::UdpVisitor {
 public:
  void visit(const net::udp::Socket&) override { ++count; }
  u32 count = 0;
};

Result<void> sockstat_text(void*, String& out) {
  net::Stack& stack = *TRY(network());
  const net::tcp::Tcp::Statistics t = stack.tcp().statistics();
  UdpCounter udp;
  stack.visit_udp(udp);
  return print(out, "sockets: used %llu\nTCP: inuse %llu orphan 0 tw %llu alloc %llu mem %llu\nUDP: inuse %u mem 0\nUDPLITE: inuse 0\n",
               static_cast<ull>(t.sockets + udp.count), static_cast<ull>(t.sockets), static_cast<ull>(t.time_wait), static_cast<ull>(t.sockets),
               static_cast<ull>(t.memory_used / kPageSize), udp.count);
}

constexpr MadeText kTexts[] = {
    {"net/dev", dev_text},           {"net/if_inet6", if_inet6_text}, {"net/route", route_text}, {"net/ipv6_route", ipv6_route_text},
    {"net/arp", arp_text},           {"net/unix", unix_text},         {"net/snmp", snmp_text},   {"net/netstat", netstat_text},
    {"net/sockstat", sockstat_text}, {"net/tcp", tcp_text},           {"net/udp", udp_text}};

// Path and value, one after the other: a table of pointers would be twice as large. All can be written, and stay as they are.
constexpr char kSettings[] =
    "sys/net/core/somaxconn\0"
    "4096\n\0"
    "sys/net/core/rmem_max\0"
    "212992\n\0"
    "sys/net/core/wmem_max\0"
    "212992\n\0"
    "sys/net/core/rmem_default\0"
    "212992\n\0"
    "sys/net/core/wmem_default\0"
    "212992\n\0"
    "sys/net/ipv4/ip_forward\0"
    "0\n\0"
    "sys/net/ipv4/ip_default_ttl\0"
    "64\n\0"
    "sys/net/ipv4/ip_local_port_range\0"
    "32768\t60999\n\0"
    "sys/net/ipv4/ip_unprivileged_port_start\0"
    "0\n\0"
    "sys/net/ipv4/ping_group_range\0"
    "0\t2147483647\n\0"
    "sys/net/ipv4/tcp_available_congestion_control\0"
    "reno\n\0"
    "sys/net/ipv4/tcp_congestion_control\0"
    "reno\n\0"
    "sys/net/ipv4/tcp_fastopen\0"
    "0\n\0"
    "sys/net/ipv4/tcp_fin_timeout\0"
    "60\n\0"
    "sys/net/ipv4/tcp_keepalive_intvl\0"
    "75\n\0"
    "sys/net/ipv4/tcp_keepalive_probes\0"
    "9\n\0"
    "sys/net/ipv4/tcp_keepalive_time\0"
    "7200\n\0"
    "sys/net/ipv4/tcp_max_syn_backlog\0"
    "1024\n\0"
    "sys/net/ipv4/tcp_rmem\0"
    "4096\t131072\t6291456\n\0"
    "sys/net/ipv4/tcp_sack\0"
    "1\n\0"
    "sys/net/ipv4/tcp_syncookies\0"
    "1\n\0"
    "sys/net/ipv4/tcp_timestamps\0"
    "1\n\0"
    "sys/net/ipv4/tcp_window_scaling\0"
    "1\n\0"
    "sys/net/ipv4/tcp_wmem\0"
    "4096\t16384\t4194304\n\0"
    "sys/net/ipv6/bindv6only\0"
    "0\n\0"
    "sys/net/ipv6/conf/all/disable_ipv6\0"
    "0\n\0"
    "sys/net/ipv6/conf/default/disable_ipv6\0"
    "0\n\0"
    "sys/net/ipv6/conf/lo/disable_ipv6\0"
    "0\n\0";

// --- /sys/class/net -------------------------------------------------------------------------------------------------------------

constexpr const char* kInterfaceFiles[] = {"address",
                                           "mtu",
                                           "operstate",
                                           "speed",
                                           "ifindex",
                                           "iflink",
                                           "type",
                                           "flags",
                                           "carrier",
                                           "tx_queue_len",
                                           "statistics/rx_bytes",
                                           "statistics/tx_bytes"};
constexpr u32 kFileBits = 4;  // of a context, which says interface and file
static_assert(std::size(kInterfaceFiles) <= 1 << kFileBits);

Result<void> interface_text(void* context, String& out) {
  constexpr u32 kRunning = 0x40;
  const u64 number = reinterpret_cast<u64>(context);
  InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
  for (const net::InterfaceStatus& status : list) {
    if (status.index != number >> kFileBits) continue;
    const u8* mac = status.mac;
    u64 value = 1;
    switch (number & ((1 << kFileBits) - 1)) {
      case 0: return print(out, "%02x:%02x:%02x:%02x:%02x:%02x\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
      case 1: value = status.mtu; break;
      case 2: return out.append(status.loopback ? "unknown\n" : "up\n");
      case 3:
        if (status.loopback) return Error(EINVAL);
        value = 10000;
        break;
      case 4:
      case 5: value = status.index; break;
      case 6: value = linux_interface_type(status); break;
      case 7: return print(out, "0x%x\n", linux_interface_flags(status) & ~kRunning);
      case 9: value = 1000; break;
      case 10: value = status.statistics.bytes_received; break;
      case 11: value = status.statistics.bytes_sent; break;
    }
    return print(out, "%llu\n", static_cast<ull>(value));
  }
  return Error(ENODEV);
}

class Interfaces final : public fs::DynamicDirectory {
 public:
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
    for (const net::InterfaceStatus& status : list) {
      if (name != status.name) continue;
      TreeBuilder builder = TRY(TreeBuilder::create());
      u64 context = u64{status.index} << kFileBits;
      for (const char* file : kInterfaceFiles) TRY(builder.text(file, interface_text, reinterpret_cast<void*>(context++)));
      return builder.inode();
    }
    return Error(ENOENT);
  }
  Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) override {
    InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
    for (u64 at = from; at < list.count; ++at) {
      constexpr u8 kDirectory = 4;  // DT_DIR
      constexpr u64 kInodes = 200000;
      if (!visitor.visit({kInodes + at, kDirectory, list.interfaces[at].name}, at + 1)) break;
    }
    return {};
  }
};
constinit Interfaces interfaces;

}  // namespace

Result<void> add_network_texts(TreeBuilder& builder) {
  for (const MadeText& text : kTexts) TRY(builder.text(text.path, text.function));
  TRY(builder.text("net/tcp6", tcp_text, &is_v6));
  TRY(builder.text("net/udp6", udp_text, &is_v6));
  for (const char *path = kSettings, *end = kSettings + sizeof(kSettings) - 1; path < end;) {
    const char* value = path + strlen(path) + 1;
    TRY(builder.constant(path, value, Writable::yes));
    path = value + strlen(value) + 1;
  }
  return {};
}

Result<void> add_network_devices(TreeBuilder& builder) { return builder.dynamic("class/net", interfaces); }

}  // namespace husk::linux
