// For random.cc and its test only.
#pragma once

#include "base/types.h"

namespace husk::random_internal {

// RFC 8439 §2.3.
void chacha20_block(const u32 (&key)[8], u32 counter, const u32 (&nonce)[3], u8 (&out)[64]);

}  // namespace husk::random_internal
