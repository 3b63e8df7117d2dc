// AF_UNIX sockets as files: names, connections, options, readiness. unix(7), with Linux's order of errors. Messages are in unix_messages.cc.
#undef linux
#include <asm/ioctls.h>
#include <asm/socket.h>
#include <linux/sockios.h>

#include <algorithm>

#include "base/format.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/open_flags.h"
#include "kernel/vfs/unix_end.h"

namespace husk::vfs {

UnixSocket::UnixSocket(UnixEnvironment& environment, Ref<UnixEnd> end, int socket_protocol, u32 file_flags)
    : Socket(kUnixFamily, end->type, socket_protocol, file_flags), environment_(environment), end_(std::move(end)), room_watcher_(*end_) {
  end_->has_file = true;
}

UnixSocket::~UnixSocket() {
  room_watcher_.unlink();
  end_->release(false);
}

// --- names ---------------------------------------------------------------------------------------------------------

namespace {

SocketAddress address_of(const UnixEnd& end) {
  if (end.name) return end.name->address;
  SocketAddress unnamed;
  unnamed.bytes[0] = kUnixFamily;
  unnamed.size = kUnixPathOffset;
  return unnamed;
}

Result<void> take_name(UnixEnd& end, const SocketAddress& address, Ref<Inode> inode) {
  Ref<UnixName> name = TRY(make_ref<UnixName>());
  name->address = address;
  name->inode = std::move(inode);
  end.name = std::move(name);
  add_bound(end);
  return {};
}

}  // namespace

// An abstract name of five hexadecimal digits.
Result<void> UnixSocket::autobind() {
  if (end_->name) return {};
  static constinit u32 next = 0;
  constexpr u32 kNames = 1 << 20;
  SocketAddress address;
  address.bytes[0] = kUnixFamily;
  address.size = kUnixPathOffset + 6;
  for (u32 tries = 0; tries < kNames; ++tries) {
    char digits[6];
    format_to(digits, sizeof(digits), "%05x", next++ % kNames);
    memcpy(address.bytes + kUnixPathOffset + 1, digits, 5);
    if (find_bound(address, type) == nullptr) return take_name(*end_, address, nullptr);
  }
  return Error(ENOSPC);
}

Result<void> UnixSocket::bind(const SocketAddress& given) {
  if (given.size == kUnixPathOffset && given.family() == kUnixFamily) return autobind();
  SocketAddress address = TRY(unix_address(given));
  if (is_abstract(address)) {
    if (end_->name) return Error(EINVAL);
    if (find_bound(address, type) != nullptr) return Error(EADDRINUSE);
    return take_name(*end_, address, nullptr);
  }
  if (end_->name) return Error(environment_.find_node(path_of(address)).ok() ? EADDRINUSE : EINVAL);
  Result<Ref<Inode>> made = environment_.make_node(path_of(address));
  if (!made.ok()) return Error(made.error().code() == EEXIST ? EADDRINUSE : made.error().code());
  return take_name(*end_, address, made.release());
}

// Who has this name; of the same type.
Result<Ref<UnixEnd>> UnixSocket::find(const SocketAddress& address) {
  UnixEnd* found;
  if (is_abstract(address)) {
    found = find_bound(address, type);
  } else {
    Ref<Inode> inode = TRY(environment_.find_node(path_of(address)));
    found = find_bound(*inode);
  }
  if (found == nullptr) return Error(ECONNREFUSED);
  if (found->type != type) return Error(EPROTOTYPE);
  return Ref<UnixEnd>::share(found);
}

Result<SocketAddress> UnixSocket::name() { return address_of(*end_); }

Result<SocketAddress> UnixSocket::peer_name() {
  if (!end_->peer) return Error(ENOTCONN);
  return address_of(*end_->peer);
}

// --- connections ---------------------------------------------------------------------------------------------------

Result<void> UnixSocket::listen(int backlog) {
  if (type == kSocketDatagram) return Error(EOPNOTSUPP);
  if (!end_->name || end_->state == UnixEnd::State::connected) return Error(EINVAL);
  end_->backlog = static_cast<u32>(backlog);
  end_->state = UnixEnd::State::listening;
  end_->peer_credentials = environment_.credentials();
  end_->room.wake_all(kOut);
  return {};
}

Result<Ref<Socket>> UnixSocket::accept(SocketAddress* peer, u32 file_flags) {
  if (type == kSocketDatagram) return Error(EOPNOTSUPP);
  if (end_->state != UnixEnd::State::listening) return Error(EINVAL);
  const u64 deadline_ns = deadline_of(receive_timeout_ns);
  while (end_->embryos.empty()) {
    if (end_->read_closed) return Error(EINVAL);
    TRY(wait_exclusive(end_->queue, deadline_ns));
  }
  Ref<UnixEnd> accepted = Ref<UnixEnd>::share(end_->embryos.front());
  Ref<UnixSocket> file = TRY(make_ref<UnixSocket>(environment_, accepted, protocol, file_flags));
  end_->embryos.pop_front()->unref();
  --end_->embryo_count;
  end_->room.wake_all(kOut);
  if (peer != nullptr) *peer = accepted->peer ? address_of(*accepted->peer) : SocketAddress();
  return Ref<Socket>(std::move(file));
}

Result<void> UnixSocket::connect_datagram(const SocketAddress& given) {
  constexpr u16 kNoFamily = 0;  // AF_UNSPEC
  if (given.size < sizeof(u16)) return Error(EINVAL);
  room_watcher_.unlink();
  if (given.family() == kNoFamily) {
    end_->disconnect();
    return {};
  }
  SocketAddress address = TRY(unix_address(given));
  if (end_->wants_credentials) TRY(autobind());
  Ref<UnixEnd> other = TRY(find(address));
  if (other->refuses(*end_)) return Error(EPERM);
  if (end_->peer && end_->peer != other) end_->disconnect();
  end_->peer = std::move(other);
  end_->state = UnixEnd::State::connected;
  return {};
}

Result<void> UnixSocket::connect(const SocketAddress& given) {
  if (type == kSocketDatagram) return connect_datagram(given);
  SocketAddress address = TRY(unix_address(given));
  if (end_->wants_credentials) TRY(autobind());
  const u64 deadline_ns = deadline_of(send_timeout_ns);
  Ref<UnixEnd> fresh = TRY(make_ref<UnixEnd>(type));
  for (;;) {
    Ref<UnixEnd> other = TRY(find(address));
    if (other->state != UnixEnd::State::listening || other->read_closed) return Error(ECONNREFUSED);
    if (other->embryo_count > other->backlog) {
      TRY(wait(other->room, 0, deadline_ns));
      continue;
    }
    if (end_->state != UnixEnd::State::closed) return Error(end_->state == UnixEnd::State::connected ? EISCONN : EINVAL);
    fresh->name = other->name;
    fresh->wants_credentials = other->wants_credentials;
    fresh->peer_credentials = environment_.credentials();
    end_->peer_credentials = other->peer_credentials;
    UnixEnd::connect(end_, fresh);
    other->embryos.push_back(fresh.leak());
    ++other->embryo_count;
    other->queue.wake_one(kIn);
    return {};
  }
}

Result<void> UnixSocket::shutdown(int how) {
  if (how < 0 || how > 2) return Error(EINVAL);
  const bool reading = how != 1, writing = how != 0;
  end_->read_closed |= reading;
  end_->write_closed |= writing;
  end_->changed();
  if (type == kSocketDatagram || !end_->peer) return {};
  end_->peer->read_closed |= writing;
  end_->peer->write_closed |= reading;
  end_->peer->changed();
  return {};
}

u32 UnixSocket::poll_events() {
  UnixEnd& end = *end_;
  u32 events = 0;
  if (end.error != 0) events |= kErr;
  if (end.read_closed) events |= kIn | kReadHup;
  if (!end.packets.empty() || !end.embryos.empty()) events |= kIn;
  if (end.read_closed && end.write_closed) events |= kHup;
  if (type != kSocketDatagram && end.state == UnixEnd::State::closed) events |= kHup;
  if (!end.writable()) return events;
  if (is_packets() && end.peer && !end.peer->dead && end.peer->peer != end_ && end.peer->is_full()) {
    if (!room_watcher_.is_linked()) end.peer->room.add(&room_watcher_);
    return events;
  }
  return events | kOut;
}

// --- options -------------------------------------------------------------------------------------------------------

namespace {

template <typename T>
size_t give(const T& value, std::span<u8> out) {
  memcpy(out.data(), &value, std::min(sizeof(value), out.size()));
  return sizeof(value);
}

// Flags that are kept and do nothing here: bits of options_.
constexpr u8 kPlainFlags[] = {SO_REUSEADDR, SO_KEEPALIVE, SO_BROADCAST, SO_DONTROUTE, SO_OOBINLINE, SO_DEBUG, SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD};

u32 flag_of(int option) {
  for (size_t i = 0; i < std::size(kPlainFlags); ++i) {
    if (kPlainFlags[i] == option) return 1u << i;
  }
  return 0;
}

constexpr u32 kLimitMax = 212992, kSendLimitMin = 4608, kReceiveLimitMin = 2304;

// SO_SNDBUF and SO_RCVBUF are doubled, for what the packets cost besides their bytes.
u32 buffer_limit(int wanted, u32 minimum, bool forced) {
  u32 bytes = wanted < 0 ? 0 : static_cast<u32>(wanted);
  bytes = std::min(bytes, forced ? 0x3fffffffu : kLimitMax);
  return std::max(2 * bytes, minimum);
}

}  // namespace

Result<size_t> UnixSocket::get_option(int level, int option, std::span<u8> out) {
  if (level != SOL_SOCKET) return Error(EOPNOTSUPP);
  if (u32 flag = flag_of(option)) return give(int{(options_ & flag) != 0}, out);
  switch (option) {
    case SO_ERROR: return give(std::exchange(end_->error, 0), out);
    case SO_ACCEPTCONN: return give(int{end_->state == UnixEnd::State::listening}, out);
    case SO_PASSCRED: return give(int{end_->wants_credentials}, out);
    case SO_PEERCRED: return give(end_->peer_credentials, out);
    case SO_SNDBUF: return give(static_cast<u32>(end_->send_limit), out);
    case SO_RCVBUF: return give(receive_limit_, out);
    case SO_RCVLOWAT:
    case SO_SNDLOWAT: return give(1, out);
    case SO_PRIORITY:
    case SO_MARK:
    case SO_REUSEPORT: return give(0, out);
    case SO_LINGER: return give(u64{0}, out);
    default: return Error(ENOPROTOOPT);
  }
}

Result<void> UnixSocket::set_option(int level, int option, std::span<const u8> value) {
  if (level != SOL_SOCKET) return Error(EOPNOTSUPP);
  int number;
  if (value.size() < sizeof(number)) return Error(EINVAL);
  memcpy(&number, value.data(), sizeof(number));
  if (u32 flag = flag_of(option)) {
    options_ = number != 0 ? options_ | flag : options_ & ~flag;
    return {};
  }
  switch (option) {
    case SO_PASSCRED: end_->wants_credentials = number != 0; return {};
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
      end_->send_limit = buffer_limit(number, kSendLimitMin, option == SO_SNDBUFFORCE);
      if (end_->writable()) end_->queue.wake_all(kOut);
      return {};
    case SO_RCVBUF:
    case SO_RCVBUFFORCE: receive_limit_ = buffer_limit(number, kReceiveLimitMin, option == SO_RCVBUFFORCE); return {};
    case SO_PRIORITY:
    case SO_MARK: return {};
    case SO_LINGER: return value.size() < 8 ? Error(EINVAL) : Result<void>();
    default: return Error(ENOPROTOOPT);
  }
}

Result<i64> UnixSocket::socket_ioctl(u32 request, u64 argument) {
  if (request != SIOCOUTQ) return environment_.ioctl(request, argument);
  if (end_->state == UnixEnd::State::listening) return Error(EINVAL);
  TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(end_->used)));
  return 0;
}

