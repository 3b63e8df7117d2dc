// See vmm/devices/virtqueue.h.
#include "vmm/devices/virtqueue.h"

#include <atomic>
#include <utility>

namespace husk::vmm {
namespace {

namespace virtio = abi::virtio;

// SAFETY: the pointers come from GuestMemory ranges that were checked for the whole ring; alignment was checked in enable().
u16 load16(const u8* p) { return __atomic_load_n(reinterpret_cast<const u16*>(p), __ATOMIC_ACQUIRE); }
void store16(u8* p, u16 value) { __atomic_store_n(reinterpret_cast<u16*>(p), value, __ATOMIC_RELEASE); }

constexpr u64 kIndexOffset = offsetof(virtio::AvailableHeader, index);

}  // namespace

bool Virtqueue::fail(const char* error) {
  if (error_[0] == '\0') error_ = error;
  return false;
}

bool Virtqueue::enable(const GuestMemory& memory, const QueueLayout& layout, bool event_index) {
  *this = Virtqueue();
  u64 size = layout.size;
  if (size == 0 || size > kSizeMax || (size & (size - 1)) != 0) return fail("queue size is not a power of two up to 1024");
  if (!is_aligned(layout.descriptors, 16) || !is_aligned(layout.available, 2) || !is_aligned(layout.used, 4)) {
    return fail("queue area is not aligned");
  }
  auto descriptors = memory.writable({layout.descriptors}, virtio::descriptor_table_size(size));
  auto available = memory.writable({layout.available}, virtio::available_ring_size(size));
  auto used = memory.writable({layout.used}, virtio::used_ring_size(size));
  if (descriptors.empty() || available.empty() || used.empty()) return fail("queue area is outside the guest's memory");
  memory_ = &memory;
  layout_ = layout;
  descriptors_ = descriptors.data();
  available_ = available.data();
  used_ = used.data();
  event_index_ = event_index;
  enabled_ = true;
  return true;
}

u32 Virtqueue::available() const {
  if (!enabled_ || error_[0] != '\0') return 0;
  return static_cast<u16>(load16(available_ + kIndexOffset) - next_available_);
}

bool Virtqueue::append(const virtio::Descriptor& descriptor, Chain* chain) {
  bool write = (descriptor.flags & virtio::kDescriptorWrite) != 0;
  if (!write && !chain->writable.empty()) return fail("readable descriptor behind a writable one");
  if (descriptor.length == 0) return fail("descriptor of length 0");
  auto bytes = memory_->range({descriptor.address}, descriptor.length, write ? Access::write : Access::read);
  if (bytes.empty()) return fail("buffer is outside the guest's memory");
  (write ? chain->writable_size : chain->readable_size) += bytes.size();
  if (chain->readable_size + chain->writable_size > kChainBytesMax) return fail("descriptor chain is longer than 2 GiB");
  (write ? chain->writable : chain->readable).push_back({bytes.data(), bytes.size()});
  return true;
}

bool Virtqueue::pop(Chain* chain) {
  if (!enabled_ || error_[0] != '\0') return false;
  u16 waiting = static_cast<u16>(load16(available_ + kIndexOffset) - next_available_);
  if (waiting == 0) return false;
  // Nothing that we hold may be offered a second time, so the two together cannot be more than the queue's size.
  if (u32{waiting} + outstanding_ > layout_.size) return fail("available index runs ahead of the queue");
  u64 slot = next_available_ & (layout_.size - 1);
  u16 head = load16(available_ + sizeof(virtio::AvailableHeader) + slot * sizeof(u16));
  chain->head = head;
  chain->readable.clear();
  chain->writable.clear();
  chain->readable_size = chain->writable_size = 0;
  u16 index = head;
  for (u32 count = 0;; ++count) {
    if (count == layout_.size) return fail("descriptor chain has a loop");
    if (index >= layout_.size) return fail("descriptor index is outside the queue");
    virtio::Descriptor descriptor;
    // SAFETY: the copy is private; the guest may tear it, but every field is judged after the copy.
    memcpy(&descriptor, descriptors_ + u64{index} * sizeof(descriptor), sizeof(descriptor));
    asm volatile("" ::: "memory");
    if ((descriptor.flags & virtio::kDescriptorIndirect) != 0) return fail("indirect descriptor, which was not negotiated");
    if (!append(descriptor, chain)) return false;
    if ((descriptor.flags & virtio::kDescriptorNext) == 0) break;
    index = descriptor.next;
  }
  ++next_available_;
  ++outstanding_;
  return true;
}

void Virtqueue::stage(u16 head, u32 bytes_written) {
  if (!enabled_ || error_[0] != '\0') return;
  u8* element = used_ + sizeof(virtio::UsedHeader) + (next_used_ & (layout_.size - 1)) * sizeof(virtio::UsedElement);
  virtio::UsedElement value{head, bytes_written};
  memcpy(element, &value, sizeof(value));
  ++next_used_;
  if (outstanding_ > 0) --outstanding_;
}

void Virtqueue::publish() {
  if (enabled_ && error_[0] == '\0') store16(used_ + kIndexOffset, next_used_);
}

bool Virtqueue::take_notification() {
  if (!enabled_ || error_[0] != '\0' || notified_used_ == next_used_) return false;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // our index before the guest's wish, §2.7.10
  u16 old = std::exchange(notified_used_, next_used_);
  u16 event = event_index_ ? load16(available_ + virtio::used_event_offset(layout_.size)) : next_used_;
  bool wanted = event_index_ ? virtio::event_is_due(event, next_used_, old) : (load16(available_) & virtio::kAvailableNoInterrupt) == 0;
  if (wanted) told_ = true, told_event_ = event;
  return wanted;
}

u32 Virtqueue::unheeded() const {
  if (!enabled_ || error_[0] != '\0' || !told_) return 0;
  bool same = event_index_ ? load16(available_ + virtio::used_event_offset(layout_.size)) == told_event_
                           : (load16(available_) & virtio::kAvailableNoInterrupt) == 0;
  return same ? u32{1} << 16 | told_event_ : 0;
}

void Virtqueue::suppress_doorbells() {
  if (!enabled_ || error_[0] != '\0' || !awaits_) return;
  awaits_ = false;
  // With EVENT_IDX: an index that has passed (§2.7.10).
  if (event_index_) store16(used_ + virtio::available_event_offset(layout_.size), static_cast<u16>(next_available_ - 1));
  else store16(used_, virtio::kUsedNoNotify);
}

bool Virtqueue::await_doorbell() {
  if (!enabled_ || error_[0] != '\0') return false;
  awaits_ = true;
  if (event_index_) store16(used_ + virtio::available_event_offset(layout_.size), next_available_);
  else store16(used_, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return has_available();
}

}  // namespace husk::vmm
