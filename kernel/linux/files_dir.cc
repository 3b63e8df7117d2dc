// The tree: working directory, making and removing names, reading directories and links.
#undef linux
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <string.h>

#include <algorithm>
#include <memory>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {

// --- working directory -------------------------------------------------------------------------------------------------------

HUSK_SYSCALL(getcwd, u64 out, u64 size) {
  String path = TRY(vfs::path_text(current_file_context().working_directory));
  if (path.size() + 1 > size) return Error(ERANGE);
  TRY(mem::copy_to_user(out, path.c_str(), path.size() + 1));
  return static_cast<i64>(path.size() + 1);
}

HUSK_SYSCALL(chdir, u64 path) {
  current_file_context().working_directory = TRY(resolve_at(AT_FDCWD, path, vfs::kDirectory));
  return 0;
}

HUSK_SYSCALL(fchdir, int fd) {
  auto file = TRY(current_file(fd));
  if (!file->path || !file->path.inode()->is_directory()) return Error(ENOTDIR);
  current_file_context().working_directory = file->path;
  return 0;
}

// The tree has one root; a chroot to it changes nothing.
HUSK_SYSCALL(chroot, u64 path) {
  vfs::Path wanted = TRY(resolve_at(AT_FDCWD, path, vfs::kDirectory));
  if (wanted.inode() != current_file_context().root.inode()) return Error(EPERM);
  return 0;
}

// --- names ---------------------------------------------------------------------------------------------------------------------

namespace {

constexpr u32 kTypeMask = 0170000, kRegular = 0100000, kDirectoryType = 0040000, kFifo = 0010000, kCharacter = 0020000, kBlock = 0060000,
              kSocketType = 0140000;

Result<i64> make_at(int directory, u64 path, u32 type, u32 mode, u64 device) {
  At at = TRY(path_at(directory, path));
  TRY(tree().make_node(at.base, at.path, type | (mode & 07777 & ~current_file_context().umask), device));
  return 0;
}

Result<i64> make_node_at(int directory, u64 path, u32 mode, u64 device) {
  u32 type = mode & kTypeMask;
  if (type == 0) type = kRegular;
  if (type == kDirectoryType) return Error(EPERM);
  if (type == kBlock) return Error(EPERM);  // there are no block devices
  if (type != kRegular && type != kFifo && type != kCharacter && type != kSocketType) return Error(EINVAL);
  return make_at(directory, path, type, mode, device);
}

Result<i64> remove_at(int directory, u64 path, bool is_directory) {
  At at = TRY(path_at(directory, path));
  TRY(tree().unlink(at.base, at.path, is_directory));
  return 0;
}

Result<i64> rename_at(int from_directory, u64 from_path, int to_directory, u64 to_path, u32 flags) {
  TRY(allow_flags(flags, RENAME_NOREPLACE | RENAME_EXCHANGE));
  At from = TRY(path_at(from_directory, from_path));
  At to = TRY(path_at(to_directory, to_path));
  TRY(tree().rename(from.base, from.path, to.base, to.path, flags));
  return 0;
}

Result<i64> link_at(int from_directory, u64 from_path, int to_directory, u64 to_path, u32 flags) {
  TRY(allow_flags(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH));
  At from = TRY(path_at(from_directory, from_path, (flags & AT_EMPTY_PATH) != 0 ? EmptyPath::allowed : EmptyPath::refused));
  At to = TRY(path_at(to_directory, to_path));
  if (from.path.empty()) {
    auto file = TRY(current_file(from_directory));
    if (!file->path) return Error(ENOENT);
    TRY(tree().link_inode(*file->path.inode(), to.base, to.path));
    return 0;
  }
  TRY(tree().link(from.base, from.path, to.base, to.path, (flags & AT_SYMLINK_FOLLOW) != 0));
  return 0;
}

Result<i64> symlink_at(u64 target, int directory, u64 path) {
  String text = TRY(user_path(target));
  if (text.empty()) return Error(ENOENT);
  At at = TRY(path_at(directory, path));
  TRY(tree().make_symlink(at.base, at.path, text));
  return 0;
}

Result<i64> read_link_at(int directory, u64 path, u64 out, i64 size) {
  if (size <= 0) return Error(EINVAL);
  vfs::Path link = TRY(resolve_at(directory, path, vfs::kNoFollow, EmptyPath::allowed));
  if (!link) return Error(ENOENT);
  String text = TRY(link.inode()->read_link());
  size_t length = std::min<size_t>(text.size(), static_cast<size_t>(size));
  TRY(mem::copy_to_user(out, text.c_str(), length));
  return static_cast<i64>(length);
}

}  // namespace

