// read(2), write(2) and their vectored and positioned forms; lseek(2), fsync(2), sendfile(2), splice(2), copy_file_range(2).
#undef linux
#include <linux/fs.h>

#include <algorithm>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/inotify.h"
#include "kernel/vfs/pipe.h"

namespace husk::linux {

namespace {

using vfs::IoBuffer;
using vfs::IoSegment;

constexpr u64 kNoOffset = ~u64{0};  // what preadv2(2) has for "the file's own position"

Result<i64> read_into(vfs::File& file, std::span<const IoSegment> segments, const u64* offset) {
  if (offset != nullptr && static_cast<i64>(*offset) < 0) return Error(EINVAL);
  IoBuffer buffer(segments, IoBuffer::Memory::program);
  const size_t got = TRY(file.read(buffer, offset));
  if (got > 0) vfs::file_event(file, vfs::kInAccess);
  return static_cast<i64>(got);
}

Result<i64> write_from(vfs::File& file, std::span<const IoSegment> segments, const u64* offset) {
  if (offset != nullptr && static_cast<i64>(*offset) < 0) return Error(EINVAL);
  IoBuffer buffer(segments, IoBuffer::Memory::program);
  Result<size_t> written = file.write(buffer, offset);
  if (written.ok() && *written > 0) vfs::file_event(file, vfs::kInModify);
  return write_result(file, written);
}

Result<i64> read_one(int fd, u64 address, u64 size, const u64* offset) {
  auto file = TRY(readable_file(fd));
  IoSegment segment{address, std::min(size, kTransferMax)};
  return read_into(*file, {&segment, 1}, offset);
}

Result<i64> write_one(int fd, u64 address, u64 size, const u64* offset) {
  auto file = TRY(writable_file(fd));
  IoSegment segment{address, std::min(size, kTransferMax)};
  return write_from(*file, {&segment, 1}, offset);
}

Result<i64> read_many(int fd, u64 vector, u64 count, const u64* offset) {
  auto file = TRY(readable_file(fd));
  Segments segments;
  TRY(segments.load(vector, count));
  return read_into(*file, segments.span(), offset);
}

Result<i64> write_many(int fd, u64 vector, u64 count, const u64* offset) {
  auto file = TRY(writable_file(fd));
  Segments segments;
  TRY(segments.load(vector, count));
  return write_from(*file, segments.span(), offset);
}

// A file's O_* flags while one call has other ones.
class TemporaryFlags {
 public:
  TemporaryFlags(vfs::File& file, u32 flags) : file_(file), old_(file.flags) { file.flags |= flags; }
  ~TemporaryFlags() { file_.flags = old_; }

