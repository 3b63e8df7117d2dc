// The network stack of one machine: interfaces, addresses, routes, IPv4 and IPv6, ARP and neighbour discovery, ICMP, UDP and TCP.
//
// Run to completion: run() takes what the devices have received, hands it up, and sends what is to be sent, on the caller's stack. Time is what the
// owner says (Environment::now_ns). Nothing here blocks, knows a process or a descriptor. Many stacks may live in one process.
// Whoever changes sockets calls run() soon afterwards (kernel/linux/network.h does so); it costs a few loads when there is nothing to do.
#pragma once

#include <string_view>

#include "base/ref.h"
#include "base/result.h"
#include "kernel/net/address.h"
#include "kernel/net/tcp/tcp.h"
#include "kernel/net/udp.h"
#include "kernel/packet/net_device.h"

namespace husk::net {

struct InterfaceAddress {
  IpAddress address;
  u8 prefix_bits = 0;
  bool tentative = false;  // duplicate address detection has not ended (RFC 4862 §5.4)
  u64 preferred_until_ns = ~u64{0}, valid_until_ns = ~u64{0};
};

struct Route {
  IpAddress network;
  u8 prefix_bits = 0;
  bool has_gateway = false;
  IpAddress gateway;
  u32 interface = 0;
  u32 metric = 0;
};

struct Neighbour {
  IpAddress address;
  u8 mac[6] = {};
  u32 interface = 0;
  bool reachable = false;
};

struct InterfaceStatus {  // for getifaddrs, /proc/net/dev, /sys/class/net
  u32 index;
  char name[16];
  u8 mac[6];
  u32 mtu;
  bool loopback, up;
  packet::NetDevice::Statistics statistics;
};

enum class Configure : u8 {
  manually,       // only what add_address() and add_route() say
  automatically,  // DHCPv4 (RFC 2131) and SLAAC (RFC 4862)
};

class Environment {
 public:
  virtual u64 now_ns() = 0;  // monotonic
  virtual void random(void* to, size_t size) = 0;
  // Name servers and domain learnt by DHCP or router advertisements (RFC 8106) changed: see Stack::name_servers().
  virtual void names_changed() = 0;

 protected:
  ~Environment() = default;
};

class Stack {
 public:
  struct Limits {
    tcp::Tcp::Limits tcp;
    u32 neighbours = 512, fragments = 256 * kKiB, udp_memory = 4 * kMiB;
    static Limits for_memory(u64 bytes);  // a machine with this much RAM
  };
  // With a loopback interface (index 1, "lo").
  static Result<Owned<Stack>> create(Environment& environment, const Limits& limits);
  virtual ~Stack() = default;

  // The device must outlive the stack. Gives the interface's index (2, ...). host_name goes into DHCP requests.
  virtual Result<u32> add_interface(packet::NetDevice& device, std::string_view name, Configure configure, std::string_view host_name) = 0;
  virtual Result<void> add_address(u32 interface, const IpAddress& address, u8 prefix_bits) = 0;
  virtual Result<void> add_route(const Route& route) = 0;

  virtual tcp::Tcp& tcp() = 0;
  virtual Result<Ref<udp::Socket>> udp_socket(Family family) = 0;
  virtual Result<Ref<udp::Socket>> ping_socket(Family family) = 0;  // datagrams are ICMP echo messages; the port is the identifier

  // True if it may have more to do at once: something was received, or sent to ourselves.
  virtual bool run() = 0;
  virtual u64 next_deadline_ns() const = 0;  // when run() is due if nothing is received before
  // Automatic configuration has given an IPv4 address, or is over; always true without it.
  virtual bool configured() const = 0;

  virtual Result<size_t> interfaces(std::span<InterfaceStatus> out) const = 0;  // counts; those that fit are filled in
  virtual size_t addresses(u32 interface, std::span<InterfaceAddress> out) const = 0;
  virtual size_t routes(std::span<Route> out) const = 0;
  virtual size_t neighbours(std::span<Neighbour> out) const = 0;
  virtual size_t name_servers(std::span<IpAddress> out) const = 0;
  virtual std::string_view search_domain() const = 0;

  struct Statistics {  // names of /proc/net/snmp
    u64 in_receives, in_header_errors, in_address_errors, in_unknown_protocols, in_discards, in_delivers, out_requests, out_discards, out_no_routes;
    u64 reassembly_needed, reassembled, reassembly_failed, fragments_created;
    u64 icmp_in, icmp_in_errors, icmp_out, udp_in, udp_no_ports, udp_in_errors, udp_out, udp_receive_buffer_errors, checksum_errors;
  };
  virtual Statistics statistics() const = 0;
  class UdpVisitor {
   public:
    virtual void visit(const udp::Socket& socket) = 0;

   protected:
    ~UdpVisitor() = default;
  };
  virtual void visit_udp(UdpVisitor& visitor) const = 0;
};

}  // namespace husk::net
