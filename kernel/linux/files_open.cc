// open(2) and close(2), descriptors and their flags: dup(2), fcntl(2), ioctl(2); files without a path.
#undef linux
#include <linux/fcntl.h>
#include <linux/openat2.h>

#include <algorithm>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {

namespace {

constexpr u32 kLargeFile = 0100000;  // O_LARGEFILE of x86: always set there
constexpr u32 kNonBlocking = O_NONBLOCK;

Result<i64> install(Ref<vfs::File> file, u32 flags) {
  return static_cast<i64>(TRY(current_files().install(std::move(file), (flags & O_CLOEXEC) != 0)));
}

Result<i64> open_at(int directory_fd, u64 path, u32 flags, u32 mode) {
  At at = TRY(path_at(directory_fd, path));
  u32 allowed_mode = mode & 07777 & ~current_file_context().umask;
  return install(TRY(tree().open(at.base, at.path, flags & ~kLargeFile, allowed_mode)), flags);
}

}  // namespace

HUSK_SYSCALL(open, u64 path, u32 flags, u32 mode) { return open_at(AT_FDCWD, path, flags, mode); }
HUSK_SYSCALL(openat, int directory, u64 path, u32 flags, u32 mode) { return open_at(directory, path, flags, mode); }
HUSK_SYSCALL(creat, u64 path, u32 mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

HUSK_SYSCALL(openat2, int directory, u64 path, u64 how_at, u64 size) {
  open_how how{};
  if (size < sizeof(how)) return Error(EINVAL);
  if (size > sizeof(how)) return Error(E2BIG);
  TRY(mem::copy_from_user(&how, how_at, sizeof(how)));
  constexpr u64 kKnown = 017777777;  // all of open(2)
  if ((how.flags & ~kKnown & ~u64{O_PATH | __O_TMPFILE}) != 0 || (how.mode & ~u64{07777}) != 0) return Error(EINVAL);
  if (how.mode != 0 && (how.flags & (O_CREAT | __O_TMPFILE)) == 0) return Error(EINVAL);
  // Restrictions that cannot be kept must not be ignored.
  if ((how.resolve & ~u64{RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED}) != 0) return Error(ENOSYS);
  return open_at(directory, path, static_cast<u32>(how.flags), static_cast<u32>(how.mode));
}

HUSK_SYSCALL(close, int fd) {
  Ref<vfs::File> file = TRY(current_files().close(fd));
  return 0;
}

HUSK_SYSCALL(close_range, u32 first, u32 last, u32 flags) {
  constexpr u32 kUnshare = 2, kCloseOnExec = 4;
  TRY(allow_flags(flags, kUnshare | kCloseOnExec));
  if (first > last) return Error(EINVAL);
  if ((flags & kUnshare) != 0) current_process().files = TRY(current_files().copy());
  if ((flags & kCloseOnExec) != 0) current_files().set_close_on_exec_range(first, last);
  else current_files().close_range(first, last);
  return 0;
}

HUSK_SYSCALL(dup, int fd) { return install(TRY(current_file(fd)), 0); }

HUSK_SYSCALL(dup2, int from, int to) {
  auto file = TRY(current_file(from));
  if (from == to) return to;
  return static_cast<i64>(TRY(current_files().install_at(to, std::move(file), false)));
}

HUSK_SYSCALL(dup3, int from, int to, u32 flags) {
  TRY(allow_flags(flags, O_CLOEXEC));
  if (from == to) return Error(EINVAL);
  auto file = TRY(current_file(from));
  return static_cast<i64>(TRY(current_files().install_at(to, std::move(file), flags != 0)));
}

// --- files without a path --------------------------------------------------------------------------------------------------

namespace {

Result<i64> make_pipe(u64 fds_at, u32 flags) {
  TRY(allow_flags(flags, O_CLOEXEC | O_NONBLOCK | O_DIRECT));
  if ((flags & O_DIRECT) != 0) return Error(EINVAL);  // packet mode
  vfs::FilePair pair = TRY(vfs::make_pipe(flags & ~u32{O_CLOEXEC}));
  return install_pair(std::move(pair), fds_at, (flags & O_CLOEXEC) != 0);
}

}  // namespace

// Both or none: the numbers must have reached the program.
Result<i64> install_pair(vfs::FilePair pair, u64 fds_at, bool close_on_exec) {
  FdTable& files = current_files();
  int fds[2];
  fds[0] = TRY(files.install(std::move(pair.first), close_on_exec));
  Result<int> second = files.install(std::move(pair.second), close_on_exec);
  if (second.ok()) {
    fds[1] = *second;
    if (mem::copy_to_user(fds_at, fds, sizeof(fds)).ok()) return 0;
    (void)files.close(fds[1]).ok();
  }
  (void)files.close(fds[0]).ok();
  return Error(second.ok() ? EFAULT : second.error().code());
}

HUSK_SYSCALL(pipe, u64 fds) { return make_pipe(fds, 0); }
HUSK_SYSCALL(pipe2, u64 fds, u32 flags) { return make_pipe(fds, flags); }

HUSK_SYSCALL(eventfd, u32 initial) { return install(TRY(vfs::make_eventfd(initial, 0)), 0); }
HUSK_SYSCALL(eventfd2, u32 initial, u32 flags) {
  constexpr u32 kSemaphore = 1;
  TRY(allow_flags(flags, kSemaphore | O_CLOEXEC | O_NONBLOCK));
  return install(TRY(vfs::make_eventfd(initial, flags)), flags);
}

HUSK_SYSCALL(memfd_create, u64 name_at, u32 flags) {
  constexpr u32 kCloseOnExec = 1, kNameMax = 249;
  Result<String> name = mem::string_from_user(name_at, kNameMax + 1);
  if (!name.ok()) return Error(name.error().code() == ENAMETOOLONG ? EINVAL : name.error().code());
  return install(TRY(vfs::make_memfd(*name, flags)), (flags & kCloseOnExec) != 0 ? O_CLOEXEC : 0);
}

// --- timerfd ---------------------------------------------------------------------------------------------------------------

namespace {

struct IntervalTime {  // struct itimerspec
  TimeSpec interval, value;
};

Result<u64> to_ns(const TimeSpec& time) {
  if (time.seconds < 0 || time.nanoseconds < 0 || time.nanoseconds >= kNanosecondsPerSecond) return Error(EINVAL);
  u64 ns;
  if (!checked_mul(static_cast<u64>(time.seconds), time::kNsPerSecond, &ns)) return time::kForever - 1;
  return ns + static_cast<u64>(time.nanoseconds);
}

IntervalTime from_ns(const vfs::TimerSpec& spec) {
  auto convert = [](u64 ns) { return TimeSpec{static_cast<i64>(ns / time::kNsPerSecond), static_cast<i64>(ns % time::kNsPerSecond)}; };
  return {convert(spec.interval_ns), convert(spec.value_ns)};
}

Result<Ref<vfs::File>> timer_file(int fd) {
  auto file = TRY(io_file(fd));
  if (file->kind != vfs::File::Kind::timerfd) return Error(EINVAL);
  return file;
}

}  // namespace

HUSK_SYSCALL(timerfd_create, int clock, u32 flags) {
  TRY(allow_flags(flags, O_CLOEXEC | O_NONBLOCK));
  return install(TRY(vfs::make_timerfd(clock, flags)), flags);
}

HUSK_SYSCALL(timerfd_settime, int fd, u32 flags, mem::UserPtr<IntervalTime> wanted, mem::UserPtr<IntervalTime> old_out) {
  constexpr u32 kAbsolute = 1, kCancelOnSet = 2;  // the clock is set by nobody else: nothing to cancel
  TRY(allow_flags(flags, kAbsolute | kCancelOnSet));
  auto file = TRY(timer_file(fd));
  IntervalTime time = TRY(mem::read_user(wanted));
  vfs::TimerSpec spec{TRY(to_ns(time.value)), TRY(to_ns(time.interval))};
  vfs::TimerSpec old = TRY(vfs::timerfd_set(*file, spec, (flags & kAbsolute) != 0));
  if (old_out) TRY(mem::write_user(old_out, from_ns(old)));
  return 0;
}

HUSK_SYSCALL(timerfd_gettime, int fd, mem::UserPtr<IntervalTime> out) {
  auto file = TRY(timer_file(fd));
  vfs::TimerSpec spec = TRY(vfs::timerfd_get(*file));
  TRY(mem::write_user(out, from_ns(spec)));
  return 0;
}

}  // namespace husk::linux
