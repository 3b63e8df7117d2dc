// Multicast groups: joined on an interface, and told to routers and switches by IGMPv2 (RFC 2236) and MLDv1 (RFC 2710).
// DEVIATES: queries are answered at once, not after a random delay, and reports of others do not silence ours.
#include "kernel/net/stack_state.h"
#include "wire/icmpv6.h"

namespace husk::net {

using packet::Packet;
using packet::PacketPtr;

namespace {

enum IgmpType : u8 { kIgmpQuery = 0x11, kIgmpReport2 = 0x16, kIgmpLeave = 0x17 };
constexpr u32 kGroupsMax = 64;
constexpr IpAddress kAllRouters4 = IpAddress::v4(224, 0, 0, 2);

// RFC 2236 §6, RFC 2710 §5: nobody needs to be told of these.
bool is_silent(const IpAddress& group) {
  return group == kAllNodes || group == IpAddress::v4(224, 0, 0, 1) || (!group.is_v4() && (group.bytes[1] & 15) < 2);
}

}  // namespace

Result<void> StackState::join(Interface& interface, const IpAddress& group) {
  for (Group& have : interface.groups) {
    if (!(have.address == group)) continue;
    ++have.users;
    return {};
  }
  if (interface.groups.size() >= kGroupsMax) return Error(ENOBUFS);
  TRY(interface.groups.push_back({group, 1}));
  report_group(interface, group, Membership::joined);
  return {};
}

void StackState::leave(Interface& interface, const IpAddress& group) {
  for (size_t i = 0; i < interface.groups.size(); ++i) {
    if (!(interface.groups[i].address == group)) continue;
    if (--interface.groups[i].users != 0) return;
    interface.groups.erase(i);
    return report_group(interface, group, Membership::left);
  }
}

void StackState::igmp_input(const Received& received, std::span<const u8> message) {
  if (message.size() < 8 || !wire::checksum_valid(message) || message[0] != kIgmpQuery) return;
  answer_query(received.interface, IpAddress::v4(&message[4]), Family::v4);
}

void StackState::mld_input(const Received& received, std::span<const u8> message) {
  if (message.size() < 24 || received.hop_limit != 1 || !received.source.is_link_local()) return;
  answer_query(received.interface, IpAddress::v6(&message[8]), Family::v6);
}

// group any: about all of them; routers ask so every few seconds at most (RFC 2236 §8.6).
void StackState::answer_query(Interface& interface, const IpAddress& group, Family family) {
  u64& asked_ns = interface.asked_ns[family == Family::v4];
  if (group.is_any() ? asked_ns != 0 && coarse_now_ns_ - asked_ns < kSecond : !query_limit_.allow(coarse_now_ns_)) return;
  if (group.is_any()) asked_ns = coarse_now_ns_;
  for (const Group& have : interface.groups) {
    if (have.address.is_v4() != (family == Family::v4)) continue;
    if (group.is_any() || have.address == group) report_group(interface, have.address, Membership::joined);
  }
}

// Both want a router alert, so that routers look into packets that are not for them (RFC 2113, RFC 2711).
void StackState::report_group(Interface& interface, const IpAddress& group, Membership what) {
  if (!interface.ethernet || is_silent(group)) return;
  bool v4 = group.is_v4(), joined = what == Membership::joined;
  const InterfaceAddress* own = interface.first(v4 ? Family::v4 : Family::v6, !v4);
  // RFC 3590 §4: while there is no link-local address, from the unspecified one.
  IpAddress source = own != nullptr ? own->address : v4 ? IpAddress::v4(0, 0, 0, 0) : IpAddress{};
  if (v4 && own == nullptr) return;
  Destination to;
  to.remote = joined ? group : v4 ? kAllRouters4 : kAllRouters;
  to.interface = &interface;
  to.path_mtu = interface.mtu;
  to.reach = Reach::multicast;
  constexpr u32 kIgmpSize = 8, kMldSize = 24, kAlertSize = 8;
  PacketPtr packet = Packet::create(v4 ? kIgmpSize + 24 : kMldSize + kAlertSize).value_or(nullptr);
  if (!packet) return;
  packet->checksum = packet::Checksum::complete;
  u8* bytes = packet->head().data();
  if (v4) {
    memset(bytes, 0, packet->size());
    wire::build_ipv4({bytes, 20}, {0xc0, 1, wire::kProtocolIgmp, 0, wire::kIpv4DontFragment, source.v4_bytes(), to.remote.v4_bytes()}, kIgmpSize + 4);
    auto& header = *reinterpret_cast<wire::Ipv4Header*>(bytes);
    header.version_and_size = 0x46;
    bytes[20] = 0x94, bytes[21] = 4;
    header.checksum = 0;
    header.checksum = wire::checksum_of({bytes, 24});
    bytes[24] = joined ? kIgmpReport2 : kIgmpLeave;
    memcpy(bytes + 28, group.v4_bytes(), 4);
    wire::store_be16(bytes + 26, wire::checksum_of({bytes + 24, kIgmpSize}));
    ++statistics_.out_requests;
    return send_link(to, std::move(packet));
  }
  const u8 alert[kAlertSize] = {wire::kProtocolIcmpv6, 0, 5, 2, 0, 0, 1, 0};
  memcpy(bytes, alert, kAlertSize);
  memcpy(bytes + kAlertSize + 8, group.bytes, 16);
  wire::build_icmp({bytes + kAlertSize, 8}, joined ? wire::kIcmpv6ListenerReport : wire::kIcmpv6ListenerDone, 0, 0, 0, {bytes + kAlertSize + 8, 16},
                   pseudo_header(source, to.remote, wire::kProtocolIcmpv6, kMldSize));
  (void)send_ip(to, source, {wire::kProtocolHopByHop, 1, 0}, std::move(packet));
}

}  // namespace husk::net
