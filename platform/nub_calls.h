// Between page_tables.cc and the two implementations: one crossing to the nub.
#pragma once

#include <span>

#include "abi/boot_info.h"
#include "abi/nub_abi.h"
#include "base/result.h"

namespace husk::platform {

// In the kernel's direct map; the image has one of its own.
inline u8* direct(const abi::BootInfo& info, u64 physical) {
  const u64 in_image = physical - info.image_physical;
  return reinterpret_cast<u8*>(in_image < info.image_size ? info.image_base + in_image : info.direct_base + physical);
}

// Room for calls of the current vCPU. Entries [0, count) are handed over by run_nub_calls(count).
std::span<abi::NubCall> nub_calls();
Result<void> run_nub_calls(u32 count);
Result<void> run_nub_call(const abi::NubCall& call);  // flushes a pending batch first; the result is in nub_calls()[0]

}  // namespace husk::platform
