// futex(2), and robust mutexes.
//
// A waiter lives on its thread's kernel stack, in the bucket of its key. A key is an address in an address space, or a physical
// address if the mapping is shared, so that two views of one object meet. Kernel code is never pre-empted: between the check of
// the word and block() nobody else runs, but reading the word may fault and sleep, so it is touched before.
// Priority inheritance: the protocol of the word is kept and locks are handed over, priorities do not exist.
#include "kernel/linux/futex.h"

#include <linux/futex.h>

#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"
#include "kernel/time/time.h"

namespace husk::linux {
namespace {

struct FutexKey {
  const void* space = nullptr;  // null: `address` is physical
  u64 address = 0;
  bool operator==(const FutexKey&) const = default;
};

struct FutexTag;
struct FutexWaiter : ListNode<FutexTag> {
  FutexKey key;
  u32 bitset = ~u32{0};
  sched::Thread* thread = nullptr;
  int pi_tid = 0;  // waits for a lock of the PI kind
  bool woken = false;
};

using Bucket = List<FutexWaiter, FutexTag>;
constexpr size_t kBuckets = 256;

Bucket& bucket_of(const FutexKey& key) {
  static Bucket* buckets = new (std::nothrow) Bucket[kBuckets];
  HUSK_ASSERT(buckets != nullptr);
  u64 hash = (key.address >> 2) * 0x9e3779b97f4a7c15;
  return buckets[hash >> 56];
}

Result<FutexKey> key_of(u64 address, bool is_private) {
  if ((address & 3) != 0) return Error(EINVAL);
  mem::AddressSpace& space = current_space();
  if (!is_private) {
    mem::MappingInfo info;
    if (space.find(address, &info) && info.start <= address && info.shared) {
      TRY(mem::load_user_u32(address));  // makes it present
      return FutexKey{nullptr, TRY(space.translate(address)).value};
    }
  }
  return FutexKey{&space, address};
}

void wake_waiter(FutexWaiter& waiter) {
  waiter.unlink();
  waiter.woken = true;
  sched::wake(waiter.thread);
}

// Calls visit(waiter) for up to `count` waiters that match; visit must take each off the bucket.
template <typename Visit>
u32 for_waiters(const FutexKey& key, u32 bitset, u32 count, Visit&& visit) {
  Bucket& bucket = bucket_of(key);
  u32 done = 0;
  for (auto at = bucket.begin(); done < count && !(at == bucket.end());) {
    FutexWaiter& waiter = *at;
    ++at;
    if (waiter.key != key || (waiter.bitset & bitset) == 0) continue;
    visit(waiter);
    ++done;
  }
  return done;
}

u32 wake_key(const FutexKey& key, u32 bitset, u32 count) { return for_waiters(key, bitset, count, wake_waiter); }

// Sleeps on the queue until woken. The caller has checked the word and not slept since.
Result<void> sleep_on(FutexWaiter& waiter, u64 deadline_ns) {
  waiter.thread = sched::current();
  bucket_of(waiter.key).push_back(&waiter);
  while (!waiter.woken) {
    sched::prepare_to_block();
    sched::Wake reason = sched::block(deadline_ns, sched::Interruptible::yes);
    if (waiter.woken || reason == sched::Wake::woken) continue;
    waiter.unlink();
    return Error(reason == sched::Wake::timed_out ? ETIMEDOUT : EINTR);
  }
  return {};
}

Result<i64> futex_wait(u64 address, bool is_private, u32 expected, u32 bitset, u64 deadline_ns) {
  if (bitset == 0) return Error(EINVAL);
  FutexWaiter waiter;
  waiter.key = TRY(key_of(address, is_private));
  waiter.bitset = bitset;
  if (TRY(mem::load_user_u32(address)) != expected) return Error(EAGAIN);
  TRY(sleep_on(waiter, deadline_ns));
  return 0;
}

Result<i64> futex_requeue(const FutexKey& from, const FutexKey& to, u32 wake_count, u32 requeue_count) {
  u32 woken = wake_key(from, ~u32{0}, wake_count);
  if (from == to) return woken;
  u32 moved = for_waiters(from, ~u32{0}, requeue_count, [&](FutexWaiter& waiter) {
    waiter.unlink();
    waiter.key = to;
    bucket_of(to).push_back(&waiter);
  });
  return woken + moved;
}

// FUTEX_OP(op, oparg, cmp, cmparg): changes the word, then compares the old value.
Result<bool> wake_operation(u64 address, u32 encoded) {
  u32 operation = (encoded >> 28) & 7, comparison = (encoded >> 24) & 15;
  i64 argument = static_cast<i64>(encoded << 8) << 32 >> 52, compare_with = static_cast<i64>(encoded << 20) << 32 >> 52;
  if ((encoded >> 31) != 0) argument = i64{1} << (argument & 31);
  u32 old = TRY(mem::load_user_u32(address));
  for (;;) {
    u32 value, operand = static_cast<u32>(argument);
    switch (operation) {
      case FUTEX_OP_SET: value = operand; break;
      case FUTEX_OP_ADD: value = old + operand; break;
      case FUTEX_OP_OR: value = old | operand; break;
      case FUTEX_OP_ANDN: value = old & ~operand; break;
      case FUTEX_OP_XOR: value = old ^ operand; break;
      default: return Error(ENOSYS);
    }
    u32 seen = TRY(mem::compare_exchange_user_u32(address, old, value));
    if (seen == old) break;
    old = seen;
  }
  int left = static_cast<int>(old), right = static_cast<int>(compare_with);
  switch (comparison) {
    case FUTEX_OP_CMP_EQ: return left == right;
    case FUTEX_OP_CMP_NE: return left != right;
    case FUTEX_OP_CMP_LT: return left < right;
    case FUTEX_OP_CMP_LE: return left <= right;
    case FUTEX_OP_CMP_GT: return left > right;
    case FUTEX_OP_CMP_GE: return left >= right;
    default: return Error(ENOSYS);
  }
}

FutexWaiter* first_waiter(const FutexKey& key) {
  for (FutexWaiter& waiter : bucket_of(key)) {
    if (waiter.key == key) return &waiter;
  }
  return nullptr;
}

Result<i64> lock_pi(u64 address, bool is_private, u64 deadline_ns, bool only_try) {
  FutexKey key = TRY(key_of(address, is_private));
  u32 self = static_cast<u32>(current_task().tid);
  for (;;) {
    u32 word = TRY(mem::load_user_u32(address));
    u32 owner = word & FUTEX_TID_MASK;
    if (owner == self) return Error(EDEADLK);
    if (owner == 0) {
      u32 waiters = first_waiter(key) != nullptr ? FUTEX_WAITERS : 0;
      u32 taken = self | waiters | (word & FUTEX_OWNER_DIED);
      if (TRY(mem::compare_exchange_user_u32(address, word, taken)) == word) return 0;
      continue;
    }
    if (only_try) return Error(EAGAIN);
    if (find_task(static_cast<int>(owner)) == nullptr) return Error(ESRCH);
    if ((word & FUTEX_WAITERS) == 0 && TRY(mem::compare_exchange_user_u32(address, word, word | FUTEX_WAITERS)) != word) {
      continue;
    }
    FutexWaiter waiter;
    waiter.key = key;
    waiter.pi_tid = static_cast<int>(self);
    TRY(sleep_on(waiter, deadline_ns));
  }
}

Result<i64> unlock_pi(u64 address, bool is_private) {
  FutexKey key = TRY(key_of(address, is_private));
  for (;;) {
    u32 word = TRY(mem::load_user_u32(address));
    if ((word & FUTEX_TID_MASK) != static_cast<u32>(current_task().tid)) return Error(EPERM);
    FutexWaiter* next = first_waiter(key);
    // Released, with the waiters bit as a fence against lockers in user space until the woken one has taken it.
    u32 released = next != nullptr ? FUTEX_WAITERS : 0;
    if (TRY(mem::compare_exchange_user_u32(address, word, released)) != word) continue;
    if (next != nullptr) wake_waiter(*next);
    return 0;
  }
}

// What a futex call waits for: relative for FUTEX_WAIT, absolute for the others.
Result<u64> futex_deadline(int operation, u64 timeout, bool realtime) {
  u64 ns = TRY(read_timespec_ns(timeout));
  if (ns == time::kForever) return ns;
  if (operation == FUTEX_WAIT) return restartable_deadline(ns);
  if (!realtime) return ns;
  u64 now = time::realtime_ns();
  return time::monotonic_ns() + (ns > now ? ns - now : 0);
}

}  // namespace

Result<i64> wake_futex(u64 address, u32 count) { return wake_key(TRY(key_of(address, false)), ~u32{0}, count); }

HUSK_SYSCALL(futex, u64 address, int operation_and_flags, u32 value, u64 timeout_or_value2, u64 address2, u32 value3) {
  const bool is_private = (operation_and_flags & FUTEX_PRIVATE_FLAG) != 0;
  const int operation = operation_and_flags & FUTEX_CMD_MASK;
  const bool realtime = (operation_and_flags & FUTEX_CLOCK_REALTIME) != 0 || operation == FUTEX_LOCK_PI;
  const u32 value2 = static_cast<u32>(timeout_or_value2);
  switch (operation) {
    case FUTEX_WAIT: value3 = FUTEX_BITSET_MATCH_ANY; [[fallthrough]];
    case FUTEX_WAIT_BITSET: return futex_wait(address, is_private, value, value3, TRY(futex_deadline(operation, timeout_or_value2, realtime)));
    case FUTEX_WAKE: value3 = FUTEX_BITSET_MATCH_ANY; [[fallthrough]];
    case FUTEX_WAKE_BITSET:
      if (value3 == 0) return Error(EINVAL);
      return wake_key(TRY(key_of(address, is_private)), value3, value);
    case FUTEX_CMP_REQUEUE:
    case FUTEX_REQUEUE: {
      FutexKey from = TRY(key_of(address, is_private)), to = TRY(key_of(address2, is_private));
      if (operation == FUTEX_CMP_REQUEUE && TRY(mem::load_user_u32(address)) != value3) return Error(EAGAIN);
      return futex_requeue(from, to, value, value2);
    }
    case FUTEX_WAKE_OP: {
      FutexKey key = TRY(key_of(address, is_private)), key2 = TRY(key_of(address2, is_private));
      bool second = TRY(wake_operation(address2, value3));
      u32 woken = wake_key(key, ~u32{0}, value);
      return woken + (second ? wake_key(key2, ~u32{0}, value2) : 0);
    }
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2: return lock_pi(address, is_private, TRY(futex_deadline(operation, timeout_or_value2, realtime)), false);
    case FUTEX_TRYLOCK_PI: return lock_pi(address, is_private, time::kForever, true);
    case FUTEX_UNLOCK_PI: return unlock_pi(address, is_private);
    default: return Error(ENOSYS);
  }
}

// --- robust lists ---------------------------------------------------------------------------------------------------------

namespace {

Result<void> release_robust_futex(const Task& task, u64 address, bool pi) {
  for (u32 word = TRY(mem::load_user_u32(address)); (word & FUTEX_TID_MASK) == static_cast<u32>(task.tid);) {
    u32 seen = TRY(mem::compare_exchange_user_u32(address, word, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED));
    if (seen == word) {
      if (pi || (word & FUTEX_WAITERS) != 0) TRY(wake_futex(address, 1));
      return {};
    }
    word = seen;
  }
  return {};
}

Result<void> walk_robust_list(const Task& task) {
  auto head = TRY(mem::read_user(mem::UserPtr<robust_list_head>(task.robust_list)));
  u64 pending = reinterpret_cast<u64>(head.list_op_pending);
  auto release = [&](u64 entry) { return release_robust_futex(task, (entry & ~u64{1}) + static_cast<u64>(head.futex_offset), (entry & 1) != 0); };
  u64 entry = reinterpret_cast<u64>(head.list.next);
  for (u32 i = 0; i < ROBUST_LIST_LIMIT && (entry & ~u64{1}) != task.robust_list; ++i) {
    u64 next = TRY(mem::read_user(mem::UserPtr<u64>(entry & ~u64{1})));
    if (entry != pending) TRY(release(entry));
    entry = next;
  }
  if (pending != 0) TRY(release(pending));
  return {};
}

}  // namespace

void release_robust_list(Task& task) {
  if (task.robust_list != 0) (void)walk_robust_list(task);
  task.robust_list = 0;
}

HUSK_SYSCALL(set_robust_list, u64 head, u64 size) {
  if (size != sizeof(robust_list_head)) return Error(EINVAL);
  current_task().robust_list = head;
  return 0;
}

HUSK_SYSCALL(get_robust_list, int tid, mem::UserPtr<u64> head, mem::UserPtr<u64> size) {
  Task* task = tid == 0 ? &current_task() : find_task(tid);
  if (task == nullptr) return Error(ESRCH);
  TRY(mem::write_user(size, u64{sizeof(robust_list_head)}));
  TRY(mem::write_user(head, task->robust_list));
  return 0;
}

}  // namespace husk::linux
