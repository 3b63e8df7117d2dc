// UDP and ping sockets as open files. udp(7), icmp(7), ip(7) for the control messages.
#undef linux
#include <asm-generic/ioctls.h>
#include <asm/socket.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>

#include "kernel/linux/inet_socket.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

class InetDatagram final : public InetSocket {
 public:
  InetDatagram(int socket_domain, int socket_protocol, u32 file_flags, Ref<net::udp::Socket> socket)
      : InetSocket(socket_domain, 2, socket_protocol, file_flags), udp_(std::move(socket)) {
    udp_->set_observer(this);
  }
  ~InetDatagram() override {
    udp_->set_observer(nullptr);
    udp_->close();
  }
  u32 poll_events() override { return udp_->events(); }
  Result<void> bind(const vfs::SocketAddress& address) override;
  Result<void> listen(int) override { return Error(EOPNOTSUPP); }
  Result<Ref<Socket>> accept(vfs::SocketAddress*, u32) override { return Error(EOPNOTSUPP); }
  Result<void> connect(const vfs::SocketAddress& address) override;
  Result<size_t> send(vfs::SocketMessage& message) override;
  Result<size_t> receive(vfs::SocketMessage& message) override;
  Result<void> shutdown(int how) override {
    Result<void> result = udp_->shutdown(how);
    queue_.wake_all();
    return result;
  }
  Result<size_t> bytes_available() override { return udp_->readable_bytes(); }
  Result<i64> socket_ioctl(u32 request, u64 argument) override;

 protected:
  void load(Options& options) const override { options.udp = udp_->options(); }
  void save(const Options& options) override { udp_->set_options(options.udp); }
  net::Endpoint local() const override { return udp_->local(); }
  net::Endpoint remote() const override { return udp_->remote(); }
  int take_error() override { return udp_->take_error(); }
  Result<void> change_membership(const net::IpAddress& group, u32 interface, bool join) override {
    return join ? udp_->join(group, interface) : udp_->leave(group, interface);
  }

 private:
  bool is_ping() const { return protocol != IPPROTO_UDP; }
  Result<bool> take_control(const Vec<vfs::ControlData>& control, net::Endpoint& source, net::udp::Options& options);
  Result<void> add_control(const net::udp::Datagram& datagram, vfs::SocketMessage& message);
  struct Outgoing {  // what a call says about its datagram
    net::Endpoint to, source;
    net::udp::Options options;
    bool addressed = false, controlled = false, from_there = false;
  };
  struct Corked {
    explicit Corked(const Outgoing& outgoing) : about(outgoing) {}
    Outgoing about;
    Vec<u8> bytes;
  };
  Result<Outgoing> outgoing(const vfs::SocketMessage& message);
  Result<size_t> transmit(vfs::IoBuffer& data, const Outgoing& out, u32 message_flags);
  Result<size_t> append(vfs::SocketMessage& message);

  Ref<net::udp::Socket> udp_;
  Owned<Corked> corked_;  // null: nothing is held back
};

Result<void> InetDatagram::bind(const vfs::SocketAddress& address) {
  net::Endpoint here = TRY(endpoint(address, AddressUse::bind));
  return udp_->bind(here);
}

Result<void> InetDatagram::connect(const vfs::SocketAddress& address) {
  if (address.size < sizeof(u16)) return Error(EINVAL);
  if (address.family() == 0) return udp_->disconnect();  // AF_UNSPEC
  // An IPv6 socket takes AF_INET here, as on Linux.
  net::Endpoint there = TRY(endpoint(address, domain == kInet6 && address.family() == kInet ? AddressUse::send : AddressUse::connect));
  TRY(network_wait_configured(there.address));
  return udp_->connect(there);
}

// --- control messages -----------------------------------------------------------------------------------------------------------

// IP_TTL, IPV6_HOPLIMIT, IP_TOS and IPV6_TCLASS; -1 hops are what the socket has, the class -1 is 255 (as on Linux).
Result<void> take_number(const vfs::ControlData& item, net::udp::Options& options) {
  const bool v6 = item.level == kLevelIp6, hops = item.type == (v6 ? IPV6_HOPLIMIT : IP_TTL);
  if ((!v6 && item.level != kLevelIp) || (!hops && item.type != (v6 ? IPV6_TCLASS : IP_TOS))) return Error(EINVAL);
  int value = 0;
  if (item.size != sizeof(value) && (v6 || hops || item.size != 1)) return Error(EINVAL);
  memcpy(&value, item.bytes, item.size);
  if (value > 255 || value < (v6 ? -1 : hops ? 1 : 0)) return Error(EINVAL);
  if (hops && value < 0) return {};
  (hops ? options.hop_limit : options.traffic_class) = static_cast<u8>(value);
  if (hops) options.multicast_hops = options.hop_limit;
  return {};
}

