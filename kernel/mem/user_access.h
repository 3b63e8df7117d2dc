// The instructions that touch program memory; user_copy.cc checks ranges and calls these. Not for others.
#pragma once

#include "base/types.h"

namespace husk::mem {

// What fits in rax and rdx.
struct AccessResult {
  u64 value;
  u64 failed;
};

// Give the number of bytes not done: 0 if all went well.
extern "C" size_t husk_user_copy(void* to, const void* from, size_t size);
extern "C" size_t husk_user_clear(void* to, size_t size);
extern "C" AccessResult husk_user_load_u32(u64 address);
extern "C" AccessResult husk_user_compare_exchange_u32(u64 address, u32 expected, u32 desired);

}  // namespace husk::mem
