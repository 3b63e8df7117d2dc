// What may be sent, and the making of segments: Nagle (RFC 896), silly windows (RFC 9293 §3.8.6.2), acknowledgements (§3.8.6.3). Hot.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

namespace {
constexpr u64 kAckDelay = 40'000'000;    // RFC 1122 §4.2.3.2 allows 500 ms
constexpr u64 kCorkDelay = 200'000'000;  // tcp(7): TCP_CORK
}  // namespace

void Connection::run(u64 now_ns) {
  if (synchronised()) {
    // RFC 5681 §4.2: by itself, because a full segment of data is no duplicate for the peer and has no room for SACK blocks.
    if (ack_now_ && reassembly_ != nullptr) send_ack();
    if (send_retransmissions(now_ns)) send_new_data(now_ns);
    if (ack_pending_) acknowledge(now_ns);
    schedule();
  }
  if (notify_) notify_now();
}

// RFC 5681 §4.1.
void Connection::restart_after_idle(u64 now_ns) {
  if (send_.una != send_.nxt || now_ns - last_sent_ns_ <= round_trip_.timeout()) return;
  window_.congestion = std::min(window_.congestion, initial_window(send_.mss));
}

void Connection::send_new_data(u64 now_ns) {
  if (send_.nxt == send_end()) return;
  restart_after_idle(now_ns);
  while (send_.nxt != send_end()) {
    SeqNum right = send_.una + send_.window;
    u32 in_flight = pipe();
    u32 window_room = right > send_.nxt ? right - send_.nxt : 0;
    u32 congestion_room = window_.congestion > in_flight ? window_.congestion - in_flight : 0;
    u32 available = queue_.end() > send_.nxt ? queue_.end() - send_.nxt : 0;
    u32 size = sendable(available, std::min(window_room, congestion_room));
    bool last = size == available && fin_queued_ && window_room > size;  // the FIN takes a number, too
    if (size == 0 && !last) {
      u32 wanted = available + (fin_queued_ ? 1 : 0);
      bool blocked_by_window = congestion_room >= send_.mss && window_room < wanted && window_room < send_.mss;
      if (send_.una == send_.nxt && blocked_by_window && deadlines_.retransmit == kNever)
        deadlines_.retransmit = now_ns + round_trip_.probe_interval(retransmits_);  // persist
      if ((options_.cork || more_) && deadlines_.cork == kNever) deadlines_.cork = now_ns + kCorkDelay;
      return;
    }
    if (transmit(send_.nxt, size + (last ? 1 : 0), now_ns)) continue;
    if (deadlines_.retransmit == kNever) deadlines_.retransmit = now_ns + round_trip_.timeout();  // no memory: later
    return;
  }
}

// How much of what is available may go now: whole segments, or a smaller rest where nothing speaks against it.
u32 Connection::sendable(u32 available, u32 room) const {
  u32 most = std::max<u32>(segmentation_max_ / send_.mss * send_.mss, send_.mss);
  u32 size = std::min({available, room, most});
  if (size == 0) return 0;
  u32 whole = size / send_.mss * send_.mss;
  if (whole == size) return size;
  if (size < available) {  // cut by a window or by `most`
    if (whole > 0) return whole;
    return size >= send_.max_window / 2 || push_partial_ ? size : 0;
  }
  return may_send_partial(size) ? size : whole;
}

// Everything that is left is less than a segment (or its end is): Nagle in Minshall's form, cork, MSG_MORE.
bool Connection::may_send_partial(u32 size) const {
  if (fin_queued_ || push_partial_) return true;
  if (options_.cork || more_) return false;
  if (options_.no_delay) return true;
  bool small_in_flight = send_.small_end > send_.una && send_.small_end <= send_.nxt;
  return !small_in_flight || size >= send_.mss;
}

