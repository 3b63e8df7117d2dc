#include "kernel/vfs/io.h"

#include <string.h>

#include <algorithm>

#include "kernel/mem/user_copy.h"

namespace husk::vfs {

IoBuffer::IoBuffer(std::span<const IoSegment> segments, Memory memory) : IoBuffer(segments, memory, ~size_t{0}) {}

IoBuffer::IoBuffer(std::span<const IoSegment> segments, Memory memory, size_t size_limit) : segments_(segments), memory_(memory) {
  for (const IoSegment& segment : segments) remaining_ += std::min<size_t>(segment.size, size_limit - remaining_);
  advance(0);
}

IoBuffer::IoBuffer(IoSink& sink, const IoSegment& extent) : IoBuffer({&extent, 1}, Memory::sink) { sink_ = &sink; }

IoSegment IoBuffer::front() const {
  if (remaining_ == 0) return {0, 0};
  const IoSegment& segment = segments_[index_];
  return {segment.address + offset_, std::min<u64>(segment.size - offset_, remaining_)};
}

void IoBuffer::advance(size_t bytes) {
  HUSK_ASSERT(bytes <= remaining_);
  remaining_ -= bytes;
  done_ += bytes;
  offset_ += bytes;
  while (index_ < segments_.size() && offset_ >= segments_[index_].size) offset_ -= segments_[index_++].size;
}

namespace {

// Moves up to `size` bytes by pieces; `move` gives how many bytes of a piece it managed.
template <typename Move>
Result<size_t> transfer(IoBuffer& buffer, size_t size, Move&& move) {
  size_t moved = 0;
  while (moved < size && buffer.remaining() > 0) {
    IoSegment piece = buffer.front();
    size_t wanted = std::min<size_t>(piece.size, size - moved);
    size_t got = move(piece.address, moved, wanted);
    buffer.advance(got);
    moved += got;
    if (got == wanted) continue;
    if (moved == 0) return Error(EFAULT);
    break;
  }
  return moved;
}

// Only read; not const, because constants lie in the image.
constinit u8 zeros[4096] = {};

}  // namespace

Result<size_t> IoBuffer::put(const void* from, size_t size) {
  if (memory_ == Memory::sink) {
    size_t taken = TRY(sink_->take(from, std::min(size, remaining_)));
    advance(taken);
    return taken;
  }
  return transfer(*this, size, [&](u64 to, size_t at, size_t count) -> size_t {
    const u8* source = static_cast<const u8*>(from) + at;
    if (memory_ == Memory::program) return mem::copy_to_user_partial(to, source, count);
    memcpy(reinterpret_cast<void*>(to), source, count);
    return count;
  });
}

Result<size_t> IoBuffer::put_zeros(size_t size) {
  size_t moved = 0;
  while (moved < size && remaining_ > 0) {
    size_t wanted = std::min({size - moved, remaining_, sizeof(zeros)});
    Result<size_t> got = put(zeros, wanted);
    if (!got.ok() && moved == 0) return got.error();
    if (!got.ok()) break;
    moved += *got;
    if (*got < wanted) break;
  }
  return moved;
}

Result<size_t> IoBuffer::take(void* to, size_t size) {
  return transfer(*this, size, [&](u64 from, size_t at, size_t count) -> size_t {
    u8* target = static_cast<u8*>(to) + at;
    if (memory_ == Memory::program) return mem::copy_from_user_partial(target, from, count);
    memcpy(target, reinterpret_cast<const void*>(from), count);
    return count;
  });
}

}  // namespace husk::vfs
