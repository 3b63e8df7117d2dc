// Clocks from the TSC: clock_gettime(2)'s CLOCK_MONOTONIC and CLOCK_REALTIME.
#include "kernel/time/time.h"

#include "platform/platform.h"

namespace husk::time {
namespace {

using u128 = unsigned __int128;

// Shifts that keep the factors in 64 bits for up to 16 GHz and their error under about one in 10^9 for 1 GHz and more.
constexpr unsigned kToNsShift = 32, kToTicksShift = 30;

struct Clock {
  u64 boot_ticks = 0;
  u64 ns_per_tick = u64{1} << kToNsShift;      // fixed point
  u64 ticks_per_ns = u64{1} << kToTicksShift;  // fixed point
  u64 realtime_offset_ns = 0;                  // Unix time when monotonic time was 0
};
constinit Clock clock;

u64 multiply_shift(u64 value, u64 factor, unsigned shift) { return static_cast<u64>((u128{value} * factor) >> shift); }

}  // namespace

void init(u64 tsc_hz, u64 boot_ticks, u64 wall_ns, u64 wall_ticks) {
  HUSK_ASSERT(tsc_hz >= 1'000'000 && tsc_hz < u64{1} << 34);
  clock.boot_ticks = boot_ticks;
  clock.ns_per_tick = (kNsPerSecond << kToNsShift) / tsc_hz;
  clock.ticks_per_ns = (tsc_hz << kToTicksShift) / kNsPerSecond;
  // The host took the wall clock before or after the machine's start.
  u64 distance_ns = wall_ticks <= boot_ticks ? ticks_to_ns(boot_ticks - wall_ticks) : ticks_to_ns(wall_ticks - boot_ticks);
  clock.realtime_offset_ns = wall_ticks <= boot_ticks ? wall_ns + distance_ns : wall_ns - distance_ns;
}

u64 ticks_to_ns(u64 ticks) { return multiply_shift(ticks, clock.ns_per_tick, kToNsShift); }
u64 ns_to_ticks(u64 ns) { return multiply_shift(ns, clock.ticks_per_ns, kToTicksShift); }
u64 monotonic_ns() { return ticks_to_ns(platform::ticks() - clock.boot_ticks); }
u64 realtime_ns() { return monotonic_ns() + clock.realtime_offset_ns; }
void set_realtime_ns(u64 unix_ns) { clock.realtime_offset_ns = unix_ns - monotonic_ns(); }

// Rounded up, so that a timer's event does not come before its deadline by the arithmetic's error. Saturates.
u64 ticks_at(u64 monotonic_ns) {
  u128 ticks = ((u128{monotonic_ns} * clock.ticks_per_ns) >> kToTicksShift) + 1 + clock.boot_ticks;
  return ticks >> 64 ? ~u64{0} : static_cast<u64>(ticks);
}

ClockParameters clock_parameters() { return {clock.boot_ticks, clock.ns_per_tick, kToNsShift, clock.realtime_offset_ns}; }

}  // namespace husk::time
