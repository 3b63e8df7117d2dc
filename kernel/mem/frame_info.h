// What the allocators of this folder remember about one frame; not for others.
#pragma once

#include "base/types.h"

namespace husk::mem {

enum class FrameState : u64 { none, free, free_zero, used, slab, large };

struct FrameInfo {
  u64 next : 28;      // free: next block of this order; used: owners; large: number of frames
  u64 previous : 28;  // free: previous block
  u64 order : 4;      // free, used, slab: of the block
  FrameState state : 4;
};
static_assert(sizeof(FrameInfo) == 8);
inline FrameInfo make_info(u64 next, u64 previous, unsigned order, FrameState state) {
  FrameInfo info{};
  info.next = next & ((u64{1} << 28) - 1);
  info.previous = previous & ((u64{1} << 28) - 1);
  info.order = order & 15;
  info.state = state;
  return info;
}

FrameInfo& frame_info(PhysAddr address);
void free_frame_run(PhysAddr address, u64 count);  // the head is in use; the others have no state

}  // namespace husk::mem
