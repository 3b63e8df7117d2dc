// A segment arrives: the steps of RFC 9293 §3.10.7.4 in their order, with RFC 7323 (PAWS) and RFC 5961 (blind attacks). Hot.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

struct Connection::Incoming {
  Segment segment;
  PacketPtr payload;
  u32 pieces;
  u64 now_ns;
};

namespace {
constexpr u64 kChallengeInterval = 500'000'000;
constexpr u32 kMinimum = 8 * kKiB;                           // taken although memory is full, if a connection holds nothing
constexpr u64 kPawsLimit = u64{24} * 86400 * 1'000'000'000;  // RFC 7323 §5.5
}  // namespace

void Connection::input(const Segment& segment, PacketPtr payload, u32 pieces) {
  u64 now = engine_.lower.now_ns();
  segments_in_ += pieces;
  if (input_predicted(segment, payload, pieces, now)) return;
  if (state_ == State::syn_sent) return input_syn_sent(segment, std::move(payload));
  Incoming in{segment, std::move(payload), pieces, now};
  if (!check_sequence(in) || !check_reset(in) || !check_syn(in)) return;
  if (!in.segment.has(kAck)) return;
  if (!process_ack(in.segment, now)) return;
  note_timestamp(in.segment, now);  // only now: a forged one would have all of the peer's segments dropped (RFC 5961 §5)
  last_received_ns_ = now;          // only now: what anybody can forge is no sign of the peer's life
  // Sixth step, urgent data. DEVIATES: they are ordinary data, in their place (RFC 6093 advises programs against more).
  if (in.segment.length() > 0) process_text(in);
  if (state_ == State::closed) return;
  if (receive_.has_fin && receive_.nxt == receive_.fin) process_fin();
  schedule();
}

// Header prediction: the next bytes, or an acknowledgement of new data, on an established connection where nothing is out of order.
bool Connection::input_predicted(const Segment& segment, PacketPtr& payload, u32 pieces, u64 now_ns) {
  bool expected = state_ == State::established && (segment.flags & ~kPsh) == kAck && segment.seq == receive_.nxt && segment.sack_count == 0 &&
                  mode_ == Mode::open && segment.has_timestamps == timestamps_ && reassembly_ == nullptr && !receive_.has_fin;
  if (!expected) return false;
  if (segment.ack < send_.una || segment.ack > send_.nxt || duplicate_acks_ != 0 || sack_says()) return false;
  if (segment.payload_size == 0 && segment.ack == send_.una) return false;
  if (segment.payload_size > receive_.edge - receive_.nxt || (segment.payload_size > 0 && engine_.memory.under_pressure())) return false;
  if (timestamps_) {
    if (static_cast<i32>(segment.timestamp_value - receive_.timestamp_recent) < 0) return false;
    note_timestamp(segment, now_ns);
  }
  last_received_ns_ = now_ns;
  update_send_window(segment);
  if (segment.ack != send_.una) acknowledged(segment, now_ns);
  if (segment.payload_size > 0) receive_in_order(std::move(payload), pieces);
  mark_ready();
  return true;
}

// First step. What is not acceptable is answered with an acknowledgement, unless it is a reset.
bool Connection::check_sequence(Incoming& in) {
  Segment& segment = in.segment;
  // A SYN that is repeated in the course of a simultaneous open: its acknowledgement counts.
  if (state_ == State::syn_received && segment.has(kSyn) && segment.seq == receive_.irs) {
    segment.flags = static_cast<u8>(segment.flags & ~kSyn);
    segment.seq += 1;
    ack_now_ = ack_pending_ = true;
    mark_ready();
  }
  if (!check_timestamps(in)) return false;
  u32 length = segment.length(), window = receive_.edge - receive_.nxt;
  SeqNum end = segment.seq + length;
  bool acceptable = length == 0 ? segment.seq >= receive_.nxt && segment.seq <= receive_.edge
                                : end > receive_.nxt && (segment.seq < receive_.edge || (window == 0 && segment.seq == receive_.nxt));
  if (acceptable) {
    trim_to_window(in);
    return true;
  }
  if (segment.has(kRst)) return false;
  if (segment.has(kSyn) || length == 0) {  // may be one side of an endless exchange: slowly
    challenge(in.now_ns);
    return false;
  }
  if (sack_ && segment.payload_size > 0 && end <= receive_.nxt) duplicate_ = {segment.seq, segment.seq + segment.payload_size};
  ack_now_ = ack_pending_ = true;
  mark_ready();
  return false;
}

