// Clocks from the TSC, and timers. Timers fire in kernel context on the vCPU that armed them: at kernel exit, or when idle.
#pragma once

#include "base/result.h"
#include "base/types.h"

namespace husk::time {

constexpr u64 kForever = ~u64{0};
constexpr u64 kNsPerSecond = 1'000'000'000;

// tsc_hz from the boot configuration; wall clock: Unix time in ns at TSC value wall_ticks.
void init(u64 tsc_hz, u64 boot_ticks, u64 wall_ns, u64 wall_ticks);
u64 monotonic_ns();  // CLOCK_MONOTONIC, 0 at boot
u64 realtime_ns();   // CLOCK_REALTIME
void set_realtime_ns(u64 unix_ns);
u64 ticks_to_ns(u64 ticks);
u64 ns_to_ticks(u64 ns);
u64 ticks_at(u64 monotonic_ns);

// Parameters for the vDSO, in its data page: ns = ((tsc - base_ticks) * multiplier >> shift) + offset.
struct ClockParameters {
  u64 base_ticks, multiplier, shift, realtime_offset_ns;
};
ClockParameters clock_parameters();

// One-shot. The owner keeps it alive while armed; arming again moves it; cancel() is safe at any time.
class Timer {
 public:
  using Callback = void (*)(Timer& timer);
  explicit Timer(Callback callback) : callback_(callback) {}
  ~Timer() { cancel(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void arm(u64 deadline_ns);  // monotonic
  void cancel();
  bool armed() const { return armed_; }
  u64 deadline_ns() const { return deadline_ns_; }

 private:
  friend class TimerQueue;
  Callback callback_;
  u64 deadline_ns_ = 0;
  bool armed_ = false;
  Timer* left_ = nullptr;  // pairing heap links
  Timer* next_ = nullptr;
  Timer* previous_ = nullptr;
};

void run_timers();       // fires all that are due
u64 next_deadline_ns();  // kForever if none

}  // namespace husk::time
