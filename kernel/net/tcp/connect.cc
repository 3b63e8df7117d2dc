// From SYN to ESTABLISHED on the active side (RFC 9293 §3.10.7.3), and what both sides agree upon.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

u8 Connection::scale_for_buffer() const {
  u32 most = options_.receive_buffer != 0 ? std::min(options_.receive_buffer, engine_.limits.receive_buffer_max) : engine_.limits.receive_buffer_max;
  u8 scale = 0;
  while (scale < 14 && (u64{65535} << scale) < most) ++scale;
  return scale;
}

void Connection::apply_route(const Lower::Route& route) {
  mtu_ = route.mtu;
  segmentation_max_ = route.segmentation_max;
  u32 headers = flow.remote.address.is_v4() ? 40 : 60;
  receive_.mss = static_cast<u16>(std::max(mtu_, u16{576}) - headers);
  if (options_.maximum_segment != 0) receive_.mss = std::min(receive_.mss, options_.maximum_segment);
}

// RFC 9293 §3.7.1, RFC 6691: options come off the MSS.
void Connection::update_mss() {
  u32 headers = flow.remote.address.is_v4() ? 40 : 60;
  u32 mss = std::min<u32>(send_.peer_mss, mtu_ - headers);
  if (options_.maximum_segment != 0) mss = std::min<u32>(mss, options_.maximum_segment);
  if (timestamps_) mss -= std::min(mss, 12u);
  send_.mss = static_cast<u16>(std::max<u32>(mss, 64));
  window_.mss = send_.mss;
}

void Connection::start_windows() {
  if (options_.receive_buffer != 0) receive_.limit = std::min(options_.receive_buffer, engine_.limits.receive_buffer_max);
  receive_.limit = std::min(receive_.limit, engine_.limits.receive_buffer_max);
}

void Connection::start_syn_sent(const Lower::Route& route, u64 now_ns) {
  // What an earlier connection of this socket has left and the handshake does not settle anew.
  receive_.has_fin = false;
  round_trip_ = {};
  window_ = {};
  mode_ = Mode::open;
  ack_pending_ = ack_now_ = false;
  apply_route(route);
  start_windows();
  send_.iss = engine_.secrets.initial_sequence(flow, now_ns);
  send_.una = send_.nxt = point_ = send_.small_end = send_.iss;
  timestamp_offset_ = engine_.secrets.timestamp_offset(flow);
  receive_.scale = scale_for_buffer();
  queue_.start(send_.iss + 1);
  fin_queued_ = false;
  shutdown_ = 0;
  error_ = soft_error_ = 0;
  retransmits_ = 0;
  received_.clear();
  state_ = State::syn_sent;
  connecting_ = true;
  last_received_ns_ = now_ns;
  engine_.flows.insert(*this);
  // An earlier end that was not reaped yet (Engine::let_go): its reference becomes the table's again.
  if (ListNode<ReadyTag>::is_linked()) ListNode<ReadyTag>::unlink();
  else ref();
  anchored_ = true;
  ++engine_.counters.active_opens;
  timed_ = send_.iss + 1;
  timed_ns_ = now_ns;
  timing_ = true;
  send_syn(now_ns);
}

// SYN, or SYN-ACK in a simultaneous open.
void Connection::send_syn(u64 now_ns) {
  bool answers = state_ == State::syn_received;
  Segment syn;
  syn.seq = send_.iss;
  syn.flags = kSyn;
  if (answers) {
    syn.flags |= kAck;
    syn.ack = receive_.nxt;
  }
  syn.mss = receive_.mss;
  syn.window = static_cast<u16>(std::min<u32>(receive_room(), 65535));
  if (answers) receive_.edge = receive_.nxt + syn.window;
  if (!answers || timestamps_) {
    syn.has_timestamps = true;
    syn.timestamp_value = engine_.timestamp(timestamp_offset_);
    syn.timestamp_echo = receive_.timestamp_recent;
  }
  syn.sack_permitted = !answers || sack_;
  syn.window_scale = answers && send_.scale == 0 && receive_.scale == 0 ? i8{-1} : static_cast<i8>(receive_.scale);
  send_.nxt = send_.iss + 1;
  ++segments_out_;
  engine_.send(flow, syn, nullptr, 0, options_.traffic_class, options_.hop_limit);
  deadlines_.retransmit = now_ns + round_trip_.timeout();
}

void Connection::take_peer_options(const Segment& syn) {
  send_.peer_mss = syn.mss != 0 ? syn.mss : (flow.remote.address.is_v4() ? u16{536} : u16{1220});
  sack_ = syn.sack_permitted;
  timestamps_ = syn.has_timestamps;
  if (syn.window_scale >= 0) {
    send_.scale = static_cast<u8>(std::min<i8>(syn.window_scale, 14));  // RFC 7323 §2.3
  } else {
    send_.scale = receive_.scale = 0;
  }
  if (timestamps_) {
    receive_.timestamp_recent = syn.timestamp_value;
    receive_.timestamp_recent_ns = engine_.lower.now_ns();
  }
  update_mss();
  receive_.segment_estimate = std::min<u32>(receive_.mss, send_.mss);
}

void Connection::input_syn_sent(const Segment& segment, PacketPtr payload) {
  bool acceptable = segment.has(kAck) && segment.ack > send_.iss && segment.ack <= send_.nxt;
  if (segment.has(kAck) && !acceptable) return engine_.send_reset_for(flow, segment);
  if (segment.has(kRst)) {
    if (acceptable) become_closed(ECONNREFUSED);
    return;
  }
  if (!segment.has(kSyn)) return;
  u64 now = engine_.lower.now_ns();
  receive_.irs = segment.seq;
  receive_.nxt = receive_.last_ack_sent = segment.seq + 1;
  receive_.edge = receive_.nxt + std::min<u32>(receive_room(), 65535);
  take_peer_options(segment);
  send_.window = send_.max_window = segment.window;  // never scaled (RFC 7323 §2.2)
  send_.wl1 = segment.seq;
  send_.wl2 = segment.ack;
  if (!segment.has(kAck)) {  // simultaneous open (RFC 9293 §3.5, figure 8)
    state_ = State::syn_received;
    send_.wl2 = send_.una;
    timing_ = false;
    send_syn(now);
    return schedule();
  }
  if (timing_ && retransmits_ == 0) round_trip_.sample(now - timed_ns_);
  timing_ = false;
  send_.una = segment.ack;
  if (retransmits_ > 0) round_trip_.syn_was_lost();
  become_established(segment, now);
  ack_now_ = ack_pending_ = true;
  mark_ready();
  if (payload == nullptr && !segment.has(kFin)) return;
  Segment rest = segment;  // text or FIN that came with the SYN
  rest.flags = static_cast<u8>(rest.flags & ~kSyn);
  rest.seq += 1;
  input(rest, std::move(payload), 1);
}

void Connection::become_established(const Segment&, u64 now_ns) {
  state_ = State::established;
  ++engine_.counters.current_established;
  deadlines_.retransmit = kNever;
  // RFC 6298 §5.7, RFC 5681 §3.1: a SYN that was lost costs the initial window.
  window_.congestion = retransmits_ > 1 ? send_.mss : initial_window(send_.mss);
  retransmits_ = 0;
  round_trip_.reset_backoff();
  last_received_ns_ = last_sent_ns_ = now_ns;
  send_.small_end = point_ = send_.una;
  receive_.copied_since_ns = now_ns;
  arm_keep(now_ns);
  notify_ = true;
  mark_ready();
}

}  // namespace husk::net::tcp
