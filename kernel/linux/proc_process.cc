// /proc/<pid> and /proc/<pid>/task/<tid>: the texts about the process. proc(5).
#undef linux
#include "kernel/linux/proc_process.h"

#include <string.h>

#include "kernel/linux/proc.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

using ull = unsigned long long;

ull pages(u64 bytes) { return bytes / kPageSize; }
ull kib(u64 bytes) { return bytes / kKiB; }
ull clock_ticks(u64 ns) { return ns / (time::kNsPerSecond / kTicksPerSecond); }

// The thread that a text is about: that of the folder, or the first one.
Task* task_of(void* context) {
  int tid = static_cast<int>(reinterpret_cast<u64>(context));
  return tid != 0 ? find_task(tid) : init_process().tasks.front();
}
bool about_thread(void* context) { return context != nullptr; }

struct SignalSets {
  u64 ignored = 0, caught = 0;
};
SignalSets signal_sets(const Process& process) {
  SignalSets sets;
  for (int i = 1; i <= kSignalMax; ++i) {
    u64 handler = process.actions->of[i].handler;
    if (handler == 1) sets.ignored |= signal_bit(i);
    if (handler > 1) sets.caught |= signal_bit(i);
  }
  return sets;
}

char state_of(const Task& task) { return task.thread.get() == sched::current() ? 'R' : 'S'; }

Result<void> stat_text(void* context, String& out) {
  Process& process = init_process();
  Task* task = task_of(context);
  if (task == nullptr) return Error(ESRCH);
  const mem::AddressSpace& space = *process.space;
  const ImageLayout& layout = process.layout;
  SignalSets sets = signal_sets(process);
  u64 run_time = about_thread(context) && task->thread ? task->thread->run_time_ns() : process.run_time_ns();
  TRY(print(out, "%d (%s) %c %d %d %d 0 -1 4194304 %llu 0 0 0 %llu 0 0 0 %d %d %u 0 %llu %llu %llu %llu ", task->tid, task->name, state_of(*task),
            process.parent_pid, process.group, process.session, static_cast<ull>(space.fault_count()), clock_ticks(run_time), 20 + process.nice,
            process.nice, process.task_count, clock_ticks(process.start_ns), static_cast<ull>(space.mapped_bytes()), pages(space.resident_bytes()),
            static_cast<ull>(kUnlimited)));
  TRY(print(out, "%llu %llu %llu 0 0 %llu %llu %llu %llu 0 0 0 17 0 0 0 0 0 0 ", static_cast<ull>(layout.code_start),
            static_cast<ull>(layout.code_end), static_cast<ull>(layout.stack_start), static_cast<ull>(task->pending.set() & 0x7fffffff),
            static_cast<ull>(task->signal_mask & 0x7fffffff), static_cast<ull>(sets.ignored & 0x7fffffff),
            static_cast<ull>(sets.caught & 0x7fffffff)));
  return print(out, "%llu %llu %llu %llu %llu %llu %llu 0\n", static_cast<ull>(layout.data_start), static_cast<ull>(layout.data_end),
               static_cast<ull>(layout.heap_start), static_cast<ull>(layout.arguments_start), static_cast<ull>(layout.arguments_end),
               static_cast<ull>(layout.environment_start), static_cast<ull>(layout.environment_end));
}

Result<void> statm_text(void*, String& out) {
  const mem::AddressSpace& space = *init_process().space;
  MemorySizes sizes = memory_sizes();
  return print(out, "%llu %llu %llu %llu 0 %llu 0\n", pages(space.mapped_bytes()), pages(space.resident_bytes()),
               pages(sizes.resident_file + sizes.resident_shared), pages(sizes.text), pages(sizes.data));
}

Result<void> status_identity(String& out, const Process& process, const Task& task) {
  const Credentials& who = process.credentials;
  TRY(print(out, "Name:\t%s\nUmask:\t%04o\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n", task.name,
            process.file_context->umask, state_of(task) == 'R' ? "R (running)" : "S (sleeping)", process.pid, task.tid, process.parent_pid));
  TRY(print(out, "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\nFDSize:\t64\nGroups:\t", who.uid, who.euid, who.suid, who.euid, who.gid, who.egid,
            who.sgid, who.egid));
  for (u32 group : who.groups) TRY(print(out, "%u ", group));
  return print(out, "\nNStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\n", process.pid, task.tid, process.group, process.session);
}