Result<size_t> UnixSocket::bytes_available() {
  if (end_->state == UnixEnd::State::listening) return Error(EINVAL);
  if (type == kSocketDatagram) return end_->packets.empty() ? size_t{0} : end_->packets.front()->left();
  size_t sum = 0;
  for (UnixPacket& packet : end_->packets) sum += packet.left();
  return sum;
}

// --- makers --------------------------------------------------------------------------------------------------------

namespace {

Result<Ref<UnixSocket>> make(UnixEnvironment& environment, int type, int protocol, u32 file_flags) {
  constexpr int kRaw = 3;  // SOCK_RAW: BSD has it
  if (protocol != 0 && protocol != static_cast<int>(kUnixFamily)) return Error(EPROTONOSUPPORT);
  if (type == kRaw) type = kSocketDatagram;
  if (type != kSocketStream && type != kSocketDatagram && type != kSocketSequential) return Error(ESOCKTNOSUPPORT);
  Ref<UnixEnd> end = TRY(make_ref<UnixEnd>(type));
  return make_ref<UnixSocket>(environment, std::move(end), 0, file_flags);
}

}  // namespace

Result<Ref<Socket>> make_unix_socket(UnixEnvironment& environment, int type, int protocol, u32 file_flags) {
  return Ref<Socket>(TRY(make(environment, type, protocol, file_flags)));
}

Result<FilePair> make_unix_pair(UnixEnvironment& environment, int type, int protocol, u32 file_flags) {
  Ref<UnixSocket> first = TRY(make(environment, type, protocol, file_flags));
  Ref<UnixSocket> second = TRY(make(environment, type, protocol, file_flags));
  UnixEnd::connect(first->end_ref(), second->end_ref());
  first->end().peer_credentials = second->end().peer_credentials = environment.credentials();
  return FilePair{std::move(first), std::move(second)};
}

}  // namespace husk::vfs
