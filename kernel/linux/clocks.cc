// clock_*(2), nanosleep, gettimeofday, time.
#include <time.h>
#include <linux/time_types.h>

#include "kernel/linux/clocks.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/linux/vdso.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"

namespace husk::linux {
namespace {

constexpr u64 kCoarseResolution = 4'000'000;  // CONFIG_HZ=250
constexpr u32 kTimerAbsolute = 1;             // TIMER_ABSTIME

// Negative clock numbers are CPU-time clocks: ~pid << 3 | 4 (thread) | 2 (scheduler time). clock_getcpuclockid(3).
Result<u64> cpu_clock_ns(int clock) {
  int id = ~(clock >> 3);
  if ((clock & 3) == 3) return Error(EINVAL);  // a descriptor: there are no dynamic clocks
  if ((clock & 4) == 0) {
    if (id != 0 && id != current_process().pid) return Error(EINVAL);
    return current_process().run_time_ns();
  }
  Task* task = id == 0 ? &current_task() : find_task(id);
  if (task == nullptr) return Error(EINVAL);
  return task->thread->run_time_ns();
}

__kernel_timespec timespec_of(u64 ns) {
  return {static_cast<__kernel_time64_t>(ns / time::kNsPerSecond), static_cast<long long>(ns % time::kNsPerSecond)};
}

Result<i64> sleep(int clock, bool absolute, u64 ns, u64 remaining_at) {
  u64 deadline = absolute ? TRY(monotonic_deadline(clock, ns)) : restartable_deadline(ns);
  for (;;) {
    sched::prepare_to_block();
    switch (sched::block(deadline, sched::Interruptible::yes)) {
      case sched::Wake::woken: continue;
      case sched::Wake::timed_out: return 0;
      case sched::Wake::interrupted: break;
    }
    u64 now = time::monotonic_ns();
    if (!absolute && remaining_at != 0) {
      TRY(mem::write_user(mem::UserPtr<__kernel_timespec>(remaining_at), timespec_of(deadline > now ? deadline - now : 0)));
    }
    return Error(EINTR);
  }
}

}  // namespace

Result<u64> clock_ns(int clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_TAI: return time::realtime_ns();
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM: return time::monotonic_ns();
    case CLOCK_PROCESS_CPUTIME_ID: return current_process().run_time_ns();
    case CLOCK_THREAD_CPUTIME_ID: return current_task().thread->run_time_ns();
    default: return clock < 0 ? cpu_clock_ns(clock) : Result<u64>(Error(EINVAL));
  }
}

Result<u64> monotonic_deadline(int clock, u64 ns) {
  u64 now = TRY(clock_ns(clock));
  u64 left = ns > now ? ns - now : 0, result;
  return checked_add(time::monotonic_ns(), left, &result) ? result : time::kForever;
}

HUSK_SYSCALL(clock_gettime, int clock, mem::UserPtr<__kernel_timespec> out) {
  u64 ns = TRY(clock_ns(clock));
  TRY(mem::write_user(out, timespec_of(ns)));
  return 0;
}

HUSK_SYSCALL(clock_getres, int clock, mem::UserPtr<__kernel_timespec> out) {
  TRY(clock_ns(clock));
  bool coarse = clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE;
  if (out) TRY(mem::write_user(out, timespec_of(coarse ? kCoarseResolution : 1)));
  return 0;
}

HUSK_SYSCALL(clock_settime, int clock, u64 value) {
  if (value == 0) return Error(EFAULT);
  u64 ns = TRY(read_timespec_ns(value));
  if (clock != CLOCK_REALTIME) return Error(EINVAL);
  time::set_realtime_ns(ns);
  update_vdso_clock();
  return 0;
}

HUSK_SYSCALL(gettimeofday, u64 out, u64 zone) {
  u64 ns = time::realtime_ns();
  const u64 value[2] = {ns / time::kNsPerSecond, ns % time::kNsPerSecond / 1000};
  if (out != 0) TRY(mem::copy_to_user(out, value, sizeof(value)));
  const u64 utc = 0;
  if (zone != 0) TRY(mem::copy_to_user(zone, &utc, sizeof(utc)));
  return 0;
}

HUSK_SYSCALL(settimeofday, u64 value_at, u64) {
  if (value_at == 0) return 0;
  u64 value[2];
  TRY(mem::copy_from_user(value, value_at, sizeof(value)));
  if (value[0] >= u64{1} << 33 || value[1] >= 1'000'000) return Error(EINVAL);
  time::set_realtime_ns(value[0] * time::kNsPerSecond + value[1] * 1000);
  update_vdso_clock();
  return 0;
}

HUSK_SYSCALL(time, mem::UserPtr<u64> out) {
  u64 seconds = time::realtime_ns() / time::kNsPerSecond;
  if (out) TRY(mem::write_user(out, seconds));
  return static_cast<i64>(seconds);
}

HUSK_SYSCALL(nanosleep, u64 wanted, u64 remaining) {
  if (wanted == 0) return Error(EFAULT);
  u64 ns = TRY(read_timespec_ns(wanted));
  return sleep(CLOCK_MONOTONIC, false, ns, remaining);
}

HUSK_SYSCALL(clock_nanosleep, int clock, u32 flags, u64 wanted, u64 remaining) {
  if (clock == CLOCK_THREAD_CPUTIME_ID) return Error(EINVAL);
  TRY(clock_ns(clock));
  if (wanted == 0) return Error(EFAULT);
  u64 ns = TRY(read_timespec_ns(wanted));
  return sleep(clock, (flags & kTimerAbsolute) != 0, ns, remaining);
}

}  // namespace husk::linux
