// inotify(7): kernel/vfs/inotify.h.
#undef linux
#include <linux/fcntl.h>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/vfs/inotify.h"

namespace husk::linux {

namespace {

Result<i64> make(u32 flags) { return static_cast<i64>(TRY(current_files().install(TRY(vfs::make_inotify(flags)), (flags & O_CLOEXEC) != 0))); }

Result<Ref<vfs::File>> inotify_of(int fd) {
  auto file = TRY(io_file(fd));
  if (file->kind != vfs::File::Kind::inotify) return Error(EINVAL);
  return file;
}

}  // namespace

HUSK_SYSCALL(inotify_init) { return make(0); }
HUSK_SYSCALL(inotify_init1, u32 flags) { return make(flags); }

HUSK_SYSCALL(inotify_add_watch, int fd, u64 path, u32 mask) {
  constexpr u32 kKnown = vfs::kInEvents | vfs::kInOnlyDirectory | vfs::kInDoNotFollow | vfs::kInExcludeUnlinked | vfs::kInMaskCreate |
                         vfs::kInMaskAdd | vfs::kInIsDirectory | vfs::kInOneShot;
  if ((mask & kKnown) == 0 || ((mask & vfs::kInMaskAdd) != 0 && (mask & vfs::kInMaskCreate) != 0)) return Error(EINVAL);
  auto file = TRY(inotify_of(fd));
  const u32 follow = (mask & vfs::kInDoNotFollow) != 0 ? vfs::kNoFollow : vfs::kFollow;
  vfs::Path place = TRY(resolve_at(AT_FDCWD, path, follow | ((mask & vfs::kInOnlyDirectory) != 0 ? vfs::kDirectory : 0u)));
  return TRY(vfs::inotify_add(*file, place, mask));
}

HUSK_SYSCALL(inotify_rm_watch, int fd, int watch) {
  TRY(vfs::inotify_remove(*TRY(inotify_of(fd)), watch));
  return 0;
}

}  // namespace husk::linux
