// Bytes to one virtio console: a ring of kernel memory that writes are copied into, so that a write returns at once.
//
// The ring is made at the first write (4 KiB) and grows while writers find it full, if memory allows. Bytes go to the device in
// order; those that find no free descriptor are published together when one is free. Never blocks: console.cc does that.
#pragma once

#include "kernel/drivers/virtio/transport.h"
#include "kernel/vfs/io.h"

namespace husk::drivers {

class OutputStream {
 public:
  static constexpr u16 kFlightsMax = 64;
  static constexpr unsigned kOrderMax = 8;  // 1 MiB

  OutputStream(virtio::Transport& transport, virtio::Virtqueue& queue, u32 queue_index)
      : transport_(transport), queue_(queue), queue_index_(queue_index) {}
  ~OutputStream();

  // Copies and publishes what fits: 0 if the ring is full (poll() first). ENOMEM, EFAULT, EIO (the device is broken).
  Result<size_t> write(vfs::IoBuffer& buffer);
  // All or nothing; false if there is no room (yet).
  bool write_all(std::span<const u8> head, std::span<const u8> body);
  // Collects what the device is done with. True if there was something.
  bool poll();
  // The same for writers that sleep: *writable if that made it worth waking them. Else an interrupt comes for what follows: the one that was asked for
  // may have been for what was found now.
  bool poll_for_writers(bool* writable);
  // Interrupt when about half of what is in flight is done.
  void want_interrupt() { queue_.want_interrupt(static_cast<u16>(flight_count_ / 2 + 1)); }
  void want_no_interrupt() { queue_.want_no_interrupt(); }

  bool roomy() const { return ring_.capacity == 0 || space() >= ring_.capacity / 4; }  // worth waking a writer for
  bool all_published() const { return published_ == head_ || queue_.broken(); }
  bool idle() const { return (all_published() && flight_count_ == 0) || queue_.broken(); }

 private:
  struct Ring {
    u8* memory = nullptr;
    PhysAddr physical;
    u64 capacity = 0;  // a power of two
    unsigned order = 0;
  };
  struct Flight {
    u32 length;
    u16 id;
    bool done;
    bool old_ring;
  };
  u64 space() const { return ring_.capacity - (head_ - tail_); }
  void make_room(u64 wanted);
  bool allocate_ring(unsigned order);
  void replace_ring(Ring fresh);
  void publish();
  void mark_done(u16 id);
  void retire();
  std::span<u8> writable_piece() const;

  virtio::Transport& transport_;
  virtio::Virtqueue& queue_;
  const u32 queue_index_;
  Ring ring_, old_ring_;
  // Positions in the stream of bytes since ring_ came into use: tail_ <= published_ <= head_.
  u64 head_ = 0, published_ = 0, tail_ = 0;
  Flight flights_[kFlightsMax];  // a queue in the order of offering
  u16 flight_first_ = 0, flight_count_ = 0, old_flights_ = 0;
};

}  // namespace husk::drivers
