// /proc/<pid>/maps, smaps, smaps_rollup: what is mapped. Formats of proc(5), to the column: programs parse them.
#undef linux
#include <sys/mman.h>

#include "kernel/linux/proc.h"
#include "kernel/linux/proc_process.h"
#include "kernel/linux/task.h"

namespace husk::linux {

namespace {

using ull = unsigned long long;

u32 major_of(u64 device) { return static_cast<u32>((device >> 8) & 0xfff); }
u32 minor_of(u64 device) { return static_cast<u32>((device & 0xff) | ((device >> 12) & 0xfff00)); }
bool is_anonymous(const mem::MappingInfo& m) { return m.inode == 0; }

Result<void> maps_line(String& out, const mem::MappingInfo& m) {
  constexpr size_t kNameColumn = 73;
  size_t before = out.size();
  auto letter = [&](u32 bit, char c) { return (m.protection & bit) != 0 ? c : '-'; };
  TRY(print(out, "%08llx-%08llx %c%c%c%c %08llx %02x:%02x %llu ", static_cast<ull>(m.start), static_cast<ull>(m.end), letter(PROT_READ, 'r'),
            letter(PROT_WRITE, 'w'), letter(PROT_EXEC, 'x'), m.shared ? 's' : 'p', static_cast<ull>(m.offset), major_of(m.device), minor_of(m.device),
            static_cast<ull>(m.inode)));
  if (m.name[0] != '\0') {
    int padding = static_cast<int>(kNameColumn - std::min(kNameColumn, out.size() - before));
    TRY(print(out, "%*s%s", padding, "", m.name));
  }
  return out.append("\n");
}

struct MemoryUse {
  u64 size = 0, resident = 0, shared = 0, private_clean = 0, private_dirty = 0, anonymous = 0;
  void add(const mem::MappingInfo& m) {
    size += m.end - m.start;
    resident += m.resident_bytes;
    if (m.shared) {
      shared += m.resident_bytes;
    } else if (is_anonymous(m)) {
      private_dirty += m.resident_bytes;
      anonymous += m.resident_bytes;
    } else {
      private_clean += m.resident_bytes;
    }
  }
};

Result<void> memory_use_lines(String& out, const MemoryUse& use) {
  struct {
    const char* name;
    u64 bytes;
  } lines[] = {{"Rss", use.resident},
               {"Pss", use.resident},
               {"Pss_Dirty", use.private_dirty},
               {"Shared_Clean", 0},
               {"Shared_Dirty", use.shared},
               {"Private_Clean", use.private_clean},
               {"Private_Dirty", use.private_dirty},
               {"Referenced", use.resident},
               {"Anonymous", use.anonymous},
               {"LazyFree", 0},
               {"AnonHugePages", 0},
               {"ShmemPmdMapped", 0},
               {"FilePmdMapped", 0},
               {"Shared_Hugetlb", 0},
               {"Private_Hugetlb", 0},
               {"Swap", 0},
               {"SwapPss", 0},
               {"Locked", 0}};
  for (auto& line : lines) {
    char name[24];
    format_to(name, sizeof(name), "%s:", line.name);
    TRY(print(out, "%-16s%8llu kB\n", name, static_cast<ull>(line.bytes / kKiB)));
  }
  return {};
}

template <typename Visitor>
Result<void> for_each_mapping(Visitor&& visit) {
  Result<void> done;
  if (!init_process().space) return done;
  init_process().space->for_each([&](const mem::MappingInfo& m) {
    if (done.ok()) done = visit(m);
  });
  return done;
}

}  // namespace

Result<void> proc_maps(void*, String& out) {
  return for_each_mapping([&](const mem::MappingInfo& m) { return maps_line(out, m); });
}

Result<void> proc_smaps(void*, String& out) {
  return for_each_mapping([&](const mem::MappingInfo& m) -> Result<void> {
    MemoryUse use;
    use.add(m);
    TRY(maps_line(out, m));
    TRY(print(out, "Size:           %8llu kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n", static_cast<ull>(use.size / kKiB)));
    TRY(memory_use_lines(out, use));
    TRY(out.append("THPeligible:           0\nVmFlags:"));
    constexpr const char* kFlags[] = {" rd", " wr", " ex"};
    for (u32 i = 0; i < 3; ++i) {
      if ((m.protection >> i & 1) != 0) TRY(out.append(kFlags[i]));
    }
    return out.append(m.shared ? " sh mr mw me ms \n" : " mr mw me \n");
  });
}

Result<void> proc_smaps_rollup(void*, String& out) {
  MemoryUse use;
  u64 first = 0, last = 0;
  TRY(for_each_mapping([&](const mem::MappingInfo& m) -> Result<void> {
    use.add(m);
    if (first == 0) first = m.start;
    last = m.end;
    return {};
  }));
  TRY(print(out, "%08llx-%08llx ---p 00000000 00:00 0 %*s[rollup]\n", static_cast<ull>(first), static_cast<ull>(last), 27, ""));
  return memory_use_lines(out, use);
}

MemorySizes memory_sizes() {
  MemorySizes sizes;
  (void)for_each_mapping([&](const mem::MappingInfo& m) -> Result<void> {
    u64 length = m.end - m.start;
    if (is_anonymous(m)) sizes.resident_anonymous += m.resident_bytes;
    else (m.shared ? sizes.resident_shared : sizes.resident_file) += m.resident_bytes;
    if ((m.protection & PROT_WRITE) != 0 && !m.shared) sizes.data += length;
    if ((m.protection & PROT_EXEC) != 0) sizes.text += length;
    if (std::string_view(m.name) == "[stack]") sizes.stack += length;
    return {};
  }).ok();
  return sizes;
}

}  // namespace husk::linux
