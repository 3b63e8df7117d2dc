// getsockopt(2) and setsockopt(2): what every socket has is answered here, the rest by its family.
#include <asm/socket.h>

#include <algorithm>

#include "kernel/linux/sockets.h"
#include "kernel/linux/syscall.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

constexpr size_t kValueMax = 512;  // the longest values are lists of 64-bit numbers (TCP_INFO)

struct Value {
  alignas(8) u8 bytes[kValueMax];
  size_t size;
  template <typename T>
  void set(const T& value) {
    memcpy(bytes, &value, sizeof(value));
    size = sizeof(value);
  }
};

TimeVal as_time(u64 timeout_ns) {
  if (timeout_ns == time::kForever) return {0, 0};
  return {static_cast<i64>(timeout_ns / time::kNsPerSecond), static_cast<i64>(timeout_ns % time::kNsPerSecond / 1000)};
}

Result<u64> timeout_of(std::span<const u8> bytes) {
  TimeVal value;
  constexpr i64 kMicroseconds = 1'000'000, kSecondsMax = i64{1} << 32;
  if (bytes.size() < sizeof(value)) return Error(EINVAL);
  memcpy(&value, bytes.data(), sizeof(value));
  if (value.microseconds < 0 || value.microseconds >= kMicroseconds) return Error(EDOM);
  if (value.seconds < 0) return u64{0};
  if ((value.seconds == 0 && value.microseconds == 0) || value.seconds > kSecondsMax) return u64{time::kForever};
  return static_cast<u64>(value.seconds) * time::kNsPerSecond + static_cast<u64>(value.microseconds) * 1000;
}

u64* timeout_named(vfs::Socket& socket, int option) {
  switch (option) {
    case SO_RCVTIMEO_OLD:
    case SO_RCVTIMEO_NEW: return &socket.receive_timeout_ns;
    case SO_SNDTIMEO_OLD:
    case SO_SNDTIMEO_NEW: return &socket.send_timeout_ns;
    default: return nullptr;
  }
}

Result<void> get(vfs::Socket& socket, int level, int option, size_t room, Value& value) {
  if (level == SOL_SOCKET) {
    if (u64* timeout = timeout_named(socket, option)) {
      value.set(as_time(*timeout));
      return {};
    }
    switch (option) {
      case SO_TYPE: value.set(socket.type); return {};
      case SO_DOMAIN: value.set(socket.domain); return {};
      case SO_PROTOCOL: value.set(socket.protocol); return {};
      default: break;
    }
  }
  value.size = TRY(socket.get_option(level, option, {value.bytes, room}));
  return {};
}

}  // namespace

HUSK_SYSCALL(getsockopt, int fd, int level, int option, u64 out, mem::UserPtr<int> size_at) {
  auto socket = TRY(socket_of(fd));
  int room = TRY(mem::read_user(size_at));
  if (room < 0) return Error(EINVAL);
  Value value;
  TRY(get(*socket, level, option, std::min(static_cast<size_t>(room), kValueMax), value));
  size_t size = std::min({value.size, static_cast<size_t>(room), kValueMax});
  TRY(mem::copy_to_user(out, value.bytes, size));
  TRY(mem::write_user(size_at, static_cast<int>(size)));
  return 0;
}

HUSK_SYSCALL(setsockopt, int fd, int level, int option, u64 address, int size) {
  auto socket = TRY(socket_of(fd));
  if (size < 0) return Error(EINVAL);
  Value value;
  value.size = std::min(static_cast<size_t>(size), kValueMax);
  TRY(mem::copy_from_user(value.bytes, address, value.size));
  std::span<const u8> bytes(value.bytes, value.size);
  if (level == SOL_SOCKET) {
    if (bytes.size() < sizeof(int) && option != SO_BINDTODEVICE) return Error(EINVAL);
    if (u64* timeout = timeout_named(*socket, option)) {
      *timeout = TRY(timeout_of(bytes));
      return 0;
    }
    if (option == SO_TYPE || option == SO_DOMAIN || option == SO_PROTOCOL || option == SO_ERROR) return Error(ENOPROTOOPT);
  }
  TRY(socket->set_option(level, option, bytes));
  return 0;
}

}  // namespace husk::linux