// IP_PKTINFO and IPV6_PKTINFO: from which address to send. False: they do not say. The others go into `options`.
Result<bool> InetDatagram::take_control(const Vec<vfs::ControlData>& control, net::Endpoint& source, net::udp::Options& options) {
  bool found = false;
  for (const vfs::ControlData& item : control) {
    std::span<const u8> bytes(item.bytes, std::min<size_t>(item.size, sizeof(item.bytes)));
    if (item.level == kLevelIp && item.type == IP_PKTINFO) {
      auto info = TRY(take_value<in_pktinfo>(bytes));
      source.interface = static_cast<u32>(info.ipi_ifindex);
      source.address = net::IpAddress::v4(&info.ipi_spec_dst);
      found = true;
    } else if (item.level == kLevelIp6 && item.type == IPV6_PKTINFO && domain == kInet6) {
      auto info = TRY(take_value<in6_pktinfo>(bytes));
      source.interface = static_cast<u32>(info.ipi6_ifindex);
      source.address = net::IpAddress::v6(&info.ipi6_addr);
      found = true;
    } else {
      TRY(take_number(item, options));
    }
  }
  return found;
}

// Adds one message, if it is wanted.
Result<void> add_item(vfs::SocketMessage& message, bool wanted, int level, int type, const void* value, u32 size) {
  if (!wanted) return {};
  if (message.control == nullptr) {
    message.flags |= kMessageControlCut;
    return {};
  }
  vfs::ControlData item{level, type, size, {}};
  memcpy(item.bytes, value, size);
  return message.control->push_back(item);
}

Result<void> InetDatagram::add_control(const net::udp::Datagram& datagram, vfs::SocketMessage& message) {
  const bool v6 = domain == kInet6, information = udp_->options().packet_information;
  if (!has_remembered() && !information) return {};
  u64 now = time::realtime_ns(), stamp[2] = {now / time::kNsPerSecond, now % time::kNsPerSecond};
  const bool in_ns = number(kLevelSocket, SO_TIMESTAMPNS_OLD) != 0;
  TRY(add_item(message, in_ns, kLevelSocket, SO_TIMESTAMPNS_OLD, stamp, sizeof(stamp)));
  stamp[1] /= 1000;
  TRY(add_item(message, !in_ns && number(kLevelSocket, SO_TIMESTAMP_OLD) != 0, kLevelSocket, SO_TIMESTAMP_OLD, stamp, sizeof(stamp)));
  in6_pktinfo to6{{}, static_cast<int>(datagram.to.interface)};
  memcpy(&to6.ipi6_addr, datagram.to.address.bytes, 16);
  TRY(add_item(message, information && v6, kLevelIp6, IPV6_PKTINFO, &to6, sizeof(to6)));
  in_pktinfo to4{static_cast<int>(datagram.to.interface), {}, {}};
  memcpy(&to4.ipi_addr, datagram.to.address.v4_bytes(), 4);
  to4.ipi_spec_dst = to4.ipi_addr;
  TRY(add_item(message, information && !v6, kLevelIp, IP_PKTINFO, &to4, sizeof(to4)));
  const int hops = datagram.hop_limit, traffic_class = datagram.traffic_class;
  TRY(add_item(message, !v6 && number(kLevelIp, IP_RECVTTL) != 0, kLevelIp, IP_TTL, &hops, sizeof(hops)));
  TRY(add_item(message, !v6 && number(kLevelIp, IP_RECVTOS) != 0, kLevelIp, IP_TOS, &datagram.traffic_class, 1));
  TRY(add_item(message, number(kLevelIp6, IPV6_RECVHOPLIMIT) != 0, kLevelIp6, IPV6_HOPLIMIT, &hops, sizeof(hops)));
  return add_item(message, number(kLevelIp6, IPV6_RECVTCLASS) != 0, kLevelIp6, IPV6_TCLASS, &traffic_class, sizeof(traffic_class));
}

// --- datagrams ------------------------------------------------------------------------------------------------------------------

