// /proc/sys and /sys: settings and topology as programs read them. Those that can be written keep their value:
// nothing in this kernel follows them. sysfs(5), Documentation/admin-guide/sysctl of Linux.
#undef linux
#include <cpuid.h>

#include "kernel/linux/linux.h"
#include "kernel/linux/machine_name.h"
#include "kernel/linux/proc.h"
#include "kernel/linux/proc_process.h"
#include "kernel/random.h"
#include "kernel/sched/sched.h"

namespace husk::linux {

namespace {

Result<void> release_text(void*, String& out) { return print(out, "%s\n", kKernelRelease.data()); }
Result<void> version_text(void*, String& out) { return print(out, "%s\n", kKernelVersion.data()); }
Result<void> host_name_text(void*, String& out) { return print(out, "%s\n", get_host_name()); }
Result<void> domain_name_text(void*, String& out) { return print(out, "%s\n", get_domain_name()); }

struct Uuid {
  u8 bytes[16];
};
Uuid random_uuid() {  // RFC 4122 §4.4
  Uuid uuid;
  random_bytes(uuid.bytes, sizeof(uuid.bytes));
  uuid.bytes[6] = (uuid.bytes[6] & 0x0f) | 0x40;
  uuid.bytes[8] = (uuid.bytes[8] & 0x3f) | 0x80;
  return uuid;
}
Result<void> print_uuid(String& out, const Uuid& uuid) {
  for (u32 i = 0; i < 16; ++i) TRY(print(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid.bytes[i]));
  return out.append("\n");
}
Result<void> uuid_text(void*, String& out) { return print_uuid(out, random_uuid()); }
Result<void> boot_id_text(void*, String& out) {
  static constinit Uuid boot_id{};
  if (boot_id.bytes[6] == 0) boot_id = random_uuid();
  return print_uuid(out, boot_id);
}

constexpr MadeText kTexts[] = {{"sys/kernel/osrelease", release_text},
                               {"sys/kernel/version", version_text},
                               {"sys/kernel/hostname", host_name_text, Writable::yes},
                               {"sys/kernel/domainname", domain_name_text, Writable::yes},
                               {"sys/kernel/random/uuid", uuid_text},
                               {"sys/kernel/random/boot_id", boot_id_text}};

constexpr ConstantText kSettings[] = {{"sys/kernel/ostype", "Linux\n"},
                                      {"sys/kernel/pid_max", "4194304\n", Writable::yes},
                                      {"sys/kernel/threads-max", "127000\n", Writable::yes},
                                      {"sys/kernel/cap_last_cap", "40\n"},
                                      {"sys/kernel/ngroups_max", "65536\n"},
                                      {"sys/kernel/overflowuid", "65534\n", Writable::yes},
                                      {"sys/kernel/overflowgid", "65534\n", Writable::yes},
                                      {"sys/kernel/core_pattern", "core\n", Writable::yes},
                                      {"sys/kernel/core_uses_pid", "0\n", Writable::yes},
                                      {"sys/kernel/randomize_va_space", "2\n", Writable::yes},
                                      {"sys/kernel/random/entropy_avail", "256\n"},
                                      {"sys/kernel/random/poolsize", "256\n"},
                                      {"sys/kernel/shmmax", "18446744073692774399\n", Writable::yes},
                                      {"sys/kernel/shmall", "18446744073692774399\n", Writable::yes},
                                      {"sys/kernel/shmmni", "4096\n", Writable::yes},
                                      {"sys/kernel/msgmax", "8192\n", Writable::yes},
                                      {"sys/kernel/sem", "32000\t1024000000\t500\t32000\n", Writable::yes},
                                      {"sys/kernel/numa_balancing", "0\n", Writable::yes},
                                      {"sys/kernel/perf_event_paranoid", "4\n", Writable::yes},
                                      {"sys/kernel/dmesg_restrict", "1\n", Writable::yes},
                                      {"sys/kernel/tainted", "0\n"},
                                      {"sys/vm/overcommit_memory", "1\n", Writable::yes},
                                      {"sys/vm/overcommit_ratio", "50\n", Writable::yes},
                                      {"sys/vm/max_map_count", "1048576\n", Writable::yes},
                                      {"sys/vm/mmap_min_addr", "65536\n"},
                                      {"sys/vm/swappiness", "0\n", Writable::yes},
                                      {"sys/vm/nr_hugepages", "0\n", Writable::yes},
                                      {"sys/vm/nr_overcommit_hugepages", "0\n", Writable::yes},
                                      {"sys/vm/drop_caches", "0\n", Writable::yes},
                                      {"sys/fs/file-max", "9223372036854775807\n", Writable::yes},
                                      {"sys/fs/file-nr", "0\t0\t9223372036854775807\n"},
                                      {"sys/fs/nr_open", "1048576\n", Writable::yes},
                                      {"sys/fs/pipe-max-size", "1048576\n", Writable::yes},
                                      {"sys/fs/aio-max-nr", "65536\n", Writable::yes},
                                      {"sys/fs/inotify/max_user_watches", "65536\n", Writable::yes},
                                      {"sys/fs/inotify/max_user_instances", "128\n", Writable::yes},
                                      {"sys/fs/inotify/max_queued_events", "16384\n", Writable::yes},
                                      {"sys/fs/epoll/max_user_watches", "1048576\n", Writable::yes}};

constexpr ConstantText kSystem[] = {{"devices/system/cpu/online", "0\n"},
                                    {"devices/system/cpu/possible", "0\n"},
                                    {"devices/system/cpu/present", "0\n"},
                                    {"devices/system/cpu/offline", "\n"},
                                    {"devices/system/cpu/isolated", "\n"},
                                    {"devices/system/cpu/kernel_max", "63\n"},
                                    {"devices/system/cpu/smt/active", "0\n"},
                                    {"devices/system/cpu/smt/control", "notsupported\n"},
                                    {"devices/system/cpu/cpu0/online", "1\n"},
                                    {"devices/system/cpu/cpu0/topology/core_id", "0\n"},
                                    {"devices/system/cpu/cpu0/topology/physical_package_id", "0\n"},
                                    {"devices/system/cpu/cpu0/topology/die_id", "0\n"},
                                    {"devices/system/cpu/cpu0/topology/thread_siblings", "1\n"},
                                    {"devices/system/cpu/cpu0/topology/thread_siblings_list", "0\n"},
                                    {"devices/system/cpu/cpu0/topology/core_siblings", "1\n"},
                                    {"devices/system/cpu/cpu0/topology/core_siblings_list", "0\n"},
                                    {"devices/system/cpu/cpu0/topology/core_cpus", "1\n"},
                                    {"devices/system/cpu/cpu0/topology/core_cpus_list", "0\n"},
                                    {"devices/system/cpu/cpu0/topology/package_cpus", "1\n"},
                                    {"devices/system/cpu/cpu0/topology/package_cpus_list", "0\n"},
                                    {"devices/system/node/online", "0\n"},
                                    {"devices/system/node/possible", "0\n"},
                                    {"devices/system/node/has_cpu", "0\n"},
                                    {"devices/system/node/has_memory", "0\n"},
                                    {"devices/system/node/has_normal_memory", "0\n"},
                                    {"devices/system/node/node0/cpulist", "0\n"},
                                    {"devices/system/node/node0/cpumap", "1\n"},
                                    {"devices/system/node/node0/distance", "10\n"},
                                    {"devices/system/clocksource/clocksource0/current_clocksource", "tsc\n", Writable::yes},
                                    {"devices/system/clocksource/clocksource0/available_clocksource", "tsc\n"},
                                    {"kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n", Writable::yes},
                                    {"kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never\n", Writable::yes},
                                    {"kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force\n", Writable::yes},
                                    {"kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n"},
                                    {"kernel/mm/transparent_hugepage/use_zero_page", "0\n"},
                                    {"fs/cgroup/cgroup.controllers", "\n"},
                                    {"fs/cgroup/cgroup.procs", "1\n"},
                                    {"fs/cgroup/cgroup.subtree_control", "\n"}};

// Deterministic cache parameters, CPUID leaf 4 (Intel) or 0x8000001d (AMD): the same layout.
struct Cache {
  u32 type = 0, level = 0, line = 0, ways = 0, sets = 0;
  u64 size() const { return u64{line} * ways * sets; }
};
Cache cache(u32 index) {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
  u32 leaf = __get_cpuid_max(0x80000000, nullptr) >= 0x8000001d ? 0x8000001d : 4;
  if (leaf == 4 && __get_cpuid_max(0, nullptr) < 4) return {};
  __cpuid_count(leaf, index, eax, ebx, ecx, edx);
  return {eax & 31, eax >> 5 & 7, (ebx & 0xfff) + 1, ((ebx >> 22) + 1) * ((ebx >> 12 & 0x3ff) + 1), ecx + 1};
}
u32 index_of(void* context) { return static_cast<u32>(reinterpret_cast<u64>(context)); }
Result<void> cache_level(void* c, String& out) { return print(out, "%u\n", cache(index_of(c)).level); }
Result<void> cache_line(void* c, String& out) { return print(out, "%u\n", cache(index_of(c)).line); }
Result<void> cache_ways(void* c, String& out) { return print(out, "%u\n", cache(index_of(c)).ways); }
Result<void> cache_sets(void* c, String& out) { return print(out, "%u\n", cache(index_of(c)).sets); }
Result<void> cache_size(void* c, String& out) { return print(out, "%lluK\n", static_cast<unsigned long long>(cache(index_of(c)).size() / kKiB)); }
Result<void> cache_type(void* c, String& out) {
  constexpr const char* kTypes[] = {"", "Data", "Instruction", "Unified"};
  return print(out, "%s\n", kTypes[cache(index_of(c)).type & 3]);
}
struct CachePaths {
  const char *level, *line, *ways, *sets, *size, *type, *map, *list;
};
#define HUSK_CACHE(i) "devices/system/cpu/cpu0/cache/index" i "/"
#define HUSK_CACHE_PATHS(i)                                                                                                                    \
  {                                                                                                                                            \
    HUSK_CACHE(i)                                                                                                                              \
    "level", HUSK_CACHE(i) "coherency_line_size", HUSK_CACHE(i) "ways_of_associativity", HUSK_CACHE(i) "number_of_sets", HUSK_CACHE(i) "size", \
        HUSK_CACHE(i) "type", HUSK_CACHE(i) "shared_cpu_map", HUSK_CACHE(i) "shared_cpu_list"                                                  \
  }
constexpr CachePaths kCaches[] = {HUSK_CACHE_PATHS("0"), HUSK_CACHE_PATHS("1"), HUSK_CACHE_PATHS("2"), HUSK_CACHE_PATHS("3")};

Result<void> add_caches(TreeBuilder& builder) {
  for (u64 i = 0; i < 4 && cache(static_cast<u32>(i)).type != 0; ++i) {
    const CachePaths& paths = kCaches[i];
    void* context = reinterpret_cast<void*>(i);
    TRY(builder.text(paths.level, cache_level, context));
    TRY(builder.text(paths.line, cache_line, context));
    TRY(builder.text(paths.ways, cache_ways, context));
    TRY(builder.text(paths.sets, cache_sets, context));
    TRY(builder.text(paths.size, cache_size, context));
    TRY(builder.text(paths.type, cache_type, context));
    TRY(builder.constant(paths.map, "1\n"));
    TRY(builder.constant(paths.list, "0\n"));
  }
  return {};
}

}  // namespace

Result<void> add_settings(TreeBuilder& builder) {
  for (const MadeText& text : kTexts) TRY(builder.text(text.path, text.function, nullptr, text.writable));
  for (const ConstantText& text : kSettings) TRY(builder.constant(text.path, text.text, text.writable));
  return {};
}

Result<void> build_sys(TreeBuilder& builder) {
  for (const ConstantText& text : kSystem) TRY(builder.constant(text.path, text.text, text.writable));
  TRY(add_caches(builder));
  TRY(add_network_devices(builder));
  for (const char* path : {"block", "bus", "dev", "firmware", "module"}) TRY(builder.folder(path));
  return {};
}

}  // namespace husk::linux
