// The buddy allocator. Every frame has 8 bytes of FrameInfo in one array at the start of the first free range.
//
// Memory that was never handed out ("untouched") is in no list: each range has a mark up to which blocks were carved.
// So boot writes nothing per frame, and the host backs memory only as far as it is used.
#include "kernel/mem/frames.h"

#include <string.h>

#include <algorithm>
#include <bit>

#include "base/panic.h"
#include "kernel/mem/frame_info.h"
#include "kernel/mem/guarded.h"

namespace husk::mem {

namespace {

constexpr unsigned kOrders = 14;  // largest block: 32 MiB
constexpr u64 kNone = (u64{1} << 28) - 1;

struct Range {
  u64 untouched, end;  // frame numbers
};

struct FrameAllocator {
  u8* direct_base = nullptr;
  u64 image_physical = 0, image_end = 0;
  u8* image_base = nullptr;
  FrameInfo* info = nullptr;  // of frame `first`
  u64 first = 0, limit = 0;
  Range ranges[abi::kFreeRangesMax] = {};
  u32 range_count = 0;
  bool ram_is_zero = false;
  u64 heads[kOrders] = {};
  u64 total_bytes = 0, usable_frames = 0, free_count = 0, free_least = 0;
};
constinit FrameAllocator g;

FrameInfo& info_of(u64 frame) {
  HUSK_ASSERT(frame >= g.first && frame < g.limit);
  return g.info[frame - g.first];
}

u64 pack(u64 frame) { return frame == kNone ? kNone : frame - g.first; }
u64 unpack(u64 index) { return index == kNone ? kNone : index + g.first; }

void push(u64 frame, unsigned order, FrameState state) {
  FrameInfo& info = info_of(frame);
  u64 head = g.heads[order];
  info = make_info(pack(head), kNone, order, state);
  if (head != kNone) info_of(head).previous = pack(frame) & kNone;
  g.heads[order] = frame;
}

void take_out(u64 frame) {
  FrameInfo& info = info_of(frame);
  u64 next = unpack(info.next), previous = unpack(info.previous);
  if (next != kNone) info_of(next).previous = info.previous;
  if (previous != kNone) {
    info_of(previous).next = info.next;
  } else {
    g.heads[info.order] = next;
  }
  info.state = FrameState::used;
}

bool is_free(u64 frame, unsigned order) {
  if (frame < g.first || frame >= g.limit) return false;
  const FrameInfo& info = g.info[frame - g.first];
  return (info.state == FrameState::free || info.state == FrameState::free_zero) && info.order == order;
}

// Puts a block in the lists, joined with its buddies. Does not count.
void insert_block(u64 frame, unsigned order, FrameState state) {
  while (order + 1 < kOrders) {
    u64 buddy = frame ^ (u64{1} << order);
    if (!is_free(buddy, order)) break;
    if (info_of(buddy).state == FrameState::free) state = FrameState::free;
    take_out(buddy);
    info_of(buddy).state = FrameState::none;
    info_of(frame).state = FrameState::none;
    if (buddy < frame) frame = buddy;
    ++order;
  }
  push(frame, order, state);
}

// Any run of frames as naturally aligned blocks.
void insert_run(u64 frame, u64 count, FrameState state) {
  while (count != 0) {
    unsigned order = static_cast<unsigned>(std::bit_width(count)) - 1;
    if (frame != 0) order = std::min(order, static_cast<unsigned>(std::countr_zero(frame)));
    order = std::min(order, kOrders - 1);
    insert_block(frame, order, state);
    frame += u64{1} << order;
    count -= u64{1} << order;
  }
}

struct Block {
  u64 frame;
  bool zero;
};

bool take_from_lists(unsigned order, Block* block) {
  unsigned have = order;
  while (have < kOrders && g.heads[have] == kNone) ++have;
  if (have == kOrders) return false;
  u64 frame = g.heads[have];
  FrameState state = info_of(frame).state;
  take_out(frame);
  while (have > order) {
    --have;
    push(frame + (u64{1} << have), have, state);
  }
  *block = {frame, state == FrameState::free_zero};
  return true;
}

bool take_untouched(unsigned order, Block* block) {
  u64 count = u64{1} << order;
  for (u32 i = 0; i < g.range_count; ++i) {
    Range& range = g.ranges[i];
    u64 start = align_up(range.untouched, count);
    if (start + count > range.end) continue;
    u64 gap_start = range.untouched;
    range.untouched = start + count;
    insert_run(gap_start, start - gap_start, g.ram_is_zero ? FrameState::free_zero : FrameState::free);
    *block = {start, g.ram_is_zero};
    return true;
  }
  return false;
}

void give_back(u64 frame, u64 count) {
  g.free_count += count;
  insert_run(frame, count, FrameState::free);
}

}  // namespace

void init_frames(const abi::BootInfo& info) {
  HUSK_ASSERT(info.free_range_count > 0 && info.free_range_count <= abi::kFreeRangesMax);
  g = FrameAllocator();
  g.direct_base = reinterpret_cast<u8*>(info.direct_base);
  g.image_physical = info.image_physical;
  g.image_end = info.image_physical + info.image_size;
  g.image_base = reinterpret_cast<u8*>(info.image_base);
  g.ram_is_zero = info.ram_is_zero != 0;
  g.total_bytes = info.ram_size;
  for (u64& head : g.heads) head = kNone;
  g.first = ~u64{0};
  u64 largest = 0;
  for (u32 i = 0; i < info.free_range_count; ++i) {
    const abi::MemoryRange& range = info.free_ranges[i];
    u64 start = align_up(range.start, kPageSize) / kPageSize, end = (range.start + range.size) / kPageSize;
    if (start >= end) continue;
    g.ranges[g.range_count] = {start, end};
    if (end - start > g.ranges[largest].end - g.ranges[largest].untouched) largest = g.range_count;
    ++g.range_count;
    g.first = std::min(g.first, start);
    g.limit = std::max(g.limit, end);
    g.free_count += end - start;
  }
  HUSK_ASSERT(g.range_count > 0 && g.limit <= kNone);
  u64 bytes = align_up((g.limit - g.first) * sizeof(FrameInfo), kPageSize);
  u64 home = 0;  // the first range that has room: near what boot touches anyway
  while (home < g.range_count && (g.ranges[home].end - g.ranges[home].untouched) * kPageSize < bytes) ++home;
  HUSK_ASSERT(home < g.range_count);
  g.info = reinterpret_cast<FrameInfo*>(g.direct_base + g.ranges[home].untouched * kPageSize);
  if (!g.ram_is_zero) memset(static_cast<void*>(g.info), 0, bytes);
  g.ranges[home].untouched += bytes / kPageSize;
  g.free_count -= bytes / kPageSize;
  g.free_least = g.free_count;
  reset_heap();
  init_guarded(info.kernel_area_start, info.kernel_area_end);
}

Result<PhysAddr> allocate_frames(unsigned order, Zeroed zeroed) {
  if (order >= kOrders) return Error(ENOMEM);
  Block block;
  if (!take_from_lists(order, &block) && !take_untouched(order, &block)) return Error(ENOMEM);
  if (zeroed == Zeroed::already && !block.zero) {
    insert_block(block.frame, order, FrameState::free);
    return Error(ENOMEM);
  }
  g.free_count -= u64{1} << order;
  g.free_least = std::min(g.free_least, g.free_count);
  info_of(block.frame) = make_info(1, 0, order, FrameState::used);
  PhysAddr address{block.frame * kPageSize};
  if (zeroed == Zeroed::yes && !block.zero) memset(direct(address), 0, kPageSize << order);
  return address;
}

void free_frames(PhysAddr address, unsigned order) {
  u64 frame = address.value / kPageSize;
  HUSK_ASSERT(is_aligned(frame, u64{1} << order) && info_of(frame).state >= FrameState::used);
  info_of(frame).state = FrameState::none;
  give_back(frame, u64{1} << order);
}

void free_frame_run(PhysAddr address, u64 count) {
  u64 frame = address.value / kPageSize;
  info_of(frame).state = FrameState::none;
  give_back(frame, count);
}

void split_frames(PhysAddr address, unsigned order) {
  u64 frame = address.value / kPageSize;
  HUSK_ASSERT(info_of(frame).state == FrameState::used && info_of(frame).order == order);
  for (u64 i = 0; i < u64{1} << order; ++i) {
    info_of(frame + i) = make_info(1, 0, 0, FrameState::used);
  }
}

FrameInfo& frame_info(PhysAddr address) { return info_of(address.value / kPageSize); }

// FrameInfo::next of a used frame is its number of owners.
void share_frame(PhysAddr frame) { ++frame_info(frame).next; }

void release_frame(PhysAddr frame) {
  FrameInfo& info = frame_info(frame);
  HUSK_ASSERT(info.state == FrameState::used && info.order == 0 && info.next > 0);
  --info.next;
  if (info.next == 0) free_frames(frame, 0);
}

u32 frame_owners(PhysAddr frame) { return static_cast<u32>(frame_info(frame).next); }

MemoryStatistics memory_statistics() { return {g.total_bytes, g.free_count * kPageSize, g.total_bytes - g.free_least * kPageSize}; }

u8* direct(PhysAddr address) {
  if (address.value >= g.image_physical && address.value < g.image_end) {
    return g.image_base + (address.value - g.image_physical);
  }
  return g.direct_base + address.value;
}

PhysAddr direct_to_phys(const void* pointer) {
  const u8* byte = static_cast<const u8*>(pointer);
  if (byte >= g.image_base && byte < g.image_base + (g.image_end - g.image_physical)) {
    return {g.image_physical + static_cast<u64>(byte - g.image_base)};
  }
  return {static_cast<u64>(byte - g.direct_base)};
}

}  // namespace husk::mem
