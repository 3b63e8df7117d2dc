// The kernel heap: slabs of equal objects in blocks of 1 or 4 frames; more than kSlabMax bytes are runs of whole frames.
//
// FrameInfo of every frame of a slab says so; the slab's head is at its start. Objects are aligned to the largest power of
// two that divides their size, at least 16.
#include <bit>

#include "base/list.h"
#include "base/panic.h"
#include "kernel/mem/frame_info.h"
#include "kernel/mem/frames.h"

namespace husk::mem {

namespace {

constexpr u32 kSizes[] = {16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048};
constexpr size_t kClasses = sizeof(kSizes) / sizeof(kSizes[0]);
constexpr size_t kSlabMax = 2048;
constexpr unsigned slab_order(size_t size) { return size <= 384 ? 0 : 2; }
constexpr u64 kKeepEmpty = 1;  // empty slabs kept per class

struct Object {
  Object* next;
};

struct Slab {
  Slab* next;  // ring of slabs with room
  Slab* previous;
  Object* free;
  u16 class_index, used, capacity, untouched;  // untouched: objects from this one on were never handed out
};

struct Class {
  Slab* with_room = nullptr;
  u64 empty = 0;
};
constinit Class classes[kClasses];

// Two sizes for each power of two above 16: the power itself, and one and a half.
constexpr size_t class_of(size_t size) {
  if (size <= 32) return size <= 16 ? 0 : 1;
  unsigned width = static_cast<unsigned>(std::bit_width(size - 1));
  return 2 * width - 10 + ((size - 1) >> (width - 2) & 1);
}
static_assert([] {
  for (size_t i = 0; i < kClasses; ++i) {
    if (class_of(kSizes[i]) != i || (i > 0 && class_of(kSizes[i - 1] + 1) != i)) return false;
  }
  return true;
}());
u64 first_object(size_t size) { return align_up(sizeof(Slab), u64{1} << std::countr_zero(size)); }

void add_to_ring(Slab*& ring, Slab* slab) {
  if (ring == nullptr) {
    slab->next = slab->previous = slab;
  } else {
    slab->next = ring;
    slab->previous = ring->previous;
    ring->previous->next = slab;
    ring->previous = slab;
  }
  ring = slab;
}

void remove_from_ring(Slab*& ring, Slab* slab) {
  slab->next->previous = slab->previous;
  slab->previous->next = slab->next;
  if (ring == slab) ring = slab->next == slab ? nullptr : slab->next;
}

Slab* make_slab(size_t index) {
  size_t size = kSizes[index];
  unsigned order = slab_order(size);
  Result<PhysAddr> block = allocate_frames(order, Zeroed::no);
  if (!block) return nullptr;
  for (u64 i = 0; i < u64{1} << order; ++i) {
    frame_info(*block + i * kPageSize) = make_info(0, 0, order, FrameState::slab);
  }
  u64 capacity = ((kPageSize << order) - first_object(size)) / size;
  Slab* slab = reinterpret_cast<Slab*>(direct(*block));
  *slab = {nullptr, nullptr, nullptr, static_cast<u16>(index), 0, static_cast<u16>(capacity), 0};
  return slab;
}

void free_slab(Slab* slab) {
  PhysAddr frame = direct_to_phys(slab);
  unsigned order = slab_order(kSizes[slab->class_index]);
  for (u64 i = 1; i < u64{1} << order; ++i) frame_info(frame + i * kPageSize).state = FrameState::none;
  free_frames(frame, order);
}

void* allocate_from_slab(size_t index) {
  Class& c = classes[index];
  Slab* slab = c.with_room;
  if (slab == nullptr) {
    slab = make_slab(index);
    if (slab == nullptr) return nullptr;
    add_to_ring(c.with_room, slab);
    ++c.empty;
  }
  if (slab->used++ == 0) --c.empty;
  if (slab->used == slab->capacity) remove_from_ring(c.with_room, slab);
  Object* object = slab->free;
  if (object != nullptr) {
    slab->free = object->next;
    return object;
  }
  size_t size = kSizes[index];
  return reinterpret_cast<u8*>(slab) + first_object(size) + slab->untouched++ * size;
}

void release_to_slab(Slab* slab, void* pointer) {
  Class& c = classes[slab->class_index];
  HUSK_ASSERT(slab->used > 0);
  Object* object = static_cast<Object*>(pointer);
  HUSK_ASSERT(slab->free != object);  // freed twice
  object->next = slab->free;
  slab->free = object;
  if (slab->used-- == slab->capacity) add_to_ring(c.with_room, slab);
  if (slab->used != 0) return;
  if (c.empty < kKeepEmpty) {
    ++c.empty;
    return;
  }
  remove_from_ring(c.with_room, slab);
  free_slab(slab);
}

void* allocate_large(size_t size) {
  if (size > kGiB) return nullptr;
  u64 frames = align_up(size, kPageSize) / kPageSize;
  unsigned order = static_cast<unsigned>(std::bit_width(frames - 1));
  Result<PhysAddr> block = allocate_frames(order, Zeroed::no);
  if (!block) return nullptr;
  frame_info(*block) = make_info(frames, 0, 0, FrameState::large);
  u64 spare = (u64{1} << order) - frames;
  if (spare != 0) free_frame_run(*block + frames * kPageSize, spare);
  return direct(*block);
}

}  // namespace

void reset_heap() {
  for (Class& c : classes) c = Class();
}

void* allocate(size_t size) {
  if (size > kSlabMax) return allocate_large(size);
  return allocate_from_slab(class_of(size));
}

void release(void* pointer) {
  if (pointer == nullptr) return;
  PhysAddr address = direct_to_phys(pointer);
  FrameInfo& info = frame_info(address);
  if (info.state == FrameState::large) {
    HUSK_ASSERT(is_aligned(address.value, kPageSize));
    return free_frame_run(address, info.next);
  }
  HUSK_ASSERT(info.state == FrameState::slab);
  release_to_slab(reinterpret_cast<Slab*>(direct({align_down(address.value, kPageSize << info.order)})), pointer);
}

}  // namespace husk::mem