// RFC 7323 §5.3.
bool Connection::check_timestamps(Incoming& in) {
  const Segment& segment = in.segment;
  if (!timestamps_ || segment.has(kRst)) return true;
  if (!segment.has_timestamps) return true;  // DEVIATES: RFC 7323 §3.2 lets us drop it; some middle boxes strip the option
  if (static_cast<i32>(segment.timestamp_value - receive_.timestamp_recent) >= 0) return true;
  if (in.now_ns - receive_.timestamp_recent_ns > kPawsLimit) return true;
  ++engine_.counters.paws_dropped;
  if (segment.length() > 0) {
    ack_now_ = ack_pending_ = true;
    mark_ready();
  } else {
    challenge(in.now_ns);
  }
  return false;
}

// Cuts what was received before and what is behind the window; a FIN that is cut off counts for nothing.
void Connection::trim_to_window(Incoming& in) {
  Segment& segment = in.segment;
  if (segment.seq < receive_.nxt && segment.length() > 0) {
    u32 old = receive_.nxt - segment.seq;
    if (segment.has(kSyn | kRst)) return;  // check_syn() and check_reset() see to it, by the number as it came
    if (sack_) duplicate_ = {segment.seq, segment.seq + std::min(old, segment.payload_size)};
    ack_now_ = ack_pending_ = true;
    old = std::min(old, segment.payload_size);
    if (in.payload != nullptr) in.payload->trim_front(old);
    segment.payload_size -= old;
    segment.seq = receive_.nxt;
  }
  u32 room = receive_.edge > segment.seq ? receive_.edge - segment.seq : 0;
  if (segment.payload_size <= room) return;
  if (in.payload != nullptr) in.payload->trim_back(segment.payload_size - room);
  segment.payload_size = room;
  segment.flags = static_cast<u8>(segment.flags & ~kFin);
  ack_now_ = ack_pending_ = true;
  mark_ready();
}

// Second step, RFC 5961 §3.2: only a reset that is exactly the next is believed.
bool Connection::check_reset(const Incoming& in) {
  if (!in.segment.has(kRst)) return true;
  if (in.segment.seq != receive_.nxt) {
    challenge(in.now_ns);
    return false;
  }
  if (state_ == State::established || state_ == State::close_wait) ++engine_.counters.estab_resets;
  bool over = state_ == State::closing || state_ == State::last_ack;
  become_closed(over ? 0 : state_ == State::close_wait ? EPIPE : state_ == State::syn_received ? ECONNREFUSED : ECONNRESET);
  return false;
}

// Fourth step, RFC 5961 §4.2.
bool Connection::check_syn(const Incoming& in) {
  if (!in.segment.has(kSyn)) return true;
  challenge(in.now_ns);
  return false;
}

// RFC 5961 §7: a challenge at most every half second for each connection; a counter shared by all would be a side channel.
void Connection::challenge(u64 now_ns) {
  if (challenge_ns_ != 0 && now_ns - challenge_ns_ < kChallengeInterval) return;
  challenge_ns_ = now_ns;
  ++engine_.counters.challenge_acks;
  send_ack();
}

// RFC 7323 §4.3.
void Connection::note_timestamp(const Segment& segment, u64 now_ns) {
  if (!timestamps_ || !segment.has_timestamps || segment.seq > receive_.last_ack_sent) return;
  if (static_cast<i32>(segment.timestamp_value - receive_.timestamp_recent) < 0 && now_ns - receive_.timestamp_recent_ns <= kPawsLimit) return;
  receive_.timestamp_recent = segment.timestamp_value;
  receive_.timestamp_recent_ns = now_ns;
}

// Seventh step, and the eighth as far as it notes where the FIN is.
void Connection::process_text(Incoming& in) {
  Segment& segment = in.segment;
  bool open = state_ == State::established || state_ == State::fin_wait_1 || state_ == State::fin_wait_2;
  if (!open) return;
  if (segment.payload_size > 0) {
    if (orphan_ || (state_ != State::established && (shutdown_ & 1) != 0)) {  // nobody will read it (RFC 1122 §4.2.2.13)
      error_ = ECONNRESET;
      return reset_peer();
    }
    u32 size = segment.payload_size;
    bool in_order = segment.seq == receive_.nxt, kept = has_memory_for(*in.payload, in_order);
    if (!kept && in_order && take_beginning(in)) return;
    if (kept && in_order) receive_in_order(std::move(in.payload), in.pieces);
    else if (kept) kept = receive_out_of_order(segment.seq, std::move(in.payload));
    if (!kept) {
      ack_now_ = ack_pending_ = true;
      mark_ready();
      return;
    }
    segment.seq += size;
  }
  if (!segment.has(kFin) || receive_.has_fin) return;
  receive_.fin = segment.seq;
  receive_.has_fin = true;
  ack_now_ = ack_pending_ = true;
  mark_ready();
}

