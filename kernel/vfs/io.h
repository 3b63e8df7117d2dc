// IoBuffer: where a read puts bytes or a write takes them from: segments of program or kernel memory, with a cursor.
//
// Program memory may be bad: put() and take() then move what they can and give EFAULT only if that is nothing.
#pragma once

#include <span>

#include "base/result.h"
#include "base/types.h"

namespace husk::vfs {

struct IoSegment {
  u64 address;
  u64 size;
};

// Takes what is put into a buffer made for it, instead of memory: what a file gives can go on without a copy in between.
class IoSink {
 public:
  virtual Result<size_t> take(const void* from, size_t size) = 0;  // must not block: the bytes are the file's own

 protected:
  ~IoSink() = default;
};

class IoBuffer {
 public:
  enum class Memory : u8 { program, kernel, sink };
  // `segments` must outlive the buffer.
  IoBuffer(std::span<const IoSegment> segments, Memory memory);
  IoBuffer(std::span<const IoSegment> segments, Memory memory, size_t size_limit);
  IoBuffer(IoSink& sink, const IoSegment& extent);  // `extent`: address 0 and how much the sink wants; outlives the buffer
  static IoSegment kernel_segment(const void* data, size_t size) { return {reinterpret_cast<u64>(data), size}; }

  size_t remaining() const { return remaining_; }
  size_t done() const { return done_; }
  Memory memory() const { return memory_; }
  // The contiguous piece at the cursor, for drivers and streams that move memory themselves.
  IoSegment front() const;
  void advance(size_t bytes);
  // For read(2): copies into the buffer; gives how many bytes fitted.
  Result<size_t> put(const void* from, size_t size);
  Result<size_t> put_zeros(size_t size);
  // For write(2): copies out of the buffer.
  Result<size_t> take(void* to, size_t size);

 private:
  std::span<const IoSegment> segments_;
  IoSink* sink_ = nullptr;
  Memory memory_;
  size_t index_ = 0;
  size_t offset_ = 0;
  size_t remaining_ = 0;
  size_t done_ = 0;
};

}  // namespace husk::vfs
