// The scheduler of one vCPU. Only for kernel/sched; others use sched.h.
#pragma once

#include "kernel/sched/sched.h"

namespace husk::sched {

constexpr u64 kSliceNs = 4'000'000;
// Before halting, devices are polled for as long as a wake-up would cost.
constexpr u64 kIdlePollNs = 50'000;
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

struct Scheduler {
  explicit Scheduler(abi::VcpuShared& vcpu);

  void make_ready(Thread& thread);
  void end_wait(Thread& thread, Wake reason);
  void switch_to(Thread& next);
  void switch_to_next();  // the front of the run queue, or the idle thread
  void finish_switch();   // on the new thread's stack
  bool poll_events();     // devices and timers
  void idle_round();
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
  Thread* departed = nullptr;             // has exited; its stack is given back by finish_switch()
  Thread* program_state_owner = nullptr;  // whose vector state and FS base are in the registers
  u32 space = 0;
  bool in_event = false;  // what becomes ready now goes first
  u64 idle_stack_limit;
  u64 idle_since_ns = 0;
  u64 switched_at_ticks;
  u64 switches = 0;
};

Scheduler& scheduler();

}  // namespace husk::sched
