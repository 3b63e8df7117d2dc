// Socket calls. So far only AF_UNIX exists, and in it only pairs can talk: nothing can be listened at, so that connect(2) finds nobody.
// Every other family is refused, and the log says so once.
//
// The calls that name an address answer as Linux does for a socket without a name.
#undef linux
#include <asm/socket.h>
#include <linux/fcntl.h>
#include <string.h>

#include <algorithm>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/log.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

using vfs::IoBuffer;
using vfs::IoSegment;

constexpr u32 kUnix = 1, kTypeMask = 0xf;
enum MessageFlags : u32 {
  kPeek = 0x2,
  kControlTruncated = 0x8,
  kTruncated = 0x20,
  kDontWait = 0x40,
  kWaitAll = 0x100,
  kNoSignal = 0x4000,
  kWaitForOne = 0x10000,
  kCloseOnExec = 0x40000000,
};
constexpr int kSocketLevel = SOL_SOCKET, kRights = 1, kCredentials = 2;
constexpr size_t kFilesMax = 253;  // SCM_MAX_FD

struct MessageHeader {  // struct user_msghdr
  u64 name;
  int name_size, pad;
  u64 vector, vector_count, control, control_size;
  u32 flags, pad2;
};
static_assert(sizeof(MessageHeader) == 56);
struct MultiHeader {  // struct mmsghdr
  MessageHeader header;
  u32 size, pad;
};
struct ControlHeader {  // struct cmsghdr
  u64 size;
  int level, type;
};

Result<Ref<vfs::File>> socket_file(int fd) {
  auto file = TRY(io_file(fd));
  if (file->kind != vfs::File::Kind::socket) return Error(ENOTSOCK);
  return file;
}

void log_family_once(int family) {
  static constinit u64 logged = 0;
  u64 bit = u64{1} << (static_cast<u32>(family) & 63);
  if ((logged & bit) != 0) return;
  logged |= bit;
  log(LogLevel::warning, "socket: address family %d is not there yet", family);
}

// --- control messages ------------------------------------------------------------------------------------------------------------

Result<void> take_rights(std::span<const u8> data, Vec<Ref<vfs::File>>& files) {
  if (data.size() % sizeof(int) != 0) return Error(EINVAL);
  for (size_t at = 0; at < data.size(); at += sizeof(int)) {
    int fd;
    memcpy(&fd, data.data() + at, sizeof(fd));
    if (files.size() == kFilesMax) return Error(EINVAL);
    auto file = TRY(current_file(fd));
    TRY(files.push_back(std::move(file)));
  }
  return {};
}

Result<void> read_control(u64 address, u64 size, Vec<Ref<vfs::File>>& files) {
  constexpr u64 kControlMax = 20480;  // net.core.optmem_max
  if (size > kControlMax) return Error(ENOBUFS);
  Vec<u8> bytes;
  TRY(bytes.resize(size));
  TRY(mem::copy_from_user(bytes.data(), address, size));
  std::span<const u8> rest(bytes.data(), size);
  while (rest.size() >= sizeof(ControlHeader)) {
    ControlHeader header;
    memcpy(&header, rest.data(), sizeof(header));
    if (header.size < sizeof(header) || header.size > rest.size()) return Error(EINVAL);
    if (header.level == kSocketLevel && header.type == kRights) TRY(take_rights(rest.subspan(sizeof(header), header.size - sizeof(header)), files));
    else if (header.level == kSocketLevel && header.type != kCredentials) return Error(EINVAL);
    rest = rest.subspan(std::min<u64>(align_up(header.size, 8), rest.size()));
  }
  return {};
}

// Installs received files and tells the program their numbers; those for which there is no room are closed.
Result<u64> write_rights(u64 address, u64 room, Vec<Ref<vfs::File>>& files, bool close_on_exec, u32* flags) {
  if (files.empty()) return u64{0};
  size_t fit = room < sizeof(ControlHeader) ? 0 : std::min<size_t>(files.size(), (room - sizeof(ControlHeader)) / sizeof(int));
  size_t count = 0;
  for (; count < fit; ++count) {
    Result<int> fd = current_files().install(files[count], close_on_exec);
    if (!fd.ok()) break;
    if (!mem::copy_to_user(address + sizeof(ControlHeader) + count * sizeof(int), &*fd, sizeof(int)).ok()) {
      (void)current_files().close(*fd).ok();
      return Error(EFAULT);
    }
  }
  if (count < files.size()) *flags |= kControlTruncated;
  if (count == 0) return u64{0};
  ControlHeader header{sizeof(ControlHeader) + count * sizeof(int), kSocketLevel, kRights};
  TRY(mem::copy_to_user(address, &header, sizeof(header)));
  return std::min<u64>(align_up(header.size, 8), room);
}

