// /proc/net, the settings of the network in /proc/sys/net, and /sys/class/net. proc(5), sysfs(5).
//
// Who looks starts the network: what is shown is then true. Without memory for that the files are there, and empty.
#undef linux
#include <string.h>

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

Result<void> tcp_text(void* context, String& out) {
  bool v4 = context_is_v4(context);
  TRY(out.append(
      v4 ? "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
         : "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  "
           "timeout inode\n"));
  TcpPrinter printer(out, v4);
  TRY(network())->tcp().visit(printer);
  return std::move(printer.result);
}

Result<void> udp_text(void* context, String& out) {
  bool v4 = context_is_v4(context);
  TRY(out.append(v4 ? "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
                    : "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   "
                      "uid  timeout "
                      "inode ref pointer drops\n"));
  UdpPrinter printer(out, v4);
  TRY(network())->visit_udp(printer);
  return std::move(printer.result);
}

Result<void> unix_text(void*, String& out) { return out.append("Num       RefCount Protocol Flags    Type St Inode Path\n"); }

// --- counters -------------------------------------------------------------------------------------------------------------------

struct Counter {
  const char* name;
  u64 value;
};

Result<void> print_counters(String& out, const char* group, std::span<const Counter> counters) {
  TRY(print(out, "%s:", group));
  for (const Counter& counter : counters) TRY(print(out, " %s", counter.name));
  TRY(print(out, "\n%s:", group));
  for (const Counter& counter : counters) TRY(print(out, " %llu", static_cast<ull>(counter.value)));
  return out.append("\n");
}

Result<void> snmp_text(void*, String& out) {
  net::Stack& stack = *TRY(network());
  const net::Stack::Statistics s = stack.statistics();
  const net::tcp::Tcp::Statistics t = stack.tcp().statistics();
  const Counter ip[] = {{"Forwarding", 2},
                        {"DefaultTTL", 64},
                        {"InReceives", s.in_receives},
                        {"InHdrErrors", s.in_header_errors},
                        {"InAddrErrors", s.in_address_errors},
                        {"ForwDatagrams", 0},
                        {"InUnknownProtos", s.in_unknown_protocols},
                        {"InDiscards", s.in_discards},
                        {"InDelivers", s.in_delivers},
                        {"OutRequests", s.out_requests},
                        {"OutDiscards", s.out_discards},
                        {"OutNoRoutes", s.out_no_routes},
                        {"ReasmTimeout", 0},
                        {"ReasmReqds", s.reassembly_needed},
                        {"ReasmOKs", s.reassembled},
                        {"ReasmFails", s.reassembly_failed},
                        {"FragOKs", 0},
                        {"FragFails", 0},
                        {"FragCreates", s.fragments_created}};
  const Counter icmp[] = {{"InMsgs", s.icmp_in}, {"InErrors", s.icmp_in_errors}, {"OutMsgs", s.icmp_out}};
  const Counter tcp[] = {{"RtoAlgorithm", 1},
                         {"RtoMin", 200},
                         {"RtoMax", 120000},
                         {"MaxConn", ~u64{0}},
                         {"ActiveOpens", t.active_opens},
                         {"PassiveOpens", t.passive_opens},
                         {"AttemptFails", t.attempt_fails},
                         {"EstabResets", t.estab_resets},
                         {"CurrEstab", t.current_established},
                         {"InSegs", t.in_segments},
                         {"OutSegs", t.out_segments},
                         {"RetransSegs", t.retransmitted},
                         {"InErrs", t.in_errors},
                         {"OutRsts", t.out_resets},
                         {"InCsumErrors", s.checksum_errors}};
  const Counter udp[] = {{"InDatagrams", s.udp_in},
                         {"NoPorts", s.udp_no_ports},
                         {"InErrors", s.udp_in_errors},
                         {"OutDatagrams", s.udp_out},
                         {"RcvbufErrors", s.udp_receive_buffer_errors}};
  TRY(print_counters(out, "Ip", ip));
  TRY(print_counters(out, "Icmp", icmp));
  TRY(print_counters(out, "Tcp", tcp));
  return print_counters(out, "Udp", udp);
}

