// Round-trip time and retransmission timeout (RFC 6298), with exponential back-off.
#pragma once

#include <algorithm>

#include "base/types.h"

namespace husk::net::tcp {

class RoundTrip {
 public:
  static constexpr u64 kMilli = 1'000'000, kSecond = 1000 * kMilli;
  // DEVIATES: RFC 6298 §2.4 wants at least 1 s. 200 ms, as everybody has had for decades; delayed acknowledgements are 40 ms.
  static constexpr u64 kMin = 200 * kMilli, kMax = 120 * kSecond, kInitial = kSecond;
  static constexpr u64 kGranularity = kMilli;

  void sample(u64 time_ns) {
    time_ns = std::max<u64>(time_ns, 1);
    if (smoothed_ == 0) {
      smoothed_ = time_ns;
      variation_ = time_ns / 2;
    } else {
      u64 distance = smoothed_ > time_ns ? smoothed_ - time_ns : time_ns - smoothed_;
      variation_ = variation_ - variation_ / 4 + distance / 4;
      smoothed_ = smoothed_ - smoothed_ / 8 + time_ns / 8;
    }
    base_ = std::clamp(smoothed_ + std::max(kGranularity, 4 * variation_), kMin, kMax);
    backoff_ = 0;
  }
  // Backed off until something is measured (§5 at its end: Karn's algorithm). An acknowledgement of what was sent twice measures nothing.
  u64 timeout() const { return after(backoff_); }
  // Until the next probe of a closed window, after so many: RFC 9293 §3.8.6.1. It says nothing about the path.
  u64 probe_interval(u8 probes) const { return after(probes); }
  u64 smoothed() const { return smoothed_; }
  u64 variation() const { return variation_; }
  u8 backoff() const { return backoff_; }
  void back_off() {
    if (backoff_ < 255) ++backoff_;
  }
  void reset_backoff() { backoff_ = 0; }
  // RFC 6298 §5.7: a SYN was sent twice and nothing was measured: start with 3 s.
  void syn_was_lost() {
    if (smoothed_ == 0) base_ = 3 * kSecond;
  }

 private:
  u64 after(u8 doublings) const { return std::min(base_ << std::min<u8>(doublings, 16), kMax); }
  u64 smoothed_ = 0, variation_ = 0, base_ = kInitial;
  u8 backoff_ = 0;
};

}  // namespace husk::net::tcp
