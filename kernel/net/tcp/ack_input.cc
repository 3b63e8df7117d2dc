// Fifth step of RFC 9293 §3.10.7.4: what an acknowledgement changes. RFC 5681 (duplicates), RFC 2018 (SACK), RFC 6298 (measuring). Hot.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

bool Connection::process_ack(const Segment& segment, u64 now_ns) {
  if (state_ == State::syn_received && !check_ack_in_syn_received(segment, now_ns)) return false;
  // RFC 5961 §5.2: what lies outside of SND.UNA - MAX.SND.WND .. SND.NXT is challenged.
  if (segment.ack > send_.nxt || segment.ack < send_.una - send_.max_window) {
    challenge(now_ns);
    return false;
  }
  probes_ = 0;
  if (segment.ack < send_.una) return true;  // old
  u32 window_before = send_.window;
  update_send_window(segment);
  u32 newly_sacked = sack_ && segment.sack_count > 0 ? take_sack(segment) : 0;
  if (segment.ack > send_.una) acknowledged(segment, now_ns);
  else maybe_duplicate(segment, send_.window != window_before, newly_sacked, now_ns);
  if (state_ == State::closed) return false;
  if (fin_queued_ && send_.una == send_end()) fin_acknowledged();
  mark_ready();
  return state_ != State::closed;
}

bool Connection::check_ack_in_syn_received(const Segment& segment, u64 now_ns) {
  if (segment.ack <= send_.una || segment.ack > send_.nxt) {
    engine_.send_reset_for(flow, segment);
    return false;
  }
  bool finish = fin_queued_;
  become_established(segment, now_ns);
  send_.window = u32{segment.window} << send_.scale;
  send_.max_window = std::max(send_.max_window, send_.window);
  send_.wl1 = segment.seq;
  send_.wl2 = segment.ack;
  if (finish) state_ = State::fin_wait_1, --engine_.counters.current_established;
  return true;
}

void Connection::update_send_window(const Segment& segment) {
  bool newer = send_.wl1 < segment.seq || (send_.wl1 == segment.seq && send_.wl2 <= segment.ack);
  if (!newer) return;
  u32 window = u32{segment.window} << send_.scale;
  if (send_.window == 0 && window != 0) {
    retransmits_ = 0;
    if (send_.una == send_.nxt) deadlines_.retransmit = kNever;
  }
  send_.window = window;
  send_.max_window = std::max(send_.max_window, window);
  send_.wl1 = segment.seq;
  send_.wl2 = segment.ack;
}

// Gives how many bytes are newly known to have arrived. Blocks outside of what is in flight are ignored; so are reports of duplicates (RFC 2883).
u32 Connection::take_sack(const Segment& segment) {
  u32 gained = 0;
  for (u8 i = 0; i < segment.sack_count; ++i) {
    SackBlock block = segment.sack[i];
    if (block.end <= block.first || block.first < send_.una || block.first < segment.ack || block.end > send_.nxt) continue;
    if (scoreboard_ == nullptr) {
      auto made = make_owned<Scoreboard>();
      if (!made.ok()) return gained;
      scoreboard_ = made.release();
    }
    gained += scoreboard_->add(block);
  }
  return gained;
}

void Connection::acknowledged(const Segment& segment, u64 now_ns) {
  u32 bytes = segment.ack - send_.una, flight = send_.nxt - send_.una;
  bytes_acknowledged_ += bytes;
  send_.una = segment.ack;
  queue_.release(std::min(send_.una, queue_.end()));
  measure(segment, now_ns);
  retransmits_ = 0;
  soft_error_ = 0;
  if (scoreboard_ != nullptr) {
    scoreboard_->advance(send_.una);
    if (scoreboard_->empty()) scoreboard_.reset();
  }
  if (mode_ == Mode::open) {
    duplicate_acks_ = 0;
    if (send_.una > point_) point_ = send_.una - 1;  // numbers wrap: it stays close behind
    new_reno().acknowledged(window_, bytes, flight, now_ns);
    // Data above may have been reported meanwhile: enough of it is a loss.
    if (sack_says() && lost_end() > send_.una) enter_recovery(now_ns);
  } else {
    advance_recovery(bytes, flight, now_ns);
  }
  unanswered_since_ns_ = send_.una == send_.nxt ? 0 : now_ns;
  deadlines_.retransmit = send_.una == send_.nxt ? kNever : now_ns + round_trip_.timeout();  // RFC 6298 §5.2, §5.3
  check_writable();
}

// One segment per round trip is timed exactly; what was sent twice only tells by its timestamp (RFC 6298 §3, RFC 7323 §4.1).
void Connection::measure(const Segment& segment, u64 now_ns) {
  if (timing_ && segment.ack >= timed_) {
    round_trip_.sample(now_ns - timed_ns_);
    timing_ = false;
  } else if (retransmitted_ && timestamps_ && segment.has_timestamps && segment.timestamp_echo != 0) {
    u32 milliseconds = engine_.timestamp(timestamp_offset_) - segment.timestamp_echo;
    if (milliseconds < 120'000) round_trip_.sample(std::max<u64>(milliseconds, 1) * RoundTrip::kMilli);
  }
  if (eifel_armed_) {  // RFC 3522: an echo from before the retransmission: the timeout was spurious
    eifel_armed_ = false;
    if (timestamps_ && segment.has_timestamps && static_cast<i32>(segment.timestamp_echo - undo_timestamp_) < 0) {
      window_.congestion = std::max(window_.congestion, undo_congestion_);
      window_.threshold = undo_threshold_;
      mode_ = Mode::open;
      force_retransmit_ = false;
    }
  }
  retransmitted_ = false;
}

// RFC 5681 §2, RFC 6675 §2 (with SACK, news count).
void Connection::maybe_duplicate(const Segment& segment, bool window_changed, u32 newly_sacked, u64 now_ns) {
  if (send_.una == send_.nxt) return;
  bool duplicate = sack_ && segment.sack_count > 0 ? newly_sacked > 0 : segment.length() == 0 && !window_changed;
  if (!duplicate || mode_ == Mode::loss) return;
  ++duplicate_acks_;
  ++engine_.counters.duplicate_acks;
  if (mode_ == Mode::recovery) return;
  bool lost = sack_says() ? duplicate_acks_ >= Scoreboard::kDuplicateThreshold || lost_end() > send_.una
                          : duplicate_acks_ >= Scoreboard::kDuplicateThreshold && (send_.una > point_ || point_ == send_.iss + 1);
  if (lost) enter_recovery(now_ns);
}

void Connection::fin_acknowledged() {
  if (state_ == State::fin_wait_1) {
    state_ = State::fin_wait_2;
    if (orphan_) deadlines_.keep = engine_.lower.now_ns() + TimeWaits::kTime;
  } else if (state_ == State::closing) {
    enter_time_wait();
  } else if (state_ == State::last_ack) {
    become_closed(0);
  }
}

}  // namespace husk::net::tcp
