// fcntl(2), flock(2) and ioctl(2).
//
// Record locks belong to a process: as long as there is one, they are always granted (syscalls.def says so).
#undef linux
#include <asm-generic/ioctls.h>
#include <linux/fcntl.h>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {

namespace {

constexpr u32 kLargeFile = 0100000;
constexpr u32 kChangeable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | FASYNC;
constexpr u32 kOpenOnly = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;

struct Lock {  // struct flock
  short type, whence;
  i64 start, length;
  int pid;
};

Result<void> check_lock(vfs::File& file, const Lock& lock, bool of_description) {
  if (lock.whence < 0 || lock.whence > 2) return Error(EINVAL);
  if (of_description && lock.pid != 0) return Error(EINVAL);
  if (lock.type == F_RDLCK && !file.readable()) return Error(EBADF);
  if (lock.type == F_WRLCK && !file.writable()) return Error(EBADF);
  if (lock.type != F_RDLCK && lock.type != F_WRLCK && lock.type != F_UNLCK) return Error(EINVAL);
  return {};
}

Result<i64> get_lock(vfs::File& file, u64 lock_at, bool of_description) {
  Lock lock = TRY(mem::read_user(mem::UserPtr<Lock>(lock_at)));
  if (lock.type != F_RDLCK && lock.type != F_WRLCK) return Error(EINVAL);
  TRY(check_lock(file, Lock{F_UNLCK, lock.whence, 0, 0, lock.pid}, of_description));
  lock.type = F_UNLCK;
  TRY(mem::write_user(mem::UserPtr<Lock>(lock_at), lock));
  return 0;
}

Result<i64> set_lock(vfs::File& file, u64 lock_at, bool of_description) {
  Lock lock = TRY(mem::read_user(mem::UserPtr<Lock>(lock_at)));
  TRY(check_lock(file, lock, of_description));
  return 0;
}

i64 shown_flags(const vfs::File& file) {
  bool has_path = static_cast<bool>(file.path) && (file.flags & O_PATH) == 0;
  return static_cast<i64>((file.flags & ~kOpenOnly) | (has_path ? kLargeFile : 0));
}

Result<i64> duplicate(Ref<vfs::File> file, u64 minimum, bool close_on_exec) {
  if (minimum > 0x7fffffff) return Error(EINVAL);
  return static_cast<i64>(TRY(current_files().install(std::move(file), close_on_exec, static_cast<int>(minimum))));
}

Result<i64> pipe_size(vfs::File& file, i64 size) {
  if (file.kind != vfs::File::Kind::pipe) return Error(EBADF);
  return vfs::pipe_capacity(file, size);
}

// What the file itself is asked, and not the descriptor.
Result<i64> control_file(vfs::File& file, u32 command, u64 argument) {
  switch (command) {
    case F_SETFL: file.flags = (file.flags & ~kChangeable) | (static_cast<u32>(argument) & kChangeable); return 0;
    case F_GETLK: return get_lock(file, argument, false);
    case F_OFD_GETLK: return get_lock(file, argument, true);
    case F_SETLK:
    case F_SETLKW: return set_lock(file, argument, false);
    case F_OFD_SETLK:
    case F_OFD_SETLKW: return set_lock(file, argument, true);
    case F_SETPIPE_SZ: return static_cast<i64>(argument) < 0 ? Result<i64>(Error(EINVAL)) : pipe_size(file, static_cast<i64>(argument));
    case F_GETPIPE_SZ: return pipe_size(file, -1);
    case F_GET_SEALS: return static_cast<i64>(TRY(vfs::memfd_seals(file)));
    case F_ADD_SEALS: TRY(vfs::memfd_add_seals(file, static_cast<u32>(argument))); return 0;
    case F_GETLEASE: return F_UNLCK;
    case F_GETOWN:
    case F_GETSIG: return 0;
    // Signals on input (O_ASYNC) are not sent: only "to nobody" can be asked for.
    case F_SETOWN:
    case F_SETSIG: return argument == 0 ? Result<i64>(0) : Error(EINVAL);
    default: return Error(EINVAL);
  }
}

}  // namespace

HUSK_SYSCALL(fcntl, int fd, u32 command, u64 argument) {
  auto file = TRY(current_file(fd));
  switch (command) {
    case F_DUPFD: return duplicate(std::move(file), argument, false);
    case F_DUPFD_CLOEXEC: return duplicate(std::move(file), argument, true);
    case F_GETFD: return TRY(current_files().close_on_exec(fd)) ? FD_CLOEXEC : 0;
    case F_SETFD: TRY(current_files().set_close_on_exec(fd, (argument & FD_CLOEXEC) != 0)); return 0;
    case F_GETFL: return shown_flags(*file);
    default: break;
  }
  if ((file->flags & O_PATH) != 0) return Error(EBADF);
  return control_file(*file, command, argument);
}

HUSK_SYSCALL(flock, int fd, u32 operation) {
  auto file = TRY(io_file(fd));
  u32 kind = operation & ~u32{LOCK_NB};
  if (kind != LOCK_SH && kind != LOCK_EX && kind != LOCK_UN) return Error(EINVAL);
  return 0;
}

HUSK_SYSCALL(ioctl, int fd, u32 request, u64 argument) {
  auto file = TRY(io_file(fd));
  switch (request) {
    case FIOCLEX: TRY(current_files().set_close_on_exec(fd, true)); return 0;
    case FIONCLEX: TRY(current_files().set_close_on_exec(fd, false)); return 0;
    case FIONBIO: {
      bool on = TRY(mem::read_user(mem::UserPtr<int>(argument))) != 0;
      file->flags = on ? file->flags | O_NONBLOCK : file->flags & ~u32{O_NONBLOCK};
      return 0;
    }
    default: break;
  }
  Result<i64> result = file->ioctl(request, argument);
  if (request != FIONREAD || result.ok() || result.error().code() != ENOTTY) return result;
  vfs::Stat stat = TRY(file->stat());
  if ((stat.mode & 0170000) != 0100000) return Error(ENOTTY);
  i64 left = static_cast<i64>(stat.size) - static_cast<i64>(file->position);
  TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(left)));
  return 0;
}

}  // namespace husk::linux
