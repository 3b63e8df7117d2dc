#include "kernel/drivers/virtio/virtqueue.h"

#include <atomic>

namespace husk::drivers::virtio {

using namespace abi::virtio;

namespace {
u16 load(const u16* from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
void store(u16* to, u16 value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
}  // namespace

Result<Owned<Virtqueue>> Virtqueue::create(u16 size, u8* memory, PhysAddr physical, bool event_index) {
  HUSK_ASSERT(size > 0 && (size & (size - 1)) == 0 && is_aligned(physical.value, 16));
  Owned<Virtqueue> queue(new (std::nothrow) Virtqueue(size, memory, physical, event_index));
  if (!queue) return Error(ENOMEM);
  TRY(queue->slots_.resize(size));
  for (u16 i = 0; i < size; ++i) queue->slots_[i].next = static_cast<u16>(i + 1);
  queue->want_no_interrupt();
  return queue;
}

Result<u16> Virtqueue::offer(std::span<const QueueBuffer> chain) {
  HUSK_ASSERT(!chain.empty());
  if (broken_) return Error(EIO);
  if (chain.size() > free_count_) return Error(EAGAIN);
  u16 head = free_head_;
  u16 at_slot = head;
  u32 writable = 0;
  for (size_t i = 0; i < chain.size(); ++i) {
    bool last = i + 1 == chain.size();
    bool writes = chain[i].direction == Direction::from_device;
    u16 next = slots_[at_slot].next;
    Descriptor* descriptor = at<Descriptor>(sizeof(Descriptor) * at_slot);
    descriptor->address = chain[i].address.value;
    descriptor->length = chain[i].length;
    descriptor->flags = static_cast<u16>((writes ? kDescriptorWrite : 0) | (last ? 0 : kDescriptorNext));
    descriptor->next = last ? u16{0} : next;
    if (writes) writable += chain[i].length;
    slots_[at_slot].chain_length = 0;
    if (last) free_head_ = next;
    else at_slot = next;
  }
  slots_[head].chain_length = static_cast<u16>(chain.size());
  slots_[head].writable = writable;
  free_count_ = static_cast<u16>(free_count_ - chain.size());
  u16* ring = reinterpret_cast<u16*>(available() + 1);
  ring[next_available_ & (size_ - 1)] = head;
  ++next_available_;
  return head;
}

bool Virtqueue::publish() {
  if (next_available_ == published_ || broken_) return false;
  u16 old = published_;
  published_ = next_available_;
  store(&available()->index, published_);
  // The index must be visible before the device's wish is read, or both sides may wait (§2.7.13.4.1).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!event_index_) return (load(&used()->flags) & kUsedNoNotify) == 0;
  return event_is_due(load(at<u16>(used_offset(size_) + available_event_offset(size_))), published_, old);
}

bool Virtqueue::has_used() const { return !broken_ && load(&used()->index) != seen_used_; }

bool Virtqueue::take(UsedBuffer* result) {
  if (!has_used()) return false;
  const auto* ring = reinterpret_cast<const UsedElement*>(used() + 1);
  const UsedElement* element = &ring[seen_used_ & (size_ - 1)];
  u32 id = __atomic_load_n(&element->id, __ATOMIC_RELAXED);
  u32 length = __atomic_load_n(&element->length, __ATOMIC_RELAXED);
  u16 ahead = static_cast<u16>(load(&used()->index) - seen_used_);
  if (ahead > in_flight() || id >= size_ || slots_[id].chain_length == 0 || length > slots_[id].writable) {
    broken_ = true;
    return false;
  }
  ++seen_used_;
  release_chain(static_cast<u16>(id));
  *result = {static_cast<u16>(id), length};
  return true;
}

void Virtqueue::release_chain(u16 head) {
  u16 count = slots_[head].chain_length;
  u16 last = head;
  for (u16 i = 1; i < count; ++i) last = slots_[last].next;
  slots_[head].chain_length = 0;
  slots_[last].next = free_head_;
  free_head_ = head;
  free_count_ = static_cast<u16>(free_count_ + count);
}

void Virtqueue::want_no_interrupt() {
  // Half of all indices away: not passed before 2^15 more entries, and no wish that the device may have met just now.
  if (event_index_) store(at<u16>(descriptor_table_size(size_) + used_event_offset(size_)), static_cast<u16>(seen_used_ + 0x8000));
  else store(&available()->flags, kAvailableNoInterrupt);
}

void Virtqueue::want_interrupt(u16 chains) {
  if (event_index_) store(at<u16>(descriptor_table_size(size_) + used_event_offset(size_)), static_cast<u16>(seen_used_ + chains - 1));
  else store(&available()->flags, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace husk::drivers::virtio
