#include "kernel/fs/inode_file.h"

#include "kernel/vfs/open_flags.h"

namespace husk::fs {

namespace {
constexpr int kSeekSet = 0, kSeekCurrent = 1, kSeekEnd = 2, kSeekData = 3, kSeekHole = 4;
constexpr u64 kPositionMax = ~u64{0} >> 1;
}  // namespace

Result<size_t> InodeFile::read(vfs::IoBuffer& buffer, const u64* offset) {
  size_t moved = TRY(read_at(buffer, offset != nullptr ? *offset : position));
  if (offset == nullptr) position += moved;
  return moved;
}

Result<size_t> InodeFile::write(vfs::IoBuffer& buffer, const u64* offset) {
  u64 at = offset != nullptr ? *offset : position;
  if ((flags & vfs::kOpenAppend) != 0) at = inode_->stat().size;
  if (at > kPositionMax - buffer.remaining()) return Error(EFBIG);
  size_t moved = TRY(write_at(buffer, at));
  if (offset == nullptr) position = at + moved;
  return moved;
}

Result<u64> InodeFile::seek(i64 offset, int whence) {
  i64 base = 0;
  switch (whence) {
    case kSeekSet: break;
    case kSeekCurrent: base = static_cast<i64>(position); break;
    case kSeekEnd: base = static_cast<i64>(seeks_by_cookie() ? 0 : inode_->stat().size); break;
    case kSeekData:
    case kSeekHole: {
      u64 size = inode_->stat().size, from = static_cast<u64>(offset);
      if (from >= size) return Error(ENXIO);
      u64 found = whence == kSeekData ? next_data(from) : next_hole(from);
      if (whence == kSeekData && found >= size) return Error(ENXIO);
      return position = found < size ? found : size;
    }
    default: return Error(EINVAL);
  }
  i64 result;
  if (!checked_add(base, offset, &result)) return Error(EOVERFLOW);
  if (result < 0) return Error(EINVAL);
  return position = static_cast<u64>(result);
}

}  // namespace husk::fs
