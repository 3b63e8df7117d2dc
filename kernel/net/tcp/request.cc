// See request.h.
#include "kernel/net/tcp/request.h"

#include "kernel/net/tcp/connection.h"

namespace husk::net::tcp {

Result<Handshake> make_handshake(Engine& engine, const Connection& listener, const Flow& flow, const Segment& syn) {
  auto route = TRY(engine.lower.route(flow.remote, flow.local.address));
  const Options& options = listener.options_;
  bool v4 = flow.remote.address.is_v4();
  Handshake result;
  result.irs = syn.seq;
  result.mtu = route.mtu;
  result.segmentation_max = route.segmentation_max;
  result.own_mss = static_cast<u16>(std::max(route.mtu, u16{576}) - (v4 ? 40 : 60));
  if (options.maximum_segment != 0) result.own_mss = std::min(result.own_mss, options.maximum_segment);
  result.peer_mss = syn.mss != 0 ? syn.mss : (v4 ? u16{536} : u16{1220});
  result.peer_scale = syn.window_scale < 0 ? i8{-1} : std::min(syn.window_scale, i8{14});
  result.own_scale = listener.scale_for_buffer();
  result.sack = syn.sack_permitted;
  result.timestamps = syn.has_timestamps;
  result.timestamp_recent = syn.timestamp_value;
  result.timestamp_offset = engine.secrets.timestamp_offset(flow);
  u32 window = options.receive_buffer != 0 ? options.receive_buffer : 64 * static_cast<u32>(kKiB);
  result.own_window = static_cast<u16>(std::min<u64>({window, 65535, engine.limits.receive_buffer_max, engine.memory.room()}));
  result.sent_ns = engine.lower.now_ns();
  return result;
}

Segment make_syn_ack(Engine& engine, const Handshake& handshake) {
  Segment answer;
  answer.seq = handshake.iss;
  answer.ack = handshake.irs + 1;
  answer.flags = kSyn | kAck;
  answer.window = handshake.own_window;
  answer.mss = handshake.own_mss;
  answer.window_scale = handshake.peer_scale < 0 ? i8{-1} : static_cast<i8>(handshake.own_scale);
  answer.sack_permitted = handshake.sack;
  if (handshake.timestamps) {
    answer.has_timestamps = true;
    answer.timestamp_value = engine.timestamp(handshake.timestamp_offset);
    answer.timestamp_echo = handshake.timestamp_recent;
  }
  return answer;
}

Result<Request*> Request::create(Engine& engine, Connection& listener, const Flow& flow, const Segment& syn, std::optional<SeqNum> after) {
  auto handshake = TRY(make_handshake(engine, listener, flow, syn));
  TRY(engine.timers.add_place());
  auto made = make_owned<Request>(engine, listener);
  if (!made.ok()) {
    engine.timers.remove_place();
    return made.error();
  }
  Request& request = **made;
  request.flow = flow;
  request.handshake_ = handshake;
  request.created_ns_ = handshake.sent_ns;
  request.handshake_.iss = engine.secrets.initial_sequence(flow, handshake.sent_ns);
  // RFC 1122 §4.2.2.13. A connection at more than 250 kB/s is ahead of the clock that numbers come from.
  constexpr u32 kGap = 65536;
  if (after && request.handshake_.iss < *after + kGap) request.handshake_.iss = *after + kGap;
  engine.flows.insert(request);
  listener.listener()->requests.push_back(&request);
  ++listener.listener()->half_open;
  engine.timers.set(request, handshake.sent_ns + RoundTrip::kInitial);
  request.send_syn_ack();
  return made->release();
}

Request::~Request() {
  engine_.flows.remove(*this);
  engine_.timers.cancel(*this);
  engine_.timers.remove_place();
  unlink();
  --listener_.listener()->half_open;
}

void Request::send_syn_ack() {
  const Options& options = listener_.options();
  engine_.send(flow, make_syn_ack(engine_, handshake_), nullptr, 0, options.traffic_class, options.hop_limit);
}

void Request::acknowledge() {
  Segment ack = make_syn_ack(engine_, handshake_);
  ack.flags = kAck;
  ack.seq += 1;
  ack.mss = 0;
  ack.window_scale = -1;
  ack.sack_permitted = false;
  engine_.send(flow, ack);
}

void Request::on_timer(u64 now_ns) {
  if (++handshake_.timeouts > kRetransmitsMax) {
    ++engine_.counters.attempt_fails;
    delete this;
    return;
  }
  handshake_.sent_ns = 0;
  ++engine_.counters.retransmitted;
  send_syn_ack();
  engine_.timers.set(*this, now_ns + (RoundTrip::kInitial << handshake_.timeouts));
}

bool Request::acceptable(const Segment& segment) const {
  if (handshake_.timestamps && segment.has_timestamps && !segment.has(kRst) &&
      static_cast<i32>(segment.timestamp_value - handshake_.timestamp_recent) < 0)
    return false;
  SeqNum first = handshake_.irs + 1;
  return segment.seq >= first && segment.seq <= first + handshake_.own_window;
}

// RFC 9293 §3.10.7.4 in SYN-RECEIVED.
void Request::input(const Segment& segment, PacketPtr payload, u32 pieces) {
  bool again = segment.has(kSyn) && !segment.has(kAck) && segment.seq == handshake_.irs;
  if (again) {
    handshake_.sent_ns = 0;
    return send_syn_ack();
  }
  if (!acceptable(segment)) {
    if (!segment.has(kRst)) acknowledge();
    return;
  }
  if (segment.has(kRst)) {
    if (segment.seq != handshake_.irs + 1) return acknowledge();  // RFC 5961 §3.2
    ++engine_.counters.attempt_fails;
    delete this;
    return;
  }
  if (segment.has(kSyn)) return acknowledge();  // RFC 5961 §4.2
  if (!segment.has(kAck)) return;
  if (segment.ack != handshake_.iss + 1) return engine_.send_reset_for(flow, segment);
  u64 deferred = u64{listener_.options().defer_accept_s} * RoundTrip::kSecond;
  if (segment.length() == 0 && engine_.lower.now_ns() - created_ns_ < deferred) return;  // TCP_DEFER_ACCEPT: waits for data
  // Who was let in is let through, whatever the accept queue's length: half_open limits how many that can be. Refused now, the peer would believe
  // that it is connected, and not every peer says its first words again (libslirp does not).
  if (engine_.flows.size() > engine_.limits.connections) {
    ++engine_.counters.listen_overflows;
    return;
  }
  Engine& engine = engine_;
  Connection& listener = listener_;
  Handshake handshake = handshake_;
  Flow with = flow;
  delete this;  // the connection takes its place
  if (!listener.establish(with, handshake, segment, std::move(payload), pieces)) ++engine.counters.listen_overflows;
}

}  // namespace husk::net::tcp
