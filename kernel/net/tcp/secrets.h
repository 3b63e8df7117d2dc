// Numbers that a stranger must not foresee, all from keys drawn once per Tcp: initial sequence numbers (RFC 6528), SYN cookies (RFC 4987), source
// ports (RFC 6056 §3.3.4), timestamp offsets (RFC 7323 §5.4).
#pragma once

#include <optional>

#include "kernel/net/tcp/siphash.h"
#include "kernel/net/tcp/tcp.h"

namespace husk::net::tcp {

// What a SYN said, as far as a cookie can carry it.
struct CookieContent {
  u16 mss = 536;
  i8 window_scale = -1;
  bool sack_permitted = false, has_timestamps = false;
};

class Secrets {
 public:
  explicit Secrets(Lower& lower);
  FlowHash flow_hash;

  // RFC 6528 §3: ISN = M + F(flow, key); M ticks every 4 microseconds.
  SeqNum initial_sequence(const Flow& flow, u64 now_ns) const;
  u32 timestamp_offset(const Flow& flow) const;
  // RFC 6056 §3.3.4 (double hash): where in the range the search for a source port begins, and the counter that it moves.
  u32 port_offset(const IpAddress& local, const Endpoint& remote) const;
  u16& port_counter(const Endpoint& remote);

  // The cookie: 5 bits of time (64 s), 3 bits for the MSS, 24 bits of hash. Scale, SACK and the use of timestamps are in the low bits of
  // the timestamp that goes with it (cookie_timestamp), and come back in its echo.
  SeqNum cookie(const Flow& flow, SeqNum peer_sequence, u16 mss, u64 now_ns) const;
  static u32 cookie_timestamp(u32 timestamp, const Segment& syn);
  std::optional<CookieContent> check_cookie(const Flow& flow, SeqNum peer_sequence, SeqNum cookie, const Segment& ack, u64 now_ns) const;

 private:
  u64 hash(const Flow& flow, u64 purpose, u64 extra) const;
  u64 key_[2] = {};
  u16 port_counters_[64] = {};
};

}  // namespace husk::net::tcp
