// Messages through sockets: sendto(2), recvfrom(2), sendmsg(2), recvmsg(2) and their plural forms.
#include <linux/fcntl.h>

#include <algorithm>

#include "kernel/linux/sockets.h"
#include "kernel/linux/sockets_control.h"
#include "kernel/linux/syscall.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

using vfs::IoBuffer;
using vfs::IoSegment;

constexpr u32 kWaitForOne = 0x10000, kCloseOnExec = 0x40000000;  // MSG_WAITFORONE, MSG_CMSG_CLOEXEC
constexpr u32 kShownFlags = vfs::kMessageTruncated | vfs::kMessageControlTruncated | vfs::kMessageEndOfRecord | vfs::kMessageErrorQueue;

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

Result<i64> send(vfs::Socket& socket, vfs::SocketMessage& message) {
  const bool quiet = (message.flags & vfs::kMessageNoSignal) != 0;
  Result<size_t> sent = socket.send(message);
  if (!quiet) return write_result(socket, sent);
  return static_cast<i64>(TRY(std::move(sent)));
}

Result<void> load_segments(Segments& segments, const MessageHeader& header) {
  if (header.vector_count > kSegmentsMax) return Error(EMSGSIZE);
  return segments.load(header.vector, header.vector_count);
}

Result<i64> send_message(vfs::Socket& socket, const MessageHeader& header, u32 flags) {
  vfs::SocketAddress to;
  const bool named = header.name != 0 && header.name_size != 0;
  if (header.name_size < 0) return Error(EINVAL);
  if (named) to = TRY(read_address(header.name, std::min(header.name_size, static_cast<int>(vfs::SocketAddress::kMax))));
  Segments segments;
  TRY(load_segments(segments, header));
  ControlToSend control;
  if (header.control_size != 0) TRY(control.read(socket.domain, header.control, header.control_size));
  IoBuffer buffer(segments.span(), IoBuffer::Memory::program);
  vfs::SocketMessage message;
  message.data = &buffer;
  message.flags = flags;
  message.to = named ? &to : nullptr;
  control.attach_to(message);
  return send(socket, message);
}

Result<i64> receive_message(vfs::Socket& socket, MessageHeader& header, u32 flags) {
  if (header.name_size < 0) return Error(EINVAL);
  Segments segments;
  TRY(load_segments(segments, header));
  IoBuffer buffer(segments.span(), IoBuffer::Memory::program);
  vfs::SocketAddress from;
  vfs::SocketMessage message;
  message.data = &buffer;
  message.flags = flags & ~u32{kCloseOnExec};
  if (header.name != 0) message.from = &from;
  ControlReceived control;
  if (header.control != 0) control.attach_to(message);
  if ((flags & vfs::kMessageErrorQueue) != 0) return Error(EAGAIN);  // nothing is ever queued there
  size_t size = TRY(socket.receive(message));
  const bool close_on_exec = (flags & kCloseOnExec) != 0;
  header.flags = (message.flags & kShownFlags) | (flags & kCloseOnExec);
  header.control_size = TRY(control.write(message, header.control, header.control != 0 ? header.control_size : 0, close_on_exec, &header.flags));
  if (header.name == 0) return static_cast<i64>(size);
  TRY(mem::copy_to_user(header.name, from.bytes, std::min<u64>(static_cast<u32>(header.name_size), from.size)));
  header.name_size = static_cast<int>(from.size);
  return static_cast<i64>(size);
}

Result<i64> receive_at(vfs::Socket& socket, u64 header_at, u32 flags) {
  MessageHeader header = TRY(mem::read_user(mem::UserPtr<MessageHeader>(header_at)));
  i64 size = TRY(receive_message(socket, header, flags));
  TRY(mem::write_user(mem::UserPtr<MessageHeader>(header_at), header));
  return size;
}

Result<i64> with_size_at(u64 address, Result<i64> moved) {
  if (moved.ok()) TRY(mem::write_user(mem::UserPtr<u32>(address + offsetof(MultiHeader, size)), static_cast<u32>(*moved)));
  return moved;
}

}  // namespace

HUSK_SYSCALL(sendto, int fd, u64 address, u64 size, u32 flags, u64 name, int name_size) {
  auto socket = TRY(socket_of(fd));
  vfs::SocketAddress to;
  if (name != 0) to = TRY(read_address(name, name_size));
  IoSegment segment{address, std::min(size, kTransferMax)};
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::program);
  vfs::SocketMessage message;
  message.data = &buffer;
  message.flags = flags;
  message.to = name != 0 ? &to : nullptr;
  return send(*socket, message);
}

HUSK_SYSCALL(recvfrom, int fd, u64 address, u64 size, u32 flags, u64 name, mem::UserPtr<int> name_size) {
  auto socket = TRY(socket_of(fd));
  if ((flags & vfs::kMessageErrorQueue) != 0) return Error(EAGAIN);
  IoSegment segment{address, std::min(size, kTransferMax)};
  IoBuffer buffer({&segment, 1}, IoBuffer::Memory::program);
  vfs::SocketAddress from;
  vfs::SocketMessage message;
  message.data = &buffer;
  message.flags = flags;
  message.from = name != 0 ? &from : nullptr;
  size_t got = TRY(socket->receive(message));
  if (name != 0) TRY(write_address(from, name, name_size));
  return static_cast<i64>(got);
}

HUSK_SYSCALL(sendmsg, int fd, mem::UserPtr<MessageHeader> header, u32 flags) {
  auto socket = TRY(socket_of(fd));
  return send_message(*socket, TRY(mem::read_user(header)), flags);
}

HUSK_SYSCALL(recvmsg, int fd, u64 header, u32 flags) { return receive_at(*TRY(socket_of(fd)), header, flags); }

HUSK_SYSCALL(sendmmsg, int fd, mem::UserPtr<MultiHeader> headers, u32 count, u32 flags) {
  auto socket = TRY(socket_of(fd));
  i64 done = 0;
  for (; done < std::min<i64>(count, kSegmentsMax); ++done) {
    Result<MultiHeader> header = mem::read_user(headers + done);
    Result<i64> sent = header.ok() ? send_message(*socket, header->header, flags) : Result<i64>(header.error());
    sent = with_size_at((headers + done).address, std::move(sent));
    if (!sent.ok()) return done > 0 ? Result<i64>(done) : sent.error();
  }
  return done;
}

HUSK_SYSCALL(recvmmsg, int fd, mem::UserPtr<MultiHeader> headers, u32 count, u32 flags, u64 timeout) {
  u64 timeout_ns = TRY(read_timespec_ns(timeout));
  auto socket = TRY(socket_of(fd));
  u64 deadline_ns = timeout_ns == time::kForever ? timeout_ns : time::monotonic_ns() + timeout_ns;
  i64 done = 0;
  while (done < std::min<i64>(count, kSegmentsMax)) {
    u64 at = (headers + done).address;
    Result<i64> got = with_size_at(at, receive_at(*socket, at, flags & ~u32{kWaitForOne}));
    if (!got.ok()) return done > 0 ? Result<i64>(done) : got.error();
    ++done;
    if ((flags & kWaitForOne) != 0) flags |= vfs::kMessageDontWait;
    if (time::monotonic_ns() >= deadline_ns) break;  // looked at only between messages, as on Linux
  }
  return done;
}

}  // namespace husk::linux