// What connect(2) to a name says where nobody can listen: the name is wrong, or whatever exists there refuses.
Error nobody_at(u64 address, u32 size) {
  struct {
    u16 family;
    char path[108 + 1];  // struct sockaddr_un, and an end
  } name{};
  if (size <= sizeof(name.family) || size >= sizeof(name)) return Error(EINVAL);
  if (!mem::copy_from_user(&name, address, size).ok()) return Error(EFAULT);
  if (name.family != kUnix) return Error(EINVAL);
  if (name.path[0] == '\0') return Error(ECONNREFUSED);
  const FileContext& context = current_file_context();
  Result<vfs::Path> place = tree().resolve(name.path[0] == '/' ? context.root : context.working_directory, name.path, vfs::kFollow);
  return place.ok() ? Error(ECONNREFUSED) : place.error();
}

// --- messages --------------------------------------------------------------------------------------------------------------------

Result<i64> send(vfs::File& socket, std::span<const IoSegment> segments, Vec<Ref<vfs::File>>* files, u32 flags) {
  IoBuffer buffer(segments, IoBuffer::Memory::program);
  vfs::Message message{&buffer, files, flags};
  Result<size_t> sent = vfs::socket_send(socket, message);
  if ((flags & kNoSignal) == 0) return write_result(sent);
  return static_cast<i64>(TRY(std::move(sent)));
}

Result<i64> send_message(vfs::File& socket, const MessageHeader& header, u32 flags) {
  if (header.name != 0 && header.name_size != 0) {
    return vfs::socket_connected(socket) ? Error(EISCONN) : nobody_at(header.name, static_cast<u32>(header.name_size));
  }
  Segments segments;
  TRY(segments.load(header.vector, header.vector_count));
  Vec<Ref<vfs::File>> files;
  if (header.control != 0) TRY(read_control(header.control, header.control_size, files));
  return send(socket, segments.span(), files.empty() ? nullptr : &files, flags);
}

Result<i64> receive_message(vfs::File& socket, MessageHeader& header, u32 flags) {
  Segments segments;
  TRY(segments.load(header.vector, header.vector_count));
  Vec<Ref<vfs::File>> files;
  IoBuffer buffer(segments.span(), IoBuffer::Memory::program);
  vfs::Message message{&buffer, &files, flags & ~u32{kCloseOnExec}};
  size_t size = TRY(vfs::socket_receive(socket, message));
  header.flags = message.flags & (kTruncated | kControlTruncated);
  bool close_on_exec = (flags & kCloseOnExec) != 0;
  if (close_on_exec) header.flags |= kCloseOnExec;
  header.control_size = TRY(write_rights(header.control, header.control != 0 ? header.control_size : 0, files, close_on_exec, &header.flags));
  header.name_size = 0;
  return static_cast<i64>(size);
}

Result<i64> receive_at(vfs::File& socket, u64 header_at, u32 flags) {
  MessageHeader header = TRY(mem::read_user(mem::UserPtr<MessageHeader>(header_at)));
  i64 size = TRY(receive_message(socket, header, flags));
  TRY(mem::write_user(mem::UserPtr<MessageHeader>(header_at), header));
  return size;
}

}  // namespace

HUSK_SYSCALL(socket, int family, u32 type, int protocol) {
  if (static_cast<u32>(family) != kUnix) {
    log_family_once(family);
    return Error(EAFNOSUPPORT);
  }
  TRY(allow_flags(type, kTypeMask | O_NONBLOCK | O_CLOEXEC));
  if (protocol != 0 && static_cast<u32>(protocol) != kUnix) return Error(EPROTONOSUPPORT);
  auto made = TRY(vfs::make_socket(static_cast<int>(type & kTypeMask), type & O_NONBLOCK));
  return static_cast<i64>(TRY(current_files().install(std::move(made), (type & O_CLOEXEC) != 0)));
}

