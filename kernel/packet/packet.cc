// See kernel/packet/packet.h.
#include "kernel/packet/packet.h"

#include <string.h>

#include <algorithm>
#include <new>

namespace husk::packet {

Result<Ref<Buffer>> Buffer::create(u32 size) {
  if (size > kSizeMax) return Error(ENOMEM);
  // What the heap gives anyway: one object of a slab, or whole frames.
  u64 bytes = size <= kSmall ? sizeof(Buffer) + kSmall : align_up(sizeof(Buffer) + u64{size}, kPageSize);
  void* memory = operator new(bytes, std::nothrow);
  if (memory == nullptr) return Error(ENOMEM);
  return Ref<Buffer>::adopt(new (memory) Buffer(static_cast<u32>(bytes - sizeof(Buffer))));
}

void Buffer::unref() {
  if (--references_ != 0) return;
  this->~Buffer();
  operator delete(this);
}

Result<PacketPtr> Packet::create() {
  PacketPtr made(new (std::nothrow) Packet());
  if (!made) return Error(ENOMEM);
  return made;
}

Result<PacketPtr> Packet::create(u32 size) {
  auto made = TRY(create());
  auto buffer = TRY(Buffer::create(size + kHeaderRoom));
  TRY(made->append({std::move(buffer), kHeaderRoom, size}));
  return made;
}

Result<void> Packet::append(Slice slice) {
  if (count_ == kSlicesMax) return Error(EMSGSIZE);
  size_ += slice.size;
  new (&slices_[count_++]) Slice(std::move(slice));
  return {};
}

void Packet::drop(u32 last) {
  for (; last > 0; --last) slices_[--count_].~Slice();
}

void Packet::insert_front(Slice slice) {
  size_ += slice.size;
  if (count_ == 0) {
    new (&slices_[0]) Slice(std::move(slice));
  } else {
    new (&slices_[count_]) Slice(std::move(slices_[count_ - 1]));
    std::move_backward(slices_, slices_ + count_ - 1, slices_ + count_);
    slices_[0] = std::move(slice);
  }
  ++count_;
}

bool Packet::pull_up(u32 bytes) {
  if (bytes > size_) return false;
  if (bytes == 0 || slices_[0].size >= bytes) return true;
  auto buffer = Buffer::create(bytes + kHeaderRoom);
  if (!buffer.ok()) return false;
  copy_out(0, (*buffer)->data() + kHeaderRoom, bytes);
  trim_front(bytes);
  if (count_ == kSlicesMax) return false;
  insert_front({std::move(*buffer), kHeaderRoom, bytes});
  return true;
}

void Packet::trim_front(u32 bytes) {
  HUSK_ASSERT(bytes <= size_);
  size_ -= bytes;
  u32 gone = 0;
  while (bytes > 0 && bytes >= slices_[gone].size) bytes -= slices_[gone++].size;
  if (gone > 0) {
    std::move(slices_ + gone, slices_ + count_, slices_);
    drop(gone);
  }
  if (bytes == 0) return;
  slices_[0].offset += bytes;
  slices_[0].size -= bytes;
}

void Packet::trim_back(u32 bytes) {
  HUSK_ASSERT(bytes <= size_);
  size_ -= bytes;
  while (bytes > 0 && bytes >= slices_[count_ - 1].size) {
    bytes -= slices_[count_ - 1].size;
    drop(1);
  }
  if (bytes > 0) slices_[count_ - 1].size -= bytes;
}

Result<u8*> Packet::push_front(u32 bytes) {
  if (count_ > 0 && !slices_[0].buffer->shared() && slices_[0].offset >= bytes) {
    slices_[0].offset -= bytes;
    slices_[0].size += bytes;
    size_ += bytes;
    return slices_[0].data();
  }
  if (count_ == kSlicesMax) return Error(EMSGSIZE);
  // Room for the headers that will be pushed after this one.
  u32 room = std::max(bytes, kHeaderRoom);
  auto buffer = TRY(Buffer::create(room));
  insert_front({std::move(buffer), room - bytes, bytes});
  return slices_[0].data();
}

void Packet::copy_out(u32 from, void* to, u32 size) const {
  HUSK_ASSERT(u64{from} + size <= size_);
  u8* out = static_cast<u8*>(to);
  for (const Slice& slice : slices()) {
    if (size == 0) return;
    if (from >= slice.size) {
      from -= slice.size;
      continue;
    }
    u32 step = std::min(size, slice.size - from);
    memcpy(out, slice.data() + from, step);
    out += step;
    size -= step;
    from = 0;
  }
}

u32 Packet::cost() const {
  u32 sum = sizeof(Packet);
  for (const Slice& slice : slices()) sum += slice.buffer->cost();
  return sum;
}

Result<PacketPtr> Packet::clone() const {
  auto copy = TRY(create());
  for (const Slice& slice : slices()) TRY(copy->append(slice));
  copy->checksum = checksum;
  copy->segmentation = segmentation;
  copy->checksum_start = checksum_start;
  copy->checksum_offset = checksum_offset;
  copy->segment_size = segment_size;
  copy->header_size = header_size;
  return copy;
}

}  // namespace husk::packet
