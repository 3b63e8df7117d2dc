// Between page_tables.cc and the two implementations: one crossing to the nub.
#pragma once

#include <span>

#include "abi/nub_abi.h"
#include "base/result.h"

namespace husk::platform {

// Room for calls of the current vCPU. Entries [0, count) are handed over by run_nub_calls(count).
std::span<abi::NubCall> nub_calls();
Result<void> run_nub_calls(u32 count);
Result<void> run_nub_call(const abi::NubCall& call);  // flushes a pending batch first; the result is in nub_calls()[0]

}  // namespace husk::platform
