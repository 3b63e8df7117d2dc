// send and receive: the two places where bytes are copied. Hot.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

Result<void> Connection::check_writer() {
  if (error_ != 0) return Error(take_error());
  if (state_ == State::syn_sent || state_ == State::syn_received) return Error(EAGAIN);
  if ((state_ != State::established && state_ != State::close_wait) || (shutdown_ & 2) != 0) return Error(EPIPE);
  return {};
}

Result<size_t> Connection::send(vfs::IoBuffer& from, More more) {
  TRY(check_writer());
  u32 buffer = send_buffer(), used = queue_.size();
  u32 room = used < buffer ? buffer - used : 0;
  if (unsent_bytes() >= options_.not_sent_low_water) room = 0;
  bool wanted = from.remaining() > 0;
  size_t size = 0;
  if (room > 0 && wanted) {
    auto copied = queue_.append(from, room);
    if (!copied.ok() && copied.error() != Error(ENOMEM)) return copied.error();
    if (copied.ok()) size = *copied;
    else starved_ = engine_.starved = true;
  }
  if (from.remaining() > 0) was_full_ = true;
  if (size == 0 && wanted) return Error(EAGAIN);
  more_ = more == More::yes;
  mark_ready();
  return size;
}

Result<size_t> Connection::receive(vfs::IoBuffer& to, Peek peek) {
  if (state_ == State::listen) return Error(ENOTCONN);
  if (!received_.empty()) {
    if (to.remaining() == 0) return size_t{0};
    size_t got = TRY(received_.copy_out(to, peek == Peek::yes));
    if (peek == Peek::no) consumed(got);
    return got;
  }
  if (receive_.has_fin && receive_.nxt > receive_.fin) return size_t{0};
  if (error_ != 0) return Error(take_error());
  if ((shutdown_ & 1) != 0) return size_t{0};
  if (state_ == State::closed) return Error(ENOTCONN);
  return Error(EAGAIN);
}

Result<size_t> Connection::discard(size_t bytes) {
  if (received_.empty()) {
    vfs::IoBuffer nothing({}, vfs::IoBuffer::Memory::kernel);
    return receive(nothing, Peek::no);
  }
  size_t got = received_.drop(bytes);
  consumed(got);
  return got;
}

// The program has read: the window may have opened enough to tell, and may be worth widening.
void Connection::consumed(size_t bytes) {
  if (!synchronised() || (shutdown_ & 1) != 0) return;
  grow_receive_buffer(bytes, engine_.lower.now_ns());
  u32 announced = receive_.edge > receive_.nxt ? receive_.edge - receive_.nxt : 0;
  u32 room = std::min<u32>(receive_room(), 65535u << receive_.scale);
  if (room < 2 * u64{announced} || room < announced + std::min<u32>(std::min<u32>(receive_.limit, 65535u << receive_.scale) / 2, receive_.mss))
    return;
  ack_now_ = ack_pending_ = true;
  mark_ready();
}

// When the program has read a whole window within two round trips, the window is what limits the sender: it doubles.
void Connection::grow_receive_buffer(size_t bytes, u64 now_ns) {
  if (options_.receive_buffer != 0) return;
  u64 period = 2 * std::max(round_trip_.smoothed(), RoundTrip::kMilli);
  if (now_ns - receive_.copied_since_ns > period) {
    receive_.copied = 0;
    receive_.copied_since_ns = now_ns;
  }
  receive_.copied += static_cast<u32>(bytes);
  if (receive_.copied < receive_.limit || engine_.memory.under_pressure()) return;
  u64 most = std::min<u64>(engine_.limits.receive_buffer_max, engine_.memory.limit() / 4);
  receive_.limit = static_cast<u32>(std::max<u64>(receive_.limit, std::min<u64>(u64{receive_.limit} * 2, most)));
  receive_.copied = 0;
  receive_.copied_since_ns = now_ns;
}

}  // namespace husk::net::tcp