 private:
  vfs::File& file_;
  u32 old_;
};

constexpr u32 kAppend = 02000, kNonBlocking = 04000;

}  // namespace

HUSK_SYSCALL(read, int fd, u64 address, u64 size) { return read_one(fd, address, size, nullptr); }
HUSK_SYSCALL(write, int fd, u64 address, u64 size) { return write_one(fd, address, size, nullptr); }
HUSK_SYSCALL(pread64, int fd, u64 address, u64 size, u64 offset) { return read_one(fd, address, size, &offset); }
HUSK_SYSCALL(pwrite64, int fd, u64 address, u64 size, u64 offset) { return write_one(fd, address, size, &offset); }
HUSK_SYSCALL(readv, int fd, u64 vector, u64 count) { return read_many(fd, vector, count, nullptr); }
HUSK_SYSCALL(writev, int fd, u64 vector, u64 count) { return write_many(fd, vector, count, nullptr); }
HUSK_SYSCALL(preadv, int fd, u64 vector, u64 count, u64 offset) { return read_many(fd, vector, count, &offset); }
HUSK_SYSCALL(pwritev, int fd, u64 vector, u64 count, u64 offset) { return write_many(fd, vector, count, &offset); }

HUSK_SYSCALL(preadv2, int fd, u64 vector, u64 count, u64 offset, u64, u32 flags) {
  if ((flags & ~(RWF_HIPRI | RWF_NOWAIT)) != 0) return Error(EOPNOTSUPP);
  auto file = TRY(readable_file(fd));
  TemporaryFlags temporary(*file, (flags & RWF_NOWAIT) != 0 ? kNonBlocking : 0);
  return read_many(fd, vector, count, offset == kNoOffset ? nullptr : &offset);
}

HUSK_SYSCALL(pwritev2, int fd, u64 vector, u64 count, u64 offset, u64, u32 flags) {
  if ((flags & ~(RWF_HIPRI | RWF_NOWAIT | RWF_APPEND | RWF_DSYNC | RWF_SYNC)) != 0) return Error(EOPNOTSUPP);
  auto file = TRY(writable_file(fd));
  i64 done;
  {
    TemporaryFlags temporary(*file, ((flags & RWF_APPEND) != 0 ? kAppend : 0) | ((flags & RWF_NOWAIT) != 0 ? kNonBlocking : 0));
    done = TRY(write_many(fd, vector, count, offset == kNoOffset ? nullptr : &offset));
  }
  if ((flags & (RWF_DSYNC | RWF_SYNC)) != 0) TRY(file->sync((flags & RWF_SYNC) == 0));
  return done;
}

HUSK_SYSCALL(lseek, int fd, i64 offset, int whence) {
  auto file = TRY(io_file(fd));
  return static_cast<i64>(TRY(file->seek(offset, whence)));
}

HUSK_SYSCALL(fsync, int fd) {
  auto file = TRY(io_file(fd));
  TRY(file->sync(false));
  return 0;
}

HUSK_SYSCALL(fdatasync, int fd) {
  auto file = TRY(io_file(fd));
  TRY(file->sync(true));
  return 0;
}

HUSK_SYSCALL(sync_file_range, int fd, i64 offset, i64 size, u32 flags) {
  if (offset < 0 || size < 0 || (flags & ~7u) != 0) return Error(EINVAL);
  TRY(io_file(fd));
  return 0;
}

HUSK_SYSCALL(sync) { return 0; }

HUSK_SYSCALL(syncfs, int fd) {
  TRY(io_file(fd));
  return 0;
}

HUSK_SYSCALL(fadvise64, int fd, i64, i64 size, int advice) {
  auto file = TRY(io_file(fd));
  if (file->kind == vfs::File::Kind::pipe) return Error(ESPIPE);
  if (advice < 0 || advice > 5 || size < 0) return Error(EINVAL);
  return 0;
}

HUSK_SYSCALL(readahead, int fd, i64, u64) {
  auto file = TRY(readable_file(fd));
  if (file->kind != vfs::File::Kind::inode && file->kind != vfs::File::Kind::memfd) return Error(EINVAL);
  return 0;
}

// --- from file to file -------------------------------------------------------------------------------------------------------

namespace {

// An offset that the call takes from the program and gives back moved; absent: the file's own position.
class OffsetArgument {
 public:
  explicit OffsetArgument(u64 address) : address_(address) {}
  Result<void> load() {
    if (address_ == 0) return {};
    value_ = TRY(mem::read_user(mem::UserPtr<u64>(address_)));
    if (static_cast<i64>(value_) < 0) return Error(EINVAL);
    return {};
  }
  const u64* get() const { return address_ != 0 ? &value_ : nullptr; }
  Result<void> store(i64 moved) const {
    if (address_ == 0 || moved <= 0) return {};
    return mem::write_user(mem::UserPtr<u64>(address_), value_ + static_cast<u64>(moved));
  }

