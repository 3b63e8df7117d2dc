// Strong address types, page arithmetic and little-endian fields; used everywhere.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <compare>

namespace husk {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i8 = int8_t;
using i16 = int16_t;
using i32 = int32_t;
using i64 = int64_t;

constexpr u64 kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
constexpr u64 kPageSize = 4096, kPageShift = 12;
constexpr u64 kHugePageSize = 2 * kMiB, kHugePageShift = 21;

constexpr u64 align_down(u64 value, u64 alignment) { return value & ~(alignment - 1); }
constexpr u64 align_up(u64 value, u64 alignment) { return align_down(value + alignment - 1, alignment); }
constexpr bool is_aligned(u64 value, u64 alignment) { return (value & (alignment - 1)) == 0; }

// A guest-physical address. Never a pointer: mem::direct() or the monitor's GuestMemory translate.
struct PhysAddr {
  u64 value = 0;
  constexpr auto operator<=>(const PhysAddr&) const = default;
  constexpr PhysAddr operator+(u64 bytes) const { return {value + bytes}; }
  constexpr u64 operator-(PhysAddr other) const { return value - other.value; }
};

// A virtual address in the guest, program's or kernel's.
struct VirtAddr {
  u64 value = 0;
  constexpr auto operator<=>(const VirtAddr&) const = default;
  constexpr VirtAddr operator+(u64 bytes) const { return {value + bytes}; }
  constexpr VirtAddr operator-(u64 bytes) const { return {value - bytes}; }
  constexpr u64 operator-(VirtAddr other) const { return value - other.value; }
};

// The program's addresses: one page above 0 to the end of the canonical lower half,
// as on Linux (TASK_SIZE_MAX = 2^47 - 4096).
constexpr u64 kUserStart = 0x10000;  // vm.mmap_min_addr; lower mappings are refused
constexpr u64 kUserEnd = (u64{1} << 47) - kPageSize;

template <typename T>
constexpr bool checked_add(T a, T b, T* sum) {
  return !__builtin_add_overflow(a, b, sum);
}
template <typename T>
constexpr bool checked_mul(T a, T b, T* product) {
  return !__builtin_mul_overflow(a, b, product);
}

}  // namespace husk
