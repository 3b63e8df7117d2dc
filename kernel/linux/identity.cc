// Who the process is and what it may use: ids, names, limits, accounting, prctl, and the machine's facts.
//
// One user in its own machine: credentials are kept and shown, nothing is refused because of them.
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/sysinfo.h>
#include <linux/time_types.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <algorithm>

#include "kernel/linux/linux.h"
#include "kernel/linux/machine_name.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/frames.h"
#include "kernel/mem/user_copy.h"
#include "kernel/random.h"
#include "kernel/sched/traps.h"
#include "kernel/time/time.h"

namespace husk::linux {
namespace {

constexpr u64 kAllCapabilities = (u64{1} << (CAP_LAST_CAP + 1)) - 1;
constexpr u32 kKeep = ~u32{0};
constexpr u64 kClockTicks = 100;

Credentials& self() { return current_process().credentials; }

void set_if(u32& to, u32 id) {
  if (id != kKeep) to = id;
}

// What programs know without asking (abi::kAnsweredCalls): not while tracing.
constexpr u16 kAnswered[] = {SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid};
static_assert(std::equal(std::begin(kAnswered), std::end(kAnswered), std::begin(abi::kAnsweredCalls), std::end(abi::kAnsweredCalls)));
constinit bool ids_are_known = false;

i64 ids_changed() {
  if (!ids_are_known) return 0;
  const Process& process = current_process();
  u32 results[] = {static_cast<u32>(process.pid), static_cast<u32>(process.parent_pid), self().uid, self().euid, self().gid, self().egid};
  for (u32 i = 0; i < std::size(results); ++i) sched::set_answer(i, results[i]);
  return 0;
}

Result<void> check_process(int process_id) {
  if (process_id != 0 && find_task(process_id) == nullptr) return Error(ESRCH);
  return {};
}

Result<i64> write_three(u64 a, u64 b, u64 c, u32 x, u32 y, u32 z) {
  TRY(mem::write_user(mem::UserPtr<u32>(a), x));
  TRY(mem::write_user(mem::UserPtr<u32>(b), y));
  TRY(mem::write_user(mem::UserPtr<u32>(c), z));
  return 0;
}

}  // namespace

// --- ids ------------------------------------------------------------------------------------------------------------------

void answer_ids_at_once() {
  ids_are_known = true;
  ids_changed();
}

// Most of these are reached only by trapped calls, by numbers that no trampoline knows, and under --trace.
HUSK_SYSCALL(getppid) { return current_process().parent_pid; }
HUSK_SYSCALL(getpid) { return current_process().pid; }
HUSK_SYSCALL(gettid) { return current_task().tid; }
HUSK_SYSCALL(getuid) { return self().uid; }
HUSK_SYSCALL(geteuid) { return self().euid; }
HUSK_SYSCALL(getgid) { return self().gid; }
HUSK_SYSCALL(getegid) { return self().egid; }
HUSK_SYSCALL(getresuid, u64 r, u64 e, u64 s) { return write_three(r, e, s, self().uid, self().euid, self().suid); }
HUSK_SYSCALL(getresgid, u64 r, u64 e, u64 s) { return write_three(r, e, s, self().gid, self().egid, self().sgid); }

HUSK_SYSCALL(setuid, u32 id) {
  self().uid = self().euid = self().suid = id;
  return ids_changed();
}
HUSK_SYSCALL(setgid, u32 id) {
  self().gid = self().egid = self().sgid = id;
  return ids_changed();
}
HUSK_SYSCALL(setreuid, u32 real, u32 effective) {
  set_if(self().uid, real);
  set_if(self().euid, effective);
  self().suid = self().euid;
  return ids_changed();
}
HUSK_SYSCALL(setregid, u32 real, u32 effective) {
  set_if(self().gid, real);
  set_if(self().egid, effective);
  self().sgid = self().egid;
  return ids_changed();
}
HUSK_SYSCALL(setresuid, u32 real, u32 effective, u32 saved) {
  set_if(self().uid, real);
  set_if(self().euid, effective);
  set_if(self().suid, saved);
  return ids_changed();
}
HUSK_SYSCALL(setresgid, u32 real, u32 effective, u32 saved) {
  set_if(self().gid, real);
  set_if(self().egid, effective);
  set_if(self().sgid, saved);
  return ids_changed();
}
HUSK_SYSCALL(setfsuid, u32) { return self().euid; }
HUSK_SYSCALL(setfsgid, u32) { return self().egid; }

HUSK_SYSCALL(getgroups, int size, u64 list) {
  Vec<u32>& groups = self().groups;
  if (size < 0) return Error(EINVAL);
  if (size == 0) return groups.size();
  if (static_cast<size_t>(size) < groups.size()) return Error(EINVAL);
  TRY(mem::copy_to_user(list, groups.data(), groups.size() * sizeof(u32)));
  return groups.size();
}
HUSK_SYSCALL(setgroups, int size, u64 list) {
  if (size < 0 || size > 65536) return Error(EINVAL);
  Vec<u32> groups;
  TRY(groups.resize(static_cast<size_t>(size)));
  TRY(mem::copy_from_user(groups.data(), list, groups.size() * sizeof(u32)));
  self().groups = std::move(groups);
  return 0;
}

HUSK_SYSCALL(getpgrp) { return current_process().group; }
HUSK_SYSCALL(getpgid, int process_id) {
  TRY(check_process(process_id));
  return current_process().group;
}
HUSK_SYSCALL(getsid, int process_id) {
  TRY(check_process(process_id));
  return current_process().session;
}
HUSK_SYSCALL(setsid) { return Error(EPERM); }  // it leads its session already
HUSK_SYSCALL(setpgid, int process_id, int group) {
  TRY(check_process(process_id));
  if (group != 0 && group != current_process().group) return Error(EPERM);
  return Error(EPERM);  // a session leader
}

HUSK_SYSCALL(capget, u64 header_at, u64 data_at) {
  auto header = TRY(mem::read_user(mem::UserPtr<__user_cap_header_struct>(header_at)));
  if (header.version != _LINUX_CAPABILITY_VERSION_3 && header.version != _LINUX_CAPABILITY_VERSION_1) {
    header.version = _LINUX_CAPABILITY_VERSION_3;
    TRY(mem::write_user(mem::UserPtr<__user_cap_header_struct>(header_at), header));
    if (data_at == 0) return 0;
    return Error(EINVAL);
  }
  if (header.pid < 0) return Error(EINVAL);
  TRY(check_process(header.pid));
  if (data_at == 0) return 0;
  u32 low = static_cast<u32>(kAllCapabilities), high = static_cast<u32>(kAllCapabilities >> 32);
  const __user_cap_data_struct data[2] = {{low, low, 0}, {high, high, 0}};
  size_t count = header.version == _LINUX_CAPABILITY_VERSION_1 ? 1 : 2;
  TRY(mem::copy_to_user(data_at, data, count * sizeof(data[0])));
  return 0;
}
HUSK_SYSCALL(capset, u64, u64) { return 0; }

HUSK_SYSCALL(umask, u32 mask) {
  u32 previous = current_file_context().umask;
  current_file_context().umask = mask & 0777;
  return previous;
}

// --- names ----------------------------------------------------------------------------------------------------------------

namespace {

constinit char host_name[65] = "husk";
constinit char domain_name[65] = "(none)";

template <size_t N>
void set_text(char (&to)[N], std::string_view text) {
  size_t length = std::min(text.size(), N - 1);
  memset(to, 0, N);
  memcpy(to, text.data(), length);
}

template <size_t N>
Result<i64> set_name(char (&to)[N], u64 from, u64 length) {
  char text[N] = {};
  if (length > N - 1) return Error(EINVAL);
  TRY(mem::copy_from_user(text, from, length));
  memcpy(to, text, N);
  return 0;
}

}  // namespace

const char* get_host_name() { return host_name; }
const char* get_domain_name() { return domain_name; }
void set_host_name(std::string_view name) { set_text(host_name, name); }

HUSK_SYSCALL(uname, mem::UserPtr<utsname> out) {
  utsname names = {};
  set_text(names.sysname, "Linux");
  set_text(names.nodename, host_name);
  set_text(names.release, kKernelRelease);
  set_text(names.version, kKernelVersion);
  set_text(names.machine, "x86_64");
  set_text(names.domainname, domain_name);
  TRY(mem::write_user(out, names));
  return 0;
}
HUSK_SYSCALL(sethostname, u64 name, u64 length) { return set_name(host_name, name, length); }
HUSK_SYSCALL(setdomainname, u64 name, u64 length) { return set_name(domain_name, name, length); }

HUSK_SYSCALL(personality, u32 persona) {
  constexpr u32 kQuery = 0xffffffff;
  if (persona != kQuery && (persona & 0xff) != PER_LINUX) return Error(EINVAL);
  return configuration().randomise ? 0 : ADDR_NO_RANDOMIZE;
}

HUSK_SYSCALL(prctl, int option, u64 argument, u64 argument3, u64, u64) {
  Task& task = current_task();
  Process& process = *task.process;
  switch (option) {
    case PR_SET_NAME: {
      char name[sizeof(task.name)] = {};
      size_t got = mem::copy_from_user_partial(name, argument, sizeof(name) - 1);
      if (got == 0) return Error(EFAULT);
      memset(task.name, 0, sizeof(task.name));
      memcpy(task.name, name, strnlen(name, sizeof(name)));
      return 0;
    }
    case PR_GET_NAME: TRY(mem::copy_to_user(argument, task.name, sizeof(task.name))); return 0;
    case PR_SET_PDEATHSIG:
      if (argument > kSignalMax) return Error(EINVAL);
      process.parent_death_signal = static_cast<int>(argument);
      return 0;
    case PR_GET_PDEATHSIG: TRY(mem::write_user(mem::UserPtr<int>(argument), process.parent_death_signal)); return 0;
    case PR_SET_DUMPABLE:
      if (argument > 1) return Error(EINVAL);
      process.dumpable = argument != 0;
      return 0;
    case PR_GET_DUMPABLE: return process.dumpable ? 1 : 0;
    case PR_SET_NO_NEW_PRIVS: process.no_new_privileges = true; return 0;
    case PR_GET_NO_NEW_PRIVS: return process.no_new_privileges ? 1 : 0;
    case PR_CAPBSET_READ: return argument <= CAP_LAST_CAP ? Result<i64>(1) : Result<i64>(Error(EINVAL));
    case PR_CAPBSET_DROP:
    case PR_SET_KEEPCAPS:
    case PR_SET_TIMERSLACK:
    case PR_SET_CHILD_SUBREAPER: return 0;
    case PR_GET_KEEPCAPS:
    case PR_GET_SECCOMP:
    case PR_GET_SECUREBITS: return 0;
    case PR_GET_TIMERSLACK: return 50000;
    case PR_CAP_AMBIENT: return argument == PR_CAP_AMBIENT_IS_SET && argument3 > CAP_LAST_CAP ? Result<i64>(Error(EINVAL)) : Result<i64>(0);
    case PR_GET_TID_ADDRESS: TRY(mem::write_user(mem::UserPtr<u64>(argument), task.clear_child_tid)); return 0;
    case PR_GET_THP_DISABLE: return 0;
    case PR_SET_VMA: return 0;  // names of anonymous mappings: not shown
    default: return Error(EINVAL);
  }
}

// --- limits and accounting --------------------------------------------------------------------------------------------------

namespace {

Result<void> set_limit(u32 resource, const ResourceLimit& limit) {
  if (limit.soft > limit.hard) return Error(EINVAL);
  current_process().limits[resource] = limit;
  if (resource == RLIMIT_NOFILE) current_files().limit = limit.soft;
  if (resource == RLIMIT_STACK) current_space().set_stack_limit(std::min(limit.soft, u64{1} << 40));
  return {};
}

__kernel_old_timeval timeval_of(u64 ns) {
  return {static_cast<__kernel_long_t>(ns / time::kNsPerSecond), static_cast<__kernel_long_t>(ns % time::kNsPerSecond / 1000)};
}

}  // namespace

HUSK_SYSCALL(prlimit64, int process_id, u32 resource, mem::UserPtr<ResourceLimit> wanted, mem::UserPtr<ResourceLimit> old) {
  TRY(check_process(process_id));
  if (resource >= kResourceLimits) return Error(EINVAL);
  ResourceLimit previous = current_process().limits[resource];
  if (wanted) {
    ResourceLimit limit = TRY(mem::read_user(wanted));
    TRY(set_limit(resource, limit));
  }
  if (old) TRY(mem::write_user(old, previous));
  return 0;
}
HUSK_SYSCALL(getrlimit, u32 resource, mem::UserPtr<ResourceLimit> out) {
  if (resource >= kResourceLimits) return Error(EINVAL);
  TRY(mem::write_user(out, current_process().limits[resource]));
  return 0;
}
HUSK_SYSCALL(setrlimit, u32 resource, mem::UserPtr<ResourceLimit> wanted) {
  if (resource >= kResourceLimits) return Error(EINVAL);
  ResourceLimit limit = TRY(mem::read_user(wanted));
  TRY(set_limit(resource, limit));
  return 0;
}

HUSK_SYSCALL(getrusage, int who, u64 out) {
  struct Usage {
    __kernel_old_timeval user, system;
    i64 resident_peak_kib, unused[3], minor_faults, major_faults, more[8];
  } usage = {};
  static_assert(sizeof(Usage) == 144);
  Process& process = current_process();
  if (who == RUSAGE_SELF) {
    usage.user = timeval_of(process.run_time_ns());
    usage.resident_peak_kib = static_cast<i64>(process.space->peak_resident_bytes() / kKiB);
    usage.minor_faults = static_cast<i64>(process.space->fault_count());
  } else if (who == RUSAGE_THREAD) {
    usage.user = timeval_of(current_task().thread->run_time_ns());
    usage.resident_peak_kib = static_cast<i64>(process.space->peak_resident_bytes() / kKiB);
    usage.minor_faults = static_cast<i64>(current_task().minor_faults);
  } else if (who != RUSAGE_CHILDREN) {
    return Error(EINVAL);
  }
  TRY(mem::write_user(mem::UserPtr<Usage>(out), usage));
  return 0;
}

HUSK_SYSCALL(times, u64 out) {
  constexpr u64 kNsPerTick = time::kNsPerSecond / kClockTicks;
  const u64 ticks[4] = {current_process().run_time_ns() / kNsPerTick, 0, 0, 0};
  if (out != 0) TRY(mem::copy_to_user(out, ticks, sizeof(ticks)));
  return static_cast<i64>(time::monotonic_ns() / kNsPerTick);
}

HUSK_SYSCALL(sysinfo, u64 out) {
  struct sysinfo info = {};
  mem::MemoryStatistics memory = mem::memory_statistics();
  info.uptime = static_cast<__kernel_long_t>(time::monotonic_ns() / time::kNsPerSecond);
  info.totalram = memory.total;
  info.freeram = memory.free;
  info.procs = static_cast<u16>(current_process().task_count);
  info.mem_unit = 1;
  TRY(mem::copy_to_user(out, &info, sizeof(info)));
  return 0;
}

// --- children, of which there are none yet -----------------------------------------------------------------------------------

HUSK_SYSCALL(wait4, int, u64, int options, u64) {
  if ((options & ~(WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WALL | static_cast<int>(__WCLONE))) != 0) return Error(EINVAL);
  return Error(ECHILD);
}
HUSK_SYSCALL(waitid, int, int, u64, int, u64) { return Error(ECHILD); }
HUSK_SYSCALL(syslog, int, u64, int) { return Error(EPERM); }

HUSK_SYSCALL(getrandom, u64 out, u64 size, u32 flags) {
  constexpr u64 kLimit = 0x7ffff000;
  if (flags > 7 || (flags & 6) == 6) return Error(EINVAL);
  u8 chunk[256];
  u64 done = 0;
  for (size = std::min(size, kLimit); done < size;) {
    size_t part = std::min<u64>(size - done, sizeof(chunk));
    random_bytes(chunk, part);
    if (!mem::copy_to_user(out + done, chunk, part).ok()) break;
    done += part;
  }
  memset(chunk, 0, sizeof(chunk));
  asm volatile("" : : "r"(chunk) : "memory");  // the numbers do not stay on the kernel stack
  if (done == 0 && size != 0) return Error(EFAULT);
  return static_cast<i64>(done);
}

}  // namespace husk::linux
