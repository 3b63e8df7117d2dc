// Changing what is known of a file: chmod(2), chown(2), utimensat(2), truncate(2), fallocate(2); extended attributes (there are none).
#undef linux
#include <linux/fcntl.h>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"
#include "kernel/vfs/inotify.h"

namespace husk::linux {

namespace {

Result<i64> change(const vfs::Path& path, const vfs::Attributes& attributes) {
  if (!path) return Error(EINVAL);  // a pipe or socket: its attributes cannot be changed
  TRY(path.inode()->set_attributes(attributes));
  vfs::file_event(*path.entry, vfs::kInAttributes);
  return 0;
}

u32 resolve_flags(u32 at_flags) { return (at_flags & AT_SYMLINK_NOFOLLOW) != 0 ? vfs::kNoFollow : vfs::kFollow; }
EmptyPath empty_path(u32 at_flags) { return (at_flags & AT_EMPTY_PATH) != 0 ? EmptyPath::allowed : EmptyPath::refused; }

Result<i64> change_mode(const vfs::Path& path, u32 mode) {
  if (!path) return Error(EINVAL);
  if (path.inode()->is_symlink()) return Error(EOPNOTSUPP);
  u32 changed = mode & 07777;
  return change(path, {.mode = &changed});
}

Result<i64> change_owner(const vfs::Path& path, u32 uid, u32 gid) {
  constexpr u32 kKeep = ~u32{0};
  return change(path, {.uid = uid == kKeep ? nullptr : &uid, .gid = gid == kKeep ? nullptr : &gid});
}

}  // namespace

HUSK_SYSCALL(chmod, u64 path, u32 mode) { return change_mode(TRY(resolve_at(AT_FDCWD, path, vfs::kFollow)), mode); }
HUSK_SYSCALL(fchmod, int fd, u32 mode) { return change_mode(TRY(io_file(fd))->path, mode); }
HUSK_SYSCALL(fchmodat, int directory, u64 path, u32 mode) { return change_mode(TRY(resolve_at(directory, path, vfs::kFollow)), mode); }
HUSK_SYSCALL(fchmodat2, int directory, u64 path, u32 mode, u32 flags) {
  TRY(allow_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
  return change_mode(TRY(resolve_at(directory, path, resolve_flags(flags), empty_path(flags))), mode);
}

HUSK_SYSCALL(chown, u64 path, u32 uid, u32 gid) { return change_owner(TRY(resolve_at(AT_FDCWD, path, vfs::kFollow)), uid, gid); }
HUSK_SYSCALL(lchown, u64 path, u32 uid, u32 gid) { return change_owner(TRY(resolve_at(AT_FDCWD, path, vfs::kNoFollow)), uid, gid); }
HUSK_SYSCALL(fchown, int fd, u32 uid, u32 gid) { return change_owner(TRY(io_file(fd))->path, uid, gid); }
HUSK_SYSCALL(fchownat, int directory, u64 path, u32 uid, u32 gid, u32 flags) {
  TRY(allow_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
  return change_owner(TRY(resolve_at(directory, path, resolve_flags(flags), empty_path(flags))), uid, gid);
}

// --- times -----------------------------------------------------------------------------------------------------------------------

namespace {

constexpr i64 kTimeNow = (1 << 30) - 1, kTimeOmit = (1 << 30) - 2;  // UTIME_*

struct Times {
  vfs::Time accessed, modified;
  bool change_accessed = true, change_modified = true;
};

vfs::Time now() {
  u64 ns = time::realtime_ns();
  return {static_cast<i64>(ns / time::kNsPerSecond), static_cast<u32>(ns % time::kNsPerSecond)};
}

Result<void> decode(const TimeSpec& from, vfs::Time* to, bool* change) {
  if (from.nanoseconds == kTimeOmit) {
    *change = false;
  } else if (from.nanoseconds == kTimeNow) {
    *to = now();
  } else {
    if (from.nanoseconds < 0 || from.nanoseconds >= kNanosecondsPerSecond) return Error(EINVAL);
    *to = {from.seconds, static_cast<u32>(from.nanoseconds)};
  }
  return {};
}

Result<Times> read_times(u64 address) {
  Times times;
  times.accessed = times.modified = now();
  if (address == 0) return times;
  TimeSpec specs[2];
  TRY(mem::copy_from_user(specs, address, sizeof(specs)));
  TRY(decode(specs[0], &times.accessed, &times.change_accessed));
  TRY(decode(specs[1], &times.modified, &times.change_modified));
  return times;
}

Result<Times> read_time_values(u64 address) {
  Times times;
  times.accessed = times.modified = now();
  if (address == 0) return times;
  TimeVal values[2];
  TRY(mem::copy_from_user(values, address, sizeof(values)));
  vfs::Time* out[2] = {&times.accessed, &times.modified};
  for (int i = 0; i < 2; ++i) {
    if (values[i].microseconds < 0 || values[i].microseconds >= 1'000'000) return Error(EINVAL);
    *out[i] = {values[i].seconds, static_cast<u32>(values[i].microseconds * 1000)};
  }
  return times;
}

Result<i64> set_times(const vfs::Path& path, const Times& times) {
  if (!times.change_accessed && !times.change_modified) return 0;
  return change(path, {.accessed = times.change_accessed ? &times.accessed : nullptr, .modified = times.change_modified ? &times.modified : nullptr});
}

}  // namespace

HUSK_SYSCALL(utimensat, int directory, u64 path, u64 times_at, u32 flags) {
  TRY(allow_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
  Times times = TRY(read_times(times_at));
  if (path == 0 && directory != AT_FDCWD) return set_times(TRY(io_file(directory))->path, times);
  return set_times(TRY(resolve_at(directory, path, resolve_flags(flags), empty_path(flags))), times);
}

HUSK_SYSCALL(futimesat, int directory, u64 path, u64 times_at) {
  Times times = TRY(read_time_values(times_at));
  if (path == 0 && directory != AT_FDCWD) return set_times(TRY(io_file(directory))->path, times);
  return set_times(TRY(resolve_at(directory, path, vfs::kFollow)), times);
}

HUSK_SYSCALL(utimes, u64 path, u64 times_at) {
  Times times = TRY(read_time_values(times_at));
  return set_times(TRY(resolve_at(AT_FDCWD, path, vfs::kFollow)), times);
}

HUSK_SYSCALL(utime, u64 path, u64 times_at) {
  Times times;
  times.accessed = times.modified = now();
  if (times_at != 0) {
    i64 seconds[2];
    TRY(mem::copy_from_user(seconds, times_at, sizeof(seconds)));
    times.accessed = {seconds[0], 0};
    times.modified = {seconds[1], 0};
  }
  return set_times(TRY(resolve_at(AT_FDCWD, path, vfs::kFollow)), times);
}

// --- size ------------------------------------------------------------------------------------------------------------------------

HUSK_SYSCALL(truncate, u64 path, i64 size) {
  if (size < 0) return Error(EINVAL);
  vfs::Path found = TRY(resolve_at(AT_FDCWD, path, vfs::kFollow));
  TRY(found.inode()->truncate(static_cast<u64>(size)));
  vfs::file_event(*found.entry, vfs::kInModify);
  return 0;
}

HUSK_SYSCALL(ftruncate, int fd, i64 size) {
  auto file = TRY(io_file(fd));
  if (size < 0 || !file->writable()) return Error(EINVAL);
  TRY(file->truncate(static_cast<u64>(size)));
  vfs::file_event(*file, vfs::kInModify);
  return 0;
}

HUSK_SYSCALL(fallocate, int fd, int mode, i64 offset, i64 size) {
  auto file = TRY(writable_file(fd));
  i64 end;
  if (offset < 0 || size <= 0) return Error(EINVAL);
  if (!checked_add(offset, size, &end)) return Error(EFBIG);
  if (file->kind == vfs::File::Kind::pipe) return Error(ESPIPE);
  TRY(file->allocate(mode, static_cast<u64>(offset), static_cast<u64>(size)));
  vfs::file_event(*file, vfs::kInModify);
  return 0;
}

// --- extended attributes: no file system has them ------------------------------------------------------------------------------------

namespace {

Result<i64> unsupported(Result<vfs::Path> path) {
  TRY(std::move(path));
  return Error(EOPNOTSUPP);
}
Result<i64> no_names(Result<vfs::Path> path) {
  TRY(std::move(path));
  return 0;
}
Result<vfs::Path> at_path(u64 path) { return resolve_at(AT_FDCWD, path, vfs::kFollow); }
Result<vfs::Path> at_link(u64 path) { return resolve_at(AT_FDCWD, path, vfs::kNoFollow); }
Result<vfs::Path> at_file(int fd) {
  auto file = TRY(io_file(fd));
  return vfs::Path(file->path);
}

}  // namespace

HUSK_SYSCALL(setxattr, u64 path, u64, u64, u64, int) { return unsupported(at_path(path)); }
HUSK_SYSCALL(lsetxattr, u64 path, u64, u64, u64, int) { return unsupported(at_link(path)); }
HUSK_SYSCALL(fsetxattr, int fd, u64, u64, u64, int) { return unsupported(at_file(fd)); }
HUSK_SYSCALL(getxattr, u64 path, u64, u64, u64) { return unsupported(at_path(path)); }
HUSK_SYSCALL(lgetxattr, u64 path, u64, u64, u64) { return unsupported(at_link(path)); }
HUSK_SYSCALL(fgetxattr, int fd, u64, u64, u64) { return unsupported(at_file(fd)); }
HUSK_SYSCALL(listxattr, u64 path, u64, u64) { return no_names(at_path(path)); }
HUSK_SYSCALL(llistxattr, u64 path, u64, u64) { return no_names(at_link(path)); }
HUSK_SYSCALL(flistxattr, int fd, u64, u64) { return no_names(at_file(fd)); }
HUSK_SYSCALL(removexattr, u64 path, u64) { return unsupported(at_path(path)); }
HUSK_SYSCALL(lremovexattr, u64 path, u64) { return unsupported(at_link(path)); }
HUSK_SYSCALL(fremovexattr, int fd, u64) { return unsupported(at_file(fd)); }

}  // namespace husk::linux
