// Congestion control: how much may be in flight. An algorithm is a stateless object; its state is in the connection.
//
// When to retransmit is not decided here (recovery.cc): algorithms only hear of acknowledgements and losses.
#pragma once

#include "base/types.h"

namespace husk::net::tcp {

struct Window {
  u32 congestion = 0;   // bytes
  u32 threshold = ~0u;  // of slow start
  u32 mss = 536;
  u64 algorithm_state[2] = {};
};

class CongestionControl {
 public:
  // `acknowledged` new bytes, while `flight` bytes were out; not in recovery.
  virtual void acknowledged(Window& window, u32 acknowledged, u32 flight, u64 now_ns) const = 0;
  // Loss was detected with `flight` bytes out: sets the threshold.
  virtual void lost(Window& window, u32 flight, u64 now_ns) const = 0;

 protected:
  ~CongestionControl() = default;
};

const CongestionControl& new_reno();

// RFC 6928 §2.
constexpr u32 initial_window(u32 mss) { return 10 * mss < (2 * mss > 14600 ? 2 * mss : 14600) ? 10 * mss : (2 * mss > 14600 ? 2 * mss : 14600); }

}  // namespace husk::net::tcp
