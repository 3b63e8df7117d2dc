#include "kernel/drivers/console_input.h"

#include <algorithm>

#include "kernel/mem/frames.h"

namespace husk::drivers {

namespace {
constexpr u64 kFreeShare = 32;  // all buffers together take at most 1/32 of the free memory
}

InputStream::~InputStream() {
  for (Buffer& buffer : buffers_)
    if (buffer.state != State::unused) mem::free_frames(buffer.physical, buffer.order);
}

bool InputStream::add_buffer(unsigned order) {
  for (Buffer& buffer : buffers_) {
    if (buffer.state != State::unused) continue;
    Result<PhysAddr> frames = mem::allocate_frames(order, mem::Zeroed::no);
    if (!frames.ok()) return false;
    buffer.state = State::idle;
    buffer.memory = mem::direct(*frames);
    buffer.physical = *frames;
    buffer.order = order;
    return true;
  }
  return false;
}

void InputStream::double_buffers() {
  auto more = std::count_if(buffers_, buffers_ + kBuffersMax, [](const Buffer& b) { return b.state != State::unused; });
  while (more-- > 0 && add_buffer(kBigOrder)) {}
}

Result<void> InputStream::want() {
  if (queue_.broken()) return Error(EIO);
  if (buffers_[0].state == State::unused && !add_buffer(0)) return Error(ENOMEM);
  if (has_bytes() && !streaming_) return {};
  constexpr u64 kAllBuffers = u64{kBuffersMax} << (kPageShift + kBigOrder);
  if (streaming_ && mem::memory_statistics().free / kFreeShare >= kAllBuffers) double_buffers();
  for (Buffer& buffer : buffers_)
    if (buffer.state == State::idle) offer(buffer);
  if (queue_.publish()) transport_.notify(queue_index_);
  queue_.want_interrupt();
  if (queue_.has_used()) poll();
  return {};
}

void InputStream::offer(Buffer& buffer) {
  virtio::QueueBuffer piece{buffer.physical, buffer.capacity(), virtio::Direction::from_device};
  Result<u16> id = queue_.offer({&piece, 1});
  if (!id.ok()) return;
  buffer.state = State::offered;
  buffer.id = *id;
}

bool InputStream::poll() {
  bool any = false;
  virtio::UsedBuffer used;
  while (queue_.take(&used)) {
    arrived(used.id, used.length);
    any = true;
  }
  if (any) queue_.want_interrupt();
  return any;
}

void InputStream::arrived(u16 id, u32 length) {
  for (u8 i = 0; i < kBuffersMax; ++i) {
    Buffer& buffer = buffers_[i];
    if (buffer.state != State::offered || buffer.id != id) continue;
    streaming_ = length == buffer.capacity();
    buffer.state = length == 0 ? State::idle : State::ready;
    buffer.filled = length;
    buffer.taken = 0;
    if (length > 0) ready_[(ready_first_ + ready_count_++) % kBuffersMax] = i;
    return;
  }
}

Result<size_t> InputStream::read(vfs::IoBuffer& to) {
  size_t done = 0;
  while (has_bytes() && to.remaining() > 0) {
    Buffer& buffer = buffers_[ready_[ready_first_]];
    Result<size_t> step = to.put(buffer.memory + buffer.taken, std::min<size_t>(buffer.filled - buffer.taken, to.remaining()));
    if (!step.ok() && done == 0) return step.error();
    if (!step.ok() || *step == 0) break;
    buffer.taken += static_cast<u32>(*step);
    consumed_ += *step;
    done += *step;
    if (buffer.taken == buffer.filled) finish_front();
  }
  return done;
}

void InputStream::finish_front() {
  buffers_[ready_[ready_first_]].state = State::idle;
  ready_first_ = static_cast<u16>((ready_first_ + 1) % kBuffersMax);
  --ready_count_;
}

}  // namespace husk::drivers