Result<void> netstat_text(void*, String& out) {
  const net::tcp::Tcp::Statistics t = TRY(network())->tcp().statistics();
  const Counter tcp[] = {{"SyncookiesSent", t.syn_cookies_sent},
                         {"SyncookiesRecv", t.syn_cookies_received},
                         {"SyncookiesFailed", t.syn_cookies_failed},
                         {"PAWSEstab", t.paws_dropped},
                         {"ListenOverflows", t.listen_overflows},
                         {"TCPFastRetrans", t.fast_retransmits},
                         {"TCPTimeouts", t.timeouts},
                         {"TCPChallengeACK", t.challenge_acks}};
  return print_counters(out, "TcpExt", tcp);
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

constexpr ConstantText kSettings[] = {{"sys/net/core/somaxconn", "4096\n", Writable::yes},
                                      {"sys/net/core/netdev_max_backlog", "1000\n", Writable::yes},
                                      {"sys/net/core/rmem_max", "212992\n", Writable::yes},
                                      {"sys/net/core/wmem_max", "212992\n", Writable::yes},
                                      {"sys/net/core/rmem_default", "212992\n", Writable::yes},
                                      {"sys/net/core/wmem_default", "212992\n", Writable::yes},
                                      {"sys/net/ipv4/ip_forward", "0\n", Writable::yes},
                                      {"sys/net/ipv4/ip_default_ttl", "64\n", Writable::yes},
                                      {"sys/net/ipv4/ip_local_port_range", "32768\t60999\n", Writable::yes},
                                      {"sys/net/ipv4/ip_unprivileged_port_start", "1024\n", Writable::yes},
                                      {"sys/net/ipv4/ip_nonlocal_bind", "0\n", Writable::yes},
                                      {"sys/net/ipv4/ping_group_range", "0\t2147483647\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_available_congestion_control", "reno\n"},
                                      {"sys/net/ipv4/tcp_congestion_control", "reno\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_fastopen", "0\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_fin_timeout", "60\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_keepalive_intvl", "75\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_keepalive_probes", "9\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_keepalive_time", "7200\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_max_syn_backlog", "1024\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_mem", "24576\t32768\t49152\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_sack", "1\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_syncookies", "1\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_timestamps", "1\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_tw_reuse", "2\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_window_scaling", "1\n", Writable::yes},
                                      {"sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n", Writable::yes},
                                      {"sys/net/ipv6/bindv6only", "0\n", Writable::yes},
                                      {"sys/net/ipv6/conf/all/disable_ipv6", "0\n", Writable::yes},
                                      {"sys/net/ipv6/conf/default/disable_ipv6", "0\n", Writable::yes},
                                      {"sys/net/ipv6/conf/lo/disable_ipv6", "0\n", Writable::yes}};

// --- /sys/class/net -------------------------------------------------------------------------------------------------------------

Result<net::InterfaceStatus> status_of(void* context) {
  InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
  for (const net::InterfaceStatus& status : list) {
    if (status.index == static_cast<u32>(reinterpret_cast<u64>(context))) return status;
  }
  return Error(ENODEV);
}

Result<void> mac_text(void* c, String& out) {
  auto status = TRY(status_of(c));
  const u8* mac = status.mac;
  return print(out, "%02x:%02x:%02x:%02x:%02x:%02x\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}
Result<void> mtu_text(void* c, String& out) { return print(out, "%u\n", TRY(status_of(c)).mtu); }
Result<void> state_text(void* c, String& out) { return print(out, "%s\n", TRY(status_of(c)).loopback ? "unknown" : "up"); }
Result<void> speed_text(void* c, String& out) { return TRY(status_of(c)).loopback ? Error(EINVAL) : print(out, "10000\n"); }
Result<void> index_text(void* c, String& out) { return print(out, "%u\n", TRY(status_of(c)).index); }
Result<void> type_text(void* c, String& out) { return print(out, "%u\n", linux_interface_type(TRY(status_of(c)))); }
Result<void> flags_text(void* c, String& out) {
  constexpr u32 kRunning = 0x40;
  return print(out, "0x%x\n", linux_interface_flags(TRY(status_of(c))) & ~kRunning);
}
Result<void> received_text(void* c, String& out) { return print(out, "%llu\n", static_cast<ull>(TRY(status_of(c)).statistics.bytes_received)); }
Result<void> sent_text(void* c, String& out) { return print(out, "%llu\n", static_cast<ull>(TRY(status_of(c)).statistics.bytes_sent)); }

constexpr MadeText kInterfaceTexts[] = {{"address", mac_text},
                                        {"mtu", mtu_text},
                                        {"operstate", state_text},
                                        {"speed", speed_text},
                                        {"ifindex", index_text},
                                        {"iflink", index_text},
                                        {"type", type_text},
                                        {"flags", flags_text},
                                        {"statistics/rx_bytes", received_text},
                                        {"statistics/tx_bytes", sent_text}};

class Interfaces final : public fs::DynamicDirectory {
 public:
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    InterfaceList list = TRY(InterfaceList::of(*TRY(network())));
    for (const net::InterfaceStatus& status : list) {
      if (name != status.name) continue;
      TreeBuilder builder = TRY(TreeBuilder::create());
      void* context = reinterpret_cast<void*>(u64{status.index});
      for (const MadeText& text : kInterfaceTexts) TRY(builder.text(text.path, text.function, context));
      TRY(builder.constant("carrier", "1\n"));
      TRY(builder.constant("tx_queue_len", "1000\n"));
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
  for (const ConstantText& text : kSettings) TRY(builder.constant(text.path, text.text, text.writable));
  return {};
}

Result<void> add_network_devices(TreeBuilder& builder) { return builder.dynamic("class/net", interfaces); }

}  // namespace husk::linux
