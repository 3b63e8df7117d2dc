// One UDP or ping socket: see kernel/net/udp.h for what is promised.
#include "kernel/net/udp_socket.h"

#include <algorithm>

#include "kernel/net/stack_state.h"
#include "wire/icmp.h"
#include "wire/udp.h"

namespace husk::net::udp {

using packet::Buffer;
using packet::Checksum;
using packet::Packet;
using packet::PacketPtr;

namespace {

constexpr u32 kInlineMax = 1024;   // so much is copied out of the device's buffer
constexpr u32 kBacklogLimit = 64;  // packets that wait for the device before senders do
constexpr IpAddress any_of(Family family) { return family == Family::v4 ? IpAddress::v4(0, 0, 0, 0) : IpAddress{}; }

void destroy(Item* item) {
  item->~Item();
  operator delete(item);
}

}  // namespace

SocketState::~SocketState() { close(); }

void SocketState::disconnect_ends() { local_ = remote_ = {any_of(family_), 0, 0}; }

bool SocketState::may_bind(const Endpoint& local) const {
  if (stack_->is_local(local.address) || local.address.is_multicast()) return true;
  for (auto& interface : stack_->all_interfaces()) {
    if (interface->is_broadcast(local.address)) return true;
  }
  return false;
}

Result<void> SocketState::bind(const Endpoint& local) {
  if (stack_ == nullptr || local_.port != 0) return Error(EINVAL);
  if (family_ == Family::v4 && !local.address.is_v4()) return Error(EAFNOSUPPORT);
  if (family_ == Family::v6 && options_.v6_only && local.address.is_v4()) return Error(EINVAL);
  if (!may_bind(local)) return Error(EADDRNOTAVAIL);
  Endpoint before = std::exchange(local_, local);
  local_.port = 0;
  auto bound = stack_->udp().bind(*this, local.port);
  if (!bound.ok()) {
    local_ = before;
  } else {
    bound_address_ = !local.address.is_any();
  }
  return bound;
}

// The line of the cache that a packet to `remote` uses.
Result<Destination*> SocketState::destination(const Endpoint& remote, const Endpoint* source) {
  u32 scope = remote.interface != 0 ? remote.interface : source != nullptr && source->interface != 0 ? source->interface : local_.interface;
  return stack_->destination(remote.address, scope);
}

Result<void> SocketState::connect(const Endpoint& remote) {
  if (stack_ == nullptr) return Error(EINVAL);
  if (remote.port == 0 && remote.address.is_any()) return disconnect();
  Endpoint wanted = remote;
  if (wanted.address.is_any())
    wanted.address = remote.address.is_v4() ? IpAddress::v4(127, 0, 0, 1) : IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
  if (wanted.address.is_v4() ? family_ == Family::v6 && options_.v6_only : family_ == Family::v4) return Error(ENETUNREACH);
  Destination& to = *TRY(destination(wanted, nullptr));
  if (to.reach == Reach::broadcast && !options_.broadcast) return Error(EACCES);
  auto source = TRY(source_for(nullptr, to));
  if (local_.port == 0) TRY(stack_->udp().bind(*this, 0));
  if (!bound_address_) local_.address = source;
  remote_ = wanted;
  connected_ = true;
  error_ = 0;
  return {};
}

Result<void> SocketState::disconnect() {
  connected_ = false;
  remote_ = {any_of(family_), 0, 0};
  if (!bound_address_) local_.address = any_of(family_);
  return {};
}

Result<Endpoint> SocketState::target(const Endpoint* to) {
  if (to == nullptr) return connected_ ? Result<Endpoint>(remote_) : Error(EDESTADDRREQ);
  if (to->address.is_v4() ? family_ == Family::v6 && options_.v6_only : family_ == Family::v4) return Error(EAFNOSUPPORT);
  if (to->port == 0 && kind_ == Kind::udp) return Error(EINVAL);
  Endpoint wanted = *to;
  if (wanted.address.is_any()) {  // this host, as Linux has it
    wanted.address = to->address.is_v4() ? IpAddress::v4(127, 0, 0, 1) : IpAddress{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
  }
  return wanted;
}

Result<IpAddress> SocketState::source_for(const Endpoint* source, const Destination& to) const {
  IpAddress address = to.source;
  if (source != nullptr && !source->address.is_any()) {
    if (!stack_->is_local(source->address)) return Error(EADDRNOTAVAIL);
    address = source->address;
  } else if (bound_address_ ? !local_.address.is_multicast() : connected_ && local_.address.is_v4() == to.remote.is_v4()) {
    if (stack_->is_local(local_.address)) address = local_.address;
  }
  if (address.is_v4() != to.remote.is_v4()) return Error(EINVAL);
  if (address.is_loopback() && !to.interface->loopback) return Error(EINVAL);
  return address;
}

Result<PacketPtr> SocketState::copy_in(vfs::IoBuffer& from, size_t size) {
  auto packet = TRY(Packet::create());
  u32 head = Packet::kHeaderRoom;
  do {
    u32 step = static_cast<u32>(std::min<size_t>(size, Buffer::kPageRoom - head));
    auto buffer = TRY(Buffer::create(head + step));
    packet::Slice slice{std::move(buffer), head, step};
    if (step != 0 && TRY(from.take(slice.data(), step)) < step) return Error(EFAULT);
    TRY(packet->append(std::move(slice)));
    size -= step;
    head = 0;
  } while (size > 0);
  return packet;
}

Result<size_t> SocketState::send(vfs::IoBuffer& from, const Endpoint* to, const Endpoint* source) {
  if (stack_ == nullptr || write_shut_) return Error(EPIPE);
  if (error_ != 0) return Error(take_error());
  auto remote = TRY(target(to));
  size_t size = from.remaining();
  if (size > (remote.address.is_v4() ? 65507u : 65527u)) return Error(EMSGSIZE);
  if (local_.port == 0) TRY(stack_->udp().bind(*this, 0));
  Destination* found = TRY(destination(remote, source));
  Destination narrower;
  if (options_.packet_max != 0 && !remote.address.is_v4() && options_.packet_max < found->path_mtu) {
    narrower = *found;
    narrower.path_mtu = options_.packet_max;
    found = &narrower;
  }
  Destination& path = *found;
  if (path.reach == Reach::broadcast && !options_.broadcast) return Error(EACCES);
  auto address = TRY(source_for(source, path));
  if (path.interface->backlog_count > kBacklogLimit) {
    stack_->udp().waiting_for_room = wants_room_ = true;
    return Error(EAGAIN);
  }
  auto packet = TRY(copy_in(from, size));
  if (kind_ == Kind::udp) {
    TRY(send_udp(path, address, remote, std::move(packet)));
  } else {
    TRY(send_echo(path, address, std::move(packet)));
  }
  return size;
}

Result<void> SocketState::send_udp(Destination& to, const IpAddress& source, const Endpoint& remote, PacketPtr packet) {
  constexpr u32 kHeader = sizeof(wire::UdpHeader);
  u32 size = packet->size();
  u8* room = TRY(packet->push_front(kHeader));
  wire::build_udp({room, kHeader}, local_.port, remote.port, size);
  auto& header = *reinterpret_cast<wire::UdpHeader*>(room);
  wire::Checksum sum = StackState::pseudo_header(source, remote.address, wire::kProtocolUdp, size + kHeader);
  u32 ip_header = remote.address.is_v4() ? 20 : 40;
  if (to.interface->device.properties().checksum && packet->size() + ip_header <= to.path_mtu) {
    header.checksum = sum.folded();
    packet->checksum = Checksum::partial;
    packet->checksum_start = 0;
    packet->checksum_offset = offsetof(wire::UdpHeader, checksum);
  } else {
    StackState::add_bytes(sum, *packet, 0);
    header.checksum = sum.finish_udp();
    packet->checksum = Checksum::complete;
  }
  ++stack_->count().udp_out;
  bool group = to.reach != Reach::unicast;
  if (group && options_.multicast_loop) loop_back(to, source, *packet);
  u8 hops = to.reach == Reach::multicast ? options_.multicast_hops : options_.hop_limit != 0 ? options_.hop_limit : kHopLimit;
  if (hops == 0) return {};
  return stack_->send_ip(to, source, {wire::kProtocolUdp, hops, options_.traffic_class}, std::move(packet));
}

// RFC 1112 §6.1: a copy for the members on this host; so for broadcasts.
void SocketState::loop_back(Destination& to, const IpAddress& source, const Packet& packet) {
  if (to.interface->loopback || (to.reach == Reach::multicast && !to.interface->in_group(to.remote))) return;
  auto copy = packet.clone();
  if (!copy.ok()) return;
  Destination here = to;
  here.interface = stack_->interface_at(kLoopbackIndex);
  here.path_mtu = here.interface->mtu;
  here.reach = Reach::unicast;
  (void)stack_->send_ip(here, source, {wire::kProtocolUdp, 1, options_.traffic_class}, copy.release());
}

// A ping socket sends echo requests, and its port is their identifier (ping(8) through SOCK_DGRAM, see icmp(7)).
Result<void> SocketState::send_echo(Destination& to, const IpAddress& source, PacketPtr packet) {
  if (packet->size() < sizeof(wire::IcmpHeader)) return Error(EINVAL);
  auto& header = *reinterpret_cast<wire::IcmpHeader*>(packet->head().data());
  u8 request = to.remote.is_v4() ? u8{wire::kIcmpEchoRequest} : u8{wire::kIcmpv6EchoRequest};
  if (header.type != request || header.code != 0) return Error(EINVAL);
  header.first = local_.port;
  header.checksum = 0;
  return stack_->send_icmp(to, source, options_.hop_limit != 0 ? options_.hop_limit : kHopLimit, std::move(packet));
}

Result<Datagram> SocketState::receive(vfs::IoBuffer& to, Peek peek) {
  if (error_ != 0) return Error(take_error());
  Item* item = queue_.front();
  if (item == nullptr) return Error(EAGAIN);
  Datagram about = item->about;
  Result<size_t> put = 0;
  if (!item->packet) {
    if (about.size != 0) put = to.put(item->bytes(), about.size);
  } else {
    for (const packet::Slice& slice : item->packet->slices()) {
      if (to.remaining() == 0 || !put.ok()) break;
      put = to.put(slice.data(), slice.size);
    }
  }
  if (peek == Peek::no || !put.ok()) {
    item->unlink();
    queued_charge_ -= item->charge;
    queued_bytes_ -= about.size;
    if (stack_ != nullptr) stack_->udp().discharge(item->charge);
    destroy(item);
  }
  if (!put.ok()) return put.error();
  return about;
}

Result<void> SocketState::join(const IpAddress& group, u32 interface) {
  if (stack_ == nullptr || !group.is_multicast()) return Error(EINVAL);
  if (interface == 0) {
    auto found = stack_->destination(group, 0);
    if (!found.ok()) return Error(ENODEV);
    interface = (*found)->interface->index;
  }
  Interface* on = stack_->interface_at(interface);
  if (on == nullptr) return Error(ENODEV);
  if (memberships_.size() >= kMembershipsMax) return Error(ENOBUFS);
  for (const Membership& have : memberships_) {
    if (have.group == group && have.interface == interface) return Error(EADDRINUSE);
  }
  TRY(memberships_.reserve(memberships_.size() + 1));
  TRY(stack_->join(*on, group));
  return memberships_.push_back({group, interface});
}

Result<void> SocketState::leave(const IpAddress& group, u32 interface) {
  for (size_t i = 0; i < memberships_.size(); ++i) {
    Membership have = memberships_[i];
    if (!(have.group == group) || (interface != 0 && have.interface != interface)) continue;
    memberships_.erase(i);
    stack_->leave(*stack_->interface_at(have.interface), group);
    return {};
  }
  return Error(EADDRNOTAVAIL);
}

Result<void> SocketState::shutdown(int how) {
  if (how != 1) read_shut_ = true;
  if (how != 0) write_shut_ = true;
  notify(events());
  return connected_ ? Result<void>() : Error(ENOTCONN);
}

void SocketState::close() {
  if (stack_ == nullptr) return;
  for (const Membership& have : memberships_) stack_->leave(*stack_->interface_at(have.interface), have.group);
  memberships_.clear();
  ListNode<PortTag>::unlink();
  drop_queue();
  stack_ = nullptr;
}

void SocketState::detach() {
  memberships_.clear();
  drop_queue();
  stack_ = nullptr;
}

void SocketState::drop_queue() {
  while (Item* item = queue_.pop_front()) destroy(item);
  stack_->udp().discharge(queued_charge_);
  queued_charge_ = 0;
  queued_bytes_ = 0;
}

u32 SocketState::events() {
  u32 events = 0;
  if (!queue_.empty()) events |= kReadable;
  if (read_shut_) events |= kReadable | kReadHangUp;
  if (!wants_room_) events |= kWritable;
  if (error_ != 0) events |= kError;
  if (read_shut_ && write_shut_) events |= kHangUp;
  return events;
}

int SocketState::take_error() { return std::exchange(error_, 0); }

size_t SocketState::readable_bytes() const {
  Item* first = const_cast<List<Item>&>(queue_).front();
  return first == nullptr ? 0 : first->about.size;
}

// Only who is connected knows what it is about (RFC 1122 §4.1.3.3), or who asked.
void SocketState::set_error(int error, bool hard) {
  if (!options_.receive_errors && !(connected_ && hard)) return;
  error_ = error;
  notify(kError | kReadable | kWritable);
}

void SocketState::room_again() {
  if (!std::exchange(wants_room_, false)) return;
  notify(kWritable);
}

u32 SocketState::score(const Endpoint& from, const Endpoint& to) const {
  if (local_.port != to.port) return 0;
  bool v4 = to.address.is_v4();
  if (family_ == Family::v4 ? !v4 : v4 && options_.v6_only) return 0;
  u32 score = 1 + ((family_ == Family::v4) == v4 ? 1 : 0);
  if (!local_.address.is_any()) {
    if (!(local_.address == to.address)) return 0;
    score += 4;
  } else if (local_.address.is_v4() != v4 && local_.address.is_v4()) {
    return 0;  // bound to ::ffff:0.0.0.0
  }
  if (local_.interface != 0) {
    if (local_.interface != to.interface) return 0;
    score += 2;
  }
  if (connected_) {
    if (!(remote_.address == from.address) || (kind_ == Kind::udp && remote_.port != from.port)) return 0;
    if (remote_.interface != 0 && from.interface != 0 && remote_.interface != from.interface) return 0;
    score += 8;
  }
  return score;
}

bool SocketState::wants_group(const IpAddress& group, u32 interface) const {
  for (const Membership& have : memberships_) {
    if (have.group == group && (have.interface == interface || interface == kLoopbackIndex)) return true;
  }
  return options_.multicast_all;
}

Item* SocketState::make_item(const Received& received, const Endpoint& from, const Endpoint& to, u32 size, u32 inline_bytes) {
  void* memory = operator new(sizeof(Item) + inline_bytes, std::nothrow);
  if (memory == nullptr) return nullptr;
  auto* item = new (memory) Item();
  item->about = {from, to, size, received.hop_limit, received.traffic_class};
  item->charge = static_cast<u32>(sizeof(Item)) + inline_bytes;
  return item;
}

void SocketState::enqueue(Item* item) {
  queued_charge_ += item->charge;
  queued_bytes_ += item->about.size;
  queue_.push_back(item);
  notify(kReadable);
}

// The bytes are copied: they are few, or others want them too.
bool SocketState::queue_copy(const Received& received, const Endpoint& from, const Endpoint& to, const Packet& packet, u32 at, u32 size) {
  u32 charge = static_cast<u32>(sizeof(Item)) + size;
  if (queued_charge_ > options_.receive_buffer || !stack_->udp().charge(charge)) return false;
  Item* item = make_item(received, from, to, size, size);
  if (item == nullptr) {
    stack_->udp().discharge(charge);
    return false;
  }
  packet.copy_out(at, item->bytes(), size);
  enqueue(item);
  return true;
}

void SocketState::queue(const Received& received, const Endpoint& from, const Endpoint& to, PacketPtr packet, u32 at, u32 size) {
  auto full = [&] { ++stack_->count().udp_receive_buffer_errors; };
  if (size <= kInlineMax || packet->cost() > 4 * size) {
    if (!queue_copy(received, from, to, *packet, at, size)) full();
    return;
  }
  u32 charge = static_cast<u32>(sizeof(Item)) + packet->cost();
  if (queued_charge_ > options_.receive_buffer || !stack_->udp().charge(charge)) return full();
  Item* item = make_item(received, from, to, size, 0);
  if (item == nullptr) {
    stack_->udp().discharge(charge);
    return full();
  }
  item->charge = charge;
  packet->trim_front(at);
  item->packet = std::move(packet);
  enqueue(item);
}

}  // namespace husk::net::udp
