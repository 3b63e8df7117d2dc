// Random numbers: ChaCha20 (RFC 8439) keyed from the monitor's seed and RDSEED/RDRAND, rekeyed after each use (fast key erasure).
// Not available before init_random(): using it earlier is a panic, never a weak number.
#pragma once

#include <span>

#include "base/types.h"

namespace husk {

void init_random(std::span<const u8> seed);
void add_entropy(std::span<const u8> bytes);
void random_bytes(void* to, size_t size);
u64 random_u64();

}  // namespace husk
