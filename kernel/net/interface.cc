// Interfaces: which there are, their addresses, and what they say of themselves.
#include "kernel/net/interface.h"

#include <algorithm>

#include "kernel/net/dhcp.h"
#include "kernel/net/slaac.h"
#include "kernel/net/stack_state.h"

namespace husk::net {

Interface::Interface(packet::NetDevice& of, u32 number) : device(of), index(number) {
  const auto& properties = of.properties();
  memcpy(mac, properties.mac, 6);
  mtu = mtu6 = std::max(properties.mtu, kMtuMin4);
  ethernet = properties.ethernet;
  loopback = number == kLoopbackIndex;
}

Interface::~Interface() {
  while (auto* packet = backlog.pop_front()) delete packet;
}

const InterfaceAddress* Interface::first(Family family, bool link_local) const {
  for (const auto& have : addresses) {
    if (have.address.is_v4() == (family == Family::v4) && have.address.is_link_local() == link_local) return &have;
  }
  return nullptr;
}

bool Interface::is_broadcast(const IpAddress& address) const {
  if (!address.is_v4() || loopback) return false;
  if (address.is_limited_broadcast()) return true;
  for (const auto& have : addresses) {
    if (have.prefix_bits >= 31 || !have.address.is_v4() || !address.in_network(have.address, have.prefix_bits)) continue;
    u32 mask = ~u32{0} >> have.prefix_bits;
    if ((wire::load_be32(address.v4_bytes()) & mask) == mask) return true;
  }
  return false;
}

bool Interface::in_group(const IpAddress& group) const {
  // All systems, and all nodes of the interface and of the link (RFC 1112 §4, RFC 4291 §2.8).
  if (group == kAllNodes || group == IpAddress::v4(224, 0, 0, 1)) return true;
  for (const Group& have : groups) {
    if (have.address == group) return true;
  }
  return false;
}

IpAddress solicited_node(const IpAddress& address) {
  IpAddress group = {{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0}};
  memcpy(group.bytes + 13, address.bytes + 13, 3);
  return group;
}

Result<u32> StackState::add_interface(packet::NetDevice& device, std::string_view name, Configure configure, std::string_view host_name) {
  u32 index = static_cast<u32>(interfaces_.size()) + 1;
  auto made = TRY(make_owned<Interface>(device, index));
  memcpy(made->name, name.data(), std::min(name.size(), sizeof(made->name) - 1));
  Interface& interface = *made;
  TRY(interfaces_.push_back(std::move(made)));
  if (!interface.ethernet) return index;
  if (interface.mtu >= kMtuMin6) interface.slaac = TRY(make_owned<Slaac>(*this, interface, configure == Configure::automatically));
  if (configure == Configure::automatically) {
    interface.dhcp = TRY(make_owned<DhcpClient>(*this, interface));
    TRY(interface.dhcp->set_host_name(host_name));
    interface.dhcp->start(now_ns());
    TRY(interface.slaac != nullptr ? interface.slaac->start(now_ns()) : Result<void>{});
  }
  timers_dirty_ = true;
  return index;
}

Interface* StackState::interface_of(const IpAddress& address) const {
  for (const auto& interface : interfaces_) {
    if (interface->find(address) != nullptr) return interface.get();
  }
  return nullptr;
}

bool StackState::is_local(const IpAddress& address) {
  return address.is_any() || (address.is_loopback() && address.is_v4()) || interface_of(address) != nullptr;
}

Result<void> StackState::add_address(u32 index, const IpAddress& address, u8 prefix_bits) {
  Interface* interface = interface_at(index);
  if (interface == nullptr) return Error(ENODEV);
  if (address.is_any() || address.is_multicast() || prefix_bits > (address.is_v4() ? 32 : 128)) return Error(EINVAL);
  if (interface->find(address) != nullptr) return Error(EEXIST);
  TRY(assign(*interface, {address, prefix_bits}));
  if (interface->loopback) return {};
  return put_route({{address, prefix_bits, false, {}, index, 0}});
}

// Usable from now on; the link hears of it, and may object (RFC 5227 §2.3, RFC 4862 §5.4, RFC 4429).
Result<void> StackState::assign(Interface& interface, const InterfaceAddress& address) {
  if (interface.addresses.size() >= kAddressesMax) return Error(ENOBUFS);
  if (!address.address.is_v4() && interface.slaac == nullptr && !interface.loopback) return Error(EOPNOTSUPP);
  ++generation_;
  timers_dirty_ = true;
  TRY(interface.addresses.push_back(address));
  if (!interface.ethernet) return {};
  if (!address.address.is_v4()) return interface.slaac->detect_duplicates(interface.addresses.back(), now_ns());
  send_arp(interface, 1, address.address, address.address, nullptr);
  return {};
}

void StackState::withdraw(Interface& interface, const IpAddress& address) {
  for (size_t i = interface.addresses.size(); i-- > 0;) {
    if (!(interface.addresses[i].address == address)) continue;
    interface.addresses.erase(i);
    ++generation_;
    timers_dirty_ = true;
    if (!address.is_v4() && interface.ethernet) leave(interface, solicited_node(address));
  }
}

Result<size_t> StackState::interfaces(std::span<InterfaceStatus> out) const {
  for (size_t i = 0; i < std::min(out.size(), interfaces_.size()); ++i) {
    const Interface& interface = *interfaces_[i];
    out[i] = {interface.index, {}, {}, interface.mtu, interface.loopback, true, interface.device.statistics()};
    memcpy(out[i].name, interface.name, sizeof(interface.name));
    memcpy(out[i].mac, interface.mac, sizeof(interface.mac));
  }
  return interfaces_.size();
}

size_t StackState::addresses(u32 index, std::span<InterfaceAddress> out) const {
  const Interface* interface = interface_at(index);
  if (interface == nullptr) return 0;
  for (size_t i = 0; i < std::min(out.size(), interface->addresses.size()); ++i) out[i] = interface->addresses[i];
  return interface->addresses.size();
}

size_t StackState::name_servers(std::span<IpAddress> out) const {
  for (size_t i = 0; i < std::min(out.size(), name_servers_.size()); ++i) out[i] = name_servers_[i].address;
  return name_servers_.size();
}

}  // namespace husk::net
