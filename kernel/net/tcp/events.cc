// What the owner sees: poll events as Linux gives them in each state, notifications, figures for TCP_INFO.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

void Connection::mark_ready() {
  if (!ListNode<ReadyTag>::is_linked() && state_ != State::closed) engine_.ready.push_back(this);
}

void Connection::notify_now() {
  notify_ = false;
  if (observer_ != nullptr) observer_->socket_changed(events());
}

u32 Connection::send_buffer() const {
  if (options_.send_buffer != 0) return std::min(options_.send_buffer, engine_.limits.send_buffer_max);
  u64 automatic = std::max<u64>(64 * kKiB, 2 * u64{window_.congestion});
  return static_cast<u32>(std::min<u64>(automatic, engine_.limits.send_buffer_max));
}

// A third of the buffer is free again: fewer wake-ups than at every byte.
bool Connection::writable() const {
  u32 buffer = send_buffer(), used = queue_.size();
  return used + buffer / 3 <= buffer && unsent_bytes() < options_.not_sent_low_water && !starved_;
}

void Connection::check_writable() {
  if (queue_.size() == 0) starved_ = false;
  if (!was_full_ || !writable()) return;
  was_full_ = false;
  notify_ = true;
  mark_ready();
}

void Connection::wake_if_starved() {
  if (!starved_) return;
  starved_ = false;
  was_full_ = false;
  notify_now();
}

u32 Connection::events() {
  if (state_ == State::listen) return listener_->accept_queue.empty() ? 0u : u32{kReadable};
  u32 result = error_ != 0 ? u32{kError} : 0u;
  if (shutdown_ == 3 || state_ == State::closed) result |= kHangUp;
  if ((shutdown_ & 1) != 0) result |= kReadable | kReadHangUp;
  if (state_ == State::syn_sent || state_ == State::syn_received) return result;
  if (!received_.empty()) result |= kReadable;
  if ((shutdown_ & 2) != 0 || state_ == State::closed || writable()) result |= kWritable;
  else was_full_ = true;  // whoever asked wants to hear
  return result;
}

bool Connection::sending_done() const {
  if (state_ == State::closed || state_ == State::fin_wait_2 || state_ == State::listen) return true;
  return fin_queued_ && send_.una == send_end();
}

size_t Connection::unsent_bytes() const { return queue_.end() > send_.nxt ? queue_.end() - send_.nxt : 0; }

Information Connection::information() const {
  Information result = {};
  result.state = state_;
  if (state_ == State::listen) {  // as Linux: the accept queue and its limit
    result.receive_queue = result.unacknowledged = listener_->waiting;
    result.send_queue = result.sacked = listener_->backlog;
    return result;
  }
  auto microseconds = [](u64 time_ns) { return static_cast<u32>(time_ns / 1000); };
  result.rto_us = microseconds(round_trip_.timeout());
  result.rtt_us = microseconds(round_trip_.smoothed());
  result.rtt_variation_us = microseconds(round_trip_.variation());
  result.mss_send = send_.mss;
  result.mss_receive = receive_.segment_estimate;
  u32 flight = send_.nxt - send_.una;
  result.unacknowledged = (flight + send_.mss - 1) / send_.mss;
  result.sacked = scoreboard_ != nullptr ? scoreboard_->sacked() / send_.mss : 0;
  result.lost = mode_ != Mode::open ? (flight - pipe()) / send_.mss - std::min(result.sacked, (flight - pipe()) / send_.mss) : 0;
  result.retransmitted = mode_ != Mode::open && retransmit_next_ > send_.una ? (retransmit_next_ - send_.una) / send_.mss : 0;
  result.congestion_window = window_.congestion / window_.mss;
  result.slow_start_threshold = window_.threshold == ~0u ? 0x7fffffff : window_.threshold / window_.mss;
  result.send_queue = queue_.size();
  result.receive_queue = received_.size();
  result.send_window = send_.window;
  result.receive_window = receive_.edge - receive_.nxt;
  result.window_scale_send = send_.scale;
  result.window_scale_receive = receive_.scale;
  result.retransmits = retransmits_;
  result.options = static_cast<u8>((timestamps_ ? 1 : 0) | (sack_ ? 2 : 0) | (send_.scale != 0 || receive_.scale != 0 ? 4 : 0));  // TCPI_OPT_*
  result.bytes_acknowledged = bytes_acknowledged_;
  result.bytes_received = bytes_received_;
  result.segments_in = segments_in_;
  result.segments_out = segments_out_;
  result.total_retransmits = total_retransmits_;
  return result;
}

}  // namespace husk::net::tcp