HUSK_SYSCALL(socketpair, u32 family, u32 type, int protocol, u64 fds_at) {
  TRY(allow_flags(type, kTypeMask | O_NONBLOCK | O_CLOEXEC));
  if (family != kUnix) return Error(EAFNOSUPPORT);
  if (protocol != 0 && static_cast<u32>(protocol) != kUnix) return Error(EPROTONOSUPPORT);
  vfs::FilePair pair = TRY(vfs::make_socket_pair(static_cast<int>(type & kTypeMask), type & O_NONBLOCK));
  return install_pair(std::move(pair), fds_at, (type & O_CLOEXEC) != 0);
}

HUSK_SYSCALL(sendto, int fd, u64 address, u64 size, u32 flags, u64 name, u32 name_size) {
  auto socket = TRY(socket_file(fd));
  if (name != 0) return vfs::socket_connected(*socket) ? Error(EISCONN) : nobody_at(name, name_size);
  IoSegment segment{address, std::min(size, kTransferMax)};
  return send(*socket, {&segment, 1}, nullptr, flags);
}

HUSK_SYSCALL(recvfrom, int fd, u64 address, u64 size, u32 flags, u64 name, mem::UserPtr<int> name_size) {
  auto socket = TRY(socket_file(fd));
  IoSegment segment{address, std::min(size, kTransferMax)};
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::program);
  vfs::Message message{&buffer, nullptr, flags};
  size_t got = TRY(vfs::socket_receive(*socket, message));
  if (name != 0 && name_size) TRY(mem::write_user(name_size, 0));
  return static_cast<i64>(got);
}

HUSK_SYSCALL(sendmsg, int fd, mem::UserPtr<MessageHeader> header, u32 flags) {
  auto socket = TRY(socket_file(fd));
  return send_message(*socket, TRY(mem::read_user(header)), flags);
}

HUSK_SYSCALL(recvmsg, int fd, u64 header, u32 flags) { return receive_at(*TRY(socket_file(fd)), header, flags); }

HUSK_SYSCALL(sendmmsg, int fd, mem::UserPtr<MultiHeader> headers, u32 count, u32 flags) {
  auto socket = TRY(socket_file(fd));
  i64 done = 0;
  for (; done < std::min<i64>(count, kSegmentsMax); ++done) {
    Result<MultiHeader> header = mem::read_user(headers + done);
    Result<i64> sent = header.ok() ? send_message(*socket, header->header, flags) : Result<i64>(header.error());
    u64 size_at = (headers + done).address + offsetof(MultiHeader, size);
    if (sent.ok()) sent = mem::write_user(mem::UserPtr<u32>(size_at), static_cast<u32>(*sent)).ok() ? *sent : Result<i64>(Error(EFAULT));
    if (!sent.ok()) return done > 0 ? Result<i64>(done) : sent.error();
  }
  return done;
}

HUSK_SYSCALL(recvmmsg, int fd, mem::UserPtr<MultiHeader> headers, u32 count, u32 flags, u64 timeout) {
  auto socket = TRY(socket_file(fd));
  u64 timeout_ns = TRY(read_timespec_ns(timeout));
  u64 deadline_ns = timeout_ns == time::kForever ? timeout_ns : time::monotonic_ns() + timeout_ns;
  i64 done = 0;
  while (done < std::min<i64>(count, kSegmentsMax)) {
    u64 at = (headers + done).address;
    Result<i64> got = receive_at(*socket, at, flags & ~u32{kWaitForOne});
    if (got.ok())
      got = mem::write_user(mem::UserPtr<u32>(at + offsetof(MultiHeader, size)), static_cast<u32>(*got)).ok() ? *got : Result<i64>(Error(EFAULT));
    if (!got.ok()) return done > 0 ? Result<i64>(done) : got.error();
    ++done;
    if ((flags & kWaitForOne) != 0) flags |= kDontWait;
    if (time::monotonic_ns() >= deadline_ns) break;  // looked at only between messages, as on Linux
  }
  return done;
}

HUSK_SYSCALL(shutdown, int fd, int how) {
  auto socket = TRY(socket_file(fd));
  if (how < 0 || how > 2) return Error(EINVAL);
  TRY(vfs::socket_shutdown(*socket, how));
  return 0;
}

