// /proc/meminfo, cpuinfo, stat, uptime, ...: the machine as programs ask for it. proc(5).
#undef linux
#include <cpuid.h>
#include <string.h>

#include "kernel/linux/machine_name.h"
#include "kernel/linux/proc.h"
#include "kernel/linux/proc_process.h"
#include "kernel/linux/task.h"
#include "kernel/mem/frames.h"
#include "kernel/sched/sched.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

using ull = unsigned long long;

ull clock_ticks(u64 ns) { return ns / (time::kNsPerSecond / kTicksPerSecond); }
u32 runnable_tasks() { return sched::others_runnable() ? 2 : 1; }

Result<void> meminfo_text(void*, String& out) {
  mem::MemoryStatistics memory = mem::memory_statistics();
  u64 used_by_program = init_process().space ? init_process().space->private_bytes() : 0;
  struct {
    const char* name;
    u64 bytes;
  } lines[] = {{"MemTotal", memory.total},
               {"MemFree", memory.free},
               {"MemAvailable", memory.free},
               {"Buffers", 0},
               {"Cached", 0},
               {"SwapCached", 0},
               {"Active", used_by_program},
               {"Inactive", 0},
               {"Active(anon)", used_by_program},
               {"Inactive(anon)", 0},
               {"Active(file)", 0},
               {"Inactive(file)", 0},
               {"Unevictable", 0},
               {"Mlocked", 0},
               {"SwapTotal", 0},
               {"SwapFree", 0},
               {"Dirty", 0},
               {"Writeback", 0},
               {"AnonPages", used_by_program},
               {"Mapped", 0},
               {"Shmem", 0},
               {"KReclaimable", 0},
               {"Slab", 0},
               {"SReclaimable", 0},
               {"SUnreclaim", 0},
               {"KernelStack", 0},
               {"PageTables", 0},
               {"NFS_Unstable", 0},
               {"Bounce", 0},
               {"WritebackTmp", 0},
               {"CommitLimit", memory.total},
               {"Committed_AS", used_by_program},
               {"VmallocTotal", u64{1} << 45},
               {"VmallocUsed", 0},
               {"VmallocChunk", 0},
               {"AnonHugePages", 0}};
  char name[24];
  for (auto& line : lines) {
    format_to(name, sizeof(name), "%s:", line.name);
    TRY(print(out, "%-16s%8llu kB\n", name, static_cast<ull>(line.bytes / kKiB)));
  }
  return out.append(
      "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n"
      "Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
}

// --- cpuinfo ---------------------------------------------------------------------------------------------------------------

struct CpuidWords {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};
CpuidWords cpuid(u32 leaf, u32 subleaf = 0) {
  CpuidWords words;
  if (leaf <= __get_cpuid_max(leaf & 0x80000000, nullptr)) __cpuid_count(leaf, subleaf, words.eax, words.ebx, words.ecx, words.edx);
  return words;
}

// Names of Linux (arch/x86/include/asm/cpufeatures.h gives them) by leaf, register and bit; in Linux's order.
struct Feature {
  u32 leaf;
  u8 subleaf;
  char word;  // register: a, b, c, d
  u8 bit;
  const char* name;
};
constexpr Feature kFeatures[] = {{1, 0, 'd', 0, "fpu"},
                                 {1, 0, 'd', 1, "vme"},
                                 {1, 0, 'd', 2, "de"},
                                 {1, 0, 'd', 3, "pse"},
                                 {1, 0, 'd', 4, "tsc"},
                                 {1, 0, 'd', 5, "msr"},
                                 {1, 0, 'd', 6, "pae"},
                                 {1, 0, 'd', 7, "mce"},
                                 {1, 0, 'd', 8, "cx8"},
                                 {1, 0, 'd', 9, "apic"},
                                 {1, 0, 'd', 11, "sep"},
                                 {1, 0, 'd', 12, "mtrr"},
                                 {1, 0, 'd', 13, "pge"},
                                 {1, 0, 'd', 14, "mca"},
                                 {1, 0, 'd', 15, "cmov"},
                                 {1, 0, 'd', 16, "pat"},
                                 {1, 0, 'd', 17, "pse36"},
                                 {1, 0, 'd', 19, "clflush"},
                                 {1, 0, 'd', 23, "mmx"},
                                 {1, 0, 'd', 24, "fxsr"},
                                 {1, 0, 'd', 25, "sse"},
                                 {1, 0, 'd', 26, "sse2"},
                                 {1, 0, 'd', 27, "ss"},
                                 {1, 0, 'd', 28, "ht"},
                                 {0x80000001, 0, 'd', 11, "syscall"},
                                 {0x80000001, 0, 'd', 20, "nx"},
                                 {0x80000001, 0, 'd', 22, "mmxext"},
                                 {0x80000001, 0, 'd', 25, "fxsr_opt"},
                                 {0x80000001, 0, 'd', 26, "pdpe1gb"},
                                 {0x80000001, 0, 'd', 27, "rdtscp"},
                                 {0x80000001, 0, 'd', 29, "lm"},
                                 {0x80000007, 0, 'd', 8, "constant_tsc"},
                                 {0x80000007, 0, 'd', 8, "nonstop_tsc"},
                                 {1, 0, 'c', 0, "pni"},
                                 {1, 0, 'c', 1, "pclmulqdq"},
                                 {1, 0, 'c', 9, "ssse3"},
                                 {1, 0, 'c', 12, "fma"},
                                 {1, 0, 'c', 13, "cx16"},
                                 {1, 0, 'c', 17, "pcid"},
                                 {1, 0, 'c', 19, "sse4_1"},
                                 {1, 0, 'c', 20, "sse4_2"},
                                 {1, 0, 'c', 21, "x2apic"},
                                 {1, 0, 'c', 22, "movbe"},
                                 {1, 0, 'c', 23, "popcnt"},
                                 {1, 0, 'c', 24, "tsc_deadline_timer"},
                                 {1, 0, 'c', 25, "aes"},
                                 {1, 0, 'c', 26, "xsave"},
                                 {1, 0, 'c', 28, "avx"},
                                 {1, 0, 'c', 29, "f16c"},
                                 {1, 0, 'c', 30, "rdrand"},
                                 {1, 0, 'c', 31, "hypervisor"},
                                 {0x80000001, 0, 'c', 0, "lahf_lm"},
                                 {0x80000001, 0, 'c', 4, "cr8_legacy"},
                                 {0x80000001, 0, 'c', 5, "abm"},
                                 {0x80000001, 0, 'c', 6, "sse4a"},
                                 {0x80000001, 0, 'c', 7, "misalignsse"},
                                 {0x80000001, 0, 'c', 8, "3dnowprefetch"},
                                 {7, 0, 'b', 0, "fsgsbase"},
                                 {7, 0, 'b', 1, "tsc_adjust"},
                                 {7, 0, 'b', 3, "bmi1"},
                                 {7, 0, 'b', 4, "hle"},
                                 {7, 0, 'b', 5, "avx2"},
                                 {7, 0, 'b', 7, "smep"},
                                 {7, 0, 'b', 8, "bmi2"},
                                 {7, 0, 'b', 9, "erms"},
                                 {7, 0, 'b', 10, "invpcid"},
                                 {7, 0, 'b', 11, "rtm"},
                                 {7, 0, 'b', 16, "avx512f"},
                                 {7, 0, 'b', 17, "avx512dq"},
                                 {7, 0, 'b', 18, "rdseed"},
                                 {7, 0, 'b', 19, "adx"},
                                 {7, 0, 'b', 20, "smap"},
                                 {7, 0, 'b', 21, "avx512ifma"},
                                 {7, 0, 'b', 23, "clflushopt"},
                                 {7, 0, 'b', 24, "clwb"},
                                 {7, 0, 'b', 28, "avx512cd"},
                                 {7, 0, 'b', 29, "sha_ni"},
                                 {7, 0, 'b', 30, "avx512bw"},
                                 {7, 0, 'b', 31, "avx512vl"},
                                 {13, 1, 'a', 0, "xsaveopt"},
                                 {13, 1, 'a', 1, "xsavec"},
                                 {13, 1, 'a', 2, "xgetbv1"},
                                 {7, 1, 'a', 4, "avx_vnni"},
                                 {7, 1, 'a', 5, "avx512_bf16"},
                                 {0x80000008, 0, 'b', 0, "clzero"},
                                 {7, 0, 'c', 1, "avx512vbmi"},
                                 {7, 0, 'c', 2, "umip"},
                                 {7, 0, 'c', 3, "pku"},
                                 {7, 0, 'c', 6, "avx512_vbmi2"},
                                 {7, 0, 'c', 8, "gfni"},
                                 {7, 0, 'c', 9, "vaes"},
                                 {7, 0, 'c', 10, "vpclmulqdq"},
                                 {7, 0, 'c', 11, "avx512_vnni"},
                                 {7, 0, 'c', 12, "avx512_bitalg"},
                                 {7, 0, 'c', 14, "avx512_vpopcntdq"},
                                 {7, 0, 'c', 22, "rdpid"},
                                 {7, 0, 'c', 25, "cldemote"},
                                 {7, 0, 'c', 27, "movdiri"},
                                 {7, 0, 'c', 28, "movdir64b"},
                                 {7, 0, 'd', 4, "fsrm"},
                                 {7, 0, 'd', 8, "avx512_vp2intersect"},
                                 {7, 0, 'd', 14, "serialize"},
                                 {7, 0, 'd', 22, "amx_bf16"},
                                 {7, 0, 'd', 23, "avx512_fp16"},
                                 {7, 0, 'd', 24, "amx_tile"},
                                 {7, 0, 'd', 25, "amx_int8"}};

u32 word_of(const CpuidWords& words, char name) { return name == 'a' ? words.eax : name == 'b' ? words.ebx : name == 'c' ? words.ecx : words.edx; }

Result<void> flags_line(String& out) {
  TRY(out.append("flags\t\t:"));
  CpuidWords words;
  u32 leaf = 0, subleaf = 0;
  for (const Feature& feature : kFeatures) {
    if (feature.leaf != leaf || feature.subleaf != subleaf) {
      leaf = feature.leaf, subleaf = feature.subleaf;
      words = cpuid(leaf, subleaf);
    }
    if ((word_of(words, feature.word) >> feature.bit & 1) != 0) TRY(print(out, " %s", feature.name));
  }
  return out.append("\n");
}

Result<void> cpuinfo_text(void*, String& out) {
  CpuidWords maximum = cpuid(0), version = cpuid(1), sizes = cpuid(0x80000008);
  char vendor[13] = {}, brand[49] = {};
  memcpy(vendor, &maximum.ebx, 4);
  memcpy(vendor + 4, &maximum.edx, 4);
  memcpy(vendor + 8, &maximum.ecx, 4);
  for (u32 i = 0; i < 3; ++i) {
    CpuidWords words = cpuid(0x80000002 + i);
    memcpy(brand + i * 16, &words, 16);
  }
  const char* name = brand;
  while (*name == ' ') ++name;
  u32 family = version.eax >> 8 & 15, model = version.eax >> 4 & 15;
  if (family == 6 || family == 15) model |= (version.eax >> 16 & 15) << 4;
  if (family == 15) family += version.eax >> 20 & 255;
  ull khz = time::ns_to_ticks(time::kNsPerSecond) / 1000;
  u32 line = (version.ebx >> 8 & 255) * 8;
  TRY(print(out, "processor\t: 0\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\nmodel name\t: %s\nstepping\t: %u\n", vendor, family, model, name,
            version.eax & 15));
  TRY(print(out, "microcode\t: 0x1\ncpu MHz\t\t: %llu.%03llu\nphysical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\n", khz / 1000, khz % 1000));
  TRY(print(out, "cpu cores\t: 1\napicid\t\t: 0\ninitial apicid\t: 0\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: %u\nwp\t\t: yes\n",
            maximum.eax));
  TRY(flags_line(out));
  return print(out,
               "bugs\t\t:\nbogomips\t: %llu.%02llu\nclflush size\t: %u\ncache_alignment\t: %u\n"
               "address sizes\t: %u bits physical, %u bits virtual\npower management:\n\n",
               khz / 500, khz / 5 % 100, line, line, sizes.eax & 255, sizes.eax >> 8 & 255);
}

// --- load and time ---------------------------------------------------------------------------------------------------------

Result<void> stat_text(void*, String& out) {
  u64 idle = sched::statistics().idle_ns, now = time::monotonic_ns();
  u64 user = now > idle ? now - idle : 0;
  for (const char* name : {"cpu ", "cpu0"}) {
    TRY(print(out, "%s %llu 0 0 %llu 0 0 0 0 0 0\n", name, clock_ticks(user), clock_ticks(idle)));
  }
  return print(out, "intr 0\nctxt %llu\nbtime %llu\nprocesses 1\nprocs_running %u\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
               static_cast<ull>(sched::statistics().switches), static_cast<ull>((time::realtime_ns() - now) / time::kNsPerSecond), runnable_tasks());
}

Result<void> uptime_text(void*, String& out) {
  ull up = clock_ticks(time::monotonic_ns()), idle = clock_ticks(sched::statistics().idle_ns);
  return print(out, "%llu.%02llu %llu.%02llu\n", up / 100, up % 100, idle / 100, idle % 100);
}

Result<void> loadavg_text(void*, String& out) {
  return print(out, "0.00 0.00 0.00 %u/%u %d\n", runnable_tasks(), init_process().task_count, init_process().pid);
}

Result<void> version_text(void*, String& out) {
  return print(out, "Linux version %s (husk) (g++) %s\n", kKernelRelease.data(), kKernelVersion.data());
}

Result<void> vmstat_text(void*, String& out) {
  u64 faults = init_process().space ? init_process().space->fault_count() : 0;
  return print(out, "nr_free_pages %llu\npgfault %llu\npgmajfault 0\npswpin 0\npswpout 0\noom_kill 0\n",
               static_cast<ull>(mem::memory_statistics().free / kPageSize), static_cast<ull>(faults));
}

constexpr MadeText kTexts[] = {{"meminfo", meminfo_text}, {"cpuinfo", cpuinfo_text}, {"stat", stat_text},     {"uptime", uptime_text},
                               {"loadavg", loadavg_text}, {"version", version_text}, {"vmstat", vmstat_text}, {"mounts", mounts_text}};
constexpr ConstantText kConstants[] = {
    {"filesystems", "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\toverlay\n\terofs\n"},
    {"cmdline", "husk\n"},
    {"devices", "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n"},
    {"swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"},
    {"modules", ""},
    {"interrupts", "           CPU0       \n"},
    {"partitions", "major minor  #blocks  name\n\n"},
    {"diskstats", ""}};

}  // namespace

Result<void> add_machine_texts(TreeBuilder& builder) {
  for (const MadeText& text : kTexts) TRY(builder.text(text.path, text.function, nullptr, text.writable));
  for (const ConstantText& text : kConstants) TRY(builder.constant(text.path, text.text, text.writable));
  return {};
}

}  // namespace husk::linux
