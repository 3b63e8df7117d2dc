// The driver's side of a split virtqueue (virtio 1.2 §2.7) in memory that the device shares.
//
// The device is not trusted blindly: what it writes is read once and checked, and nothing that the driver wrote is read
// back. The first impossible entry breaks the queue for good: broken() says so, and its owner stops the device.
// One vCPU at a time. Interrupts are wishes (§2.7.7 EVENT_IDX if negotiated): polling finds everything without them.
#pragma once

#include <span>

#include "abi/virtio/queue.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"

namespace husk::drivers::virtio {

enum class Direction : u8 { to_device, from_device };

struct QueueBuffer {
  PhysAddr address;
  u32 length;
  Direction direction;
};

struct UsedBuffer {
  u16 id;      // what offer() gave
  u32 length;  // bytes that the device wrote: at most what it was offered
};

class Virtqueue {
 public:
  static constexpr u64 memory_size(u16 size) { return used_offset(size) + abi::virtio::used_ring_size(size); }
  // `memory`: memory_size(size) zeroed bytes, aligned to 16, at guest-physical `physical`; it outlives the queue.
  [[gnu::cold]] static Result<Owned<Virtqueue>> create(u16 size, u8* memory, PhysAddr physical, bool event_index);

  u16 size() const { return size_; }
  u16 free_descriptors() const { return free_count_; }
  u16 in_flight() const { return static_cast<u16>(size_ - free_count_); }  // descriptors
  u16 unpublished() const { return static_cast<u16>(next_available_ - published_); }  // chains that the device does not know of yet
  bool broken() const { return broken_; }
  PhysAddr descriptors_address() const { return physical_; }
  PhysAddr available_address() const { return physical_ + abi::virtio::descriptor_table_size(size_); }
  PhysAddr used_address() const { return physical_ + used_offset(size_); }

  // Queues a chain (what the device reads first, then what it writes: §2.7.4.2); EAGAIN if descriptors are short.
  Result<u16> offer(std::span<const QueueBuffer> chain);
  // Shows the device what was offered. True: it wants a doorbell.
  [[nodiscard]] bool publish();
  // The next finished chain.
  bool take(UsedBuffer* used);
  bool has_used() const;
  void want_no_interrupt();  // for the next 2^15 chains
  // When `chains` more (at least 1) have been finished; without EVENT_IDX at each. Then has_used() must be looked at again.
  void want_interrupt(u16 chains = 1);

 private:
  struct Slot {
    u16 next = 0;          // in the free list, or in the chain
    u16 chain_length = 0;  // of the head of a chain in flight; 0: not a head
    u32 writable = 0;      // bytes offered to the device to write (head)
  };
  static constexpr u64 used_offset(u64 size) {
    return align_up(abi::virtio::descriptor_table_size(size) + abi::virtio::available_ring_size(size), 4);
  }
  Virtqueue(u16 size, u8* memory, PhysAddr physical, bool event_index)
      : size_(size), free_count_(size), event_index_(event_index), memory_(memory), physical_(physical) {}
  template <typename T>
  T* at(u64 offset) const {
    return reinterpret_cast<T*>(memory_ + offset);
  }
  abi::virtio::AvailableHeader* available() const { return at<abi::virtio::AvailableHeader>(abi::virtio::descriptor_table_size(size_)); }
  abi::virtio::UsedHeader* used() const { return at<abi::virtio::UsedHeader>(used_offset(size_)); }
  void release_chain(u16 head);

  const u16 size_;
  u16 free_head_ = 0;
  u16 free_count_;
  u16 next_available_ = 0;  // what publish() will show
  u16 published_ = 0;
  u16 seen_used_ = 0;
  const bool event_index_;
  bool broken_ = false;
  u8* const memory_;
  const PhysAddr physical_;
  Vec<Slot> slots_;
};

}  // namespace husk::drivers::virtio
