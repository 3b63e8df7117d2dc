// The buffers that readv(2), sendmsg(2) and their kin name.
#pragma once
#undef linux

#include <span>

#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"
#include "kernel/vfs/io.h"

namespace husk::linux {

constexpr u64 kTransferMax = 0x7ffff000;  // MAX_RW_COUNT
constexpr u64 kSegmentsMax = 1024;        // UIO_MAXIOV

// The buffers of readv(2) and sendmsg(2), copied in once and cut at kTransferMax. Few of them need no allocation.
class Segments {
 public:
  Result<void> load(u64 vector_address, u64 count);  // EINVAL, EFAULT, ENOMEM
  std::span<const vfs::IoSegment> span() const { return {many_.empty() ? few_ : many_.data(), count_}; }

 private:
  static constexpr size_t kFew = 8;
  vfs::IoSegment few_[kFew];
  Vec<vfs::IoSegment> many_;
  size_t count_ = 0;
};

}  // namespace husk::linux
