// The system calls on signals but rt_sigreturn's frame (signal_frame.cc) and signalfd (signalfd.cc).
#include <asm/unistd_64.h>

#include "kernel/linux/hooks.h"
#include "kernel/linux/signal_frame.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/traps.h"
#include "kernel/time/time.h"

namespace husk::linux {
namespace {

constexpr u32 kSsDisable = 2, kSsOnStack = 1, kSsAutodisarm = 1u << 31;

Result<void> check_set_size(u64 size) {
  if (size != sizeof(u64)) return Error(EINVAL);
  return {};
}

Result<void> check_number(int number) {
  if (number < 1 || number > kSignalMax) return Error(EINVAL);
  return {};
}

SignalInfo sent_by_program(int number, int code) {
  SignalInfo info;
  info.number = number;
  info.code = code;
  info.fields.sender = {current_process().pid, current_process().credentials.uid, 0};
  return info;
}

Result<i64> send_to_task(int process_id, int tid, const SignalInfo& info) {
  Task* task = find_task(tid);
  if (task == nullptr || (process_id > 0 && task->process->pid != process_id)) return Error(ESRCH);
  if (info.number != 0) send_signal(*task, info);
  return 0;
}

constinit sched::WaitQueue* signal_waiters = nullptr;

}  // namespace

// sigtimedwait and signalfd look at pending signals that are blocked: interrupt() does not tell them.
sched::WaitQueue& signal_wait_queue() {
  if (signal_waiters == nullptr) signal_waiters = new (std::nothrow) sched::WaitQueue;
  HUSK_ASSERT(signal_waiters != nullptr);
  return *signal_waiters;
}

void wake_signal_waiters(Process&) {
  if (signal_waiters != nullptr) signal_waiters->wake_all(1);  // POLLIN
}

HUSK_SYSCALL(rt_sigaction, int number, mem::UserPtr<SignalAction> action, mem::UserPtr<SignalAction> old, u64 size) {
  TRY(check_set_size(size));
  TRY(check_number(number));
  if (action && (signal_bit(number) & kUnblockable) != 0) return Error(EINVAL);
  Process& process = current_process();
  SignalAction previous = process.actions->of[number];
  if (action) {
    SignalAction wanted = TRY(mem::read_user(action));
    wanted.mask &= ~kUnblockable;
    process.actions->of[number] = wanted;
    if (is_ignored(wanted, number)) {
      process.pending.discard(signal_bit(number));
      for (Task& task : process.tasks) task.pending.discard(signal_bit(number));
    }
  }
  if (old) TRY(mem::write_user(old, previous));
  return 0;
}

HUSK_SYSCALL(rt_sigprocmask, int how, mem::UserPtr<u64> set, mem::UserPtr<u64> old, u64 size) {
  TRY(check_set_size(size));
  Task& task = current_task();
  u64 previous = task.signal_mask;
  if (set) {
    u64 signals = TRY(mem::read_user(set));
    switch (how) {
      case SIG_BLOCK: set_signal_mask(previous | signals); break;
      case SIG_UNBLOCK: set_signal_mask(previous & ~signals); break;
      case SIG_SETMASK: set_signal_mask(signals); break;
      default: return Error(EINVAL);
    }
  }
  if (old) TRY(mem::write_user(old, previous));
  return 0;
}

HUSK_SYSCALL(rt_sigpending, mem::UserPtr<u64> set, u64 size) {
  if (size > sizeof(u64)) return Error(EINVAL);
  Task& task = current_task();
  u64 pending = (task.pending.set() | task.process->pending.set()) & task.signal_mask;
  TRY(mem::copy_to_user(set.address, &pending, size));
  return 0;
}

extern "C" i64 sys_rt_sigreturn(u64, u64, u64, u64, u64, u64) {
  Task& task = current_task();
  TrapFrame& frame = *task.thread->frame();
  if (!pop_signal_frame(task, frame).ok()) force_signal(kernel_signal(SIGSEGV));
  frame.orig_rax = ~u64{0};
  sched::return_with_frame();
  return static_cast<i64>(frame.rax);
}

HUSK_SYSCALL(rt_sigsuspend, u64 mask, u64 size) {
  TRY(TemporaryMask::begin(mask, size));
  while (!signal_pending(current_task()) && !current_task().killed) {
    sched::prepare_to_block();
    if (sched::block(time::kForever, sched::Interruptible::yes) == sched::Wake::interrupted) break;
  }
  return Error(EINTR);  // the mask stays until the handler has its frame
}

HUSK_SYSCALL(pause) {
  sched::prepare_to_block();
  while (sched::block(time::kForever, sched::Interruptible::yes) != sched::Wake::interrupted) sched::prepare_to_block();
  return Error(EINTR);
}

HUSK_SYSCALL(rt_sigtimedwait, mem::UserPtr<u64> set, mem::UserPtr<SignalInfo> info_out, u64 timeout, u64 size) {
  TRY(check_set_size(size));
  const u64 wanted = TRY(mem::read_user(set)) & ~kUnblockable;
  const u64 deadline = restartable_deadline(TRY(read_timespec_ns(timeout)));
  Task& task = current_task();
  SignalInfo info;
  while (!task.pending.take(wanted, &info) && !task.process->pending.take(wanted, &info)) {
    switch (signal_wait_queue().wait(deadline, sched::Interruptible::yes)) {
      case sched::Wake::woken: break;
      case sched::Wake::timed_out: return Error(EAGAIN);
      case sched::Wake::interrupted:
        // Unblocked signals that are waited for interrupt as well: they are taken, not delivered.
        if (((task.pending.set() | task.process->pending.set()) & wanted) == 0) return Error(EINTR);
    }
  }
  if (info_out) TRY(mem::write_user(info_out, info));
  return info.number;
}

HUSK_SYSCALL(kill, int process_id, int number) {
  if (number != 0) TRY(check_number(number));
  Process& self = current_process();
  bool to_self = process_id == self.pid || process_id == 0 || process_id == -self.group;
  if (process_id == -1 || !to_self) return Error(ESRCH);
  if (number != 0) send_signal(self, sent_by_program(number, SI_USER));
  return 0;
}

HUSK_SYSCALL(tkill, int tid, int number) {
  if (number != 0) TRY(check_number(number));
  if (tid <= 0) return Error(EINVAL);
  return send_to_task(0, tid, sent_by_program(number, SI_TKILL));
}

HUSK_SYSCALL(tgkill, int process_id, int tid, int number) {
  if (number != 0) TRY(check_number(number));
  if (tid <= 0 || process_id <= 0) return Error(EINVAL);
  return send_to_task(process_id, tid, sent_by_program(number, SI_TKILL));
}

HUSK_SYSCALL(rt_sigqueueinfo, int process_id, int number, mem::UserPtr<SignalInfo> from) {
  SignalInfo info = TRY(mem::read_user(from));
  TRY(check_number(number));
  if (process_id != current_process().pid) return Error(ESRCH);
  info.number = number;
  send_signal(current_process(), info);
  return 0;
}

HUSK_SYSCALL(rt_tgsigqueueinfo, int process_id, int tid, int number, mem::UserPtr<SignalInfo> from) {
  SignalInfo info = TRY(mem::read_user(from));
  TRY(check_number(number));
  info.number = number;
  return send_to_task(process_id, tid, info);
}

HUSK_SYSCALL(sigaltstack, u64 wanted_at, u64 old_at) {
  struct Record {
    u64 address;
    u32 flags, pad;
    u64 size;
  };
  Task& task = current_task();
  const AlternateStack previous = task.alternate_stack;
  const u64 stack_pointer = task.thread->frame()->rsp;
  bool on_it = (previous.flags & (kSsDisable | kSsAutodisarm)) == 0 && previous.contains(stack_pointer);
  if (wanted_at != 0) {
    Record wanted = TRY(mem::read_user(mem::UserPtr<Record>(wanted_at)));
    u32 mode = wanted.flags & ~kSsAutodisarm;
    if (on_it) return Error(EPERM);
    if (mode != kSsDisable && mode != kSsOnStack && mode != 0) return Error(EINVAL);
    if (mode == kSsDisable) {
      task.alternate_stack = {0, 0, wanted.flags};
    } else {
      if (wanted.size < 2048) return Error(ENOMEM);  // MINSIGSTKSZ
      task.alternate_stack = {wanted.address, wanted.size, wanted.flags & kSsAutodisarm};
    }
  }
  if (old_at != 0) {
    Record old = {previous.address, previous.flags | (on_it ? kSsOnStack : 0), 0, previous.size};
    TRY(mem::write_user(mem::UserPtr<Record>(old_at), old));
  }
  return 0;
}

}  // namespace husk::linux
