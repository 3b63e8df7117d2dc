// sched_*(2), priorities, getcpu: there is one processor and every thread is equal.
#include <linux/sched.h>
#include <linux/time_types.h>

#include <algorithm>

#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"

namespace husk::linux {
namespace {

// The first word of a CPU mask: processor 0.
constexpr u64 kOnlyProcessor = 1;
constexpr u32 kPrioUser = 2;  // PRIO_USER, the last (linux/resource.h clashes with time.h)
constexpr int kRealTimePriorityMax = 99;
constexpr int kIoPriorityDefault = 4;  // IOPRIO_CLASS_NONE, level 4

struct Attributes {  // struct sched_attr, first version (linux/sched/types.h clashes with pthread.h)
  u32 size, policy;
  u64 flags;
  int nice;
  u32 priority;
  u64 runtime, deadline, period;
};
static_assert(sizeof(Attributes) == 48);

Result<void> check_task(int tid, int if_negative = EINVAL) {
  if (tid < 0) return Error(if_negative);
  if (tid != 0 && find_task(tid) == nullptr) return Error(ESRCH);
  return {};
}

bool is_real_time(int policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }

Result<void> check_policy(int policy) {
  switch (policy) {
    case SCHED_NORMAL:
    case SCHED_BATCH:
    case SCHED_IDLE:
    case SCHED_FIFO:
    case SCHED_RR: return {};
    default: return Error(EINVAL);
  }
}

}  // namespace

HUSK_SYSCALL(sched_yield) {
  sched::yield();
  return 0;
}

HUSK_SYSCALL(sched_getaffinity, int tid, u32 size, u64 mask) {
  TRY(check_task(tid, ESRCH));
  if (size < sizeof(u64) || size % sizeof(u64) != 0) return Error(EINVAL);
  TRY(mem::copy_to_user(mask, &kOnlyProcessor, sizeof(kOnlyProcessor)));
  return sizeof(kOnlyProcessor);
}

HUSK_SYSCALL(sched_setaffinity, int tid, u32 size, u64 mask) {
  TRY(check_task(tid, ESRCH));
  u64 wanted = 0;
  TRY(mem::copy_from_user(&wanted, mask, size < sizeof(wanted) ? size : sizeof(wanted)));
  if ((wanted & kOnlyProcessor) == 0) return Error(EINVAL);
  return 0;
}

HUSK_SYSCALL(sched_setscheduler, int tid, int policy, mem::UserPtr<int> priority_at) {
  TRY(check_task(tid));
  policy &= ~static_cast<int>(SCHED_RESET_ON_FORK);
  TRY(check_policy(policy));
  int priority = TRY(mem::read_user(priority_at));
  if (is_real_time(policy) ? priority < 1 || priority > kRealTimePriorityMax : priority != 0) return Error(EINVAL);
  return 0;
}

HUSK_SYSCALL(sched_getscheduler, int tid) {
  TRY(check_task(tid));
  return SCHED_NORMAL;
}

HUSK_SYSCALL(sched_setparam, int tid, mem::UserPtr<int> priority_at) {
  TRY(check_task(tid));
  if (TRY(mem::read_user(priority_at)) != 0) return Error(EINVAL);
  return 0;
}

HUSK_SYSCALL(sched_getparam, int tid, mem::UserPtr<int> priority_at) {
  TRY(check_task(tid));
  TRY(mem::write_user(priority_at, 0));
  return 0;
}

HUSK_SYSCALL(sched_setattr, int tid, u64 attributes, u32) {
  TRY(check_task(tid));
  Attributes wanted = TRY(mem::read_user(mem::UserPtr<Attributes>(attributes)));
  TRY(check_policy(static_cast<int>(wanted.policy)));
  return 0;
}

HUSK_SYSCALL(sched_getattr, int tid, u64 attributes, u32 size, u32 flags) {
  TRY(check_task(tid));
  if (flags != 0 || size < sizeof(Attributes)) return Error(EINVAL);
  Attributes values = {};
  values.size = sizeof(values);
  values.nice = current_process().nice;
  TRY(mem::write_user(mem::UserPtr<Attributes>(attributes), values));
  return 0;
}

HUSK_SYSCALL(sched_get_priority_max, int policy) {
  TRY(check_policy(policy));
  return is_real_time(policy) ? kRealTimePriorityMax : 0;
}

HUSK_SYSCALL(sched_get_priority_min, int policy) {
  TRY(check_policy(policy));
  return is_real_time(policy) ? 1 : 0;
}

HUSK_SYSCALL(sched_rr_get_interval, int tid, mem::UserPtr<__kernel_timespec> interval) {
  TRY(check_task(tid));
  TRY(mem::write_user(interval, __kernel_timespec{0, 4'000'000}));
  return 0;
}

// Kept to be shown: the only process is whoever is meant.
HUSK_SYSCALL(getpriority, u32 which, int) {
  if (which > kPrioUser) return Error(EINVAL);
  return 20 - current_process().nice;  // as the raw call shows it
}
HUSK_SYSCALL(setpriority, u32 which, int, int nice) {
  if (which > kPrioUser) return Error(EINVAL);
  current_process().nice = std::clamp(nice, -20, 19);
  return 0;
}
HUSK_SYSCALL(ioprio_set, int, int, int) { return 0; }
HUSK_SYSCALL(ioprio_get, int, int) { return kIoPriorityDefault; }

HUSK_SYSCALL(getcpu, mem::UserPtr<u32> processor, mem::UserPtr<u32> node, u64) {
  if (processor) TRY(mem::write_user(processor, u32{0}));
  if (node) TRY(mem::write_user(node, u32{0}));
  return 0;
}

// --- memory policies: one node -------------------------------------------------------------------------------------------------

HUSK_SYSCALL(get_mempolicy, mem::UserPtr<int> mode, u64 nodes, u64 node_count, u64 address, u64 flags) {
  constexpr u64 kFlagNode = 1, kFlagAddress = 2, kFlagAllowed = 4;
  if ((flags & ~(kFlagNode | kFlagAddress | kFlagAllowed)) != 0) return Error(EINVAL);
  if ((flags & kFlagAddress) == 0 && address != 0) return Error(EINVAL);
  const u64 only_node = (flags & kFlagAllowed) != 0 ? 1 : 0;
  if (mode) TRY(mem::write_user(mode, 0));  // MPOL_DEFAULT, or node 0
  if (nodes != 0 && node_count > 0) TRY(mem::copy_to_user(nodes, &only_node, node_count > 8 ? sizeof(only_node) : 1));
  return 0;
}
HUSK_SYSCALL(set_mempolicy, int, u64, u64) { return 0; }
HUSK_SYSCALL(mbind, u64, u64, int, u64, u64, u32) { return 0; }

}  // namespace husk::linux