// --- names: pairs have none --------------------------------------------------------------------------------------------------------

namespace {

Result<i64> write_no_name(int fd, u64 out, mem::UserPtr<int> size_at) {
  TRY(socket_file(fd));
  int room = TRY(mem::read_user(size_at));
  if (room < 0) return Error(EINVAL);
  u16 family = kUnix;
  TRY(mem::copy_to_user(out, &family, std::min<size_t>(static_cast<size_t>(room), sizeof(family))));
  TRY(mem::write_user(size_at, static_cast<int>(sizeof(family))));
  return 0;
}

Result<i64> refuse(int fd, int code) {
  TRY(socket_file(fd));
  return Error(code);
}

}  // namespace

HUSK_SYSCALL(getsockname, int fd, u64 out, mem::UserPtr<int> size) { return write_no_name(fd, out, size); }
HUSK_SYSCALL(getpeername, int fd, u64 out, mem::UserPtr<int> size) {
  auto socket = TRY(socket_file(fd));
  return vfs::socket_connected(*socket) ? write_no_name(fd, out, size) : Error(ENOTCONN);
}
HUSK_SYSCALL(connect, int fd, u64 address, u32 size) {
  auto socket = TRY(socket_file(fd));
  return vfs::socket_connected(*socket) ? Error(EISCONN) : nobody_at(address, size);
}
HUSK_SYSCALL(bind, int fd, u64, u32) { return refuse(fd, ENOSYS); }
HUSK_SYSCALL(listen, int fd, int) { return refuse(fd, EINVAL); }
HUSK_SYSCALL(accept, int fd, u64, u64) { return refuse(fd, EINVAL); }
HUSK_SYSCALL(accept4, int fd, u64, u64, u32) { return refuse(fd, EINVAL); }

// --- options -----------------------------------------------------------------------------------------------------------------------

namespace {

constexpr int kBufferSize = 212992;  // net.core.wmem_default

Result<i64> write_option(u64 out, mem::UserPtr<int> size_at, const void* value, size_t size) {
  int room = TRY(mem::read_user(size_at));
  if (room < 0) return Error(EINVAL);
  size = std::min(size, static_cast<size_t>(room));
  TRY(mem::copy_to_user(out, value, size));
  TRY(mem::write_user(size_at, static_cast<int>(size)));
  return 0;
}

Result<int> option_value(vfs::File& socket, int option) {
  switch (option) {
    case SO_TYPE: return vfs::socket_type(socket);
    case SO_DOMAIN: return static_cast<int>(kUnix);
    case SO_SNDBUF:
    case SO_RCVBUF: return kBufferSize;
    case SO_RCVLOWAT: return 1;
    case SO_ERROR:
    case SO_PROTOCOL:
    case SO_ACCEPTCONN:
    case SO_PASSCRED:
    case SO_REUSEADDR:
    case SO_KEEPALIVE:
    case SO_BROADCAST: return 0;
    default: return Error(ENOPROTOOPT);
  }
}

}  // namespace

HUSK_SYSCALL(getsockopt, int fd, int level, int option, u64 out, mem::UserPtr<int> size) {
  auto socket = TRY(socket_file(fd));
  if (level != kSocketLevel) return Error(EOPNOTSUPP);
  if (option == SO_PEERCRED) {
    const Process& process = current_process();
    u32 peer[3] = {static_cast<u32>(process.pid), process.credentials.euid, process.credentials.egid};
    return write_option(out, size, peer, sizeof(peer));
  }
  int value = TRY(option_value(*socket, option));
  return write_option(out, size, &value, sizeof(value));
}

// Sizes and flags without effect on a pair are accepted; what would change its behaviour is refused.
HUSK_SYSCALL(setsockopt, int fd, int level, int option, u64, u32 size) {
  TRY(socket_file(fd));
  if (level != kSocketLevel) return Error(EOPNOTSUPP);
  if (size < sizeof(int)) return Error(EINVAL);
  switch (option) {
    case SO_SNDBUF:
    case SO_RCVBUF:
    case SO_REUSEADDR:
    case SO_KEEPALIVE:
    case SO_BROADCAST: return 0;
    default: return Error(ENOPROTOOPT);
  }
}

}  // namespace husk::linux
