// Threads and waiting. Kernel code is never pre-empted: it runs until it blocks, yields or returns to the program.
//
// Lock order does not arise with one vCPU; what several vCPUs will need (run queue per Cpu, wake on another Cpu) is behind this
// header. The Linux notions of task, process and signal live in kernel/linux and hang on Thread::owner.
#pragma once

#include "base/list.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "kernel/cpu.h"
#include "kernel/time/time.h"

namespace husk::sched {

constexpr u64 kKernelStackSize = 16 * kKiB;

enum class Wake : u8 { woken, timed_out, interrupted };
enum class Interruptible : bool { no, yes };

struct RunQueueTag;
[[noreturn]] void exit_current();

class Thread : public RefCounted<Thread>, public ListNode<RunQueueTag> {
 public:
  // `entry` runs on the new kernel stack; it returns into the program through frame() if it returns at all.
  using Entry = void (*)(void* argument);
  static Result<Ref<Thread>> create(Entry entry, void* argument);
  ~Thread();

  TrapFrame* frame() const;  // the program's registers, at the top of the kernel stack
  u64 fs_base = 0;           // saved while the thread does not run; kernel/linux sets it through set_fs_base()
  void* owner = nullptr;     // linux::Task
  u32 space = 0;             // nub address space
  // The vector state (XSAVE area, 64-byte aligned, xsave_size() bytes), for a thread that was not started yet: initial state until
  // changed. Of the current thread use save_vector_state().
  u8* vector_state() const;

  // A signal arrived: ends an interruptible wait, and makes the next one end at once, until cleared.
  void interrupt();
  void clear_interrupt();
  bool interrupted() const;
  u64 run_time_ns() const;

 private:
  friend struct Scheduler;
  friend void start(Ref<Thread> thread);
  friend void exit_current();
  friend void yield();
  friend void prepare_to_block();
  friend Wake block(u64 deadline_ns, Interruptible interruptible);
  enum class State : u8 { created, ready, running, preparing, blocked, dead };
  struct Timeout : time::Timer {
    explicit Timeout(Thread& sleeper) : Timer(&expired), thread(sleeper) {}
    static void expired(time::Timer& timer);
    Thread& thread;
  };
  Thread() : timeout_(*this) {}
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  u8* stack_ = nullptr;  // kKernelStackSize bytes, and behind them the vector state; null: the boot thread's
  u64 saved_rsp_ = 0;    // while it does not run
  State state_ = State::created;
  Wake reason_ = Wake::woken;
  Interruptible interruptible_ = Interruptible::no;
  u8 saved_work_ = 0;  // its bits of VcpuShared::kernel_work[0] while it does not run
  bool interrupted_ = false;
  u64 run_ticks_ = 0;
  Timeout timeout_;
};

Thread* current();
void start(Ref<Thread> thread);  // makes it runnable; the scheduler holds a reference until it exits
void yield();
bool others_runnable();
void set_fs_base(u64 base);  // of the current thread
u64 get_fs_base();           // of the current thread: the program may have changed it itself (WRFSBASE)
u32 xsave_size();
u64 xsave_mask();                  // the state components that are saved (bits of XCR0)
void save_vector_state(u8* area);  // of the running program code, for signal frames (XSAVE, standard format)
void restore_vector_state(const u8* area);
void init_vector_state();  // as after execve

// Puts the current thread to sleep until wake(), the deadline (monotonic ns) or, if interruptible, a signal.
// A wake() between the caller's check and block() is not lost as long as prepare_to_block() came before the check.
void prepare_to_block();
Wake block(u64 deadline_ns, Interruptible interruptible);
void wake(Thread* thread);
// While one lives nobody else may run, which is asserted: somebody further out holds pointers that would not survive that. One at a time.
class MustStay {
 public:
  MustStay();
  ~MustStay();
  MustStay(const MustStay&) = delete;
  MustStay& operator=(const MustStay&) = delete;
};

// Something that wants to hear from a WaitQueue: a sleeping thread, an epoll item.
struct WaiterTag;
class Waiter : public ListNode<WaiterTag> {
 public:
  virtual void notify(u32 events) = 0;  // kernel context; must not block; may remove itself
  bool exclusive = false;               // wake_one() chooses one of these

 protected:
  ~Waiter() = default;
};

class WaitQueue {
 public:
  void add(Waiter* waiter) { waiters_.push_back(waiter); }
  void add_exclusive(Waiter* waiter) {
    waiter->exclusive = true;
    waiters_.push_back(waiter);
  }
  static void remove(Waiter* waiter) { waiter->unlink(); }
  bool empty() const { return waiters_.empty(); }
  void wake_all(u32 events = 0);
  void wake_one(u32 events = 0);
  // Blocks the current thread until notified. Callers loop: while (!condition) switch (queue.wait(...)) ...
  Wake wait(u64 deadline_ns = time::kForever, Interruptible interruptible = Interruptible::yes);
  // The same, as one of those among whom wake_one() chooses.
  Wake wait_exclusive(u64 deadline_ns);

 private:
  List<Waiter, WaiterTag> waiters_;
};

// Device polling: called when an event interrupt came in, before idling, and between idling rounds. True if there was work. A load or two when
// there is none: an idle machine calls it over and over.
struct PollerTag;
class Poller : public ListNode<PollerTag> {
 public:
  virtual bool poll() = 0;
  // Before the vCPU parks: has events announced by interrupts, then looks again. True: there is work, poll before parking.
  virtual bool prepare_to_sleep() { return false; }

 protected:
  ~Poller() = default;
};
void register_poller(Poller* poller);
bool poll_devices();
// The same for who blocks next if that finds nothing; in vain where only halting serves the devices (platform.h).
bool poll_before_blocking();
// For machines without device interrupts (MachineKind::pc): a timer polls instead, soon after activity, then ever more seldom.
void poll_by_timer();
// Something is awaited from a device: to be called before waiting for it. Costs nothing where there are interrupts.
void expect_events();

// Called by the exit path when VcpuShared work bytes are set: due timers, devices, reschedule. (Signals: kernel/linux.)
// True if other threads ran meanwhile.
bool handle_work();
void init(abi::VcpuShared* shared);
// The boot thread, which is the idle thread, ends here. Only other threads may block.
[[noreturn]] void run_idle();
// Hosted tests: from the boot thread, runs the others until all of them are blocked for ever or gone; time moves as timers are due.
void run_until_quiet();

struct SchedulerStatistics {
  u64 switches, idle_ns;
};
SchedulerStatistics statistics();

}  // namespace husk::sched
