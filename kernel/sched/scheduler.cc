// Threads and the run queue: round robin, with what an event woke in front. See sched.h for who may call what.
#include "kernel/sched/scheduler.h"

#include <new>

#include "kernel/mem/frames.h"
#include "kernel/sched/context.h"
#include "kernel/sched/program_state.h"
#include "kernel/sched/traps.h"
#include "platform/platform.h"

namespace husk::sched {
namespace {

// Words of VcpuShared::scratch (cpu.h).
constexpr size_t scratch_index(size_t offset) { return (offset - HUSK_VCPU_SCRATCH) / sizeof(u64); }
constexpr size_t kKernelStack = scratch_index(HUSK_CPU_KERNEL_STACK);
[[maybe_unused]] constexpr size_t kSelf = scratch_index(HUSK_CPU_SELF);  // hosted tests find their Cpu without it
constexpr size_t kStackLimit = scratch_index(HUSK_CPU_STACK_LIMIT);
// What a trap in the kernel needs of the stack before it can complain.
constexpr u64 kStackReserve = sizeof(TrapFrame) + 1 * kKiB;
constexpr u8 kThreadWork = kWorkSignal | kWorkFullReturn;
constexpr u64 kFlagsInitial = 0x202;

// Bytes: an object would have a constructor and a destructor to run. init() makes it.
alignas(Scheduler) constinit u8 storage[sizeof(Scheduler)]{};

#if defined(HUSK_GUEST)
constinit Cpu boot_cpu;
Cpu& make_cpu(abi::VcpuShared& shared) {
  boot_cpu.shared = &shared;
  shared.scratch[kSelf] = reinterpret_cast<u64>(&boot_cpu);
  return boot_cpu;
}
#else
Cpu& make_cpu(abi::VcpuShared&) { return this_cpu(); }
#endif

}  // namespace

Scheduler& scheduler() { return *std::launder(reinterpret_cast<Scheduler*>(storage)); }

Scheduler::Scheduler(abi::VcpuShared& vcpu)
    : shared(vcpu), cpu(make_cpu(vcpu)), idle_stack_limit(vcpu.scratch[kStackLimit]), switched_at_ticks(platform::ticks()) {
  idle.state_ = Thread::State::running;
  cpu.current = cpu.idle = &idle;
}

void init(abi::VcpuShared* shared) {
  static constinit bool again = false;  // hosted tests begin anew; the timer queue must not keep the old timer
  if (std::exchange(again, true)) {
    scheduler().slice.cancel();
    scheduler().device_timer.cancel();
  }
  new (storage) Scheduler(*shared);
  detect_vector_state();
  HUSK_ASSERT(xsave_size() <= kVectorAreaSize);
}

Thread* current() { return this_cpu().current; }

// --- stacks ----------------------------------------------------------------------------------------------------

Result<u8*> StackCache::take() {
  if (count_ > 0) return kept_[--count_];
  return mem::allocate_guarded(kKernelStackSize + kVectorAreaSize);
}

void StackCache::give(u8* stack) {
  if (count_ < kKept) {
    kept_[count_++] = stack;
  } else {
    mem::free_guarded(stack, kKernelStackSize + kVectorAreaSize);
  }
}

// --- threads ---------------------------------------------------------------------------------------------------

Result<Ref<Thread>> Thread::create(Entry entry, void* argument) {
  auto thread = Ref<Thread>::adopt(new (std::nothrow) Thread());
  if (!thread) return Error(ENOMEM);
  thread->stack_ = TRY(scheduler().stacks.take());
  forget_stack_contents(thread->stack_, kKernelStackSize);
  thread->entry_ = entry;
  thread->argument_ = argument;
  *thread->frame() = {.cs = HUSK_USER_CS, .rflags = kFlagsInitial, .ss = HUSK_USER_SS, .orig_rax = ~u64{0}, .vector = ~u64{0}};
  thread->saved_rsp_ = prepare_stack(reinterpret_cast<u8*>(thread->frame()), Scheduler::begin_thread);
  write_initial_vector_state(thread->vector_state());
  return thread;
}

Thread::~Thread() {
  if (stack_ != nullptr) scheduler().stacks.give(stack_);
}

TrapFrame* Thread::frame() const { return reinterpret_cast<TrapFrame*>(Scheduler::stack_top(*this)) - 1; }
u8* Thread::vector_state() const { return Scheduler::stack_top(*this); }

u64 Thread::run_time_ns() const {
  u64 ticks = run_ticks_;
  if (this == current()) ticks += platform::ticks() - scheduler().switched_at_ticks;
  return time::ticks_to_ns(ticks);
}

void Scheduler::begin_thread() {
  stack_entered();
  scheduler().finish_switch();
  Thread& self = *current();
  self.entry_(self.argument_);
#if defined(HUSK_GUEST)
  enter_program();
#else
  exit_current();
#endif
}

void start(Ref<Thread> thread) {
  HUSK_ASSERT(thread->state_ == Thread::State::created);
  scheduler().make_ready(*thread.leak());
}

void exit_current() {
  Scheduler& s = scheduler();
  Thread& self = *current();
  HUSK_ASSERT(&self != &s.idle);
  self.state_ = Thread::State::dead;
  if (s.program_state_owner == &self) s.program_state_owner = nullptr;
  s.departed = &self;
  s.switch_to_next();
  HUSK_PANIC("an exited thread runs");
}

// --- switching -------------------------------------------------------------------------------------------------

// The idle thread has no program state and leaves that of the last program thread where it is.
void Scheduler::load_program_state(Thread& next) {
  if (&next == &idle) return;
  if (next.space != space) {
    platform::switch_space(next.space);
    space = next.space;
  }
  if (program_state_owner == &next) return;
  if (program_state_owner != nullptr) {
    program_state_owner->fs_base = read_fs_base();
    xsave(program_state_owner->vector_state());
  }
  program_state_owner = &next;
  write_fs_base(next.fs_base);
  xrstor(next.vector_state());
}

void Scheduler::switch_to(Thread& next) {
  Thread& previous = *cpu.current;
  next.state_ = Thread::State::running;
  if (&next == &previous) return;
  u64 now = platform::ticks();
  previous.run_ticks_ += now - switched_at_ticks;
  switched_at_ticks = now;
  ++switches;
  u8& work = shared.kernel_work[0];
  previous.saved_work_ = work & kThreadWork;
  work = static_cast<u8>((work & ~kThreadWork) | next.saved_work_);
  load_program_state(next);
  cpu.current = &next;
  bool to_idle = &next == &idle;
  shared.scratch[kKernelStack] = to_idle ? 0 : reinterpret_cast<u64>(stack_top(next));
  shared.scratch[kStackLimit] = to_idle ? idle_stack_limit : reinterpret_cast<u64>(next.stack_) + kStackReserve;
  switch_stacks(&previous.saved_rsp_, next.saved_rsp_, next.stack_, kKernelStackSize, departed == &previous);
  finish_switch();
}

void Scheduler::switch_to_next() {
  HUSK_ASSERT(!must_stay);
  Thread* next = ready.pop_front();
  // Others that became ready while nobody ran have no slice to wait for yet.
  if (!ready.empty() && !slice.armed()) slice.arm(time::monotonic_ns() + kSliceNs);
  switch_to(next == nullptr ? idle : *next);
}

void Scheduler::finish_switch() {
  if (departed == nullptr) return;
  Thread* gone = std::exchange(departed, nullptr);
  stacks.give(std::exchange(gone->stack_, nullptr));
  gone->unref();
}

void Scheduler::make_ready(Thread& thread) {
  thread.state_ = Thread::State::ready;
  if (in_event) {
    ready.push_front(&thread);
    if (cpu.current != &idle) raise_work(kWorkReschedule);
  } else {
    ready.push_back(&thread);
  }
  if (cpu.current != &idle && !slice.armed()) slice.arm(time::monotonic_ns() + kSliceNs);
}

MustStay::MustStay() { scheduler().must_stay = true; }
MustStay::~MustStay() { scheduler().must_stay = false; }

void yield() {
  Scheduler& s = scheduler();
  if (s.ready.empty()) return;
  Thread& self = *current();
  if (&self != &s.idle) {
    self.state_ = Thread::State::ready;
    s.ready.push_back(&self);
  }
  s.switch_to_next();
}

bool others_runnable() { return !scheduler().ready.empty(); }

// Armed for the first thread that had to wait; who runs now may have started later and gets the rest of its slice.
void Scheduler::slice_ended(time::Timer& timer) {
  Scheduler& s = scheduler();
  if (s.ready.empty() || s.cpu.current == &s.idle) return;
  u64 used_ns = time::ticks_to_ns(platform::ticks() - s.switched_at_ticks);
  if (used_ns >= kSliceNs) raise_work(kWorkReschedule);
  timer.arm(time::monotonic_ns() + (used_ns >= kSliceNs ? kSliceNs : kSliceNs - used_ns));
}

// --- blocking --------------------------------------------------------------------------------------------------

void prepare_to_block() { current()->state_ = Thread::State::preparing; }

Wake block(u64 deadline_ns, Interruptible interruptible) {
  Scheduler& s = scheduler();
  Thread& self = *current();
  HUSK_ASSERT(&self != &s.idle);
  if (self.state_ != Thread::State::preparing) return Wake::woken;
  self.state_ = Thread::State::running;
  if (interruptible == Interruptible::yes && self.interrupted_) return Wake::interrupted;
  if (deadline_ns != time::kForever) {
    if (deadline_ns <= time::monotonic_ns()) return Wake::timed_out;
    self.timeout_.arm(deadline_ns);
  }
  self.state_ = Thread::State::blocked;
  self.interruptible_ = interruptible;
  s.switch_to_next();
  self.timeout_.cancel();
  return self.reason_;
}

void Scheduler::end_wait(Thread& thread, Wake reason) {
  if (thread.state_ == Thread::State::preparing) thread.state_ = Thread::State::running;
  if (thread.state_ != Thread::State::blocked) return;
  thread.reason_ = reason;
  make_ready(thread);
}

void wake(Thread* thread) { scheduler().end_wait(*thread, Wake::woken); }
void Thread::Timeout::expired(time::Timer& timer) {
  Thread& sleeper = static_cast<Timeout&>(timer).thread;
  if (sleeper.state_ == State::blocked) scheduler().end_wait(sleeper, Wake::timed_out);
}

void Thread::interrupt() {
  interrupted_ = true;
  if (this == current()) {
    raise_work(kWorkSignal);
  } else {
    saved_work_ |= kWorkSignal;
  }
  if (state_ == State::blocked && interruptible_ == Interruptible::yes) scheduler().end_wait(*this, Wake::interrupted);
}

void Thread::clear_interrupt() {
  interrupted_ = false;
  u8& work = this == current() ? scheduler().shared.kernel_work[0] : saved_work_;
  work &= static_cast<u8>(~kWorkSignal);
}

bool Thread::interrupted() const { return interrupted_; }

void set_fs_base(u64 base) {
  current()->fs_base = base;
  write_fs_base(base);
}
u64 get_fs_base() { return read_fs_base(); }
void return_with_frame() { raise_work(kWorkFullReturn); }

// --- events and idling -----------------------------------------------------------------------------------------

bool Scheduler::poll_events() {
  if (shared.interrupt_pending) platform::acknowledge_event();
  in_event = true;
  bool worked = poll_devices();
  time::run_timers();
  in_event = false;
  return worked;
}

bool handle_work() {
  Scheduler& s = scheduler();
  bool others_ran = false;
  if (s.shared.interrupt_pending) s.poll_events();
  u8& work = s.shared.kernel_work[0];
  if (work & kWorkReschedule) {
    work &= static_cast<u8>(~kWorkReschedule);
    others_ran = others_runnable();
    yield();
  }
  if (work & kWorkPlatform) {
    work &= static_cast<u8>(~kWorkPlatform);
    platform::before_program();
  }
  return others_ran;
}

void Scheduler::idle_round() {
  const bool ran = !ready.empty();
  if (ran) {
    switch_to_next();
    idle_polling.begin(time::monotonic_ns());
  }
  // Where devices have their turn in halt() only, nothing is new before it: prepare_to_sleep() looks once.
  if (!(ran && platform::halting_serves()) && poll_events()) idle_polling.event(time::monotonic_ns());
  if (!ready.empty()) return;
  if (!platform::halting_serves() && idle_polling.worthwhile(time::monotonic_ns())) {
    __builtin_ia32_pause();
    return;
  }
  if (prepare_to_sleep() || !ready.empty()) return;  // a timer that was due may have woken somebody
  idle_polling.park();
  platform::halt();
}

void run_idle() {
  HUSK_ASSERT(current() == &scheduler().idle);
  for (;;) scheduler().idle_round();
}

void run_until_quiet() {
  Scheduler& s = scheduler();
  for (;;) {
    if (!s.ready.empty()) {
      s.switch_to_next();
    } else if (!s.poll_events() && s.ready.empty()) {
      if (s.prepare_to_sleep()) continue;
      if (time::next_deadline_ns() == time::kForever) return;
      platform::halt();
    }
  }
}

SchedulerStatistics statistics() { return {scheduler().switches, scheduler().idle.run_time_ns()}; }

}  // namespace husk::sched
