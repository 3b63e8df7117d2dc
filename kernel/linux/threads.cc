// Threads: clone(2), clone3(2), exit(2), and what a thread registers about itself.
//
// Only threads of this process so far: whatever does not share the address space is refused with ENOSYS and one line in the log.
#include <asm/prctl.h>
#include <linux/rseq.h>
#include <linux/sched.h>
#include <string.h>

#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/log.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/traps.h"

namespace husk::linux {
namespace {

constexpr u64 kThreadFlags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;

struct CloneRequest {
  u64 flags = 0, stack_pointer = 0, parent_tid = 0, child_tid = 0, tls = 0;
};

// The child's first steps, on its own kernel stack; it goes to the program when this returns.
void start_child(void*) {
  Task& task = current_task();
  u32 tid = static_cast<u32>(task.tid);
  if (task.set_child_tid != 0) (void)mem::copy_to_user(task.set_child_tid, &tid, sizeof(tid));
}

Result<void> check_clone(const CloneRequest& request) {
  if ((request.flags & CLONE_VM) == 0 || (request.flags & CLONE_THREAD) == 0) {
    static constinit bool reported = false;
    if (!reported) log(LogLevel::warning, "the program wants another process (fork): not supported, ENOSYS");
    reported = true;
    return Error(ENOSYS);
  }
  if ((request.flags & kThreadFlags) != kThreadFlags) return Error(EINVAL);
  return {};
}

Result<i64> clone_thread(const CloneRequest& request) {
  TRY(check_clone(request));
  Task& parent = current_task();
  Ref<Task> child = TRY(create_task(parent.process, start_child, nullptr));
  sched::Thread& thread = *child->thread;
  TrapFrame& frame = *thread.frame();
  frame = *parent.thread->frame();
  frame.rax = 0;
  frame.orig_rax = ~u64{0};
  if (request.stack_pointer != 0) frame.rsp = request.stack_pointer;
  thread.fs_base = (request.flags & CLONE_SETTLS) != 0 ? request.tls : sched::get_fs_base();
  sched::save_vector_state(thread.vector_state());
  child->signal_mask = parent.signal_mask;
  memcpy(child->name, parent.name, sizeof(child->name));
  if ((request.flags & CLONE_CHILD_SETTID) != 0) child->set_child_tid = request.child_tid;
  if ((request.flags & CLONE_CHILD_CLEARTID) != 0) child->clear_child_tid = request.child_tid;
  u32 tid = static_cast<u32>(child->tid);
  if ((request.flags & CLONE_PARENT_SETTID) != 0) (void)mem::copy_to_user(request.parent_tid, &tid, sizeof(tid));
  sched::start(child->thread);
  return tid;
}

}  // namespace

HUSK_SYSCALL(clone, u64 flags, u64 stack, u64 parent_tid, u64 child_tid, u64 tls) {
  return clone_thread({flags & ~u64{CSIGNAL}, stack, parent_tid, child_tid, tls});
}

HUSK_SYSCALL(clone3, u64 arguments_at, u64 size) {
  clone_args arguments = {};
  if (size < CLONE_ARGS_SIZE_VER0) return Error(EINVAL);
  if (size > kPageSize) return Error(E2BIG);
  for (u64 at = sizeof(arguments); at < size; ++at) {
    if (TRY(mem::read_user(mem::UserPtr<u8>(arguments_at + at))) != 0) return Error(E2BIG);
  }
  TRY(mem::copy_from_user(&arguments, arguments_at, size < sizeof(arguments) ? size : sizeof(arguments)));
  if ((arguments.flags & (CLONE_DETACHED | CSIGNAL)) != 0) return Error(EINVAL);
  if ((arguments.stack == 0) != (arguments.stack_size == 0)) return Error(EINVAL);
  CloneRequest request{arguments.flags, arguments.stack + arguments.stack_size, arguments.parent_tid, arguments.child_tid, arguments.tls};
  return clone_thread(request);
}

HUSK_SYSCALL(exit, int code) { exit_task(code); }
HUSK_SYSCALL(exit_group, int code) { exit_process(static_cast<u32>(code & 0xff) << 8); }

HUSK_SYSCALL(set_tid_address, u64 address) {
  current_task().clear_child_tid = address;
  return current_task().tid;
}

HUSK_SYSCALL(arch_prctl, int code, u64 address) {
  switch (code) {
    case ARCH_SET_FS:
      if (address >= kUserEnd) return Error(EPERM);
      sched::set_fs_base(address);
      return 0;
    case ARCH_GET_FS: TRY(mem::write_user(mem::UserPtr<u64>(address), sched::get_fs_base())); return 0;
    default:  // GS is the kernel's; CET and LAM are not there
      return Error(EINVAL);
  }
}

// rseq(2): there is one processor, so cpu_id stays 0 for ever; sequences are aborted by signals and pre-emption, in signal_delivery.cc.
HUSK_SYSCALL(rseq, u64 area, u32 size, int flags, u32 signature) {
  Task& task = current_task();
  constexpr u64 kOriginalSize = 32;
  if ((flags & RSEQ_FLAG_UNREGISTER) != 0) {
    if (flags != RSEQ_FLAG_UNREGISTER || area != task.rseq_area || size != task.rseq_size) return Error(EINVAL);
    if (signature != task.rseq_signature) return Error(EPERM);
    const u32 none[] = {0, static_cast<u32>(RSEQ_CPU_ID_UNINITIALIZED)};
    TRY(mem::copy_to_user(area, none, sizeof(none)));
    task.rseq_area = task.rseq_size = 0;
    return 0;
  }
  if (flags != 0) return Error(EINVAL);
  if (task.rseq_area != 0) {
    if (area != task.rseq_area || size != task.rseq_size) return Error(EINVAL);
    return Error(signature != task.rseq_signature ? EPERM : EBUSY);
  }
  if (size < kOriginalSize || area % 32 != 0) return Error(EINVAL);
  const u32 cpu_ids[] = {0, 0};
  TRY(mem::copy_to_user(area, cpu_ids, sizeof(cpu_ids)));
  task.rseq_area = area;
  task.rseq_size = size;
  task.rseq_signature = signature;
  return 0;
}

}  // namespace husk::linux
