// Bytes from one virtio console. Buffers are offered to the device only when somebody wants input, so that what nobody reads
// stays with the host; a reader that keeps finding full buffers gets more of them (up to 1 MiB), so that a stream flows.
//
// The end comes as a count of bytes on the control console (abi/control_records.h: input_end). Never blocks: console.cc does that.
#pragma once

#include "kernel/drivers/virtio/transport.h"
#include "kernel/vfs/io.h"

namespace husk::drivers {

class InputStream {
 public:
  static constexpr u16 kBuffersMax = 17;
  static constexpr unsigned kBigOrder = 4;  // 64 KiB; the first buffer is one page

  InputStream(virtio::Transport& transport, virtio::Virtqueue& queue, u32 queue_index)
      : transport_(transport), queue_(queue), queue_index_(queue_index) {}
  ~InputStream();

  // Somebody wants bytes: offers buffers if none are on their way. ENOMEM, EIO.
  Result<void> want();
  // Moves what has arrived: 0 if nothing has. EFAULT.
  Result<size_t> read(vfs::IoBuffer& buffer);
  bool poll();  // collects what arrived; true if there was something

  bool streaming() const { return streaming_; }
  bool has_bytes() const { return ready_count_ > 0; }
  void set_end(u64 bytes) { end_ = bytes; }
  bool at_end() const { return end_ <= consumed_ || queue_.broken(); }

 private:
  enum class State : u8 { unused, idle, offered, ready };
  struct Buffer {
    State state = State::unused;
    u8* memory = nullptr;
    PhysAddr physical;
    unsigned order = 0;
    u16 id = 0;
    u32 filled = 0, taken = 0;
    u32 capacity() const { return static_cast<u32>(kPageSize << order); }
  };
  bool add_buffer(unsigned order);
  void double_buffers();
  void offer(Buffer& buffer);
  void arrived(u16 id, u32 length);
  void finish_front();

  virtio::Transport& transport_;
  virtio::Virtqueue& queue_;
  const u32 queue_index_;
  Buffer buffers_[kBuffersMax];
  u8 ready_[kBuffersMax];  // indexes of ready buffers, a queue in the order of arrival
  u16 ready_first_ = 0, ready_count_ = 0;
  bool streaming_ = false;  // the last buffer came back full
  u64 consumed_ = 0;
  u64 end_ = ~u64{0};
};

}  // namespace husk::drivers
