// Kernel stacks and the like: own mappings in the kernel area, each above an unmapped guard page.
//
// Freed ones stay mapped in a cache, because a thread's start must not cost page-table work; beyond kCachedMax their
// frames go back and only the place in the area is remembered.
#include "kernel/mem/guarded.h"

#include <bit>

#include "base/panic.h"
#include "kernel/mem/frames.h"
#include "platform/platform.h"

namespace husk::mem {

namespace {

constexpr u32 kCachedMax = 64;
constexpr u32 kUpperHalf = 0;  // any space will do: they share it
constexpr u32 kBuckets = 64;

struct Area {  // one for each place that was ever handed out; on one of the lists below
  Area* next;
  u64 base, size;
  PhysAddr frames;
};

struct GuardedMemory {
  u64 next = 0, end = 0;  // addresses that were never handed out
  Area* in_use[kBuckets] = {};
  Area* cached = nullptr;    // mapped, with frames
  Area* unmapped = nullptr;  // the address only
  u32 cached_count = 0;
};
constinit GuardedMemory g;

unsigned order_of(u64 size) { return static_cast<unsigned>(std::bit_width(size / kPageSize - 1)); }

Area*& bucket(u64 base) { return g.in_use[(base / kPageSize) % kBuckets]; }

void put(Area*& list, Area* area) {
  area->next = list;
  list = area;
}

template <typename Wanted>
Area* take(Area*& list, Wanted wanted) {
  for (Area** link = &list; *link != nullptr; link = &(*link)->next) {
    if (!wanted(**link)) continue;
    Area* area = *link;
    *link = area->next;
    return area;
  }
  return nullptr;
}

Area* take_address(u64 size) {
  if (Area* area = take(g.unmapped, [&](Area& a) { return a.size == size; })) return area;
  if (g.end - g.next < size + kPageSize) return nullptr;
  Area* area = static_cast<Area*>(allocate(sizeof(Area)));
  if (area == nullptr) return nullptr;
  *area = {nullptr, g.next + kPageSize, size, {}};
  g.next += kPageSize + size;
  return area;
}

Result<void> back(Area& area) {
  area.frames = TRY(allocate_frames(order_of(area.size), Zeroed::no));
  platform::PageTableBatch batch(kUpperHalf);
  Result<void> mapped = batch.map({area.base}, area.frames, area.size, platform::kRead | platform::kWrite);
  Result<void> flushed = batch.flush();
  if (mapped && flushed) return {};
  free_frames(area.frames, order_of(area.size));
  return mapped ? flushed.error() : mapped.error();
}

}  // namespace

void init_guarded(u64 kernel_area_start, u64 kernel_area_end) {
  g = GuardedMemory();
  g.next = align_up(kernel_area_start, kPageSize);
  g.end = kernel_area_end;
}

Result<u8*> allocate_guarded(u64 size) {
  HUSK_ASSERT(size != 0 && is_aligned(size, kPageSize));
  Area* area = take(g.cached, [&](Area& a) { return a.size == size; });
  if (area != nullptr) {
    --g.cached_count;
  } else {
    area = take_address(size);
    if (area == nullptr) return Error(ENOMEM);
    if (Result<void> backed = back(*area); !backed) {
      put(g.unmapped, area);
      return backed.error();
    }
  }
  put(bucket(area->base), area);
  return reinterpret_cast<u8*>(area->base);
}

void free_guarded(u8* base, u64 size) {
  u64 address = reinterpret_cast<u64>(base);
  Area* area = take(bucket(address), [&](Area& a) { return a.base == address; });
  HUSK_ASSERT(area != nullptr && area->size == size);
  if (g.cached_count < kCachedMax) {
    ++g.cached_count;
    return put(g.cached, area);
  }
  platform::PageTableBatch batch(kUpperHalf);
  Result<void> unmapped = batch.unmap({address}, size);
  Result<void> flushed = batch.flush();
  HUSK_ASSERT(unmapped && flushed);  // removing 4 KiB pages needs no memory
  free_frames(area->frames, order_of(size));
  put(g.unmapped, area);
}

}  // namespace husk::mem
