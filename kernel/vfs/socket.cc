// What all sockets do alike: reading and writing as files, waiting with time limits, and the errnos for what a family does not have.
#include "kernel/vfs/socket.h"

#include "base/format.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr u64 kSocketFileSystem = 0x534f434b;  // SOCKFS_MAGIC

}  // namespace

Socket::Socket(int socket_domain, int socket_type, int socket_protocol, u32 file_flags)
    : domain(socket_domain), type(socket_type), protocol(socket_protocol), stat_(anonymous_stat(kSocketType | 0777)) {
  kind = Kind::socket;
  flags = kOpenReadWrite | (file_flags & kOpenNonBlocking);
}

Result<void> Socket::bind(const SocketAddress&) { return Error(EOPNOTSUPP); }
Result<void> Socket::listen(int) { return Error(EOPNOTSUPP); }
Result<Ref<Socket>> Socket::accept(SocketAddress*, u32) { return Error(EOPNOTSUPP); }
Result<void> Socket::connect(const SocketAddress&) { return Error(EOPNOTSUPP); }
Result<SocketAddress> Socket::name() { return Error(EOPNOTSUPP); }
Result<SocketAddress> Socket::peer_name() { return Error(EOPNOTSUPP); }
Result<void> Socket::shutdown(int) { return Error(EOPNOTSUPP); }
Result<size_t> Socket::get_option(int, int, std::span<u8>) { return Error(ENOPROTOOPT); }
Result<void> Socket::set_option(int, int, std::span<const u8>) { return Error(ENOPROTOOPT); }
Result<i64> Socket::socket_ioctl(u32, u64) { return Error(ENOTTY); }

Result<size_t> Socket::read(IoBuffer& buffer, const u64* offset) {
  if (offset != nullptr) return Error(ESPIPE);
  if (buffer.remaining() == 0) return size_t{0};
  SocketMessage message;
  message.data = &buffer;
  return receive(message);
}

Result<size_t> Socket::write(IoBuffer& buffer, const u64* offset) {
  if (offset != nullptr) return Error(ESPIPE);
  SocketMessage message;
  message.data = &buffer;
  return send(message);
}

Result<i64> Socket::ioctl(u32 request, u64 argument) {
  if (request != kFionread) return socket_ioctl(request, argument);
  TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(TRY(bytes_available()))));
  return i64{0};
}

Result<Stat> Socket::stat() { return stat_; }

Result<FileSystemStat> Socket::file_system_stat() {
  FileSystemStat result;
  result.magic = kSocketFileSystem;
  return result;
}

Result<String> Socket::describe() {
  char text[40];
  format_to(text, sizeof(text), "socket:[%llu]", static_cast<unsigned long long>(stat_.inode));
  return String::from(text);
}

// --- waiting -------------------------------------------------------------------------------------------------------

namespace {

Result<void> as_result(sched::Wake wake, u64 deadline_ns) {
  if (wake == sched::Wake::woken) return {};
  return Error(wake == sched::Wake::timed_out ? EAGAIN : deadline_ns == time::kForever ? EINTR : kInterruptedForGood);
}

}  // namespace

Result<void> Socket::wait(sched::WaitQueue& queue, u32 message_flags, u64 deadline_ns) {
  if (!will_wait(message_flags)) return Error(EAGAIN);
  return as_result(queue.wait(deadline_ns), deadline_ns);
}

Result<void> Socket::wait_exclusive(sched::WaitQueue& queue, u64 deadline_ns) {
  if (nonblocking()) return Error(EAGAIN);
  return as_result(queue.wait_exclusive(deadline_ns), deadline_ns);
}

u64 Socket::deadline_of(u64 timeout_ns) { return timeout_ns == time::kForever ? timeout_ns : time::monotonic_ns() + timeout_ns; }

}  // namespace husk::vfs
