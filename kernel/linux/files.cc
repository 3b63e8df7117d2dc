#include "kernel/linux/files.h"

#include <linux/fcntl.h>

#include "kernel/vfs/socket.h"

namespace husk::linux {

Result<Ref<vfs::File>> io_file(int fd) {
  auto file = TRY(current_file(fd));
  if ((file->flags & O_PATH) != 0) return Error(EBADF);
  return file;
}

Result<Ref<vfs::File>> readable_file(int fd) {
  auto file = TRY(io_file(fd));
  if (!file->readable()) return Error(EBADF);
  return file;
}

Result<Ref<vfs::File>> writable_file(int fd) {
  auto file = TRY(io_file(fd));
  if (!file->writable()) return Error(EBADF);
  return file;
}

Result<At> path_at(int directory_fd, u64 path_address, EmptyPath empty) {
  At at;
  at.path = TRY(user_path(path_address));
  if (at.path.empty()) {
    if (empty == EmptyPath::refused) return Error(ENOENT);
    return at;
  }
  bool absolute = at.path.view().front() == '/';
  at.base = absolute ? current_file_context().root : TRY(base_directory(directory_fd));
  return at;
}

Result<vfs::Path> resolve_at(int directory_fd, u64 path_address, u32 resolve_flags, EmptyPath empty) {
  At at = TRY(path_at(directory_fd, path_address, empty));
  if (!at.path.empty()) return tree().resolve(at.base, at.path, resolve_flags);
  if (directory_fd == AT_FDCWD) return vfs::Path(current_file_context().working_directory);
  auto file = TRY(current_file(directory_fd));
  return vfs::Path(file->path);
}

Result<i64> write_result(const vfs::File& file, const Result<size_t>& written) {
  if (written.ok()) return static_cast<i64>(written.value());
  const bool quiet = file.kind == vfs::File::Kind::socket && static_cast<const vfs::Socket&>(file).type != vfs::kSocketStream;
  if (written.error().code() == EPIPE && !quiet) raise_broken_pipe();
  return written.error();
}

}  // namespace husk::linux
