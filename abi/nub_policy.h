// Which mappings may exist: the rules that whoever writes page-table entries obeys, as pure functions of NubState.
//
// Used by the nub (nub/tables.cc) and by the monitor where it works on page tables on the nub's behalf (vmm/loader/table_editor.cc).
// The invariants that follow from them are numbered in nub/invariants.md.
#pragma once

#include <errno.h>

#include "abi/machine_state.h"

namespace husk::abi {

constexpr u64 kUpperStart = 0xffff800000000000, kUpperEnd = 0xffffff8000000000;  // the last 512 GiB are the nub's

constexpr bool inside(u64 start, u64 size, u64 outer, u64 outer_size) {
  return start >= outer && size <= outer_size && start - outer <= outer_size - size;
}
constexpr bool apart(u64 start, u64 size, u64 other, u64 other_size) { return start + size <= other || other + other_size <= start; }

// The software bits for frames [pa, +size), or false if no mapping of them may exist.
inline bool classify(const NubState& state, u64 pa, u64 size, u64* bits) {
  if (inside(pa, size, state.image_start, state.image_end - state.image_start)) {
    *bits = kPteImage;
    return true;
  }
  for (u32 i = 0; i < state.range_count && i < kFreeRangesMax; ++i) {
    if (!inside(pa, size, state.ram[i].start, state.ram[i].size)) continue;
    *bits = 0;
    for (u32 k = 0; k < state.sealed_count && k < kSealedRangesMax; ++k) {
      if (!apart(pa, size, state.sealed[k].start, state.sealed[k].size)) return false;
    }
    return apart(pa, size, state.region_start, state.region_end - state.region_start);
  }
  for (u32 i = 0; i < state.window_count && i < kWindowsMax; ++i) {
    if (inside(pa, size, state.windows[i].start, state.windows[i].size)) {
      *bits = kPteDevice;
      return true;
    }
  }
  return false;
}

// The hardware bits for `flags` on frames with these software bits, or 0 if that mapping is forbidden.
inline u64 permitted(const NubState& state, u32 flags, u64 frame_bits, bool upper) {
  if (!(flags & kNubRead) || flags & ~u32{kNubRead | kNubWrite | kNubExecute | kNubUncached | kNubJit}) return 0;
  bool jit = (flags & kNubJit) && (state.image_flags & kImageJit) && !upper && frame_bits == 0;
  if ((flags & kNubJit) && !jit) return 0;
  if (flags & kNubExecute) {
    if (upper) return 0;  // the kernel's text is what the image brought
    if (!(frame_bits & kPteImage) && !jit) return 0;
    if ((flags & kNubWrite) && !jit) return 0;
  }
  if ((flags & kNubWrite) && (frame_bits & kPteImage)) return 0;
  bool uncached = (flags & kNubUncached) || (frame_bits & kPteDevice);
  return frame_bits | kPteLeaf | kPteUser | (flags & kNubWrite ? kPteWrite : 0) | (flags & kNubExecute ? 0 : kPteNoExecute) |
         (uncached ? kPteUncached : 0);
}

// 0, or the errno for the range [va, +length) of a call: page-aligned, not empty, no wrap, in one half, not low, not the nub's.
inline int check_range(u64 va, u64 length) {
  if (((va | length) & (kPageSize - 1)) != 0 || length == 0) return EINVAL;
  u64 end = va + length;
  if (end <= va) return EINVAL;
  return (va >= kUpperStart ? end > kUpperEnd : va < kUserStart || end > kUserEnd) ? EPERM : 0;
}

}  // namespace husk::abi
