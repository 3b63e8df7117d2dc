// Timers that send signals: timer_create(2), setitimer(2), alarm(2).
//
// Each is a time::Timer. On CPU-time clocks it is armed for the earliest moment at which the time can have been used up, and armed
// again if it was not. Callbacks run in kernel context, where signals may be sent.
#include "kernel/linux/timers.h"

#include <time.h>
#include <linux/time_types.h>
#include <signal.h>

#include "kernel/linux/clocks.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"

namespace husk::linux {

struct PosixTimer : ListNode<PosixTimerTag>, time::Timer {
  PosixTimer(Process& owner, int clock_number) : Timer(&expired), process(owner), clock(clock_number) {}

  Process& process;
  int clock;
  int id = 0;
  int signal = SIGALRM;      // 0: none
  int tid = 0;               // SIGEV_THREAD_ID: to this thread
  bool information = false;  // SI_TIMER with id and value (timer_create), else SI_KERNEL
  u64 value = 0;             // sigev_value
  u64 expiry_ns = 0;         // on its clock; 0: not set
  u64 interval_ns = 0;
  int overrun = 0, reported_overrun = 0;

  u64 now() const {
    switch (clock) {
      case CLOCK_PROCESS_CPUTIME_ID: return process.run_time_ns();
      case CLOCK_REALTIME:
      case CLOCK_REALTIME_ALARM:
      case CLOCK_TAI: return time::realtime_ns();
      default: return time::monotonic_ns();
    }
  }
  void set(u64 expiry, u64 interval) {
    cancel();
    expiry_ns = expiry;
    interval_ns = interval;
    overrun = 0;
    if (expiry != 0) arm_for_expiry();
  }
  u64 remaining() const {
    if (expiry_ns == 0) return 0;
    u64 at = now();
    return expiry_ns > at ? expiry_ns - at : 1;
  }

 private:
  void arm_for_expiry() {
    u64 at = now(), left = expiry_ns > at ? expiry_ns - at : 0, deadline;
    if (checked_add(time::monotonic_ns(), left, &deadline)) arm(deadline);
  }
  static void expired(Timer& timer) { static_cast<PosixTimer&>(timer).expire(); }
  void expire() {
    u64 at = now();
    if (at < expiry_ns) return arm_for_expiry();  // CPU time, or the wall clock was set back
    u64 missed = interval_ns == 0 ? 0 : (at - expiry_ns) / interval_ns;
    overrun = static_cast<int>(missed);
    expiry_ns = interval_ns == 0 ? 0 : expiry_ns + (missed + 1) * interval_ns;
    if (expiry_ns != 0) arm_for_expiry();
    notify();
  }
  void notify() {
    if (signal == 0) return;
    SignalInfo info = kernel_signal(signal);
    if (information) {
      info.code = SI_TIMER;
      info.fields.timer = {id, overrun, value};
      reported_overrun = overrun;
    }
    Task* task = tid != 0 ? find_task(tid) : nullptr;
    if (task != nullptr) return send_signal(*task, info);
    if (tid == 0) send_signal(process, info);
  }
};

namespace {

constexpr u32 kTimerAbsolute = 1;  // TIMER_ABSTIME
constexpr int kTimersMax = 8192;

struct Event {  // struct sigevent
  u64 value;
  int signal, notify, tid;
  u32 pad[11];
};
static_assert(sizeof(Event) == 64);

Result<PosixTimer*> find_timer(int id) {
  for (PosixTimer& timer : current_process().timers) {
    if (timer.id == id) return &timer;
  }
  return Error(EINVAL);
}

struct TimeSpecs {
  __kernel_timespec interval, value;
};

__kernel_timespec timespec_of(u64 ns) {
  return {static_cast<__kernel_time64_t>(ns / time::kNsPerSecond), static_cast<long long>(ns % time::kNsPerSecond)};
}

TimeSpecs specs_of(const PosixTimer& timer) { return {timespec_of(timer.interval_ns), timespec_of(timer.remaining())}; }

Result<void> check_clock(int clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
    case CLOCK_PROCESS_CPUTIME_ID:
    case CLOCK_TAI:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM: return {};
    case CLOCK_THREAD_CPUTIME_ID: return Error(ENOTSUP);
    default: return Error(EINVAL);
  }
}

Result<void> apply_event(PosixTimer& timer, const Event& event) {
  timer.value = event.value;
  switch (event.notify) {
    case SIGEV_NONE: timer.signal = 0; return {};
    case SIGEV_THREAD_ID:
      if (find_task(event.tid) == nullptr) return Error(EINVAL);
      timer.tid = event.tid;
      break;
    case SIGEV_SIGNAL:
    case SIGEV_THREAD: break;
    default: return Error(EINVAL);
  }
  if (event.signal < 1 || event.signal > kSignalMax) return Error(EINVAL);
  timer.signal = event.signal;
  return {};
}

}  // namespace

void delete_timers(Process& process) {
  while (PosixTimer* timer = process.timers.pop_front()) delete timer;
  for (PosixTimer*& timer : process.interval_timers) {
    delete timer;
    timer = nullptr;
  }
}

void delete_posix_timers(Process& process) {
  while (PosixTimer* timer = process.timers.pop_front()) delete timer;
}

