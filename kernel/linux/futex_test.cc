// futex(2) on the hosted scheduler: program memory is the test's own.
#include "kernel/linux/futex.h"

#include <gtest/gtest.h>
#include <linux/futex.h>

#include <functional>
#include <vector>

#include "kernel/linux/linux.h"
#include "kernel/linux/task.h"
#include "kernel/linux/timers.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "platform/fake/fake.h"

extern "C" husk::i64 sys_futex(husk::u64, husk::u64, husk::u64, husk::u64, husk::u64, husk::u64);

namespace husk {
void log(LogLevel, const char*, ...) {}
}  // namespace husk

namespace husk::linux {

// What task.cc needs of the rest.
void end_machine(u32, u32) { abort(); }
void delete_timers(Process&) {}

namespace {

class FutexTest : public testing::Test {
 protected:
  void SetUp() override {
    platform::fake::reset();
    time::init(platform::fake::kTicksPerSecond, 0, 0, 0);
    mem::init_frames(platform::fake::boot_info());
    sched::init(this_cpu().shared);
    process = make_ref<Process>().release();
    process->space = mem::AddressSpace::create(0, u64{1} << 46, false).release();
  }
  void TearDown() override {
    while (Task* task = process->tasks.pop_front()) {
      task->process = nullptr;
      task->thread->owner = nullptr;
      task->thread = nullptr;
      task->unref();
    }
    process = nullptr;
  }
  // A task whose body is `body`; it is left on the process's list when it ends.
  Task& spawn(std::function<void()> body) {
    auto* owned = new std::function<void()>(std::move(body));
    Ref<Task> task = create_task(
                         process,
                         [](void* argument) {
                           auto* function = static_cast<std::function<void()>*>(argument);
                           (*function)();
                           delete function;
                         },
                         owned)
                         .release();
    sched::start(task->thread);
    return *task;
  }
  i64 futex(u32& futex_word, int operation, u32 value, u64 timeout = 0, u32* word2 = nullptr, u32 value3 = 0) {
    return sys_futex(reinterpret_cast<u64>(&futex_word), static_cast<u64>(operation), value, timeout, reinterpret_cast<u64>(word2), value3);
  }
  Ref<Process> process;
  alignas(8) u32 word = 0, other = 0;
  std::vector<i64> results;
};

TEST_F(FutexTest, wait_returns_at_once_if_the_word_differs) {
  spawn([&] { results.push_back(futex(word, FUTEX_WAIT_PRIVATE, 1)); });
  sched::run_until_quiet();
  EXPECT_EQ(results, std::vector<i64>{-EAGAIN});
}

TEST_F(FutexTest, wake_wakes_as_many_as_asked_in_order) {
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    spawn([&, i] {
      EXPECT_EQ(futex(word, FUTEX_WAIT_PRIVATE, 0), 0);
      order.push_back(i);
    });
  }
  spawn([&] {
    EXPECT_EQ(futex(word, FUTEX_WAKE_PRIVATE, 2), 2);
    EXPECT_EQ(futex(word, FUTEX_WAKE_PRIVATE, 5), 1);
    EXPECT_EQ(futex(word, FUTEX_WAKE_PRIVATE, 5), 0);
  });
  sched::run_until_quiet();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST_F(FutexTest, timeout_and_bitset) {
  const i64 timeout[2] = {0, 1'000'000};
  spawn([&] { results.push_back(futex(word, FUTEX_WAIT_PRIVATE, 0, reinterpret_cast<u64>(timeout))); });
  spawn([&] { results.push_back(futex(other, FUTEX_WAIT_BITSET_PRIVATE, 0, 0, nullptr, 2)); });
  spawn([&] {
    EXPECT_EQ(futex(other, FUTEX_WAKE_BITSET_PRIVATE, 9, 0, nullptr, 4), 0);
    EXPECT_EQ(futex(other, FUTEX_WAKE_BITSET_PRIVATE, 9, 0, nullptr, 2), 1);
    EXPECT_EQ(futex(other, FUTEX_WAKE_BITSET_PRIVATE, 9, 0, nullptr, 0), -EINVAL);
  });
  sched::run_until_quiet();
  EXPECT_EQ(results, (std::vector<i64>{0, -ETIMEDOUT}));
}

TEST_F(FutexTest, requeue_moves_waiters) {
  for (int i = 0; i < 3; ++i) spawn([&] { results.push_back(futex(word, FUTEX_WAIT_PRIVATE, 0)); });
  spawn([&] {
    EXPECT_EQ(futex(word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 9, &other, 7), -EAGAIN);
    EXPECT_EQ(futex(word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 9, &other, 0), 3);
    EXPECT_EQ(futex(word, FUTEX_WAKE_PRIVATE, 9), 0);
    EXPECT_EQ(futex(other, FUTEX_WAKE_PRIVATE, 9), 2);
  });
  sched::run_until_quiet();
  EXPECT_EQ(results.size(), 3u);
}

TEST_F(FutexTest, wake_operation_changes_and_compares) {
  other = 5;
  spawn([&] { results.push_back(futex(word, FUTEX_WAIT_PRIVATE, 0)); });
  spawn([&] {
    u32 add_one_if_five = FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 5);
    EXPECT_EQ(futex(word, FUTEX_WAKE_OP_PRIVATE, 1, 1, &other, add_one_if_five), 1);
    EXPECT_EQ(other, 6u);
    u32 minus_one = FUTEX_OP(FUTEX_OP_ADD, 0xfff, FUTEX_OP_CMP_LT, 0);
    EXPECT_EQ(futex(word, FUTEX_WAKE_OP_PRIVATE, 1, 1, &other, minus_one), 0);
    EXPECT_EQ(other, 5u);
  });
  sched::run_until_quiet();
  EXPECT_EQ(results, std::vector<i64>{0});
}

TEST_F(FutexTest, interruption_is_eintr) {
  Task& waiter = spawn([&] { results.push_back(futex(word, FUTEX_WAIT_PRIVATE, 0)); });
  spawn([&] { waiter.thread->interrupt(); });
  sched::run_until_quiet();
  EXPECT_EQ(results, std::vector<i64>{-EINTR});
}

TEST_F(FutexTest, pi_lock_is_handed_on) {
  std::vector<int> owners;
  for (int i = 0; i < 3; ++i) {
    spawn([&, i] {
      EXPECT_EQ(futex(word, FUTEX_LOCK_PI_PRIVATE, 0), 0);
      EXPECT_EQ(futex(word, FUTEX_LOCK_PI_PRIVATE, 0), -EDEADLK);
      owners.push_back(i);
      sched::yield();
      EXPECT_EQ(word & FUTEX_TID_MASK, static_cast<u32>(current_task().tid));
      EXPECT_EQ(futex(word, FUTEX_UNLOCK_PI_PRIVATE, 0), 0);
      EXPECT_EQ(futex(word, FUTEX_UNLOCK_PI_PRIVATE, 0), -EPERM);
    });
  }
  sched::run_until_quiet();
  EXPECT_EQ(owners.size(), 3u);
  EXPECT_EQ(word & FUTEX_TID_MASK, 0u);
}

TEST_F(FutexTest, dead_owner_of_a_robust_lock) {
  struct Lock {
    struct robust_list list;
    u32 lock_word;
  } lock = {};
  struct robust_list_head head = {{&lock.list}, offsetof(Lock, lock_word), nullptr};
  lock.list.next = &head.list;
  Task& owner = spawn([&] {
    lock.lock_word = static_cast<u32>(current_task().tid) | FUTEX_WAITERS;
    current_task().robust_list = reinterpret_cast<u64>(&head);
  });
  sched::run_until_quiet();
  spawn([&] { results.push_back(futex(lock.lock_word, FUTEX_WAIT, lock.lock_word)); });
  spawn([&] { release_robust_list(owner); });
  sched::run_until_quiet();
  EXPECT_EQ(results, std::vector<i64>{0});
  EXPECT_EQ(lock.lock_word, FUTEX_WAITERS | FUTEX_OWNER_DIED);
}

}  // namespace
}  // namespace husk::linux
