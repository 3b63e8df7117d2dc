#include "kernel/drivers/console_output.h"

#include <algorithm>

#include "kernel/mem/frames.h"

namespace husk::drivers {

namespace {
constexpr u64 kFreeShare = 32;  // a ring grows only to 1/32 of the free memory
constexpr u64 kPieceMin = 4096;
}  // namespace

OutputStream::~OutputStream() {
  if (ring_.memory != nullptr) mem::free_frames(ring_.physical, ring_.order);
  if (old_ring_.memory != nullptr) mem::free_frames(old_ring_.physical, old_ring_.order);
}

Result<size_t> OutputStream::write(vfs::IoBuffer& buffer) {
  size_t done = 0;
  while (buffer.remaining() > 0) {
    if (queue_.broken()) return Error(EIO);
    make_room(buffer.remaining());
    if (ring_.capacity == 0) return Error(ENOMEM);
    std::span<u8> piece = writable_piece();
    if (piece.empty()) break;
    Result<size_t> taken = buffer.take(piece.data(), std::min<size_t>(piece.size(), buffer.remaining()));
    if (!taken.ok() && done == 0) return taken.error();
    if (!taken.ok() || *taken == 0) break;
    head_ += *taken;
    done += *taken;
    publish();
  }
  return done;
}

bool OutputStream::write_all(std::span<const u8> head, std::span<const u8> body) {
  u64 size = head.size() + body.size();
  make_room(size);
  if (queue_.broken() || space() < size) return false;
  for (std::span<const u8> part : {head, body}) {
    while (!part.empty()) {
      std::span<u8> piece = writable_piece();
      size_t step = std::min(piece.size(), part.size());
      memcpy(piece.data(), part.data(), step);
      head_ += step;
      part = part.subspan(step);
    }
  }
  publish();
  return true;
}

std::span<u8> OutputStream::writable_piece() const {
  u64 at = head_ & (ring_.capacity - 1);
  return {ring_.memory + at, static_cast<size_t>(std::min(space(), ring_.capacity - at))};
}

// Grows the ring if `wanted` bytes do not fit: at least fourfold, so that few steps lead to the size that the stream needs.
void OutputStream::make_room(u64 wanted) {
  if (ring_.capacity == 0) allocate_ring(0);
  if (wanted <= space() || old_ring_.memory != nullptr || ring_.order >= kOrderMax) return;
  unsigned order = std::min(ring_.order + 2, kOrderMax);
  while (order < kOrderMax && (kPageSize << order) < wanted) ++order;
  while (order > ring_.order && (kPageSize << order) * kFreeShare > mem::memory_statistics().free) --order;
  if (order > ring_.order) allocate_ring(order);
}

bool OutputStream::allocate_ring(unsigned order) {
  Result<PhysAddr> frames = mem::allocate_frames(order, mem::Zeroed::no);
  if (!frames.ok()) return false;
  replace_ring({mem::direct(*frames), *frames, kPageSize << order, order});
  return true;
}

// What is in flight stays in the old ring until the device is done with it; what is not moves over.
void OutputStream::replace_ring(Ring fresh) {
  u64 moved = 0;
  for (u64 at = published_; at < head_; ++at, ++moved) fresh.memory[moved] = ring_.memory[at & (ring_.capacity - 1)];
  old_ring_ = ring_;
  old_flights_ = flight_count_;
  for (u16 i = 0; i < flight_count_; ++i) flights_[(flight_first_ + i) % kFlightsMax].old_ring = true;
  ring_ = fresh;
  tail_ = published_ = 0;
  head_ = moved;
  retire();
}

void OutputStream::publish() {
  u64 piece_max = std::max(kPieceMin, ring_.capacity / 8);
  while (published_ < head_ && flight_count_ < kFlightsMax && queue_.free_descriptors() > 0) {
    u64 at = published_ & (ring_.capacity - 1);
    u64 length = std::min({head_ - published_, ring_.capacity - at, piece_max});
    virtio::QueueBuffer buffer{ring_.physical + at, static_cast<u32>(length), virtio::Direction::to_device};
    Result<u16> id = queue_.offer({&buffer, 1});
    if (!id.ok()) break;
    flights_[(flight_first_ + flight_count_++) % kFlightsMax] = {buffer.length, *id, false, false};
    published_ += length;
  }
  if (queue_.publish()) transport_.notify(queue_index_);
}

bool OutputStream::poll() {
  bool any = false;
  virtio::UsedBuffer used;
  while (queue_.take(&used)) {
    mark_done(used.id);
    any = true;
  }
  if (any) {
    retire();
    publish();
  }
  return any;
}

bool OutputStream::poll_for_writers(bool* writable) {
  bool any = false;
  while (!*writable && poll()) {
    any = true;
    *writable = roomy() || idle();
    if (!*writable) want_interrupt();  // and look again
  }
  return any;
}

void OutputStream::mark_done(u16 id) {
  for (u16 i = 0; i < flight_count_; ++i) {
    Flight& flight = flights_[(flight_first_ + i) % kFlightsMax];
    if (flight.id == id && !flight.done) {
      flight.done = true;
      return;
    }
  }
}

// A device may finish out of order; ring memory is free again in order.
void OutputStream::retire() {
  while (flight_count_ > 0 && flights_[flight_first_].done) {
    const Flight& flight = flights_[flight_first_];
    if (flight.old_ring) --old_flights_;
    else tail_ += flight.length;
    flight_first_ = static_cast<u16>((flight_first_ + 1) % kFlightsMax);
    --flight_count_;
  }
  if (old_ring_.memory != nullptr && old_flights_ == 0) {
    mem::free_frames(old_ring_.physical, old_ring_.order);
    old_ring_ = {};
  }
}

}  // namespace husk::drivers
