// One interface of the stack: a device, its addresses, the groups that are joined on it, and what waits for room in the device's queue.
#pragma once

#include "base/vec.h"
#include "kernel/net/stack.h"

namespace husk::net {

class DhcpClient;
class Slaac;

struct Group {
  IpAddress address;
  u32 users = 0;
};

struct Interface {
  static constexpr u32 kBacklogPackets = 1024, kBacklogBytes = 4 * kMiB;

  packet::NetDevice& device;
  u32 index;
  char name[16] = {};
  u8 mac[6] = {};
  u16 mtu, mtu6;  // of IPv4 and IPv6 packets: the device's, or less if a DHCP server or a router says so
  bool ethernet, loopback;
  Vec<InterfaceAddress> addresses;
  Vec<Group> groups;
  u64 asked_ns[2] = {};    // the last query about all groups: MLD's, IGMP's
  Owned<DhcpClient> dhcp;  // null: not configured automatically
  Owned<Slaac> slaac;      // null: no IPv6 on it
  packet::PacketList backlog;
  u32 backlog_count = 0, backlog_bytes = 0;
  bool unflushed = false;  // something was transmitted since the last flush()

  explicit Interface(packet::NetDevice& of, u32 number);
  ~Interface();
  InterfaceAddress* find(const IpAddress& address) {
    for (auto& have : addresses) {
      if (have.address == address) return &have;
    }
    return nullptr;
  }
  // Its first address of the family, link-local if asked; null: none.
  const InterfaceAddress* first(Family family, bool link_local) const;
  bool is_broadcast(const IpAddress& address) const;  // directed (RFC 1122 §3.2.1.3) or limited
  bool in_group(const IpAddress& group) const;
};

}  // namespace husk::net