Result<void> status_memory(String& out, const Process& process) {
  const mem::AddressSpace& space = *process.space;
  MemorySizes sizes = memory_sizes();
  struct {
    const char* name;
    u64 bytes;
  } lines[] = {{"VmPeak", space.mapped_bytes()},
               {"VmSize", space.mapped_bytes()},
               {"VmLck", 0},
               {"VmPin", 0},
               {"VmHWM", space.peak_resident_bytes()},
               {"VmRSS", space.resident_bytes()},
               {"RssAnon", sizes.resident_anonymous},
               {"RssFile", sizes.resident_file},
               {"RssShmem", sizes.resident_shared},
               {"VmData", sizes.data},
               {"VmStk", sizes.stack},
               {"VmExe", process.layout.code_end - process.layout.code_start},
               {"VmLib", sizes.text},
               {"VmPTE", 0},
               {"VmSwap", 0},
               {"HugetlbPages", 0}};
  for (auto& line : lines) TRY(print(out, "%s:\t%8llu kB\n", line.name, kib(line.bytes)));
  return {};
}

Result<void> status_text(void* context, String& out) {
  Process& process = init_process();
  Task* task = task_of(context);
  if (task == nullptr) return Error(ESRCH);
  SignalSets sets = signal_sets(process);
  TRY(status_identity(out, process, *task));
  TRY(status_memory(out, process));
  TRY(print(out, "CoreDumping:\t0\nTHP_enabled:\t1\nThreads:\t%u\nSigQ:\t0/15000\n", process.task_count));
  struct {
    const char* name;
    u64 set;
  } masks[] = {{"SigPnd", task->pending.set()}, {"ShdPnd", process.pending.set()},
               {"SigBlk", task->signal_mask},   {"SigIgn", sets.ignored},
               {"SigCgt", sets.caught},         {"CapInh", 0},
               {"CapPrm", 0x1ffffffffff},       {"CapEff", 0x1ffffffffff},
               {"CapBnd", 0x1ffffffffff},       {"CapAmb", 0}};
  for (auto& mask : masks) TRY(print(out, "%s:\t%016llx\n", mask.name, static_cast<ull>(mask.set)));
  return out.append(
      "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nSpeculation_Store_Bypass:\tunknown\nCpus_allowed:\t1\n"
      "Cpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n");
}

