// See send_queue.h.
#include "kernel/net/tcp/send_queue.h"

#include <string.h>

#include <algorithm>
#include <bit>

namespace husk::net::tcp {

using packet::Buffer;
using packet::Packet;
using packet::PacketPtr;

Result<void> SendQueue::add_chunk(size_t wanted) {
  u32 room = Buffer::kSmall;
  u64 total = wanted + size();
  if (total > room - sizeof(Chunk)) {
    u64 bytes = std::clamp<u64>(std::bit_ceil(total), 4 * kKiB, 32 * kKiB);
    room = static_cast<u32>(bytes - sizeof(Buffer));
  }
  if (memory_.under_pressure()) {
    if (head_ != nullptr || !memory_.has_minimum()) return Error(ENOMEM);
    room = Buffer::kSmall;
  }
  Buffer* buffer = TRY(Buffer::create(room)).leak();
  memory_.take(buffer->cost());
  cost_ += buffer->cost();
  Chunk* chunk = new (buffer->data()) Chunk{nullptr, buffer, end_, 0, buffer->capacity() - static_cast<u32>(sizeof(Chunk))};
  (tail_ == nullptr ? head_ : tail_->next) = chunk;
  tail_ = chunk;
  return {};
}

Result<size_t> SendQueue::append(vfs::IoBuffer& from, u32 limit) {
  size_t done = 0;
  while (done < limit && from.remaining() > 0) {
    size_t wanted = std::min<size_t>(limit - done, from.remaining());
    if (tail_ == nullptr || tail_->size == tail_->capacity) {
      auto added = add_chunk(wanted);
      if (!added.ok() && done == 0) return added.error();
      if (!added.ok()) break;
    }
    wanted = std::min<size_t>(wanted, tail_->capacity - tail_->size);
    auto got = from.take(tail_->data() + tail_->size, wanted);
    u32 bytes = got.ok() ? static_cast<u32>(*got) : 0;
    tail_->size += bytes;
    end_ += bytes;
    done += bytes;
    if (bytes == wanted) continue;
    if (first_ == end_) clear();
    if (done == 0) return got.ok() ? Error(EFAULT) : got.error();
    break;
  }
  return done;
}

void SendQueue::drop_head() {
  Chunk* chunk = head_;
  head_ = chunk->next;
  if (head_ == nullptr) tail_ = nullptr;
  if (cursor_ == chunk) cursor_ = nullptr;
  Buffer* buffer = chunk->buffer;
  memory_.give(buffer->cost());
  cost_ -= buffer->cost();
  buffer->unref();
}

void SendQueue::release(SeqNum until) {
  if (until <= first_) return;
  HUSK_ASSERT(until <= end_);
  first_ = until;
  while (head_ != nullptr && head_->end() <= until) drop_head();
}

void SendQueue::clear() {
  while (head_ != nullptr) drop_head();
  first_ = end_;
}

SendQueue::Chunk* SendQueue::locate(SeqNum at) {
  Chunk* chunk = cursor_ != nullptr && cursor_->first <= at ? cursor_ : head_;
  while (chunk->end() <= at) chunk = chunk->next;
  return cursor_ = chunk;
}

u32 SendQueue::fits_packet(SeqNum from, u32 size) {
  u32 fits = 0, slices = 0;
  for (Chunk* chunk = locate(from); fits < size && slices < kSlices; chunk = chunk->next, ++slices)
    fits += std::min(size - fits, chunk->end() - (from + fits));
  return fits;
}

Result<PacketPtr> SendQueue::packet(SeqNum from, u32 size) {
  HUSK_ASSERT(size > 0 && from >= first_ && from + size <= end_);
  Chunk* chunk = locate(from);
  bool copies = size <= kCopyMax;
  auto made = TRY(copies ? Packet::create(size) : Packet::create());
  u8* to = copies ? made->head().data() : nullptr;
  for (; size > 0; chunk = chunk->next) {
    cursor_ = chunk;
    u32 step = std::min(size, chunk->end() - from);
    u8* bytes = chunk->data() + (from - chunk->first);
    if (copies) {
      memcpy(to, bytes, step);
      to += step;
    } else {
      TRY(made->append({Ref<Buffer>::share(chunk->buffer), static_cast<u32>(bytes - chunk->buffer->data()), step}));
    }
    from += step;
    size -= step;
  }
  return made;
}

}  // namespace husk::net::tcp
