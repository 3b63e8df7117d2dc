#include "kernel/linux/files_segments.h"

#include <algorithm>

#include "kernel/mem/user_copy.h"

namespace husk::linux {

Result<void> Segments::load(u64 vector_address, u64 count) {
  if (count > kSegmentsMax) return Error(EINVAL);
  vfs::IoSegment* segments = few_;
  if (count > kFew) {
    TRY(many_.resize(count));
    segments = many_.data();
  }
  TRY(mem::copy_from_user(segments, vector_address, count * sizeof(vfs::IoSegment)));
  u64 left = kTransferMax;
  for (size_t i = 0; i < count; ++i) {
    if (static_cast<i64>(segments[i].size) < 0) return Error(EINVAL);
    segments[i].size = std::min(segments[i].size, left);
    left -= segments[i].size;
  }
  count_ = count;
  return {};
}

}  // namespace husk::linux