Result<InetDatagram::Outgoing> InetDatagram::outgoing(const vfs::SocketMessage& message) {
  Outgoing result;
  result.addressed = message.to != nullptr && message.to->size > 0;
  if (result.addressed) {
    result.to = TRY(endpoint(*message.to, AddressUse::send));
    if (result.to.port == 0 && !is_ping()) return Error(EINVAL);
    TRY(network_wait_configured(result.to.address));
  }
  result.options = udp_->options();
  result.controlled = message.control != nullptr;
  result.from_there = result.controlled && TRY(take_control(*message.control, result.source, result.options));
  return result;
}

Result<size_t> InetDatagram::transmit(vfs::IoBuffer& data, const Outgoing& out, u32 message_flags) {
  auto attempt = [&] {
    const net::udp::Options own = udp_->options();
    if (out.controlled) udp_->set_options(out.options);
    auto result = udp_->send(data, out.addressed ? &out.to : nullptr, out.from_there ? &out.source : nullptr);
    if (out.controlled) udp_->set_options(own);
    return result;
  };
  Result<size_t> sent = wait_until_done(attempt, message_flags, send_timeout_ns);
  network_run();
  return sent;
}

// MSG_MORE: calls that make one datagram together; the first says where it goes.
Result<size_t> InetDatagram::append(vfs::SocketMessage& message) {
  constexpr size_t kMost = 65535;
  if (!corked_) corked_ = TRY(make_owned<Corked>(TRY(outgoing(message))));
  const size_t size = message.data->remaining(), before = corked_->bytes.size();
  const bool more = (message.flags & kMessageMore) != 0;
  Owned<Corked> whole = std::move(corked_);  // an error drops it
  if (before + size > kMost) return Error(EMSGSIZE);
  TRY(whole->bytes.resize(before + size));
  if (size > 0 && TRY(message.data->take(whole->bytes.data() + before, size)) < size) return Error(EFAULT);
  if (more) {
    corked_ = std::move(whole);
    return size;
  }
  const vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(whole->bytes.data(), whole->bytes.size());
  vfs::IoBuffer data({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  (void)TRY(transmit(data, whole->about, message.flags));
  return size;
}

Result<size_t> InetDatagram::send(vfs::SocketMessage& message) {
  if ((message.flags & kMessageOutOfBand) != 0) return Error(EOPNOTSUPP);
  if (corked_ || (message.flags & kMessageMore) != 0) return append(message);
  return transmit(*message.data, TRY(outgoing(message)), message.flags);
}

Result<size_t> InetDatagram::receive(vfs::SocketMessage& message) {
  const u32 wishes = message.flags;
  message.flags = 0;
  if (message.from != nullptr) message.from->size = 0;
  if ((wishes & kMessageErrorQueue) != 0) return Error(EAGAIN);
  if ((wishes & kMessageOutOfBand) != 0) return Error(EOPNOTSUPP);
  const auto peek = (wishes & kMessagePeek) != 0 ? net::udp::Socket::Peek::yes : net::udp::Socket::Peek::no;
  const size_t room = message.data->remaining();
  bool ended = false;
  auto attempt = [&]() -> Result<net::udp::Datagram> {
    auto got = udp_->receive(*message.data, peek);
    // Who does not wait hears EAGAIN even after shutdown(2), as on Linux.
    ended = will_wait(wishes) && !got.ok() && got.error() == Error(EAGAIN) && (udp_->events() & net::kReadHangUp) != 0;
    return ended ? Result<net::udp::Datagram>(net::udp::Datagram{}) : got;
  };
  net::udp::Datagram datagram = TRY(wait_until_done(attempt, wishes, receive_timeout_ns));
  if (ended) return size_t{0};
  if (message.from != nullptr) *message.from = write_address(domain, datagram.from);
  if (datagram.size > room) message.flags |= kMessageTruncated;
  TRY(add_control(datagram, message));
  return (wishes & kMessageTruncated) != 0 ? datagram.size : std::min(datagram.size, room);
}

Result<i64> InetDatagram::socket_ioctl(u32 request, u64 argument) {
  if (request != SIOCOUTQ) return interface_ioctl(request, argument);
  TRY(mem::write_user(mem::UserPtr<int>(argument), 0));  // what is sent is gone
  return i64{0};
}

}  // namespace

Result<Ref<vfs::Socket>> make_datagram_socket(int domain, int protocol, u32 file_flags) {
  net::Stack* stack = TRY(network());
  net::Family family = domain == kInet ? net::Family::v4 : net::Family::v6;
  auto socket = TRY(protocol == IPPROTO_UDP ? stack->udp_socket(family) : stack->ping_socket(family));
  return Ref<vfs::Socket>(TRY(make_ref<InetDatagram>(domain, protocol, file_flags, std::move(socket))));
}

}  // namespace husk::linux
