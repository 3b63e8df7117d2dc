// NewReno (RFC 5681 §3.1, RFC 6582), counting bytes (RFC 3465).
#include <algorithm>

#include "kernel/net/tcp/congestion.h"

namespace husk::net::tcp {

namespace {

constexpr u32 kWindowMax = 1u << 30;

class NewReno final : public CongestionControl {
 public:
  void acknowledged(Window& window, u32 acknowledged, u32 flight, u64) const override {
    if (window.congestion < window.threshold) {
      // A window that the sender does not fill says nothing about the path (RFC 7661).
      if (window.congestion >= 2 * u64{flight}) return;
      // DEVIATES: RFC 5681 grows by at most one segment for each acknowledgement; receivers that merge segments acknowledge many at once.
      window.congestion = static_cast<u32>(std::min<u64>(u64{window.congestion} + acknowledged, std::min(window.threshold, kWindowMax)));
      return;
    }
    if (window.congestion > u64{flight} + window.mss) return;
    u64& counted = window.algorithm_state[0];
    counted += acknowledged;
    if (counted < window.congestion) return;
    counted -= window.congestion;
    window.congestion = std::min(window.congestion + window.mss, kWindowMax);
  }
  void lost(Window& window, u32 flight, u64) const override {
    window.threshold = std::max(flight / 2, 2 * window.mss);
    window.algorithm_state[0] = 0;
  }
};
constinit const NewReno instance;

}  // namespace

const CongestionControl& new_reno() { return instance; }

}  // namespace husk::net::tcp