// Sends [from, from + size) of the stream; the FIN is the number behind the last byte. False: no memory.
bool Connection::transmit(SeqNum from, u32 size, u64 now_ns) {
  bool fin = fin_queued_ && from + size == send_end();
  u32 bytes = size - (fin ? 1 : 0);
  PacketPtr payload;
  if (bytes > 0) {
    u32 fits = queue_.fits_packet(from, bytes);
    if (fits < bytes) {
      bytes = fits > send_.mss ? fits / send_.mss * send_.mss : fits;
      fin = false;
    }
    auto made = queue_.packet(from, bytes);
    if (!made.ok()) return false;
    payload = made.release();
  }
  size = bytes + (fin ? 1 : 0);
  SeqNum end = from + size;
  bool again = from < send_.nxt;
  u8 flags = kAck;
  if (fin) flags |= kFin;
  if (from + bytes == queue_.end() && bytes > 0) flags |= kPsh;
  if (again) {
    u32 segments = (bytes + send_.mss - 1) / send_.mss;
    engine_.counters.retransmitted += std::max(segments, 1u);
    total_retransmits_ += std::max(segments, 1u);
    retransmitted_ = true;
    if (timing_ && from < timed_) timing_ = false;  // Karn
  } else {
    if (send_.nxt == send_.una) deadlines_.retransmit = kNever;  // it was for a closed window, or for memory
    if (!timing_ && send_.nxt == send_.una) unanswered_since_ns_ = now_ns;
    if (!timing_) timing_ = true, timed_ = end, timed_ns_ = now_ns;
    if (bytes % send_.mss != 0) send_.small_end = end;
    // A reply to what has just come: from now on acknowledgements wait for replies.
    if (ack_pending_ && bytes > 0) interactive_ = true;
    send_.nxt = end;
    push_partial_ = false;
    deadlines_.cork = kNever;
  }
  if (deadlines_.retransmit == kNever) deadlines_.retransmit = now_ns + round_trip_.timeout();
  last_sent_ns_ = now_ns;
  emit(flags, from, std::move(payload), bytes > send_.mss ? send_.mss : 0);
  return true;
}

void Connection::emit(u8 flags, SeqNum sequence, PacketPtr payload, u16 segment_size) {
  Segment out;
  out.seq = sequence;
  out.flags = flags;
  out.ack = receive_.nxt;
  out.payload_size = payload != nullptr ? payload->size() : 0;
  out.window = window_to_announce();
  if (timestamps_) {
    out.has_timestamps = true;
    out.timestamp_value = engine_.timestamp(timestamp_offset_);
    out.timestamp_echo = receive_.timestamp_recent;
  }
  if (sack_ && (reassembly_ != nullptr || duplicate_.first != duplicate_.end)) {
    u8 most = timestamps_ ? 3 : 4;
    if (duplicate_.first != duplicate_.end) out.sack[out.sack_count++] = duplicate_;
    duplicate_ = {};
    if (reassembly_ != nullptr)
      out.sack_count = static_cast<u8>(out.sack_count + reassembly_->report(out.sack + out.sack_count, static_cast<u8>(most - out.sack_count)));
  }
  receive_.last_ack_sent = receive_.nxt;
  ack_pending_ = ack_now_ = false;
  deadlines_.acknowledge = kNever;
  segments_out_ += segment_size != 0 ? (out.payload_size + segment_size - 1) / segment_size : 1;
  engine_.send(flow, out, std::move(payload), segment_size, options_.traffic_class, options_.hop_limit);
}

// RFC 1122 §4.2.3.2, RFC 5681 §4.2: at least every second full segment (merged ones count), at once when something is missing.
void Connection::acknowledge(u64 now_ns) {
  bool quick = options_.quick_ack && !interactive_ && quick_acks_left_ > 0;
  if (ack_now_ || quick || receive_.nxt - receive_.last_ack_sent >= 2 * receive_.segment_estimate) {
    if (quick) --quick_acks_left_;
    return send_ack();
  }
  if (deadlines_.acknowledge == kNever) deadlines_.acknowledge = now_ns + kAckDelay;
}

u32 Connection::receive_room() const {
  u32 used = received_.size();
  u32 room = receive_.limit > used ? receive_.limit - used : 0;
  if (received_.cost() > 2 * u64{receive_.limit} + 64 * kKiB) return 0;
  u64 all = engine_.memory.room();
  if (engine_.memory.under_pressure()) all /= 16;
  if (used == 0 && all < 2u * receive_.mss && engine_.memory.has_minimum()) all = 2u * receive_.mss;
  return static_cast<u32>(std::min<u64>(room, all));
}

// The window field, and where the window then ends. The right end moves only by a good piece (RFC 9293 §3.8.6.2.2) and never back.
u16 Connection::window_to_announce() {
  u32 current = receive_.edge > receive_.nxt ? receive_.edge - receive_.nxt : 0;
  u32 room = std::min<u32>(receive_room(), 65535u << receive_.scale);
  if (room >= current + std::min<u32>(std::min<u32>(receive_.limit, 65535u << receive_.scale) / 2, receive_.mss)) current = room;
  u32 field = std::min<u32>(current >> receive_.scale, 65535);
  SeqNum edge = receive_.nxt + (field << receive_.scale);
  receive_.edge = std::max(receive_.edge, edge);
  return static_cast<u16>(field);
}

}  // namespace husk::net::tcp
