// What is lost and sent again: RFC 6675 with SACK, RFC 6582 (NewReno) without, and after a timeout.
//
// One pointer says how far retransmission has come (retransmit_next_, HighRxt + 1); SND.NXT never goes back. The modes differ only in what counts
// as lost.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

void Connection::enter_recovery(u64 now_ns) {
  ++engine_.counters.fast_retransmits;
  new_reno().lost(window_, send_.nxt - send_.una, now_ns);
  window_.congestion = window_.threshold;
  mode_ = Mode::recovery;
  point_ = send_.nxt;
  retransmit_next_ = send_.una;
  force_retransmit_ = true;
  timing_ = false;
  mark_ready();
}

// New data was acknowledged while in recovery or after a timeout.
void Connection::advance_recovery(u32 bytes, u32 flight_before, u64 now_ns) {
  if (send_.una >= point_) {
    if (mode_ == Mode::recovery && sack_) {
      window_.congestion = window_.threshold;
    } else if (mode_ == Mode::recovery) {  // RFC 6582 §3.2 step 3, (1): no burst
      u32 flight = send_.nxt - send_.una;
      window_.congestion = std::min(window_.threshold, std::max(flight, window_.mss) + window_.mss);
    } else {
      new_reno().acknowledged(window_, bytes, window_.congestion, now_ns);
    }
    mode_ = Mode::open;
    duplicate_acks_ = 0;
    force_retransmit_ = false;
    return;
  }
  if (mode_ == Mode::loss) return new_reno().acknowledged(window_, bytes, std::max(flight_before, window_.congestion), now_ns);
  // A partial acknowledgement: what follows it is lost as well.
  u32 segments = bytes / window_.mss;
  duplicate_acks_ -= std::min(duplicate_acks_, segments > 0 ? segments - 1 : 0);
  if (retransmit_next_ <= send_.una || !sack_) {
    retransmit_next_ = send_.una;
    force_retransmit_ = true;
  }
}

// What is below this, and not held by the peer, is taken for lost.
SeqNum Connection::lost_end() const {
  if (mode_ == Mode::loss) return point_;
  return sack_says() ? scoreboard_->lost_below(send_.una, send_.mss) : send_.una;
}

// RFC 6675 §4 SetPipe: what is still in the network, as far as we know.
u32 Connection::pipe() const {
  u32 flight = send_.nxt - send_.una;
  if (mode_ == Mode::open && !sack_says()) return flight - std::min(flight, duplicate_acks_ * send_.mss);
  SeqNum from = std::max(send_.una, retransmit_next_), end = lost_end();
  if (mode_ == Mode::open) from = end;
  if (sack_says()) return scoreboard_->missing(send_.una, send_.nxt) - scoreboard_->missing(from, end);
  u32 gone = mode_ == Mode::recovery ? std::min(flight, duplicate_acks_ * send_.mss) : 0;
  return flight - gone - (end > from ? std::min(end - from, flight - gone) : 0);
}

// RFC 6675 §4 NextSeg, rules 1 and 3; empty: nothing.
SackBlock Connection::next_retransmission() const {
  SeqNum from = std::max(send_.una, retransmit_next_), end = lost_end();
  if (force_retransmit_) end = std::max(end, std::min(from + send_.mss, send_.nxt));
  bool nothing_new = send_.nxt == send_end();
  if (mode_ == Mode::recovery && sack_says() && nothing_new) end = std::max(end, scoreboard_->highest());
  if (end <= from) return {from, from};
  return scoreboard_ != nullptr ? scoreboard_->gap(from, end) : SackBlock{from, end};
}

// False: the window is full.
bool Connection::send_retransmissions(u64 now_ns) {
  while (mode_ != Mode::open) {
    SackBlock hole = next_retransmission();
    if (hole.end <= hole.first) return true;
    if (!force_retransmit_ && pipe() + send_.mss > std::max<u32>(window_.congestion, send_.mss)) return false;
    u32 size = std::min<u32>(hole.end - hole.first, send_.mss);
    if (!transmit(hole.first, size, now_ns)) return false;
    retransmit_next_ = hole.first + size;
    force_retransmit_ = false;
  }
  return true;
}

}  // namespace husk::net::tcp
