// What a file does that its kind does not define: the errnos that Linux gives for such a descriptor.
#include "kernel/vfs/file.h"

#include "base/format.h"
#include "kernel/vfs/inotify.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

Result<size_t> File::read(IoBuffer&, const u64*) { return Error(EINVAL); }
Result<size_t> File::write(IoBuffer&, const u64*) { return Error(EINVAL); }
Result<u64> File::seek(i64, int) { return Error(ESPIPE); }
Result<void> File::read_directory(DirectoryVisitor&) { return Error(ENOTDIR); }
Result<void> File::truncate(u64) { return Error(EINVAL); }
Result<void> File::allocate(int, u64, u64) { return Error(ENODEV); }
Result<void> File::sync(bool) { return Error(EINVAL); }
Result<Ref<mem::MemoryObject>> File::memory_object() { return Error(ENODEV); }
Result<i64> File::ioctl(u32, u64) { return Error(ENOTTY); }
u32 File::poll_events() { return kIn | kOut; }
sched::WaitQueue* File::wait_queue() { return nullptr; }

Result<Stat> File::stat() {
  if (!path) return Error(EBADF);
  return path.inode()->stat();
}

Result<FileSystemStat> File::file_system_stat() {
  if (path) return path.inode()->file_system_stat();
  FileSystemStat result;
  result.magic = 0x09041934;  // ANON_INODE_FS_MAGIC
  return result;
}

Result<Ref<File>> File::reopen(u32) { return Error(ENXIO); }

Result<String> File::describe() {
  if (path) return path_text(path);
  return String::from("anon_inode:[unknown]");
}

void File::tell_watchers() {
  if ((flags & kOpenPath) == 0) file_event(*this, writable() ? kInCloseWrite : kInCloseNoWrite);
  while (CloseWatcher* watcher = close_watchers.front()) watcher->file_closed();
}

Stat anonymous_stat(u32 mode) {
  static constinit u64 device = 0;
  static constinit u64 next_inode = 1;
  if (device == 0) device = new_anonymous_device();
  Stat result;
  result.device = device;
  result.inode = next_inode++;
  result.mode = mode;
  result.accessed = result.modified = result.changed = current_time();
  return result;
}

Result<void> wait_for_change(const File& file, sched::WaitQueue& queue) {
  if (file.nonblocking()) return Error(EAGAIN);
  if (queue.wait() == sched::Wake::interrupted) return Error(EINTR);
  return {};
}

}  // namespace husk::vfs
