// The stack itself, for the files of this folder: what they share, and who calls whom.
//
//   input   run → frame (link.cc) → arp_input | ipv4_input | ipv6_input → deliver → icmp, icmpv6, udp_input, tcp_input
//   output  sockets, tcp → Destination (route.cc) → send_ip (ipv4.cc, ipv6.cc) → send_link (link.cc) → neighbours → send_frame → device
//
// Nothing recurses: what is sent to ourselves goes through the loopback device's queue.
#pragma once

#include "kernel/net/interface.h"
#include "kernel/net/loopback.h"
#include "kernel/net/neighbours.h"
#include "kernel/net/reassembly.h"
#include "kernel/net/udp_socket.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"

namespace husk::net {

constexpr u64 kMillisecond = 1'000'000, kSecond = 1000 * kMillisecond, kNever = ~u64{0};
constexpr u32 kEthernetSize = 14, kLoopbackIndex = 1;
constexpr u8 kHopLimit = 64;
constexpr u16 kMtuMin4 = 552, kMtuMin6 = 1280;  // what a lie about the path's MTU can do at most (RFC 8200 §5; Linux's min_pmtu)
constexpr IpAddress kAllNodes = {{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
constexpr IpAddress kAllRouters = {{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};

IpAddress solicited_node(const IpAddress& address);  // RFC 4291 §2.7.1
// Bytes `from`, `size` of `whole` as a packet that shares its buffers.
Result<packet::PacketPtr> part_of(const packet::Packet& whole, u32 from, u32 size);

// A received IP packet on its way up. The packet begins with its IP header.
struct Received {
  Interface& interface;
  IpAddress source, destination;
  u32 transport = 0;  // offset of the upper layer's header
  u8 protocol = 0, hop_limit = 0, traffic_class = 0;
  bool group = false;  // sent to a broadcast or multicast address
};

// Where packets to an address go: a line of a cache in front of the routes.
enum class Reach : u8 { unicast, multicast, broadcast };
struct Destination {
  IpAddress remote;
  u32 scope = 0;       // Endpoint::interface of who asked
  u32 generation = 0;  // valid if it is the stack's
  u64 valid_until_ns = kNever;
  Interface* interface = nullptr;
  IpAddress source, next_hop;
  u16 path_mtu = 0;
  Reach reach = Reach::unicast;
  // Random, in each datagram to there (identification, flow label): who has not seen one cannot quote it.
  u32 token = 0;
  NeighbourEntry* neighbour = nullptr;  // of next_hop; null: not looked up yet
};

// What is said about a packet besides its addresses.
struct IpFields {
  u8 protocol = 0, hop_limit = kHopLimit, traffic_class = 0;
};

enum class Origin : u8 { manual, dhcp, advertised };
struct RouteEntry {
  Route route;
  Origin origin = Origin::manual;
  u64 valid_until_ns = kNever;
  u64 failed_ns = 0;  // when its gateway was last given up; 0: not since it said something
};

struct NameServer {
  IpAddress address;
  Origin origin;
  u64 valid_until_ns;
};

// RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f).
class RateLimit {
 public:
  static constexpr u64 kBurst = 50, kInterval = 10 * kMillisecond;
  bool allow(u64 now_ns) {
    if (paid_until_ns_ < now_ns) paid_until_ns_ = now_ns;
    if (paid_until_ns_ + kInterval > now_ns + kInterval * kBurst) return false;
    paid_until_ns_ += kInterval;
    return true;
  }

 private:
  u64 paid_until_ns_ = 0;  // at most kBurst intervals ahead; a machine that has just started may send a burst, too
};

class StackState final : public Stack, public tcp::Lower {
 public:
  StackState(Environment& environment, const Limits& limits);
  ~StackState() override;
  Result<void> start();

  // --- Stack ------------------------------------------------------------------
  Result<u32> add_interface(packet::NetDevice& device, std::string_view name, Configure configure, std::string_view host_name) override;
  Result<void> add_address(u32 interface, const IpAddress& address, u8 prefix_bits) override;
  Result<void> add_route(const net::Route& route) override;
  tcp::Tcp& tcp() override { return *tcp_; }
  Result<Ref<udp::Socket>> udp_socket(Family family) override;
  Result<Ref<udp::Socket>> ping_socket(Family family) override;
  bool run() override;
  u64 next_deadline_ns() const override;
  bool configured() const override;
  Result<size_t> interfaces(std::span<InterfaceStatus> out) const override;
  size_t addresses(u32 interface, std::span<InterfaceAddress> out) const override;
  size_t routes(std::span<net::Route> out) const override;
  size_t neighbours(std::span<Neighbour> out) const override { return neighbours_.list(out); }
  size_t name_servers(std::span<IpAddress> out) const override;
  std::string_view search_domain() const override { return search_domain_.view(); }
  Statistics statistics() const override {
    Statistics result = statistics_;
    result.reassembly_failed = reassembly_.failed();
    return result;
  }
  void visit_udp(UdpVisitor& visitor) const override;

  // --- tcp::Lower -------------------------------------------------------------
  u64 now_ns() override { return environment_.now_ns(); }
  void random(void* to, size_t size) override { environment_.random(to, size); }
  Result<tcp::Lower::Route> route(const Endpoint& remote, const IpAddress& bound) override;
  bool is_local(const IpAddress& address) override;
  void output(const Flow& flow, const tcp::Segment& segment, packet::PacketPtr payload, u16 segment_size, u8 traffic_class, u8 hop_limit) override;

  // --- link.cc ----------------------------------------------------------------
  void send_link(Destination& to, packet::PacketPtr packet);                       // an IP packet
  void send_frame(Interface& interface, const u8* mac, packet::PacketPtr packet);  // the same, its neighbour being known
  void transmit(Interface& interface, packet::PacketPtr frame);
  u64 coarse_now_ns() const { return coarse_now_ns_; }  // of the last run(): for what need not be exact
  Statistics& count() { return statistics_; }

  // --- arp.cc, ndp.cc ---------------------------------------------------------
  void arp_input(Interface& interface, packet::PacketPtr packet);
  // Who has target? source all zeros: a probe (RFC 5227 §2.1.1). mac null: asks everybody.
  void send_arp(Interface& interface, u16 operation, const IpAddress& source, const IpAddress& target, const u8* mac);
  void solicit(NeighbourEntry& entry, const u8* mac);
  void ndp_input(const Received& received, std::span<const u8> message);
  // source any: duplicate address detection (RFC 4862 §5.4.2).
  void send_solicitation(Interface& interface, const IpAddress& source, const IpAddress& target, const u8* mac);
  void send_router_solicitation(Interface& interface);
  void solicited(const Received& received, const IpAddress& target, const u8* link_address);
  void advertised(const Received& received, const IpAddress& target, const u8* link_address, u8 flags);

  // --- ipv4.cc, ipv6.cc, route.cc ---------------------------------------------
  void ipv4_input(Interface& interface, packet::PacketPtr packet);
  void ipv6_input(Interface& interface, packet::PacketPtr packet);
  void deliver(const Received& received, packet::PacketPtr packet);
  // Adds the IP header, and fragments if need be. packet: the upper layer's message with its checksum in place (or partial).
  Result<void> send_ip(Destination& to, const IpAddress& source, const IpFields& fields, packet::PacketPtr packet);
  // Adds the IP header in front of what has its checksum_start relative to the upper layer. label: identification or flow label. False: no memory.
  bool push_ip(const Destination& to, const IpAddress& source, const IpFields& fields, u32 label, u16 fragment, packet::Packet& packet);
  Result<Destination*> destination(const IpAddress& remote, u32 scope);
  Destination& destination_line(const IpAddress& remote, u32 scope);     // its place in the cache
  bool knows_token(const IpAddress& remote, u32 interface, u32 quoted);  // was it in our datagrams to there?
  void forget_destinations() { ++generation_; }
  Interface* interface_at(u32 index) const { return index == 0 || index > interfaces_.size() ? nullptr : interfaces_[index - 1].get(); }
  Interface* interface_of(const IpAddress& address) const;  // that has it; null: none
  Result<void> assign(Interface& interface, const InterfaceAddress& address);
  void withdraw(Interface& interface, const IpAddress& address);
  Result<void> put_route(const RouteEntry& entry);  // replaces one to the same network through the same interface and gateway
  void remove_routes(const Interface& interface, Origin origin);
  void remove_route(const net::Route& route, Origin origin);
  void mark_gateway(const NeighbourEntry& gateway, u64 failed_ns);  // 0: it has said something
  void path_mtu_learnt(const IpAddress& remote, u16 mtu);
  Result<void> set_name_servers(Origin origin, std::span<const IpAddress> servers, u64 valid_until_ns);
  void set_search_domain(std::string_view domain);

  // --- icmp.cc, icmpv6.cc -----------------------------------------------------
  void icmp_input(const Received& received, packet::PacketPtr packet);
  void icmpv6_input(const Received& received, packet::PacketPtr packet);
  // An error about the received packet, unless RFC 1122 §3.2.2 or RFC 4443 §2.4 forbid it.
  void send_icmp_error(const Received& received, const packet::Packet& packet, u8 type, u8 code, u32 parameter);
  Result<void> send_icmp(Destination& to, const IpAddress& source, u8 hop_limit, packet::PacketPtr message);  // fills in the checksum
  // A message said so about a packet of ours that began with `quoted`.
  void quoted_error(Interface& interface, std::span<const u8> quoted, Family family, int error, u16 mtu);
  void undeliverable(const packet::Packet& packet);  // one of ours whose neighbour does not answer

  // --- groups.cc --------------------------------------------------------------
  Result<void> join(Interface& interface, const IpAddress& group);
  void leave(Interface& interface, const IpAddress& group);
  void igmp_input(const Received& received, std::span<const u8> message);
  void mld_input(const Received& received, std::span<const u8> message);
  enum class Membership : u8 { joined, left };
  void report_group(Interface& interface, const IpAddress& group, Membership what);
  void answer_query(Interface& interface, const IpAddress& group, Family family);

  // --- udp.cc, tcp_lower.cc ---------------------------------------------------
  udp::Table& udp() { return udp_; }
  void udp_input(const Received& received, packet::PacketPtr packet);
  void tcp_input(const Received& received, packet::PacketPtr packet);
  // Pseudo header for `length` bytes.
  static wire::Checksum pseudo_header(const IpAddress& source, const IpAddress& destination, u8 protocol, u32 length);
  // Of all from byte `from` on.
  static void add_bytes(wire::Checksum& sum, const packet::Packet& packet, u32 from);

  Environment& environment() { return environment_; }
  const Limits& limits() const { return limits_; }
  Neighbours& neighbour_cache() { return neighbours_; }
  std::span<Owned<Interface>> all_interfaces() { return interfaces_; }
  u16 next_identification(const IpAddress& remote);
  u32 random_u32() {
    u32 value;
    environment_.random(&value, sizeof(value));
    return value;
  }
  void timer_changed() { timers_dirty_ = true; }  // a deadline of DHCP, SLAAC or a lifetime is another one

 private:
  static constexpr u32 kDestinations = 128, kPathMtus = 32, kIdentifications = 64, kRoutesMax = 256, kAdvertisedRoutesMax = 64, kAddressesMax = 32;
  static constexpr u32 kBudget = 64;  // packets of one interface in one run()
  struct PathMtu {
    IpAddress remote;
    u16 mtu = 0;
    u64 until_ns = 0;
  };

  // link.cc
  bool receive_some(Interface& interface);
  void frame_input(Interface& interface, packet::PacketPtr frame);
  void drain_backlog(Interface& interface);
  // route.cc
  Result<void> resolve(Destination& to);
  const RouteEntry* find_route(const IpAddress& remote, u32 scope) const;
  const InterfaceAddress* choose_source(const Interface& interface, const IpAddress& remote, const IpAddress& next_hop) const;
  Interface* scoped_interface(const IpAddress& remote, u32 scope) const;
  void limit_path_mtu(Destination& to) const;
  // stack.cc
  void run_timers(u64 now_ns);
  u64 slow_deadline_ns() const;
  bool expire(u64 now_ns);
  // ipv4.cc, ipv6.cc
  Result<void> fragment(Destination& to, const IpAddress& source, const IpFields& fields, packet::PacketPtr packet);
  bool accepts4(Interface& interface, Received& received, bool unconfigured);
  bool accepts6(Interface& interface, Received& received);
  // icmp.cc
  void echo_reply(const Received& received, packet::PacketPtr packet, u8 type);
  // tcp_lower.cc
  void send_segment(Destination& to, const Flow& flow, const tcp::Segment& segment, packet::PacketPtr payload, u16 segment_size,
                    const IpFields& fields);

  Environment& environment_;
  Limits limits_;
  Loopback loopback_;
  Vec<Owned<Interface>> interfaces_;
  Vec<RouteEntry> routes_;
  Vec<NameServer> name_servers_;
  String search_domain_;
  u64 coarse_now_ns_ = 0, slow_deadline_ns_ = kNever;
  bool timers_dirty_ = false, moved_ = false;
  u32 generation_ = 1;
  Statistics statistics_{};
  RateLimit icmp_limit_, query_limit_;
  Neighbours neighbours_;
  Reassembly reassembly_;
  udp::Table udp_;
  Owned<tcp::Tcp> tcp_;
  PathMtu path_mtus_[kPathMtus];
  u16 identifications_[kIdentifications] = {};
  u32 hash_secret_ = 0;
  Destination destinations_[kDestinations];
};

}  // namespace husk::net
