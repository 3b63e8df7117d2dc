// Between the proc_*.cc files: texts of /proc/<pid>. `context` is the tid of a thread, or 0 for the process.
#pragma once
#undef linux

#include <algorithm>

#include "base/format.h"
#include "base/result.h"
#include "base/vec.h"

namespace husk::linux {

Result<void> proc_maps(void* context, String& out);
Result<void> proc_smaps(void* context, String& out);
Result<void> proc_smaps_rollup(void* context, String& out);

struct MemorySizes {  // bytes
  u64 resident_anonymous = 0, resident_file = 0, resident_shared = 0, data = 0, text = 0, stack = 0;
};
MemorySizes memory_sizes();

Result<void> mounts_text(void*, String& out);  // also /proc/mounts
constexpr u64 kTicksPerSecond = 100;           // USER_HZ

}  // namespace husk::linux
