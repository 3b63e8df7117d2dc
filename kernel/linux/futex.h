// Futexes for the rest of linux/: thread exit wakes those who wait for it.
#pragma once
#undef linux

#include "base/result.h"
#include "base/types.h"

namespace husk::linux {

struct Task;
Result<i64> wake_futex(u64 address, u32 count);  // FUTEX_WAKE, not private
void release_robust_list(Task& task);            // set_robust_list(2): what the exit of a thread does

}  // namespace husk::linux
