// The passive side: SYN to a listener (RFC 9293 §3.10.7.2), SYN cookies (RFC 4987 §3.6), the accept queue.
#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

void Connection::listen_input(const Flow& from, const Segment& segment, PacketPtr payload, std::optional<SeqNum> after) {
  if (segment.has(kRst)) return;
  if (segment.has(kAck)) {
    if (!receive_cookie(from, segment, payload)) engine_.send_reset_for(from, segment);
    return;
  }
  if (segment.has(kSyn) && !segment.has(kFin)) receive_syn(from, segment, after);
}

void Connection::receive_syn(const Flow& from, const Segment& syn, std::optional<SeqNum> after) {
  bool full = accept_queue_full() || engine_.flows.size() >= engine_.limits.connections || engine_.memory.room() == 0;
  if (full) {
    ++engine_.counters.listen_overflows;
    return;  // the peer tries again
  }
  if (listener_->half_open < engine_.limits.half_open && Request::create(engine_, *this, from, syn, after).ok()) return;
  auto handshake = make_handshake(engine_, *this, from, syn);
  if (!handshake.ok()) return;
  u64 now = engine_.lower.now_ns();
  handshake->iss = engine_.secrets.cookie(from, syn.seq, handshake->peer_mss, now);
  Segment answer = make_syn_ack(engine_, *handshake);
  if (answer.has_timestamps) answer.timestamp_value = Secrets::cookie_timestamp(answer.timestamp_value, syn);
  if (!answer.has_timestamps) answer.window_scale = -1, answer.sack_permitted = false;
  engine_.cookies_sent_ns = now;
  ++engine_.counters.syn_cookies_sent;
  engine_.send(from, answer, nullptr, 0, options_.traffic_class, options_.hop_limit);
}

// An acknowledgement for which there is no request: perhaps of a cookie. False: it is not.
bool Connection::receive_cookie(const Flow& from, const Segment& ack, PacketPtr& payload) {
  constexpr u64 kCookiesLive = 128'000'000'000;
  u64 now = engine_.lower.now_ns();
  if (ack.has(kSyn) || engine_.cookies_sent_ns == 0 || now - engine_.cookies_sent_ns > kCookiesLive) return false;
  auto content = engine_.secrets.check_cookie(from, ack.seq - 1, ack.ack - 1, ack, now);
  if (!content) {
    ++engine_.counters.syn_cookies_failed;
    return false;
  }
  if (accept_queue_full()) {
    ++engine_.counters.listen_overflows;
    return true;
  }
  Segment syn;  // as it was, as far as the cookie tells
  syn.seq = ack.seq - 1;
  syn.mss = content->mss;
  syn.window_scale = content->window_scale;
  syn.sack_permitted = content->sack_permitted;
  syn.has_timestamps = content->has_timestamps;
  syn.timestamp_value = ack.timestamp_value;
  auto handshake = make_handshake(engine_, *this, from, syn);
  if (!handshake.ok()) return true;
  handshake->iss = ack.ack - 1;
  handshake->sent_ns = 0;
  ++engine_.counters.syn_cookies_received;
  establish(from, *handshake, ack, std::move(payload), 1);
  return true;
}

bool Connection::establish(const Flow& with, const Handshake& handshake, const Segment& segment, PacketPtr payload, u32 pieces) {
  auto made = Connection::create(engine_, family_);
  if (!made.ok()) return false;
  Connection* child = made->get();
  child->flow = with;
  if (!engine_.ports.attach(*child, with.local.port).ok()) return false;
  child->adopt(with, handshake, segment, *this);
  listener_->accept_queue.push_back(made->leak());
  ++listener_->waiting;
  ++engine_.counters.passive_opens;
  child->input(segment, std::move(payload), pieces);
  notify_now();
  return true;
}

// Takes over what the handshake has settled; the state is ESTABLISHED.
void Connection::adopt(const Flow& with, const Handshake& handshake, const Segment& segment, const Connection& parent) {
  options_ = parent.options_;
  take_binding_options();
  bound = with.local.address;
  bound_interface = parent.bound_interface;
  passive_ = true;
  flow = with;
  // An interface is a part of the address only where that is ambiguous.
  if (parent.bound_interface == 0 && with.local.address.is_v4()) flow.local.interface = flow.remote.interface = 0;
  if (parent.bound_interface == 0 && !with.local.address.is_v4() &&
      (with.remote.address.bytes[0] != 0xfe || (with.remote.address.bytes[1] & 0xc0) != 0x80))
    flow.local.interface = flow.remote.interface = 0;
  mtu_ = handshake.mtu;
  segmentation_max_ = handshake.segmentation_max;
  start_windows();
  u64 now = engine_.lower.now_ns();
  send_.iss = handshake.iss;
  send_.una = send_.nxt = handshake.iss + 1;
  queue_.start(send_.una);
  send_.peer_mss = handshake.peer_mss;
  send_.scale = handshake.peer_scale < 0 ? u8{0} : static_cast<u8>(handshake.peer_scale);
  receive_.scale = handshake.peer_scale < 0 ? u8{0} : handshake.own_scale;
  receive_.mss = handshake.own_mss;
  sack_ = handshake.sack;
  timestamps_ = handshake.timestamps;
  timestamp_offset_ = handshake.timestamp_offset;
  receive_.timestamp_recent = handshake.timestamp_recent;
  receive_.timestamp_recent_ns = now;
  receive_.irs = handshake.irs;
  receive_.nxt = receive_.last_ack_sent = handshake.irs + 1;
  receive_.edge = receive_.nxt + handshake.own_window;
  update_mss();
  receive_.segment_estimate = std::min<u32>(receive_.mss, send_.mss);
  send_.window = u32{segment.window} << send_.scale;
  send_.max_window = send_.window;
  send_.wl1 = segment.seq;
  send_.wl2 = segment.ack;
  if (handshake.sent_ns != 0) round_trip_.sample(now - handshake.sent_ns);
  if (handshake.timeouts > 0) round_trip_.syn_was_lost();
  retransmits_ = handshake.timeouts;
  engine_.flows.insert(*this);
  ref();
  anchored_ = true;
  become_established(segment, now);
}

}  // namespace husk::net::tcp
