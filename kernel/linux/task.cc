// See task.h: birth and death of tasks, and what hangs on them.
#include "kernel/linux/task.h"

#include <fcntl.h>
#include <linux/time_types.h>
#include <sys/resource.h>

#include "kernel/linux/futex.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/timers.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"

namespace husk::linux {
namespace {

constinit Process* first_process = nullptr;
constinit int next_tid = 1;

}  // namespace

Process::Process() {
  for (ResourceLimit& limit : limits) limit = {kUnlimited, kUnlimited};
  limits[RLIMIT_STACK] = {8 * kMiB, kUnlimited};
  limits[RLIMIT_CORE] = {0, kUnlimited};
  limits[RLIMIT_NOFILE] = {1024, 1024 * 1024};
  limits[RLIMIT_MEMLOCK] = {mem::memory_statistics().total, kUnlimited};
  limits[RLIMIT_SIGPENDING] = {8192, 8192};
  limits[RLIMIT_MSGQUEUE] = {819200, 819200};
  limits[RLIMIT_NICE] = limits[RLIMIT_RTPRIO] = {0, 0};
  limits[RLIMIT_NPROC] = {32768, 32768};
  start_ns = time::monotonic_ns();
  if (first_process == nullptr) first_process = this;
}

Process::~Process() {
  delete_timers(*this);
  if (first_process == this) first_process = nullptr;
}

u64 Process::run_time_ns() const {
  u64 sum = finished_run_time_ns;
  for (Task& task : tasks) sum += task.thread->run_time_ns();
  return sum;
}

Process& init_process() {
  HUSK_ASSERT(first_process != nullptr);
  return *first_process;
}

Task* find_task(int tid) {
  for (Task& task : init_process().tasks) {
    if (task.tid == tid) return &task;
  }
  return nullptr;
}

Result<Ref<Task>> create_task(Ref<Process> process, sched::Thread::Entry entry, void* argument) {
  Ref<Task> task = TRY(make_ref<Task>());
  task->thread = TRY(sched::Thread::create(entry, argument));
  task->thread->owner = task.get();
  task->thread->space = process->space ? process->space->nub_space() : 0;
  task->tid = next_tid++;
  task->process = process;
  process->tasks.push_back(Ref<Task>(task).leak());  // the list's reference: dropped in exit_task
  ++process->task_count;
  return task;
}

void exit_task(int code) {
  Task& task = current_task();
  Process& process = *task.process;
  if (process.task_count == 1) exit_process(static_cast<u32>(code & 0xff) << 8);
  release_robust_list(task);
  if (task.clear_child_tid != 0) {
    u32 zero = 0;
    if (mem::copy_to_user(task.clear_child_tid, &zero, sizeof(zero)).ok()) (void)wake_futex(task.clear_child_tid, 1);
  }
  process.finished_run_time_ns += task.thread->run_time_ns();
  static_cast<ListNode<TaskTag>&>(task).unlink();
  --process.task_count;
  sched::wake(process.tasks.front()->thread.get());  // kill_other_tasks() may be waiting
  task.thread->owner = nullptr;
  task.thread = nullptr;  // the scheduler's reference keeps the stack that we are on
  task.unref();
  sched::exit_current();
}

void kill_other_tasks() {
  Task& self = current_task();
  Process& process = *self.process;
  for (Task& task : process.tasks) {
    if (&task == &self) continue;
    task.killed = true;
    task.thread->interrupt();
  }
  static_cast<ListNode<TaskTag>&>(self).unlink();
  process.tasks.push_front(&self);  // the front is woken by each exit
  while (process.task_count > 1) {
    sched::prepare_to_block();
    (void)sched::block(time::kForever, sched::Interruptible::no);
  }
}

void exit_process(u32 wait_status) {
  Process& process = current_process();
  process.exiting = true;
  process.exit_status = wait_status;
  u32 signal = wait_status & 0x7f;
  end_machine(signal != 0 ? 128 + signal : (wait_status >> 8) & 0xff, signal);
}

Result<String> user_path(u64 address) { return mem::string_from_user(address, 4096); }

Result<vfs::Path> base_directory(int directory_fd) {
  if (directory_fd == AT_FDCWD) return vfs::Path(current_file_context().working_directory);
  Ref<vfs::File> file = TRY(current_file(directory_fd));
  if (!file->path) return Error(ENOTDIR);
  return vfs::Path(file->path);
}

u64 restartable_deadline(u64 relative_ns) {
  if (relative_ns == time::kForever) return time::kForever;
  RestartState& restart = current_task().restart;
  if (!restart.active) {
    u64 now = time::monotonic_ns();
    restart.deadline_ns = relative_ns > time::kForever - now ? time::kForever : now + relative_ns;
  }
  return restart.deadline_ns;
}

Result<u64> read_timespec_ns(u64 address) {
  if (address == 0) return time::kForever;
  auto spec = TRY(mem::read_user(mem::UserPtr<__kernel_timespec>(address)));
  if (spec.tv_sec < 0 || spec.tv_nsec < 0 || spec.tv_nsec >= 1'000'000'000) return Error(EINVAL);
  u64 ns;
  if (!checked_mul(static_cast<u64>(spec.tv_sec), time::kNsPerSecond, &ns) || !checked_add(ns, static_cast<u64>(spec.tv_nsec), &ns)) {
    return time::kForever;
  }
  return ns;
}

}  // namespace husk::linux