// The program's own memory: what setproctitle(3) wrote there is what shows.
Result<void> program_bytes(String& out, u64 start, u64 end) {
  char piece[512];
  while (start < end) {
    size_t got = mem::copy_from_user_partial(piece, start, std::min<u64>(sizeof(piece), end - start));
    if (got == 0) break;
    TRY(out.append({piece, got}));
    start += got;
  }
  return {};
}
Result<void> cmdline_text(void*, String& out) {
  const ImageLayout& layout = init_process().layout;
  return program_bytes(out, layout.arguments_start, layout.arguments_end);
}
Result<void> environ_text(void*, String& out) {
  const ImageLayout& layout = init_process().layout;
  return program_bytes(out, layout.environment_start, layout.environment_end);
}
Result<void> auxv_text(void*, String& out) {
  const Vec<u8>& bytes = init_process().auxiliary_vector;
  return out.append({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Result<void> comm_text(void* context, String& out) {
  Task* task = task_of(context);
  if (task == nullptr) return Error(ESRCH);
  return print(out, "%s\n", task->name);
}

Result<void> limits_text(void*, String& out) {
  struct Limit {
    const char* name;
    const char* unit;
  };
  constexpr Limit kLimits[kResourceLimits] = {
      {"Max cpu time", "seconds"},     {"Max file size", "bytes"},     {"Max data size", "bytes"},     {"Max stack size", "bytes"},
      {"Max core file size", "bytes"}, {"Max resident set", "bytes"},  {"Max processes", "processes"}, {"Max open files", "files"},
      {"Max locked memory", "bytes"},  {"Max address space", "bytes"}, {"Max file locks", "locks"},    {"Max pending signals", "signals"},
      {"Max msgqueue size", "bytes"},  {"Max nice priority", ""},      {"Max realtime priority", ""},  {"Max realtime timeout", "us"}};
  TRY(print(out, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units"));
  for (u32 i = 0; i < kResourceLimits; ++i) {
    TRY(print(out, "%-25s ", kLimits[i].name));
    for (u64 value : {init_process().limits[i].soft, init_process().limits[i].hard}) {
      if (value == kUnlimited) TRY(print(out, "%-20s ", "unlimited"));
      else TRY(print(out, "%-20llu ", static_cast<ull>(value)));
    }
    TRY(print(out, "%-10s\n", kLimits[i].unit));
  }
  return {};
}

Result<void> mountinfo_text(void*, String& out) {
  TRY(out.append("1 1 0:1 / / rw,relatime - overlay overlay rw\n"));
  int id = 2;
  for (const vfs::Tree::Mount& mount : tree().mounts()) {
    String at = TRY(tree().path_of(vfs::Path{mount.at}));
    if (at.view() == "/") continue;
    TRY(print(out, "%d 1 0:%d / %s rw,relatime - %s %s rw\n", id, id, at.c_str(), mount.type.c_str(), mount.type.c_str()));
    ++id;
  }
  return {};
}

Result<void> executable_link(void*, String& out) { return out.append(init_process().executable); }
Result<void> directory_link(void*, String& out) { return out.append(TRY(tree().path_of(init_process().file_context->working_directory))); }
Result<void> root_link(void*, String& out) { return out.append(TRY(tree().path_of(init_process().file_context->root))); }

constexpr MadeText kTexts[] = {{"stat", stat_text},
                               {"statm", statm_text},
                               {"status", status_text},
                               {"cmdline", cmdline_text},
                               {"environ", environ_text},
                               {"auxv", auxv_text},
                               {"comm", comm_text, Writable::yes},
                               {"limits", limits_text},
                               {"maps", proc_maps},
                               {"smaps", proc_smaps},
                               {"smaps_rollup", proc_smaps_rollup},
                               {"mounts", mounts_text},
                               {"mountinfo", mountinfo_text}};
constexpr ConstantText kConstants[] = {{"cgroup", "0::/\n"},
                                       {"oom_score", "0\n"},
                                       {"oom_score_adj", "0\n", Writable::yes},
                                       {"oom_adj", "0\n", Writable::yes},
                                       {"coredump_filter", "00000033\n", Writable::yes},
                                       {"loginuid", "4294967295"},
                                       {"sessionid", "4294967295"},
                                       {"personality", "00000000\n"},
                                       {"wchan", "0"},
                                       {"schedstat", "0 0 0\n"},
                                       {"setgroups", "allow\n"},
                                       {"uid_map", "         0          0 4294967295\n"},
                                       {"gid_map", "         0          0 4294967295\n"},
                                       {"io", "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"}};

}  // namespace

Result<void> mounts_text(void*, String& out) {
  TRY(out.append("overlay / overlay rw,relatime 0 0\n"));
  for (const vfs::Tree::Mount& mount : tree().mounts()) {
    String at = TRY(tree().path_of(vfs::Path{mount.at}));
    if (at.view() == "/") continue;
    TRY(print(out, "%s %s %s rw,relatime 0 0\n", mount.type.c_str(), at.c_str(), mount.type.c_str()));
  }
  return {};
}

Result<void> add_process_texts(TreeBuilder& builder, int tid) {
  void* context = reinterpret_cast<void*>(static_cast<u64>(tid));
  for (const MadeText& text : kTexts) TRY(builder.text(text.path, text.function, context, text.writable));
  for (const ConstantText& text : kConstants) TRY(builder.constant(text.path, text.text, text.writable));
  TRY(builder.link("exe", executable_link));
  TRY(builder.link("cwd", directory_link));
  return builder.link("root", root_link);
}

}  // namespace husk::linux
