// What the system calls on files share: finding the descriptor, the path, the segments.
#pragma once
#undef linux

#include <span>

#include "kernel/linux/files_segments.h"
#include "kernel/linux/task.h"
#include "kernel/vfs/file.h"

namespace husk::linux {

// Like current_file(), but EBADF for O_PATH descriptors, and for the wrong access mode.
Result<Ref<vfs::File>> io_file(int fd);
Result<Ref<vfs::File>> readable_file(int fd);
Result<Ref<vfs::File>> writable_file(int fd);

// Directory descriptor and path as the *at calls have them. The descriptor is not looked at if the path is absolute.
enum class EmptyPath : bool { refused, allowed };
struct At {
  vfs::Path base;  // of an empty path: null
  String path;
};
Result<At> path_at(int directory_fd, u64 path_address, EmptyPath empty = EmptyPath::refused);
// The place itself; with an empty path and `empty` allowed what the descriptor refers to, which is null if that has no path.
Result<vfs::Path> resolve_at(int directory_fd, u64 path_address, u32 resolve_flags, EmptyPath empty = EmptyPath::refused);

// The result of a write: EPIPE also sends SIGPIPE, but for sockets that are no streams.
Result<i64> write_result(const vfs::File& file, const Result<size_t>& written);

// Both ends get a descriptor and the program their numbers (int[2]), or nothing happens.
Result<i64> install_pair(vfs::FilePair pair, u64 fds_at, bool close_on_exec);

struct TimeSpec {  // struct timespec, __kernel_timespec
  i64 seconds, nanoseconds;
};
struct TimeVal {
  i64 seconds, microseconds;
};
constexpr i64 kNanosecondsPerSecond = 1'000'000'000;

// Only the flags that are in `allowed`, else EINVAL.
inline Result<void> allow_flags(u64 flags, u64 allowed) {
  if ((flags & ~allowed) != 0) return Error(EINVAL);
  return {};
}

}  // namespace husk::linux
