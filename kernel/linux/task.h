// Process and Task: what Linux calls a process (address space, descriptors, signal actions) and a thread of it.
//
// Hangs on sched::Thread::owner. One process for now; its parts (FdTable, FileContext, SignalActions, AddressSpace) are reference
// counted objects of their own, so that fork and clone's flags only decide which are copied and which are shared.
// All of it belongs to kernel code on the one vCPU, which is never pre-empted: no locks. See syscall.h for how calls are written.
#pragma once
#undef linux  // g++ defines it to 1 in gnu++ modes

#include <span>
#include <string_view>

#include "base/list.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"
#include "kernel/linux/fd_table.h"
#include "kernel/linux/signal_state.h"
#include "kernel/mem/address_space.h"
#include "kernel/sched/sched.h"
#include "kernel/vfs/inode.h"

namespace husk::linux {

struct Process;
struct Task;

// Root, working directory and umask (clone: CLONE_FS).
struct FileContext : RefCounted<FileContext> {
  vfs::Path root, working_directory;
  u32 umask = 022;
};

struct ResourceLimit {
  u64 soft, hard;
};
constexpr u32 kResourceLimits = 16;  // RLIM_NLIMITS
constexpr u64 kUnlimited = ~u64{0};

struct Credentials {
  u32 uid = 0, euid = 0, suid = 0, gid = 0, egid = 0, sgid = 0;
  Vec<u32> groups;
};

// Where the parts of the process image are, for /proc/self/{stat,cmdline,environ,auxv,maps} and the crash report.
struct ImageLayout {
  u64 code_start = 0, code_end = 0, data_start = 0, data_end = 0, heap_start = 0, stack_start = 0;
  u64 arguments_start = 0, arguments_end = 0, environment_start = 0, environment_end = 0;
  u64 vdso = 0, load_bias = 0, entry = 0, interpreter_base = 0;
};

struct PosixTimer;  // timers.cc
struct PosixTimerTag;
struct TaskTag;

struct Process : RefCounted<Process> {
  Process();
  ~Process();

  int pid = 1, parent_pid = 0, group = 1, session = 1;
  Ref<mem::AddressSpace> space;
  Ref<FdTable> files;
  Ref<FileContext> file_context;
  Ref<SignalActions> actions;
  PendingSignals pending;  // for the process as a whole
  Credentials credentials;
  ResourceLimit limits[kResourceLimits];
  String executable;  // absolute path: /proc/self/exe
  vfs::Path executable_path;
  ImageLayout layout;
  Vec<u8> auxiliary_vector;  // as on the stack: pairs of u64
  mutable List<Task, TaskTag> tasks;
  u32 task_count = 0;
  int parent_death_signal = 0, nice = 0;
  bool dumpable = true, no_new_privileges = false;
  bool exiting = false;
  u32 exit_status = 0;  // as wait4 shows it
  u64 start_ns = 0;     // monotonic
  List<PosixTimer, PosixTimerTag> timers;
  int next_timer_id = 0;
  PosixTimer* interval_timers[3] = {};  // setitimer, alarm: ITIMER_REAL, VIRTUAL, PROF
  u64 finished_run_time_ns = 0;         // of threads that are gone
  u64 run_time_ns() const;              // CLOCK_PROCESS_CPUTIME_ID
  bool executed = false;                // execve has succeeded since start
};

// For a call that is begun again after a signal that ran no handler: its deadline is the first one's.
struct RestartState {
  bool active = false;  // this run of the handler is a repetition
  u64 deadline_ns = 0;
};

struct Task : RefCounted<Task>, ListNode<TaskTag> {
  int tid = 0;
  Ref<Process> process;
  Ref<sched::Thread> thread;
  u64 signal_mask = 0;  // bit n-1 is signal n, as in the ABI
  u64 saved_mask = 0;   // sigsuspend, ppoll, pselect, epoll_pwait: put back when the handler returns
  bool saved_mask_valid = false;
  PendingSignals pending;  // for this thread
  AlternateStack alternate_stack;
  u64 interrupted_stack = 0;  // the stack pointer when the last handler was called on a stack that is not the alternate one, for crash reports
  u64 set_child_tid = 0, clear_child_tid = 0;  // addresses: CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID
  u64 robust_list = 0;                         // address, set_robust_list(2)
  u64 rseq_area = 0;                           // address, rseq(2)
  u32 rseq_size = 0, rseq_signature = 0;
  char name[16] = "";  // comm
  RestartState restart;
  bool killed = false;  // must leave at the next chance: exit_group, execve in another thread
  u64 minor_faults = 0;
  u64 trap_vector = 0, trap_error = 0, trap_address = 0;  // of the last fault, for signal frames
};

inline Task& current_task() { return *static_cast<Task*>(sched::current()->owner); }
inline Process& current_process() { return *current_task().process; }
inline FdTable& current_files() { return *current_process().files; }
inline Result<Ref<vfs::File>> current_file(int fd) { return current_files().get(fd); }
inline mem::AddressSpace& current_space() { return *current_process().space; }
inline FileContext& current_file_context() { return *current_process().file_context; }
Process& init_process();  // the first and, for now, only process: for /proc
Task* find_task(int tid);
vfs::Tree& tree();  // the one tree of this machine

// --- helpers for system calls with paths ------------------------------------------------------------------------------
Result<String> user_path(u64 address);               // ENAMETOOLONG; empty is allowed (AT_EMPTY_PATH), see below
Result<vfs::Path> base_directory(int directory_fd);  // AT_FDCWD: working directory; EBADF, ENOTDIR
// Deadline (monotonic ns, time::kForever for "never") of a call that waits for a relative time. Stays the same when the call is restarted.
u64 restartable_deadline(u64 relative_ns);
// timespec at `address` in ns; EINVAL if malformed; kForever if address is 0.
Result<u64> read_timespec_ns(u64 address);

// --- signals ------------------------------------------------------------------------------------------------------------
void send_signal(Process& process, const SignalInfo& info);  // to any thread that takes it
void send_signal(Task& task, const SignalInfo& info);        // to this one
SignalInfo kernel_signal(int number);                        // si_code SI_KERNEL
// write(2) on a pipe or socket without reader: SIGPIPE to the caller. The call itself still returns EPIPE.
void raise_broken_pipe();
// For ppoll, pselect6, epoll_pwait: installs *mask_address (size must be 8, else EINVAL; address 0: nothing) until the call ends;
// if a signal interrupts the call, the old mask is put back after its handler ran. Put in a scope around the wait.
class TemporaryMask {
 public:
  static Result<void> begin(u64 mask_address, u64 mask_size);
  // Call with whether the wait was interrupted (EINTR).
  static void end(bool interrupted);
};
bool signal_pending(const Task& task);      // an unblocked one
void set_signal_mask(u64 mask);             // of the current task; delivers what it unblocks at the exit to the program
void force_signal(const SignalInfo& info);  // a fault of the current task: cannot be blocked or ignored

// --- life and death -------------------------------------------------------------------------------------------------------
[[noreturn]] void exit_task(int code);            // exit(2) of the current thread
void kill_other_tasks();                          // execve: returns when the current one is alone
[[noreturn]] void exit_process(u32 wait_status);  // exit_group(2), fatal signals; wait_status as of wait4
Result<Ref<Task>> create_task(Ref<Process> process, sched::Thread::Entry entry, void* argument);

}  // namespace husk::linux
