// The scheduler of one vCPU. Only for kernel/sched; others use sched.h.
#pragma once

#include <algorithm>

#include "kernel/sched/sched.h"

namespace husk::sched {

constexpr u64 kSliceNs = 4'000'000;
// Before halting, devices are polled for about as long as a wake-up would cost, and longer while that is seen to spare wake-ups.
constexpr u64 kIdlePollMinNs = 50'000, kIdlePollMaxNs = 200'000;
constexpr u64 kTimerPollMinNs = 200'000, kTimerPollMaxNs = 10'000'000;
constexpr u64 kVectorAreaSize = kPageSize;

// Kernel stacks with their vector area behind them; some are kept when threads end.
class StackCache {
 public:
  Result<u8*> take();
  void give(u8* stack);

 private:
  static constexpr u32 kKept = 64;
  u8* kept_[kKept];
  u32 count_ = 0;
};

// How long the idle vCPU polls before it parks. An event that comes soon after parking (a wake-up's own cost included) would have been met by
// polling longer: twice as long from now on. One that comes late would not: half as long.
class IdlePolling {
 public:
  void begin(u64 now_ns) {
    since_ns_ = now_ns;
    parked_ = false;
  }
  bool worthwhile(u64 now_ns) const { return now_ns - since_ns_ < period_ns_; }
  void park() { parked_ = true; }
  // A device had work.
  void event(u64 now_ns) {
    if (parked_)
      period_ns_ = now_ns - since_ns_ < 2 * kIdlePollMaxNs ? std::min(2 * period_ns_, kIdlePollMaxNs) : std::max(period_ns_ / 2, kIdlePollMinNs);
    begin(now_ns);
  }
  u64 period_ns() const { return period_ns_; }

 private:
  u64 since_ns_ = 0, period_ns_ = kIdlePollMinNs;
  bool parked_ = false;
};

struct Scheduler {
  explicit Scheduler(abi::VcpuShared& vcpu);

  void make_ready(Thread& thread);
  void end_wait(Thread& thread, Wake reason);
  void switch_to(Thread& next);
  void switch_to_next();  // the front of the run queue, or the idle thread
  void finish_switch();   // on the new thread's stack
  bool poll_events();     // devices and timers
  void idle_round();
  bool prepare_to_sleep();
  void arm_device_timer();
  static void device_timer_fired(time::Timer& timer);
  static void begin_thread();
  static void slice_ended(time::Timer& timer);

  static u8* stack_top(const Thread& thread) { return thread.stack_ + kKernelStackSize; }
  void load_program_state(Thread& next);

  abi::VcpuShared& shared;
  Cpu& cpu;
  Thread idle;
  List<Thread, RunQueueTag> ready;
  List<Poller, PollerTag> pollers;
  StackCache stacks;
  time::Timer slice{slice_ended};
  time::Timer device_timer{device_timer_fired};
  u64 device_period_ns = 0;               // 0: devices have interrupts
  Thread* departed = nullptr;             // has exited; its stack is given back by finish_switch()
  Thread* program_state_owner = nullptr;  // whose vector state and FS base are in the registers
  u32 space = 0;
  bool in_event = false;   // what becomes ready now goes first
  bool must_stay = false;  // MustStay
  u64 idle_stack_limit;
  IdlePolling idle_polling;
  u64 switched_at_ticks;
  u64 switches = 0;
};

Scheduler& scheduler();

}  // namespace husk::sched
