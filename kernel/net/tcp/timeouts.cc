// What happens when nothing happens: retransmission (RFC 6298), SYN, persist, keep-alive (RFC 9293 §3.8.3, §3.8.4, §3.8.6.1), FIN_WAIT_2; ICMP.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

namespace {
constexpr u8 kSynRetransmitsMax = 6, kRetransmitsMax = 15, kOrphanRetransmitsMax = 8;  // ip-sysctl: as Linux
}

void Connection::schedule() {
  u64 first = deadlines_.first();
  if (first < due_ns()) engine_.timers.set(*this, first);
}

void Connection::on_timer(u64 now_ns) {
  auto due = [&](u64& deadline) { return deadline <= now_ns && (deadline = kNever, true); };
  if (due(deadlines_.acknowledge) && ack_pending_) {
    interactive_ = false;  // the reply did not come in time
    ack_now_ = true;
    mark_ready();
  }
  if (due(deadlines_.cork)) {
    push_partial_ = true;
    mark_ready();
  }
  if (due(deadlines_.keep)) keep_timeout(now_ns);
  if (due(deadlines_.retransmit)) retransmit_timeout(now_ns);
  if (state_ != State::closed) schedule();
}

bool Connection::gives_up(u64 now_ns) const {
  if (options_.user_timeout_ms != 0 && unanswered_since_ns_ != 0)
    return now_ns - unanswered_since_ns_ >= u64{options_.user_timeout_ms} * RoundTrip::kMilli;
  return retransmits_ > (orphan_ ? kOrphanRetransmitsMax : kRetransmitsMax);
}

void Connection::retransmit_timeout(u64 now_ns) {
  if (state_ == State::syn_sent || state_ == State::syn_received) return syn_timeout(now_ns);
  if (send_.una == send_.nxt) return persist_timeout(now_ns);
  // A peer that has closed its window behind what was sent and answers is alive (RFC 9293 §3.8.6.1): the first time counts, no further one.
  bool waits = send_.window == 0 && !orphan_ && now_ns - last_received_ns_ <= RoundTrip::kMax;
  if (!waits || retransmits_ == 0) ++retransmits_;
  if (gives_up(now_ns)) return become_closed(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
  ++engine_.counters.timeouts;
  if (retransmits_ == 1 && mode_ != Mode::loss) {
    undo_congestion_ = window_.congestion;
    undo_threshold_ = window_.threshold;
    undo_timestamp_ = engine_.timestamp(timestamp_offset_);
    eifel_armed_ = mode_ == Mode::open;
    new_reno().lost(window_, send_.nxt - send_.una, now_ns);
  }
  find_black_hole();
  window_.congestion = send_.mss;
  mode_ = Mode::loss;
  point_ = send_.nxt;
  retransmit_next_ = send_.una;
  force_retransmit_ = true;
  duplicate_acks_ = 0;
  timing_ = false;
  // The peer has forgotten what it told (RFC 2018 §8).
  if (sack_says() && (scoreboard_->first() == send_.una || retransmits_ > 2)) scoreboard_.reset();
  round_trip_.back_off();
  deadlines_.retransmit = now_ns + round_trip_.timeout();
  mark_ready();
}

// RFC 4821 §7.7 in small: a path that swallows large segments and tells nobody.
void Connection::find_black_hole() {
  if (retransmits_ != 4 && retransmits_ != 7) return;
  bool v4 = flow.remote.address.is_v4();
  set_mtu(retransmits_ == 4 ? 1280 : v4 ? 576 : 1280);
}

bool Connection::set_mtu(u16 mtu) {
  mtu = std::max(mtu, flow.remote.address.is_v4() ? u16{552} : u16{1280});
  if (mtu >= mtu_) return false;
  mtu_ = mtu;
  u32 before = send_.mss;
  update_mss();
  window_.congestion = std::max(window_.congestion / before * send_.mss, u32{send_.mss});
  return true;
}

void Connection::syn_timeout(u64 now_ns) {
  if (++retransmits_ > kSynRetransmitsMax || gives_up(now_ns)) return become_closed(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
  ++engine_.counters.timeouts;
  ++engine_.counters.retransmitted;
  timing_ = false;
  round_trip_.back_off();
  send_syn(now_ns);
}

// The window is closed, or too small for what is left: asks, or sends what little fits.
void Connection::persist_timeout(u64 now_ns) {
  if (send_.nxt == send_end()) return;
  ++probes_;
  if (retransmits_ < 255) ++retransmits_;
  bool silent = now_ns - last_received_ns_ > 15 * 60 * RoundTrip::kSecond;
  bool given_up = options_.user_timeout_ms != 0 ? now_ns - last_received_ns_ >= u64{options_.user_timeout_ms} * RoundTrip::kMilli : silent;
  if ((probes_ > kRetransmitsMax && silent) || (given_up && probes_ > 1) || (orphan_ && retransmits_ > kOrphanRetransmitsMax))
    return become_closed(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
  if (send_.window > 0) {
    push_partial_ = true;
    mark_ready();
  } else {
    // DEVIATES: RFC 9293 §3.8.6.1 sends a byte of new data; an old number makes the peer answer as well, and nothing is in flight.
    emit(kAck, send_.una - 1, nullptr, 0);
  }
  deadlines_.retransmit = now_ns + round_trip_.probe_interval(retransmits_);
}

void Connection::arm_keep(u64 now_ns) {
  if (state_ == State::fin_wait_2 && orphan_) return;
  deadlines_.keep = options_.keep_alive ? now_ns + u64{options_.keep_idle_s} * RoundTrip::kSecond : kNever;
}

void Connection::keep_timeout(u64 now_ns) {
  if (state_ == State::fin_wait_2 && orphan_) return become_closed(0);
  if (!options_.keep_alive || !synchronised()) return;
  u64 idle = u64{options_.keep_idle_s} * RoundTrip::kSecond, silence = now_ns - last_received_ns_;
  if (silence < idle) {
    probes_ = 0;
    deadlines_.keep = last_received_ns_ + idle;
    return;
  }
  if (send_.una == send_.nxt) {  // else retransmission finds out
    bool late =
        options_.user_timeout_ms != 0 ? silence >= u64{options_.user_timeout_ms} * RoundTrip::kMilli && probes_ > 0 : probes_ >= options_.keep_count;
    if (late) {
      emit(kRst | kAck, send_.nxt, nullptr, 0);
      return become_closed(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
    }
    ++probes_;
    emit(kAck, send_.una - 1, nullptr, 0);
  }
  deadlines_.keep = now_ns + u64{options_.keep_interval_s} * RoundTrip::kSecond;
}

// RFC 5927 §4.1: only about what is in flight. Errors are hard only before the connection is there (RFC 9293 §3.9.2.2).
void Connection::network_error(SeqNum sequence, int error, u16 mtu) {
  if (sequence < send_.una || sequence >= send_.nxt) return;
  if (error == EMSGSIZE) {
    if (!synchronised() || !set_mtu(mtu)) return;
    // Sent again at once, with the window as it is: it is no sign of congestion.
    if (mode_ == Mode::open) mode_ = Mode::loss, point_ = send_.nxt;
    retransmit_next_ = send_.una;
    force_retransmit_ = true;
    timing_ = false;
    return mark_ready();
  }
  if (state_ == State::syn_sent || state_ == State::syn_received) return become_closed(error);
  soft_error_ = error;
}

}  // namespace husk::net::tcp
