// Socket calls that make sockets, name them and connect them. Messages are in sockets_messages.cc, options in sockets_options.cc.
//
// What a call does is the family's matter: kernel/vfs/unix_socket.h, kernel/linux/inet.h. Another family is refused, and the log says so once.
#include "kernel/linux/sockets.h"

#include <linux/fcntl.h>

#include <algorithm>

#include "kernel/linux/inet.h"
#include "kernel/linux/syscall.h"
#include "kernel/log.h"

namespace husk::linux {

Result<Ref<vfs::Socket>> socket_of(int fd) {
  auto file = TRY(io_file(fd));
  if (file->kind != vfs::File::Kind::socket) return Error(ENOTSOCK);
  return Ref<vfs::Socket>::adopt(static_cast<vfs::Socket*>(file.leak()));
}

Result<vfs::SocketAddress> read_address(u64 address, int size) {
  if (size < 0 || static_cast<u32>(size) > vfs::SocketAddress::kMax) return Error(EINVAL);
  vfs::SocketAddress result;
  result.size = static_cast<u32>(size);
  if (size > 0) TRY(mem::copy_from_user(result.bytes, address, result.size));
  return result;
}

Result<void> write_address(const vfs::SocketAddress& name, u64 out, mem::UserPtr<int> size_at) {
  int room = TRY(mem::read_user(size_at));
  if (room < 0) return Error(EINVAL);
  TRY(mem::copy_to_user(out, name.bytes, std::min<u64>(static_cast<u32>(room), name.size)));
  return mem::write_user(size_at, static_cast<int>(name.size));
}

namespace {

constexpr int kInternet = 2, kInternet6 = 10, kNetlink = 16;  // AF_*
constexpr int kFamilies = 46, kTypes = 11;
constexpr u32 kTypeMask = 0xf;
constexpr u32 kBacklogMax = 4096;  // net.core.somaxconn

void log_family_once(int family) {
  static constinit u64 logged = 0;
  u64 bit = u64{1} << (static_cast<u32>(family) & 63);
  if ((logged & bit) != 0) return;
  logged |= bit;
  log(LogLevel::warning, "socket: address family %d is not there", family);
}

Result<void> check(int family, u32 type) {
  TRY(allow_flags(type, kTypeMask | O_NONBLOCK | O_CLOEXEC));
  if (family < 0 || family >= kFamilies) return Error(EAFNOSUPPORT);
  if ((type & kTypeMask) >= kTypes) return Error(EINVAL);
  return {};
}

Result<Ref<vfs::Socket>> make(int family, int type, int protocol, u32 file_flags) {
  switch (family) {
    case kUnixFamily: return vfs::make_unix_socket(unix_environment(), type, protocol, file_flags);
    case kInternet:
    case kInternet6: return make_inet_socket(family, type, protocol, file_flags);
    case kNetlink: return make_netlink_socket(type, protocol, file_flags);
    default: log_family_once(family); return Error(EAFNOSUPPORT);
  }
}

// EMFILE before a connection is taken from the queue, where it would be lost.
Result<void> need_descriptor(const Ref<vfs::Socket>& socket) {
  int fd = TRY(current_files().install(socket, false));
  return current_files().close(fd).ok() ? Result<void>() : Error(EBADF);
}

Result<i64> accept_one(int fd, u64 name, u64 name_size, u32 flags) {
  TRY(io_file(fd));
  TRY(allow_flags(flags, O_NONBLOCK | O_CLOEXEC));
  auto socket = TRY(socket_of(fd));
  TRY(need_descriptor(socket));
  vfs::SocketAddress peer;
  auto accepted = TRY(socket->accept(name != 0 ? &peer : nullptr, flags & O_NONBLOCK));
  if (name != 0) TRY(write_address(peer, name, mem::UserPtr<int>(name_size)));
  return static_cast<i64>(TRY(current_files().install(std::move(accepted), (flags & O_CLOEXEC) != 0)));
}

}  // namespace

HUSK_SYSCALL(socket, int family, u32 type, int protocol) {
  TRY(check(family, type));
  auto made = TRY(make(family, static_cast<int>(type & kTypeMask), protocol, type & O_NONBLOCK));
  return static_cast<i64>(TRY(current_files().install(std::move(made), (type & O_CLOEXEC) != 0)));
}

HUSK_SYSCALL(socketpair, int family, u32 type, int protocol, u64 fds_at) {
  TRY(check(family, type));
  if (family == kInternet || family == kInternet6 || family == kNetlink) return Error(EOPNOTSUPP);
  if (family != kUnixFamily) return Error(EAFNOSUPPORT);
  vfs::FilePair pair = TRY(vfs::make_unix_pair(unix_environment(), static_cast<int>(type & kTypeMask), protocol, type & O_NONBLOCK));
  return install_pair(std::move(pair), fds_at, (type & O_CLOEXEC) != 0);
}

HUSK_SYSCALL(bind, int fd, u64 name, int size) {
  auto socket = TRY(socket_of(fd));
  TRY(socket->bind(TRY(read_address(name, size))));
  return 0;
}

HUSK_SYSCALL(listen, int fd, u32 backlog) {
  auto socket = TRY(socket_of(fd));
  TRY(socket->listen(static_cast<int>(std::min(backlog, kBacklogMax))));
  return 0;
}

HUSK_SYSCALL(accept, int fd, u64 name, u64 name_size) { return accept_one(fd, name, name_size, 0); }
HUSK_SYSCALL(accept4, int fd, u64 name, u64 name_size, u32 flags) { return accept_one(fd, name, name_size, flags); }

HUSK_SYSCALL(connect, int fd, u64 name, int size) {
  auto file = TRY(io_file(fd));
  vfs::SocketAddress address = TRY(read_address(name, size));
  TRY(TRY(socket_of(fd))->connect(address));
  return 0;
}

HUSK_SYSCALL(getsockname, int fd, u64 out, mem::UserPtr<int> size) {
  auto socket = TRY(socket_of(fd));
  TRY(write_address(TRY(socket->name()), out, size));
  return 0;
}

HUSK_SYSCALL(getpeername, int fd, u64 out, mem::UserPtr<int> size) {
  auto socket = TRY(socket_of(fd));
  TRY(write_address(TRY(socket->peer_name()), out, size));
  return 0;
}

HUSK_SYSCALL(shutdown, int fd, int how) {
  auto socket = TRY(socket_of(fd));
  TRY(socket->shutdown(how));
  return 0;
}

}  // namespace husk::linux
