// Sending and delivering signals, and what becomes of a system call that a signal interrupted. signal(7).
//
// A signal is put into a pending set and the thread that is to take it is interrupt()ed; that thread delivers it itself in
// before_return(), on its own kernel stack, with its registers in the frame. One call of before_return() may stack several frames.
#include <asm/unistd_64.h>

#include "kernel/linux/crash.h"
#include "kernel/linux/dispatch.h"
#include "kernel/linux/hooks.h"
#include "kernel/linux/signal_frame.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/linux/vdso.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/traps.h"
#include "kernel/vfs/socket.h"

namespace husk::linux {
namespace {

constexpr u64 kSaNoDefer = 0x40000000, kSaResetHand = 0x80000000, kSaRestart = 0x10000000;

bool can_take(const Task& task, int number) { return !task.killed && (task.signal_mask & signal_bit(number)) == 0; }

// A signal that is ignored vanishes when it is sent, unless it is blocked: sigtimedwait may want it.
bool vanishes(const Process& process, u64 mask, int number) {
  return is_ignored(process.actions->of[number], number) && (mask & signal_bit(number)) == 0 && number != SIGKILL;
}

// --- interrupted system calls ------------------------------------------------------------------------------------------

bool was_interrupted(const TrapFrame& frame) { return frame.orig_rax < kSyscallSlots && static_cast<i64>(frame.rax) == -EINTR; }

// A call with a time limit is over.
void end_for_good(TrapFrame& frame) {
  if (frame.orig_rax >= kSyscallSlots || static_cast<i64>(frame.rax) != -vfs::kInterruptedForGood) return;
  frame.rax = static_cast<u64>(-EINTR);
  frame.orig_rax = ~u64{0};
}

// No handler ran: the call goes on as if nothing had happened.
void repeat_call(Task& task, TrapFrame& frame) {
  if (restart_class(frame.orig_rax) == RestartClass::no) return;
  task.restart.active = true;
  i64 result = syscall_table()[frame.orig_rax](frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9);
  task.restart.active = false;
  frame.rax = static_cast<u64>(result);
  end_for_good(frame);
}

// The handler's return leads to __husk_restart, which makes the call again (README.md).
void repeat_call_after_handler(const Task& task, TrapFrame& frame) {
  frame.rax = frame.orig_rax;
  frame.rcx = frame.rip;
  frame.rip = vdso_restart(task.process->layout.vdso);
}

// --- restartable sequences: rseq(2) --------------------------------------------------------------------------------------

struct RseqArea {
  u32 cpu_id_start, cpu_id;
  u64 critical_section;
};
struct RseqSection {
  u32 version, flags;
  u64 start, length, abort;
};

Result<void> abort_sequence(Task& task, TrapFrame& frame) {
  u64 pointer_at = task.rseq_area + __builtin_offsetof(RseqArea, critical_section);
  u64 pointer = TRY(mem::read_user(mem::UserPtr<u64>(pointer_at)));
  if (pointer == 0) return {};
  auto section = TRY(mem::read_user(mem::UserPtr<RseqSection>(pointer)));
  TRY(mem::write_user(mem::UserPtr<u64>(pointer_at), u64{0}));
  if (frame.rip - section.start >= section.length) return {};
  u32 signature = TRY(mem::read_user(mem::UserPtr<u32>(section.abort - sizeof(u32))));
  if (section.version != 0 || section.abort >= kUserEnd || signature != task.rseq_signature) return Error(EINVAL);
  frame.rip = section.abort;
  return {};
}

// --- one signal -----------------------------------------------------------------------------------------------------------

[[noreturn]] void die(Task& task, const TrapFrame& frame, const SignalInfo& info) {
  if (default_action(info.number) == DefaultAction::dump) report_crash(task, frame, info);
  exit_process(static_cast<u32>(info.number) | (default_action(info.number) == DefaultAction::dump ? 0x80 : 0));
}

void run_handler(Task& task, TrapFrame& frame, const SignalInfo& info) {
  SignalAction& slot = task.process->actions->of[info.number];
  const SignalAction action = slot;
  if (was_interrupted(frame)) {
    bool restart = restart_class(frame.orig_rax) == RestartClass::always && (action.flags & kSaRestart) != 0;
    if (restart) repeat_call_after_handler(task, frame);
  }
  frame.orig_rax = ~u64{0};
  abort_sequence_if_any(task, frame);
  u64 mask_to_restore = task.saved_mask_valid ? task.saved_mask : task.signal_mask;
  task.saved_mask_valid = false;
  if (!push_signal_frame(task, frame, info, action, mask_to_restore).ok()) {
    SignalInfo fault = kernel_signal(SIGSEGV);
    die(task, frame, fault);
  }
  u64 blocked = task.signal_mask | action.mask;
  if ((action.flags & kSaNoDefer) == 0) blocked |= signal_bit(info.number);
  task.signal_mask = blocked & ~kUnblockable;
  if ((action.flags & kSaResetHand) != 0) slot.handler = 0;
}

bool take_signal(Task& task, SignalInfo* info) {
  return task.pending.take(~task.signal_mask, info) || task.process->pending.take(~task.signal_mask, info);
}

}  // namespace

void abort_sequence_if_any(Task& task, TrapFrame& frame) {
  if (task.rseq_area != 0 && !abort_sequence(task, frame).ok()) force_signal(kernel_signal(SIGSEGV));
}

// rseq(2): a sequence ends also when other threads ran.
void pre_empted(TrapFrame& frame) { abort_sequence_if_any(current_task(), frame); }

void before_return(TrapFrame& frame) {
  Task& task = current_task();
  if (frame.orig_rax == ~u64{0}) abort_sequence_if_any(task, frame);
  end_for_good(frame);
  for (;;) {
    task.thread->clear_interrupt();
    if (task.killed) exit_task(0);
    SignalInfo info;
    while (take_signal(task, &info)) {
      const SignalAction& action = task.process->actions->of[info.number];
      if (is_ignored(action, info.number)) continue;
      if (action.handler == 0) die(task, frame, info);
      run_handler(task, frame, info);
    }
    if (!was_interrupted(frame)) break;
    repeat_call(task, frame);
    if (!was_interrupted(frame) || restart_class(frame.orig_rax) == RestartClass::no) break;
  }
  if (task.saved_mask_valid) {
    task.saved_mask_valid = false;
    set_signal_mask(task.saved_mask);
  }
  if (signal_pending(task)) task.thread->interrupt();
}

bool signal_pending(const Task& task) { return ((task.pending.set() | task.process->pending.set()) & ~task.signal_mask) != 0; }

void set_signal_mask(u64 mask) {
  Task& task = current_task();
  task.signal_mask = mask & ~kUnblockable;
  if (signal_pending(task)) task.thread->interrupt();
}

void send_signal(Task& task, const SignalInfo& info) {
  if (vanishes(*task.process, task.signal_mask, info.number)) return;
  task.pending.add(info);
  if (can_take(task, info.number)) task.thread->interrupt();
  wake_signal_waiters(*task.process);
}

void send_signal(Process& process, const SignalInfo& info) {
  Task* taker = nullptr;
  u64 blocked_by_all = ~u64{0};
  for (Task& task : process.tasks) {
    blocked_by_all &= task.signal_mask;
    if (taker == nullptr && can_take(task, info.number)) taker = &task;
  }
  if (vanishes(process, blocked_by_all, info.number)) return;
  process.pending.add(info);
  if (taker != nullptr) taker->thread->interrupt();
  wake_signal_waiters(process);
}

SignalInfo kernel_signal(int number) {
  SignalInfo info;
  info.number = number;
  info.code = SI_KERNEL;
  return info;
}

void force_signal(const SignalInfo& info) {
  Task& task = current_task();
  SignalAction& action = task.process->actions->of[info.number];
  if (action.handler == 1 || (task.signal_mask & signal_bit(info.number)) != 0) {
    action.handler = 0;
    task.signal_mask &= ~signal_bit(info.number);
  }
  send_signal(task, info);
}

void raise_broken_pipe() {
  SignalInfo info;
  info.number = SIGPIPE;
  info.code = SI_USER;
  info.fields.sender = {current_process().pid, current_process().credentials.uid, 0};
  send_signal(current_task(), info);
}

Result<void> TemporaryMask::begin(u64 mask_address, u64 mask_size) {
  if (mask_address == 0) return {};
  if (mask_size != sizeof(u64)) return Error(EINVAL);
  u64 mask = TRY(mem::read_user(mem::UserPtr<u64>(mask_address)));
  Task& task = current_task();
  if (!task.saved_mask_valid) task.saved_mask = task.signal_mask;  // else: a repetition of the call
  task.saved_mask_valid = true;
  set_signal_mask(mask);
  return {};
}

void TemporaryMask::end(bool interrupted) {
  Task& task = current_task();
  if (!task.saved_mask_valid || interrupted) return;  // interrupted: before_return() sees to it
  task.saved_mask_valid = false;
  set_signal_mask(task.saved_mask);
}

}  // namespace husk::linux
