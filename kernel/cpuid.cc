// See kernel/cpuid.h.
#include "kernel/cpuid.h"

#include <cpuid.h>

namespace husk {
namespace {

constexpr u32 kSlots = 64;
struct Slot {
  u32 leaf, subleaf;
  CpuidResult result;
};
constinit Slot slots[kSlots] = {};
constinit u32 used = 0;

// Intel SDM 2A "CPUID", AMD APM 3 appendix E: whether ECX chooses among answers. Elsewhere it is whatever the caller left there.
bool has_subleaves(u32 leaf) {
  constexpr u64 kLow = 1 << 0x4 | 1 << 0x7 | 1 << 0xb | 1 << 0xd | 1 << 0xf | 1 << 0x10 | 1 << 0x12 | 1 << 0x14 | 1 << 0x17 | 1 << 0x18;
  if (leaf < 0x19) return (kLow >> leaf & 1) != 0;
  return (leaf >= 0x1a && leaf <= 0x2f) || (leaf >= 0x8000001d && leaf < 0x90000000);
}

}  // namespace

CpuidResult cpuid(u32 leaf, u32 subleaf) {
  if (!has_subleaves(leaf)) subleaf = 0;
  u32 known = used < kSlots ? used : kSlots;
  for (u32 i = 0; i < known; ++i)
    if (slots[i].leaf == leaf && slots[i].subleaf == subleaf) return slots[i].result;
  CpuidResult result;
  __cpuid_count(leaf, subleaf, result.eax, result.ebx, result.ecx, result.edx);
  slots[used++ % kSlots] = {leaf, subleaf, result};
  return result;
}

}  // namespace husk
