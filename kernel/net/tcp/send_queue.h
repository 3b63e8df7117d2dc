// The bytes from SND.UNA to the last that the program wrote: chunks of shared memory that segments and their retransmissions refer to.
//
// Bytes are copied once, from the program into a chunk. A chunk's own fields are at the start of its buffer, so that a queue needs no other memory
// and an empty one none at all. Chunks grow from 2 KiB to 32 KiB with the queue.
#pragma once

#include "kernel/net/tcp/memory.h"
#include "kernel/net/tcp/segment.h"
#include "kernel/packet/packet.h"
#include "kernel/vfs/io.h"

namespace husk::net::tcp {

class SendQueue {
 public:
  explicit SendQueue(Memory& memory) : memory_(memory) {}
  ~SendQueue() { clear(); }
  void start(SeqNum first) { first_ = end_ = first; }
  SeqNum first() const { return first_; }
  SeqNum end() const { return end_; }
  u32 size() const { return end_ - first_; }
  u64 cost() const { return cost_; }

  // Copies up to `limit` bytes in; gives how many. EFAULT, ENOMEM (or Limits::memory is used up) if that is none.
  Result<size_t> append(vfs::IoBuffer& from, u32 limit);
  void release(SeqNum until);  // acknowledged
  // The bytes [from, from + size) as a packet: references, or a copy if they are few. ENOMEM.
  Result<packet::PacketPtr> packet(SeqNum from, u32 size);
  // How much of `size` bytes from `from` fits into one packet.
  u32 fits_packet(SeqNum from, u32 size);
  void clear();

 private:
  struct Chunk {
    Chunk* next;
    packet::Buffer* buffer;  // that it is in; the queue's own reference
    SeqNum first;            // of the first byte
    u32 size, capacity;
    u8* data() { return reinterpret_cast<u8*>(this + 1); }
    SeqNum end() const { return first + size; }
  };
  static constexpr u32 kCopyMax = 512;  // a packet of up to this much is a copy: one descriptor instead of two
  static constexpr u32 kSlices = packet::Packet::kSlicesMax - 2;
  Result<void> add_chunk(size_t wanted);
  Chunk* locate(SeqNum at);
  void drop_head();

  Memory& memory_;
  Chunk* head_ = nullptr;
  Chunk* tail_ = nullptr;
  Chunk* cursor_ = nullptr;  // where the last packet ended
  SeqNum first_, end_;
  u64 cost_ = 0;
};

}  // namespace husk::net::tcp
