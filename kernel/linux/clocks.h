// The clocks of clock_gettime(2) by their numbers.
#pragma once
#undef linux

#include "base/result.h"
#include "base/types.h"

namespace husk::linux {

Result<u64> clock_ns(int clock);                    // EINVAL
Result<u64> monotonic_deadline(int clock, u64 ns);  // when `clock` will show ns

}  // namespace husk::linux
