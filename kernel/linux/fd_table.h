// FdTable: descriptor numbers to open file descriptions. The only place in the kernel that knows descriptor numbers.
//
// Shared by threads (CLONE_FILES); copy() is for fork. A get() hands out a reference, so that a file survives a close() by
// another thread during a blocking call.
#pragma once
#undef linux

#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"
#include "kernel/vfs/file.h"

namespace husk::linux {

class FdTable : public RefCounted<FdTable> {
 public:
  Result<Ref<vfs::File>> get(int fd) const;  // EBADF
  // At the lowest free number >= minimum. EMFILE, ENOMEM; EINVAL if minimum is beyond the limit (F_DUPFD).
  Result<int> install(Ref<vfs::File> file, bool close_on_exec, int minimum = 0);
  // At exactly `fd`, replacing what is there (dup2, dup3). EBADF beyond the limit.
  Result<int> install_at(int fd, Ref<vfs::File> file, bool close_on_exec);
  // Gives the file, so that the caller lets go of it after the table is consistent.
  Result<Ref<vfs::File>> close(int fd);
  void close_range(u32 first, u32 last);
  void set_close_on_exec_range(u32 first, u32 last);
  Result<bool> close_on_exec(int fd) const;
  Result<void> set_close_on_exec(int fd, bool value);
  void close_for_exec();
  void close_all() { close_range(0, ~u32{0}); }
  Result<Ref<FdTable>> copy() const;
  // The lowest used number >= fd, or -1 (/proc/self/fd).
  int next_used(int fd) const;
  u64 limit = 1024;  // RLIMIT_NOFILE, soft

 private:
  struct Slot {
    Ref<vfs::File> file;
    bool close_on_exec = false;
  };
  Result<void> grow(size_t size);
  const Slot* find(int fd) const;
  Vec<Slot> slots_;
  size_t lowest_free_ = 0;  // no free number below it
};

}  // namespace husk::linux