HUSK_SYSCALL(timer_create, int clock, mem::UserPtr<Event> event, mem::UserPtr<int> id_out) {
  TRY(check_clock(clock));
  Process& process = current_process();
  if (process.next_timer_id >= kTimersMax && !process.timers.empty()) return Error(EAGAIN);
  Owned<PosixTimer> timer = TRY(make_owned<PosixTimer>(process, clock));
  timer->id = process.next_timer_id;
  timer->information = true;
  timer->value = static_cast<u64>(timer->id);
  if (event) {
    Event wanted = TRY(mem::read_user(event));
    TRY(apply_event(*timer, wanted));
  }
  TRY(mem::write_user(id_out, timer->id));
  ++process.next_timer_id;
  process.timers.push_back(timer.release());
  return 0;
}

HUSK_SYSCALL(timer_settime, int id, u32 flags, mem::UserPtr<TimeSpecs> wanted, mem::UserPtr<TimeSpecs> old) {
  PosixTimer& timer = *TRY(find_timer(id));
  if (!wanted) return Error(EINVAL);
  u64 interval = TRY(read_timespec_ns(wanted.address));
  u64 value = TRY(read_timespec_ns(wanted.address + sizeof(__kernel_timespec)));
  TimeSpecs previous = specs_of(timer);
  u64 expiry = value;
  if (value != 0 && (flags & kTimerAbsolute) == 0 && !checked_add(timer.now(), value, &expiry)) expiry = time::kForever;
  timer.set(expiry, interval);
  if (old) TRY(mem::write_user(old, previous));
  return 0;
}

HUSK_SYSCALL(timer_gettime, int id, mem::UserPtr<TimeSpecs> out) {
  PosixTimer* timer = TRY(find_timer(id));
  TRY(mem::write_user(out, specs_of(*timer)));
  return 0;
}

HUSK_SYSCALL(timer_getoverrun, int id) {
  PosixTimer* timer = TRY(find_timer(id));
  return timer->reported_overrun;
}

HUSK_SYSCALL(timer_delete, int id) {
  PosixTimer* timer = TRY(find_timer(id));
  static_cast<ListNode<PosixTimerTag>*>(timer)->unlink();
  delete timer;
  return 0;
}

// --- setitimer(2), alarm(2) ---------------------------------------------------------------------------------------------------

namespace {

struct TimeValue {
  i64 seconds, microseconds;
};
struct IntervalSpec {
  TimeValue interval, value;
};

constexpr i64 kSecondsMax = i64{1} << 33;

Result<u64> ns_of(const TimeValue& value) {
  if (value.seconds < 0 || value.microseconds < 0 || value.microseconds >= 1'000'000) return Error(EINVAL);
  if (value.seconds > kSecondsMax) return time::kForever;
  return static_cast<u64>(value.seconds) * time::kNsPerSecond + static_cast<u64>(value.microseconds) * 1000;
}

TimeValue value_of(u64 ns) {
  u64 rounded = (ns + 999) / 1000;
  return {static_cast<i64>(rounded / 1'000'000), static_cast<i64>(rounded % 1'000'000)};
}

Result<PosixTimer*> interval_timer(int which) {
  if (which < 0 || which > 2) return Error(EINVAL);
  Process& process = current_process();
  PosixTimer*& timer = process.interval_timers[which];
  if (timer != nullptr) return timer;
  constexpr int kSignals[3] = {SIGALRM, SIGVTALRM, SIGPROF};
  timer = TRY(make_owned<PosixTimer>(process, which == 0 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID)).release();
  timer->signal = kSignals[which];
  return timer;
}

IntervalSpec spec_of(const PosixTimer& timer) { return {value_of(timer.interval_ns), value_of(timer.remaining())}; }

void start_interval_timer(PosixTimer& timer, u64 value_ns, u64 interval_ns) {
  u64 expiry;
  if (value_ns == 0 || !checked_add(timer.now(), value_ns, &expiry)) expiry = 0;
  timer.set(expiry, interval_ns);
}

}  // namespace

HUSK_SYSCALL(getitimer, int which, mem::UserPtr<IntervalSpec> out) {
  PosixTimer* timer = TRY(interval_timer(which));
  TRY(mem::write_user(out, spec_of(*timer)));
  return 0;
}

HUSK_SYSCALL(setitimer, int which, mem::UserPtr<IntervalSpec> wanted, mem::UserPtr<IntervalSpec> old) {
  PosixTimer* timer = TRY(interval_timer(which));
  IntervalSpec spec = {};
  if (wanted) spec = TRY(mem::read_user(wanted));
  u64 value = TRY(ns_of(spec.value)), interval = TRY(ns_of(spec.interval));
  IntervalSpec previous = spec_of(*timer);
  start_interval_timer(*timer, value, interval);
  if (old) TRY(mem::write_user(old, previous));
  return 0;
}

HUSK_SYSCALL(alarm, u32 seconds) {
  PosixTimer* timer = TRY(interval_timer(0));
  u64 left = timer->remaining();
  start_interval_timer(*timer, seconds * time::kNsPerSecond, 0);
  return static_cast<i64>((left + time::kNsPerSecond - 1) / time::kNsPerSecond);
}

}  // namespace husk::linux
