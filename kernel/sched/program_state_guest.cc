// XSAVE and FSGSBASE. Intel SDM 1 §13 (XSAVE), §13.4 (layout of the area); standard format, as signal frames have it.
#include <string.h>

#include "base/panic.h"
#include "kernel/cpuid.h"
#include "kernel/sched/program_state.h"
#include "kernel/sched/sched.h"

namespace husk::sched {
namespace {

constexpr u64 kAmx = 3u << 17;  // 8 KiB of tiles; programs must ask Linux for it, which we refuse
constexpr u32 kLegacySize = 512, kHeaderSize = 64, kFcwOffset = 0, kMxcsrOffset = 24;
constexpr u16 kFcwInitial = 0x37f;
constexpr u32 kMxcsrInitial = 0x1f80, kMxcsrValid = 0xffff;

struct VectorState {
  u64 mask = 0;
  u32 size = 0;
  bool optimised = false;  // XSAVEOPT
};
constinit VectorState vector;

u64 enabled_components() {
  u32 low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return u64{high} << 32 | low;
}

// The end of the last component of `mask`. Intel SDM 1 §13.2: CPUID 0DH, sub-leaf i: eax size, ebx offset.
u32 size_of(u64 mask) {
  u32 end = kLegacySize + kHeaderSize;
  for (u32 i = 2; i < 63; ++i) {
    if (!(mask & (u64{1} << i))) continue;
    CpuidResult component = cpuid(0xd, i);
    if (component.ebx + component.eax > end) end = component.ebx + component.eax;
  }
  return end;
}

void restore(const u8* area) {
  asm volatile("xrstor64 %0" : : "m"(*area), "a"(static_cast<u32>(vector.mask)), "d"(static_cast<u32>(vector.mask >> 32)) : "memory");
}

}  // namespace

void detect_vector_state() {
  vector.mask = enabled_components() & ~kAmx;
  vector.size = size_of(vector.mask);
  vector.optimised = cpuid(0xd, 1).eax & 1;
}

u32 xsave_size() { return vector.size; }
u64 xsave_mask() { return vector.mask; }

void write_initial_vector_state(u8* area) {
  memset(area, 0, kLegacySize + kHeaderSize);
  memcpy(area + kFcwOffset, &kFcwInitial, sizeof(kFcwInitial));
  memcpy(area + kMxcsrOffset, &kMxcsrInitial, sizeof(kMxcsrInitial));
}

void xsave(u8* area) {
  u32 low = static_cast<u32>(vector.mask), high = static_cast<u32>(vector.mask >> 32);
  if (vector.optimised) {
    asm volatile("xsaveopt64 (%0)" : : "r"(area), "a"(low), "d"(high) : "memory");
  } else {
    asm volatile("xsave64 (%0)" : : "r"(area), "a"(low), "d"(high) : "memory");
  }
}

void xrstor(const u8* area) { restore(area); }

void save_vector_state(u8* area) {
  memset(area, 0, vector.size);
  asm volatile("xsave64 (%0)" : : "r"(area), "a"(static_cast<u32>(vector.mask)), "d"(static_cast<u32>(vector.mask >> 32)) : "memory");
}

// The area may come from a signal frame: XRSTOR must not fault. Intel SDM 1 §13.8: reserved header and MXCSR bits.
void restore_vector_state(const u8* area) {
  u8* own = current()->vector_state();
  memcpy(own, area, vector.size);
  u64* header = reinterpret_cast<u64*>(own + kLegacySize);
  header[0] &= vector.mask;
  memset(header + 1, 0, kHeaderSize - sizeof(u64));
  *reinterpret_cast<u32*>(own + kMxcsrOffset) &= kMxcsrValid;
  restore(own);
}

void init_vector_state() {
  u8* own = current()->vector_state();
  write_initial_vector_state(own);
  restore(own);
}

u64 read_fs_base() {
  u64 base;
  asm volatile("rdfsbase %0" : "=r"(base));
  return base;
}
void write_fs_base(u64 base) { asm volatile("wrfsbase %0" : : "r"(base)); }

}  // namespace husk::sched