bool Connection::has_memory_for(const packet::Packet& payload, bool in_order) const {
  u64 cost = payload.cost();
  return engine_.memory.room() >= cost || (in_order && received_.empty() && cost <= kMinimum && engine_.memory.has_minimum());
}

// Of a payload in order for which there is no memory (on the loopback it holds a large buffer of its sender): what fits into a small one.
bool Connection::take_beginning(Incoming& in) {
  if (!received_.empty() || !engine_.memory.has_minimum() || in.payload->cost() <= kMinimum) return false;
  u32 size = std::min(in.payload->size(), kMinimum / 2);
  auto buffer = packet::Buffer::create(size);
  auto packet = packet::Packet::create();
  if (!buffer.ok() || !packet.ok()) return false;
  in.payload->copy_out(0, (*buffer)->data(), size);
  if (!(*packet)->append({std::move(*buffer), 0, size}).ok()) return false;
  ack_now_ = true;
  receive_in_order(std::move(*packet), 1);
  return true;
}

void Connection::receive_in_order(PacketPtr payload, u32 pieces) {
  u32 size = payload->size();
  receive_.nxt += size;
  bytes_received_ += size;
  u32 each = pieces > 1 ? size / pieces : size;
  if (each > receive_.segment_estimate) receive_.segment_estimate = std::min<u32>(each, receive_.mss);
  received_.push_back(std::move(payload));
  if (reassembly_ != nullptr) {
    SeqNum before = receive_.nxt;
    reassembly_->drain(&receive_.nxt, received_);
    bytes_received_ += receive_.nxt - before;
    if (reassembly_->empty()) reassembly_.reset();
    ack_now_ = true;  // a gap was filled, at least in part (RFC 5681 §4.2)
  }
  ack_pending_ = notify_ = true;
  mark_ready();
}

bool Connection::receive_out_of_order(SeqNum first, PacketPtr payload) {
  ack_now_ = ack_pending_ = true;
  mark_ready();
  if (reassembly_ == nullptr) {
    auto made = make_owned<Reassembly>(engine_.memory);
    if (!made.ok()) return false;
    reassembly_ = made.release();
  }
  if (reassembly_->cost() > 2 * u64{receive_.limit} + 64 * kKiB || engine_.memory.under_pressure()) {
    if (reassembly_->empty()) reassembly_.reset();
    return false;
  }
  bool kept = reassembly_->insert(first, std::move(payload), &duplicate_);
  // One acknowledgement serves a batch of arrivals, unless it would have no room for a block: the peer would send again what is here.
  constexpr u32 kBlocksBesideDuplicate = 2;
  if (sack_ && reassembly_->unreported() >= kBlocksBesideDuplicate) send_ack();
  if (reassembly_->empty()) reassembly_.reset();
  return kept;
}

// Eighth step: the FIN is the next in order.
void Connection::process_fin() {
  if (receive_.nxt != receive_.fin) return;
  bool can = state_ == State::established || state_ == State::fin_wait_1 || state_ == State::fin_wait_2;
  if (!can) return;
  receive_.nxt += 1;
  receive_.edge = std::max(receive_.edge, receive_.nxt);
  shutdown_ |= 1;
  ack_now_ = ack_pending_ = notify_ = true;
  mark_ready();
  if (state_ == State::established) {
    state_ = State::close_wait;
  } else if (state_ == State::fin_wait_1) {
    state_ = State::closing;  // that our FIN is acknowledged has been seen to before
  } else {
    send_ack();
    enter_time_wait();
  }
}

void Connection::enter_time_wait() {
  Flow with = flow;
  engine_.flows.remove(*this);
  if (TimeWait* record = engine_.time_waits.add(with, *this)) {
    record->send_next = send_.nxt;
    record->receive_next = receive_.nxt;
    record->window = static_cast<u16>(std::min<u32>((receive_.edge - receive_.nxt) >> receive_.scale, 65535));
    record->timestamps = timestamps_;
    record->timestamp_recent = receive_.timestamp_recent;
    record->timestamp_offset = timestamp_offset_;
  }
  become_closed(0);
}

}  // namespace husk::net::tcp