 private:
  u64 address_;
  u64 value_ = 0;
};

Result<i64> move_between(vfs::File& from, u64 from_offset_at, vfs::File& to, u64 to_offset_at, u64 size) {
  OffsetArgument from_offset(from_offset_at), to_offset(to_offset_at);
  TRY(from_offset.load());
  TRY(to_offset.load());
  if (size == 0) return 0;
  Result<i64> moved = vfs::pipe_splice(from, from_offset.get(), to, to_offset.get(), std::min(size, kTransferMax));
  if (!moved.ok() && moved.error().code() == EPIPE) raise_broken_pipe();
  i64 count = TRY(std::move(moved));
  if (count > 0) {
    vfs::file_event(from, vfs::kInAccess);
    vfs::file_event(to, vfs::kInModify);
  }
  TRY(from_offset.store(count));
  TRY(to_offset.store(count));
  return count;
}

bool is_regular(vfs::File& file) {
  Result<vfs::Stat> stat = file.stat();
  return stat.ok() && (stat->mode & 0170000) == 0100000;
}

using Kind = vfs::File::Kind;
constexpr u32 kSpliceFlags = 0xf, kSpliceNonBlocking = 2;

}  // namespace

HUSK_SYSCALL(sendfile, int out_fd, int in_fd, u64 offset_at, u64 size) {
  auto from = TRY(readable_file(in_fd));
  auto to = TRY(writable_file(out_fd));
  if ((to->flags & kAppend) != 0) return Error(EINVAL);
  // Programs go on with read and write then; EAGAIN would tell them that the target is full.
  if (from->kind == Kind::pipe || (from->kind == Kind::socket && to->kind != Kind::pipe)) return Error(EINVAL);
  return move_between(*from, offset_at, *to, 0, size);
}

HUSK_SYSCALL(copy_file_range, int in_fd, u64 in_offset, int out_fd, u64 out_offset, u64 size, u32 flags) {
  if (flags != 0) return Error(EINVAL);
  auto from = TRY(readable_file(in_fd));
  auto to = TRY(writable_file(out_fd));
  if ((to->flags & kAppend) != 0) return Error(EBADF);
  if (!is_regular(*from) || !is_regular(*to)) return Error(EINVAL);
  return move_between(*from, in_offset, *to, out_offset, size);
}

HUSK_SYSCALL(splice, int in_fd, u64 in_offset, int out_fd, u64 out_offset, u64 size, u32 flags) {
  TRY(allow_flags(flags, kSpliceFlags));
  auto from = TRY(readable_file(in_fd));
  auto to = TRY(writable_file(out_fd));
  if (from->kind != Kind::pipe && to->kind != Kind::pipe) return Error(EINVAL);
  if ((from->kind == Kind::pipe && in_offset != 0) || (to->kind == Kind::pipe && out_offset != 0)) return Error(ESPIPE);
  if (from->kind == Kind::pipe && vfs::pipe_of(*from) == vfs::pipe_of(*to)) return Error(EINVAL);
  u32 temporary = (flags & kSpliceNonBlocking) != 0 ? kNonBlocking : 0;
  TemporaryFlags from_flags(*from, from->kind == Kind::pipe ? temporary : 0);
  TemporaryFlags to_flags(*to, to->kind == Kind::pipe ? temporary : 0);
  return move_between(*from, in_offset, *to, out_offset, size);
}

// Gives what lies together in the source, which may be less than there is.
HUSK_SYSCALL(tee, int in_fd, int out_fd, u64 size, u32 flags) {
  TRY(allow_flags(flags, kSpliceFlags));
  auto from = TRY(readable_file(in_fd));
  auto to = TRY(writable_file(out_fd));
  vfs::Pipe* source = vfs::pipe_of(*from);
  vfs::Pipe* target = vfs::pipe_of(*to);
  if (source == nullptr || target == nullptr || source == target) return Error(EINVAL);
  TemporaryFlags from_flags(*from, (flags & kSpliceNonBlocking) != 0 ? kNonBlocking : 0);
  TemporaryFlags to_flags(*to, (flags & kSpliceNonBlocking) != 0 ? kNonBlocking : 0);
  if (size == 0) return 0;
  while (source->size() == 0 && source->writers > 0) TRY(vfs::wait_for_change(*from, source->queue));
  while (target->space() == 0 && target->readers > 0) TRY(vfs::wait_for_change(*to, target->queue));
  if (source->size() == 0) return 0;
  IoSegment piece = source->front();
  piece.size = std::min({piece.size, size, u64{target->space()}});
  IoBuffer buffer({&piece, 1}, IoBuffer::Memory::kernel);
  return write_result(*to, to->write(buffer, nullptr));
}

HUSK_SYSCALL(vmsplice, int fd, u64 vector, u64 count, u32 flags) {
  TRY(allow_flags(flags, kSpliceFlags));
  auto file = TRY(io_file(fd));
  if (file->kind != vfs::File::Kind::pipe) return Error(EBADF);
  TemporaryFlags temporary(*file, (flags & kSpliceNonBlocking) != 0 ? kNonBlocking : 0);
  return file->writable() ? write_many(fd, vector, count, nullptr) : read_many(fd, vector, count, nullptr);
}

}  // namespace husk::linux
