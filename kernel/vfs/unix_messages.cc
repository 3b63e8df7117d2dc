// What goes through AF_UNIX sockets: bytes, datagrams and sequenced packets, with files (SCM_RIGHTS) and credentials. unix(7), recv(2), send(2).
#include <algorithm>

#include "kernel/vfs/unix_end.h"

namespace husk::vfs {

namespace {

constexpr size_t kPieceMax = 32 * kKiB;  // of a stream: one packet
constexpr u32 kPacketOverhead = 32;      // what Linux takes off SO_SNDBUF for the longest message

bool same(const SocketCredentials& a, const SocketCredentials& b) { return a.pid == b.pid && a.uid == b.uid && a.gid == b.gid; }

}  // namespace

// --- sending -------------------------------------------------------------------------------------------------------

// Until this socket may have more on its way.
Result<void> UnixSocket::wait_for_room(u32 message_flags, u64 deadline_ns) {
  for (;;) {
    if (end_->error != 0) return Error(std::exchange(end_->error, 0));
    if (end_->write_closed) return Error(EPIPE);
    if (end_->used < end_->send_limit) return {};
    TRY(wait(end_->queue, message_flags, deadline_ns));
  }
}

// One packet of `size` bytes into the queue of `to`.
Result<size_t> UnixSocket::deliver(SocketMessage& message, UnixEnd& to, size_t size) {
  UnixPacket* packet = UnixPacket::create(size);
  if (packet == nullptr) return Error(ENOMEM);
  Result<size_t> taken = size > 0 ? message.data->take(packet->bytes(), size) : size_t{0};
  if (!taken.ok() || (*taken < size && is_packets())) {
    UnixPacket::destroy(packet);
    return Error(taken.ok() ? EFAULT : taken.error().code());
  }
  packet->size = *taken;
  if (message.credentials != nullptr) packet->credentials = *message.credentials;
  else if (end_->wants_credentials || to.wants_credentials || !to.has_file) packet->credentials = environment_.credentials();
  if (message.files != nullptr) packet->files = std::move(*message.files);
  message.files = nullptr;
  to.add(packet, *end_);
  return *taken;
}

Result<size_t> UnixSocket::send_bytes(SocketMessage& message) {
  if (message.to != nullptr && message.to->size > 0) return Error(end_->state == UnixEnd::State::connected ? EISCONN : EOPNOTSUPP);
  if (!end_->peer) return Error(ENOTCONN);
  if (end_->write_closed) return Error(EPIPE);
  const u64 deadline_ns = deadline_of(send_timeout_ns);
  size_t total = 0;
  while (message.data->remaining() > 0) {
    Result<void> room = wait_for_room(message.flags, deadline_ns);
    if (!room.ok()) return total > 0 ? Result<size_t>(total) : room.error();
    if (end_->peer->dead || end_->peer->read_closed) return total > 0 ? Result<size_t>(total) : Error(EPIPE);
    size_t size = std::min(message.data->remaining(), kPieceMax);
    Result<size_t> sent = deliver(message, *end_->peer, size);
    if (!sent.ok()) return total > 0 ? Result<size_t>(total) : sent.error();
    total += *sent;
    if (*sent < size) break;
  }
  return total;
}

// Where a packet goes; a datagram socket forgets a peer that is gone.
Result<Ref<UnixEnd>> UnixSocket::destination(const SocketMessage& message) {
  if (type == kSocketDatagram && message.to != nullptr && message.to->size > 0) return find(TRY(unix_address(*message.to)));
  if (!end_->peer) return Error(ENOTCONN);
  if (!end_->peer->dead) return Ref<UnixEnd>(end_->peer);
  if (type == kSocketSequential) return Error(EPIPE);
  room_watcher_.unlink();
  end_->disconnect();
  return Error(ECONNREFUSED);
}

Result<size_t> UnixSocket::send_packet(SocketMessage& message) {
  const bool named = type == kSocketDatagram && message.to != nullptr && message.to->size > 0;
  if (type == kSocketSequential && end_->error != 0) return Error(std::exchange(end_->error, 0));
  if (type == kSocketSequential && end_->state != UnixEnd::State::connected) return Error(ENOTCONN);
  if (named) TRY(unix_address(*message.to));
  if (!named && !end_->peer) return Error(ENOTCONN);
  if (end_->wants_credentials) TRY(autobind());
  const size_t size = message.data->remaining();
  if (size > end_->send_limit - kPacketOverhead) return Error(EMSGSIZE);
  const u64 deadline_ns = deadline_of(send_timeout_ns);
  for (;;) {
    TRY(wait_for_room(message.flags, deadline_ns));
    Ref<UnixEnd> to = TRY(destination(message));
    if (to->refuses(*end_)) return Error(EPERM);
    if (to->read_closed) return Error(EPIPE);
    if (to != end_ && to->peer != end_ && to->is_full()) {
      if (to == end_->peer && !room_watcher_.is_linked()) to->room.add(&room_watcher_);  // an edge for epoll
      TRY(wait(to->room, message.flags, deadline_ns));
      continue;
    }
    return deliver(message, *to, size);
  }
}

Result<size_t> UnixSocket::send(SocketMessage& message) {
  if ((message.flags & kMessageOutOfBand) != 0) return Error(EOPNOTSUPP);
  return is_packets() ? send_packet(message) : send_bytes(message);
}

// --- receiving -----------------------------------------------------------------------------------------------------

void UnixSocket::give_ancillary(UnixPacket& packet, SocketMessage& message) {
  const bool peek = (message.flags & kMessagePeek) != 0;
  if (message.from != nullptr) *message.from = packet.from ? packet.from->address : SocketAddress();
  if (message.credentials != nullptr && end_->wants_credentials) {
    *message.credentials = packet.credentials;
    message.has_credentials = true;
  } else if (end_->wants_credentials) {
    message.flags |= kMessageControlTruncated;
  }
  if (packet.files.empty()) return;
  if (message.files == nullptr) message.flags |= kMessageControlTruncated;
  if (!peek && message.files != nullptr) *message.files = std::move(packet.files);
  if (!peek) packet.files.clear();
  if (!peek || message.files == nullptr) return;
  for (Ref<File>& file : packet.files) {
    if (!message.files->push_back(file).ok()) message.flags |= kMessageControlTruncated;
  }
}

// As many bytes as are there and fit; a message with files is the last of a call, and messages with different senders are not joined.
Result<size_t> UnixSocket::receive_bytes(SocketMessage& message) {
  if (end_->state != UnixEnd::State::connected) return Error(EINVAL);
  const bool peek = (message.flags & kMessagePeek) != 0;
  const size_t target = (message.flags & kMessageWaitAll) != 0 ? message.data->remaining() : 1;
  const u64 deadline_ns = deadline_of(receive_timeout_ns);
  size_t total = 0;
  SocketCredentials credentials;
  auto at = end_->packets.begin();  // where peeking is
  for (;;) {
    if (at == end_->packets.end()) {
      if (total >= target || (peek && total > 0)) return total;
      Result<void> waited = end_->error != 0 ? Error(std::exchange(end_->error, 0)) : Result<void>();
      if (waited.ok() && end_->read_closed) return total;
      if (waited.ok()) waited = wait(end_->queue, message.flags, deadline_ns);
      if (!waited.ok()) return total > 0 ? Result<size_t>(total) : waited.error();
      at = end_->packets.begin();
      continue;
    }
    UnixPacket& packet = *at;
    if (total > 0 && end_->wants_credentials && !same(credentials, packet.credentials)) return total;
    credentials = packet.credentials;
    Result<size_t> got = message.data->remaining() > 0 ? message.data->put(packet.bytes() + packet.taken, packet.left()) : size_t{0};
    if (!got.ok()) return total > 0 ? Result<size_t>(total) : got.error();
    const bool has_files = !packet.files.empty();
    if (total == 0 || has_files) give_ancillary(packet, message);
    message.from = total == 0 ? nullptr : message.from;
    total += *got;
    const bool whole = *got == packet.left();
    if (peek) {
      ++at;
    } else {
      packet.taken += *got;
      if (whole) end_->remove(packet);
      at = end_->packets.begin();
    }
    if (!whole || has_files || message.data->remaining() == 0) return total;
  }
}

// Waits for a packet; null at the end of what can come.
Result<UnixPacket*> UnixSocket::next_packet(u32 message_flags, u64 deadline_ns) {
  for (;;) {
    if (end_->error != 0) return Error(std::exchange(end_->error, 0));
    if (UnixPacket* packet = end_->packets.front()) return packet;
    // A datagram socket that was shut down still says EAGAIN if it does not wait.
    if (end_->read_closed && (will_wait(message_flags) || type == kSocketSequential)) return nullptr;
    TRY(wait(end_->queue, message_flags, deadline_ns));
  }
}

Result<size_t> UnixSocket::receive_packet(SocketMessage& message) {
  if (type == kSocketSequential && end_->state != UnixEnd::State::connected) return Error(ENOTCONN);
  UnixPacket* packet = TRY(next_packet(message.flags, deadline_of(receive_timeout_ns)));
  const u32 wishes = message.flags;
  message.flags &= ~u32{kMessageTruncated};
  if (packet == nullptr) return size_t{0};
  const size_t left = packet->left();
  size_t got = 0;
  if (message.data->remaining() > 0 && left > 0) got = TRY(message.data->put(packet->bytes(), left));
  if (got < left) message.flags |= kMessageTruncated;
  give_ancillary(*packet, message);
  if ((wishes & kMessagePeek) == 0) end_->remove(*packet);
  return (wishes & kMessageTruncated) != 0 ? left : got;
}

Result<size_t> UnixSocket::receive(SocketMessage& message) {
  const u32 wishes = message.flags;
  message.flags &= ~u32{kMessageControlTruncated | kMessageEndOfRecord};
  if (message.from != nullptr) message.from->size = 0;
  if ((wishes & kMessageOutOfBand) != 0) return Error(is_packets() ? EOPNOTSUPP : EINVAL);
  if (is_packets()) return receive_packet(message);
  Result<size_t> got = receive_bytes(message);
  message.flags &= ~u32{kMessageTruncated};
  return got;
}

}  // namespace husk::vfs
