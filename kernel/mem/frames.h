// Physical page frames: a buddy allocator over the RAM that boot info calls free.
//
// Frames that were never handed out since boot are known to be zero (the host gives zeroed memory), so that
// Zeroed::yes costs nothing for them. Order n is 2^n frames, naturally aligned; kHugeOrder is a 2 MiB page.
// Single frames have a share count for pages that several owners map (copy on write, shared objects).
#pragma once

#include "abi/boot_info.h"
#include "base/result.h"
#include "base/types.h"

namespace husk::mem {

constexpr unsigned kHugeOrder = 9;
enum class Zeroed : u8 { no, yes, already };  // already: only what needs no clearing, else ENOMEM

void init_frames(const abi::BootInfo& info);
[[nodiscard]] Result<PhysAddr> allocate_frames(unsigned order, Zeroed zeroed);
void free_frames(PhysAddr frame, unsigned order);
void share_frame(PhysAddr frame);    // one more owner
void release_frame(PhysAddr frame);  // one owner less; the last one frees it
u32 frame_owners(PhysAddr frame);
void split_frames(PhysAddr frame, unsigned order);  // an allocated block becomes 2^order single frames

struct MemoryStatistics {
  u64 total, free, peak_used;  // bytes; total is what -m gave
};
MemoryStatistics memory_statistics();

// The direct map.
u8* direct(PhysAddr address);
PhysAddr direct_to_phys(const void* pointer);

// Kernel stacks and other kernel memory with unmapped guard pages below; `size` in bytes, page multiple. Top = base + size.
Result<u8*> allocate_guarded(u64 size);
void free_guarded(u8* base, u64 size);

// operator new(nothrow), kmalloc-like; from slabs of frames. Usable after init_frames().
void* allocate(size_t size);  // 16-byte aligned; null when exhausted
void release(void* pointer);

}  // namespace husk::mem
