// Split virtqueues: the layout in memory (virtio 1.2 §2.7), the same for guest driver and device.
//
// Three areas in guest RAM, all little-endian: descriptor table (16 × size bytes, aligned to 16), available ring
// (driver writes; aligned to 2), used ring (device writes; aligned to 4). With VIRTIO_F_EVENT_IDX each ring ends with the index
// at which its owner wants to hear from the other side (§2.7.7, §2.7.10).
#pragma once

#include "base/types.h"

namespace husk::abi::virtio {

enum DescriptorFlags : u16 {
  kDescriptorNext = 1,      // `next` continues the chain
  kDescriptorWrite = 2,     // the device writes the buffer, else it reads it
  kDescriptorIndirect = 4,  // the buffer is a table of descriptors
};

struct Descriptor {
  u64 address;  // guest-physical
  u32 length;
  u16 flags;
  u16 next;
};
static_assert(sizeof(Descriptor) == 16);

constexpr u16 kAvailableNoInterrupt = 1;  // AvailableHeader::flags, without EVENT_IDX
constexpr u16 kUsedNoNotify = 1;          // UsedHeader::flags, without EVENT_IDX

struct AvailableHeader {
  u16 flags;
  u16 index;  // where the driver puts the next entry, modulo 2^16
  // u16 ring[size]; u16 used_event;
};

struct UsedElement {
  u32 id;      // head of the chain
  u32 length;  // bytes that the device wrote
};

struct UsedHeader {
  u16 flags;
  u16 index;
  // UsedElement ring[size]; u16 available_event;
};

constexpr u64 kQueueSizeMax = 32768;  // a power of two; ours offer less
constexpr u64 descriptor_table_size(u64 size) { return sizeof(Descriptor) * size; }
constexpr u64 available_ring_size(u64 size) { return sizeof(AvailableHeader) + 2 * size + 2; }
constexpr u64 used_ring_size(u64 size) { return sizeof(UsedHeader) + sizeof(UsedElement) * size + 2; }
constexpr u64 used_event_offset(u64 size) { return sizeof(AvailableHeader) + 2 * size; }
constexpr u64 available_event_offset(u64 size) { return sizeof(UsedHeader) + sizeof(UsedElement) * size; }

// §2.7.7.2: does moving an index from `old_index` to `new_index` pass the other side's `event`?
constexpr bool event_is_due(u16 event, u16 new_index, u16 old_index) {
  return static_cast<u16>(new_index - event - 1) < static_cast<u16>(new_index - old_index);
}

}  // namespace husk::abi::virtio
