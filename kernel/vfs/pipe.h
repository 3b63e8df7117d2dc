// A pipe's bytes and its two sides: unnamed pipes and FIFOs. pipe(7).
//
// A ring of bytes over pages that are allocated when the ring first reaches them. One queue hears of everything.
#pragma once

#include "base/ref.h"
#include "base/result.h"
#include "base/vec.h"
#include "kernel/sched/sched.h"
#include "kernel/vfs/io.h"

namespace husk::vfs {

class Pipe : public RefCounted<Pipe> {
 public:
  static constexpr size_t kAtomicWrite = 4096, kDefaultCapacity = 64 * kKiB, kCapacityMax = kMiB;  // PIPE_BUF
  static Result<Ref<Pipe>> create();
  ~Pipe();

  size_t size() const { return size_; }
  size_t capacity() const { return pages_.size() * kPageSize; }
  size_t space() const { return capacity() - size_; }
  Result<void> set_capacity(size_t bytes);  // EBUSY if what is in does not fit
  Result<size_t> take_out(IoBuffer& buffer);
  Result<size_t> put_in(IoBuffer& buffer, size_t maximum);
  // The oldest bytes that lie together; consume() drops them.
  IoSegment front() const;
  void consume(size_t bytes);

  void add_side(bool reads, bool writes);
  void remove_side(bool reads, bool writes);
  u32 readers = 0, writers = 0;
  u64 readers_ever = 0, writers_ever = 0;  // a FIFO's open waits for the next one
  sched::WaitQueue queue;

 private:
  Vec<u8*> pages_;
  size_t start_ = 0, size_ = 0;  // in bytes of the ring
};

class File;
Pipe* pipe_of(File& file);  // null if it is no pipe

}  // namespace husk::vfs
