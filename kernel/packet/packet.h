// Packets between drivers and the network stack: shared memory, never copied on the way.
//
// A Buffer is memory that devices reach (the direct map), shared by reference: a segment in flight and the send queue that it was cut from hold
// the same one. A Slice is a part of a buffer. A Packet is a list of slices with what offloading needs; its headers are contiguous in the first slice.
// One vCPU at a time. No globals: many stacks may live in one process (tests, the simulator).
#pragma once

#include <span>

#include "base/list.h"
#include "base/panic.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"

namespace husk::packet {

class Buffer {
 public:
  // Memory of at least `size` bytes; ENOMEM. Up to kSmall comes from one slab object, above in whole frames, physically contiguous.
  static constexpr u32 kSmall = 2048 - 32;
  static constexpr u32 kPageRoom = 4096 - 32;
  static constexpr u32 kLargeRoom = 4 * 4096 - 32;
  static constexpr u32 kSizeMax = 65536;
  static Result<Ref<Buffer>> create(u32 size);

  u8* data() { return reinterpret_cast<u8*>(this + 1); }
  u32 capacity() const { return capacity_; }
  u32 cost() const { return capacity_ + sizeof(Buffer); }  // what holding it costs, for limits
  void ref() { ++references_; }
  void unref();
  bool shared() const { return references_ > 1; }

 private:
  explicit Buffer(u32 capacity) : capacity_(capacity) {}
  u32 references_ = 1;
  u32 capacity_;
  u64 reserved_[3] = {};
};
static_assert(sizeof(Buffer) == 32);

struct Slice {
  Ref<Buffer> buffer;
  u32 offset = 0, size = 0;
  u8* data() const { return buffer->data() + offset; }
};

// What the headers promise about checksums (virtio 1.2 §5.1.6 in both directions).
enum class Checksum : u8 {
  unknown,   // received: verify in software
  verified,  // received: the device vouches for it
  partial,   // to send: the device fills it in at checksum_start + checksum_offset, where the pseudo-header's sum stands. Received (from this
             // very host): not filled in, and as good as verified
  complete,  // to send: filled in
};
enum class Segmentation : u8 { none, tcp4, tcp6 };

struct PacketTag;
class Packet : public ListNode<PacketTag> {
 public:
  static constexpr u32 kSlicesMax = 20;
  static constexpr u32 kHeaderRoom = 128;  // ethernet + IPv6 + TCP with all options, and to spare
  static Result<Owned<Packet>> create();   // without slices
  // With one slice of `size` bytes in a buffer of its own, and kHeaderRoom bytes before it.
  static Result<Owned<Packet>> create(u32 size);
  ~Packet() { drop(count_); }

  u32 size() const { return size_; }
  std::span<Slice> slices() { return {slices_, count_}; }
  std::span<const Slice> slices() const { return {slices_, count_}; }
  // The first slice's bytes.
  std::span<u8> head() { return count_ == 0 ? std::span<u8>{} : std::span<u8>{slices_[0].data(), slices_[0].size}; }
  // Makes the first `bytes` bytes contiguous (a copy if they are not); false if there are fewer, or no memory.
  bool pull_up(u32 bytes);
  void trim_front(u32 bytes);  // at most size()
  void trim_back(u32 bytes);
  // Room for a header in front of the first byte: in the first buffer if it is not shared and has room, else in a new one. ENOMEM.
  Result<u8*> push_front(u32 bytes);
  Result<void> append(Slice slice);  // EMSGSIZE if there are too many
  // Room behind the last byte that nobody else can see: in the last buffer if it is not shared.
  u32 tail_room() const {
    if (count_ == 0 || slices_[count_ - 1].buffer->shared()) return 0;
    const Slice& last = slices_[count_ - 1];
    return last.buffer->capacity() - last.offset - last.size;
  }
  // Makes the packet longer by at most tail_room() bytes, which the caller writes.
  u8* extend_back(u32 bytes) {
    Slice& last = slices_[count_ - 1];
    u8* end = last.data() + last.size;
    last.size += bytes;
    size_ += bytes;
    return end;
  }
  // Copies out of the packet; `from` + size must be within it.
  void copy_out(u32 from, void* to, u32 size) const;
  u32 cost() const;  // of all buffers
  // A second packet with the same buffers. ENOMEM.
  Result<Owned<Packet>> clone() const;

  // --- offloading --------------------------------------------------------------
  Checksum checksum = Checksum::unknown;
  Segmentation segmentation = Segmentation::none;
  u16 checksum_start = 0, checksum_offset = 0;  // partial: start from the packet's first byte as the device sees it
  u16 segment_size = 0;                         // payload bytes of each segment; 0: not segmented
  u16 header_size = 0;                          // all headers, of a packet to be segmented

 private:
  Packet() {}
  void drop(u32 last);             // so many at the end
  void insert_front(Slice slice);  // there is room for it
  u32 count_ = 0, size_ = 0;
  // Only the first count_ exist: making and destroying all of them would be a good part of what a packet costs.
  union {
    Slice slices_[kSlicesMax];
  };
};
using PacketPtr = Owned<Packet>;
using PacketList = List<Packet, PacketTag>;  // owns nothing: whoever empties it deletes

}  // namespace husk::packet
