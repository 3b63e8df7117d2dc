// What is known of a file: stat(2), statx(2), statfs(2), access(2); and changing it: chmod(2), chown(2), utimensat(2), truncate(2).
#undef linux
#include <asm/stat.h>
#include <asm/statfs.h>
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <string.h>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {

namespace {

using StatBuffer = struct stat;
using StatxBuffer = struct statx;
using StatFsBuffer = struct statfs;

StatBuffer to_linux(const vfs::Stat& from) {
  StatBuffer to;
  memset(&to, 0, sizeof(to));
  to.st_dev = from.device;
  to.st_ino = from.inode;
  to.st_nlink = from.links;
  to.st_mode = from.mode;
  to.st_uid = from.uid;
  to.st_gid = from.gid;
  to.st_rdev = from.special_device;
  to.st_size = static_cast<long>(from.size);
  to.st_blksize = from.block_size;
  to.st_blocks = static_cast<long>(from.blocks);
  to.st_atime = static_cast<unsigned long>(from.accessed.seconds);
  to.st_atime_nsec = from.accessed.nanoseconds;
  to.st_mtime = static_cast<unsigned long>(from.modified.seconds);
  to.st_mtime_nsec = from.modified.nanoseconds;
  to.st_ctime = static_cast<unsigned long>(from.changed.seconds);
  to.st_ctime_nsec = from.changed.nanoseconds;
  return to;
}

u32 major_of(u64 device) { return static_cast<u32>(((device >> 8) & 0xfff) | ((device >> 32) & ~u64{0xfff})); }
u32 minor_of(u64 device) { return static_cast<u32>((device & 0xff) | ((device >> 12) & ~u64{0xff})); }

StatxBuffer to_statx(const vfs::Stat& from) {
  StatxBuffer to;
  memset(&to, 0, sizeof(to));
  auto time = [](const vfs::Time& t) { return statx_timestamp{t.seconds, t.nanoseconds, 0}; };
  to.stx_mask = STATX_BASIC_STATS;
  to.stx_blksize = from.block_size;
  to.stx_nlink = from.links;
  to.stx_uid = from.uid;
  to.stx_gid = from.gid;
  to.stx_mode = static_cast<u16>(from.mode);
  to.stx_ino = from.inode;
  to.stx_size = from.size;
  to.stx_blocks = from.blocks;
  to.stx_atime = time(from.accessed);
  to.stx_ctime = time(from.changed);
  to.stx_mtime = time(from.modified);
  to.stx_rdev_major = major_of(from.special_device);
  to.stx_rdev_minor = minor_of(from.special_device);
  to.stx_dev_major = major_of(from.device);
  to.stx_dev_minor = minor_of(from.device);
  return to;
}

Result<vfs::Stat> stat_at(int directory_fd, u64 path, u32 flags) {
  auto empty = (flags & AT_EMPTY_PATH) != 0 ? EmptyPath::allowed : EmptyPath::refused;
  if (empty == EmptyPath::allowed && directory_fd != AT_FDCWD) {
    // glibc's fstat(): no path to resolve, and the file need not have one.
    u8 first = path != 0 ? TRY(mem::read_user(mem::UserPtr<u8>(path))) : u8{0};
    if (first == 0) return TRY(current_file(directory_fd))->stat();
  }
  u32 resolve = (flags & AT_SYMLINK_NOFOLLOW) != 0 ? vfs::kNoFollow : vfs::kFollow;
  vfs::Path found = TRY(resolve_at(directory_fd, path, resolve, empty));
  return found.inode()->stat();
}

Result<i64> write_stat(Result<vfs::Stat> stat, u64 out) {
  vfs::Stat found = TRY(std::move(stat));
  TRY(mem::write_user(mem::UserPtr<StatBuffer>(out), to_linux(found)));
  return 0;
}

constexpr u32 kStatFlags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;

}  // namespace

HUSK_SYSCALL(stat, u64 path, u64 out) { return write_stat(stat_at(AT_FDCWD, path, 0), out); }
HUSK_SYSCALL(lstat, u64 path, u64 out) { return write_stat(stat_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), out); }
HUSK_SYSCALL(fstat, int fd, u64 out) { return write_stat(TRY(current_file(fd))->stat(), out); }

HUSK_SYSCALL(newfstatat, int directory, u64 path, u64 out, u32 flags) {
  TRY(allow_flags(flags, kStatFlags));
  return write_stat(stat_at(directory, path, flags), out);
}

HUSK_SYSCALL(statx, int directory, u64 path, u32 flags, u32 mask, u64 out) {
  TRY(allow_flags(flags, kStatFlags | AT_STATX_SYNC_TYPE));
  if ((mask & STATX__RESERVED) != 0 || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE) return Error(EINVAL);
  vfs::Stat found = TRY(stat_at(directory, path, flags));
  TRY(mem::write_user(mem::UserPtr<StatxBuffer>(out), to_statx(found)));
  return 0;
}

// --- file systems ------------------------------------------------------------------------------------------------------------

namespace {

Result<i64> write_statfs(Result<vfs::FileSystemStat> stat, u64 out) {
  vfs::FileSystemStat from = TRY(std::move(stat));
  StatFsBuffer to;
  memset(&to, 0, sizeof(to));
  to.f_type = static_cast<long>(from.magic);
  to.f_bsize = to.f_frsize = static_cast<long>(from.block_size);
  to.f_blocks = static_cast<long>(from.blocks);
  to.f_bfree = to.f_bavail = static_cast<long>(from.free_blocks);
  to.f_files = static_cast<long>(from.files);
  to.f_ffree = static_cast<long>(from.free_files);
  to.f_namelen = static_cast<long>(from.name_length);
  constexpr u64 kFlagsValid = 0x20;
  to.f_flags = static_cast<long>(from.flags | kFlagsValid);
  TRY(mem::write_user(mem::UserPtr<StatFsBuffer>(out), to));
  return 0;
}

}  // namespace

HUSK_SYSCALL(statfs, u64 path, u64 out) {
  vfs::Path found = TRY(resolve_at(AT_FDCWD, path, vfs::kFollow));
  return write_statfs(found.inode()->file_system_stat(), out);
}

HUSK_SYSCALL(fstatfs, int fd, u64 out) { return write_statfs(TRY(current_file(fd))->file_system_stat(), out); }

// --- access --------------------------------------------------------------------------------------------------------------------

namespace {

// One user, who may do everything but execute what nobody may.
Result<i64> access_at(int directory, u64 path, u32 mode, u32 flags) {
  constexpr u32 kExecute = 1, kAllModes = 7, kEffective = 0x200;  // AT_EACCESS
  if ((mode & ~kAllModes) != 0) return Error(EINVAL);
  TRY(allow_flags(flags, kEffective | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
  vfs::Stat stat = TRY(stat_at(directory, path, flags & (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)));
  bool directory_file = (stat.mode & 0170000) == 0040000;
  if ((mode & kExecute) != 0 && !directory_file && (stat.mode & 0111) == 0) return Error(EACCES);
  return 0;
}

}  // namespace

HUSK_SYSCALL(access, u64 path, u32 mode) { return access_at(AT_FDCWD, path, mode, 0); }
HUSK_SYSCALL(faccessat, int directory, u64 path, u32 mode) { return access_at(directory, path, mode, 0); }
HUSK_SYSCALL(faccessat2, int directory, u64 path, u32 mode, u32 flags) { return access_at(directory, path, mode, flags); }

}  // namespace husk::linux
