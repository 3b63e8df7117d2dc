// AF_NETLINK sockets that ask the kernel about its network (NETLINK_ROUTE). netlink(7), rtnetlink(7).
//
// An answer is made when the question is sent; it waits here as datagrams. Nobody is told of changes: groups can be joined, and stay silent.
#undef linux
#include <linux/netlink.h>
#include <linux/sockios.h>

#include <algorithm>

#include "kernel/linux/inet_socket.h"
#include "kernel/linux/netlink_messages.h"
#include "kernel/linux/task.h"

namespace husk::linux {
namespace {

constexpr int kNetlink = 16;  // AF_NETLINK
constexpr size_t kRequestMax = 16 * kKiB;

class NetlinkSocket final : public vfs::Socket {
 public:
  NetlinkSocket(int socket_type, u32 file_flags) : Socket(kNetlink, socket_type, NETLINK_ROUTE, file_flags) {}
  u32 poll_events() override { return net::kWritable | (answers_.empty() ? 0u : net::kReadable); }
  sched::WaitQueue* wait_queue() override { return &queue_; }
  Result<void> bind(const vfs::SocketAddress& address) override;
  Result<void> connect(const vfs::SocketAddress& address) override {
    if (address.size < sizeof(sockaddr_nl) || address.family() != kNetlink) return Error(EINVAL);
    choose_port();
    return {};
  }
  Result<vfs::SocketAddress> name() override { return address_of(port_, groups_); }
  Result<vfs::SocketAddress> peer_name() override { return address_of(0, 0); }
  Result<size_t> send(vfs::SocketMessage& message) override;
  Result<size_t> receive(vfs::SocketMessage& message) override;
  Result<size_t> get_option(int level, int option, std::span<u8> out) override;
  Result<void> set_option(int level, int option, std::span<const u8> value) override;
  Result<size_t> bytes_available() override { return answers_.empty() ? size_t{0} : answers_[0].size(); }
  Result<i64> socket_ioctl(u32 request, u64 argument) override { return interface_ioctl(request, argument); }

 private:
  static vfs::SocketAddress address_of(u32 port, u32 groups) {
    sockaddr_nl text{kNetlink, 0, port, groups};
    vfs::SocketAddress result;
    memcpy(result.bytes, &text, result.size = sizeof(text));
    return result;
  }
  void choose_port();

  Vec<Vec<u8>> answers_;
  sched::WaitQueue queue_;
  u32 port_ = 0, groups_ = 0;
};

// The process's number for its first socket, then others that no process has.
void NetlinkSocket::choose_port() {
  static constinit u32 next = 0;
  if (port_ != 0) return;
  port_ = next == 0 ? static_cast<u32>(current_process().pid) : next;
  next = port_ > 0x80000000 ? port_ - 1 : 0xffffefff;
}

Result<void> NetlinkSocket::bind(const vfs::SocketAddress& address) {
  sockaddr_nl wanted;
  if (address.size < sizeof(wanted)) return Error(EINVAL);
  memcpy(&wanted, address.bytes, sizeof(wanted));
  if (wanted.nl_family != kNetlink || (port_ != 0 && wanted.nl_pid != 0 && wanted.nl_pid != port_)) return Error(EINVAL);
  groups_ = wanted.nl_groups;
  if (port_ == 0) port_ = wanted.nl_pid;
  choose_port();
  return {};
}

Result<size_t> NetlinkSocket::send(vfs::SocketMessage& message) {
  if (message.to != nullptr && message.to->size > 0) {
    sockaddr_nl to;
    if (message.to->size < sizeof(to) || message.to->family() != kNetlink) return Error(EINVAL);
    memcpy(&to, message.to->bytes, sizeof(to));
    if (to.nl_pid != 0) return Error(ECONNREFUSED);
    if (to.nl_groups != 0) return Error(EPERM);
  }
  choose_port();
  size_t size = message.data->remaining();
  if (size > kRequestMax) return Error(EMSGSIZE);
  Vec<u8> request;
  TRY(request.resize(size));
  if (TRY(message.data->take(request.data(), size)) < size) return Error(EFAULT);
  NetlinkAnswer answer;
  TRY(answer_netlink(*TRY(network()), std::span<const u8>(request.data(), size), port_, answer));
  for (Vec<u8>& datagram : answer.datagrams) TRY(answers_.push_back(std::move(datagram)));
  queue_.wake_all(net::kReadable);
  return size;
}

Result<size_t> NetlinkSocket::receive(vfs::SocketMessage& message) {
  const u32 wishes = message.flags;
  message.flags = 0;
  if (message.from != nullptr) message.from->size = 0;
  while (answers_.empty()) TRY(wait(queue_, wishes, deadline_of(receive_timeout_ns)));
  Vec<u8>& datagram = answers_[0];
  size_t size = datagram.size(), fits = std::min(size, message.data->remaining());
  if (fits > 0 && TRY(message.data->put(datagram.data(), fits)) < fits) return Error(EFAULT);
  if (fits < size) message.flags |= kMessageTruncated;
  if (message.from != nullptr) *message.from = address_of(0, 0);
  if ((wishes & kMessagePeek) == 0) answers_.erase(0);
  return (wishes & kMessageTruncated) != 0 ? size : fits;
}

Result<size_t> NetlinkSocket::get_option(int level, int option, std::span<u8> out) {
  if (level != kLevelSocket) return Error(ENOPROTOOPT);
  switch (option) {
    case 4: return put_value(out, 0);  // SO_ERROR
    case 7:
    case 8: return put_value(out, 212992);  // SO_SNDBUF, SO_RCVBUF
    default: return Error(ENOPROTOOPT);
  }
}

Result<void> NetlinkSocket::set_option(int level, int option, std::span<const u8> value) {
  constexpr int kLevelNetlink = 270;
  (void)TRY(take_value<int>(value));
  if (level == kLevelNetlink) return {};                                       // refinements of answers and notices, which change nothing here
  bool harmless = option == 7 || option == 8 || option == 32 || option == 33;  // sizes of buffers
  return level == kLevelSocket && harmless ? Result<void>() : Error(ENOPROTOOPT);
}

}  // namespace

Result<Ref<vfs::Socket>> make_netlink_socket(int type, int protocol, u32 file_flags) {
  if (type != 2 && type != 3) return Error(ESOCKTNOSUPPORT);
  if (protocol != NETLINK_ROUTE) return Error(EPROTONOSUPPORT);
  (void)TRY(network());
  return Ref<vfs::Socket>(TRY(make_ref<NetlinkSocket>(type, file_flags)));
}

}  // namespace husk::linux