HUSK_SYSCALL(mkdir, u64 path, u32 mode) { return make_at(AT_FDCWD, path, kDirectoryType, mode & 01777, 0); }
HUSK_SYSCALL(mkdirat, int directory, u64 path, u32 mode) { return make_at(directory, path, kDirectoryType, mode & 01777, 0); }
HUSK_SYSCALL(mknod, u64 path, u32 mode, u32 device) { return make_node_at(AT_FDCWD, path, mode, device); }
HUSK_SYSCALL(mknodat, int directory, u64 path, u32 mode, u32 device) { return make_node_at(directory, path, mode, device); }
HUSK_SYSCALL(rmdir, u64 path) { return remove_at(AT_FDCWD, path, true); }
HUSK_SYSCALL(unlink, u64 path) { return remove_at(AT_FDCWD, path, false); }
HUSK_SYSCALL(unlinkat, int directory, u64 path, u32 flags) {
  TRY(allow_flags(flags, AT_REMOVEDIR));
  return remove_at(directory, path, flags != 0);
}
HUSK_SYSCALL(rename, u64 from, u64 to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
HUSK_SYSCALL(renameat, int from_directory, u64 from, int to_directory, u64 to) { return rename_at(from_directory, from, to_directory, to, 0); }
HUSK_SYSCALL(renameat2, int from_directory, u64 from, int to_directory, u64 to, u32 flags) {
  return rename_at(from_directory, from, to_directory, to, flags);
}
HUSK_SYSCALL(link, u64 from, u64 to) { return link_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
HUSK_SYSCALL(linkat, int from_directory, u64 from, int to_directory, u64 to, u32 flags) {
  return link_at(from_directory, from, to_directory, to, flags);
}
HUSK_SYSCALL(symlink, u64 target, u64 path) { return symlink_at(target, AT_FDCWD, path); }
HUSK_SYSCALL(symlinkat, u64 target, int directory, u64 path) { return symlink_at(target, directory, path); }
HUSK_SYSCALL(readlink, u64 path, u64 out, int size) { return read_link_at(AT_FDCWD, path, out, size); }
HUSK_SYSCALL(readlinkat, int directory, u64 path, u64 out, int size) { return read_link_at(directory, path, out, size); }

// --- reading directories ----------------------------------------------------------------------------------------------------------

namespace {

// struct linux_dirent64 and struct linux_dirent differ in where the type is: behind the length, or in the last byte.
enum class EntryForm : u8 { modern, old };

class EntryWriter final : public vfs::DirectoryVisitor {
 public:
  EntryWriter(u8* buffer, size_t size, EntryForm form) : buffer_(buffer), size_(size), form_(form) {}
  bool visit(const vfs::DirectoryEntry& entry, u64 next_offset) override {
    constexpr size_t kModernHead = 19, kOldHead = 18, kLengthAt = 16;
    bool modern = form_ == EntryForm::modern;
    size_t name_at = modern ? kModernHead : kOldHead;
    size_t length = align_up(name_at + entry.name.size() + (modern ? 1 : 2), 8);
    if (length > size_ - done_) {
      too_small_ = done_ == 0;
      return false;
    }
    u8* out = buffer_ + done_;
    memset(out, 0, length);
    memcpy(out, &entry.inode, sizeof(u64));
    memcpy(out + 8, &next_offset, sizeof(u64));
    u16 length16 = static_cast<u16>(length);
    memcpy(out + kLengthAt, &length16, sizeof(length16));
    out[modern ? kModernHead - 1 : length - 1] = entry.type;
    memcpy(out + name_at, entry.name.data(), entry.name.size());
    done_ += length;
    return true;
  }
  size_t done() const { return done_; }
  bool too_small() const { return too_small_; }

 private:
  u8* buffer_;
  size_t size_;
  EntryForm form_;
  size_t done_ = 0;
  bool too_small_ = false;
};

Result<i64> read_entries(int fd, u64 out, u32 size, EntryForm form) {
  constexpr u32 kBufferMax = 32 * 1024;
  auto file = TRY(readable_file(fd));
  size = std::min(size, kBufferMax);
  std::unique_ptr<u8[]> buffer(new (std::nothrow) u8[size]);
  if (!buffer) return Error(ENOMEM);
  EntryWriter writer(buffer.get(), size, form);
  u64 position = file->position;
  TRY(file->read_directory(writer));
  if (writer.too_small()) return Error(EINVAL);
  if (!mem::copy_to_user(out, buffer.get(), writer.done()).ok()) {
    file->position = position;
    return Error(EFAULT);
  }
  return static_cast<i64>(writer.done());
}

}  // namespace

HUSK_SYSCALL(getdents, int fd, u64 out, u32 size) { return read_entries(fd, out, size, EntryForm::old); }
HUSK_SYSCALL(getdents64, int fd, u64 out, u32 size) { return read_entries(fd, out, size, EntryForm::modern); }

}  // namespace husk::linux
