// The file systems, as makers of root inodes. boot/main.cc mounts them.
#pragma once

#include <span>

#include "base/ref.h"
#include "base/result.h"
#include "kernel/vfs/file.h"
#include "kernel/vfs/inode.h"

namespace husk::fs {

// EROFS (uncompressed), in memory at `image` (mapped read-only, physical start `physical`): file pages are mapped from it.
Result<Ref<vfs::Inode>> make_erofs(std::span<const u8> image, PhysAddr physical);
Result<Ref<vfs::Inode>> make_tmpfs(u64 size_limit_bytes, u32 root_mode);
// `upper` (tmpfs) over read-only `lower`: copy up on first change.
Result<Ref<vfs::Inode>> make_overlay(Ref<vfs::Inode> lower, Ref<vfs::Inode> upper);

// /dev: null zero full random urandom tty fd stdin stdout stderr shm/ pts/. `console` opens the machine's terminal or streams.
Result<Ref<vfs::Inode>> make_devfs(Ref<vfs::File> standard_input, Ref<vfs::File> standard_output, Ref<vfs::File> standard_error);

// A directory whose files are text made when opened: /proc and /sys. Providers live where the knowledge is (linux/, mem/).
class TextProvider {
 public:
  virtual Result<void> write_text(String& out) = 0;

 protected:
  ~TextProvider() = default;
};
class SyntheticDirectory;
Result<Ref<SyntheticDirectory>> make_synthetic_directory();
Ref<vfs::Inode> as_inode(const Ref<SyntheticDirectory>& directory);
Result<Ref<SyntheticDirectory>> add_directory(SyntheticDirectory& parent, std::string_view name);
using TextFunction = Result<void> (*)(void* context, String& out);
Result<void> add_text(SyntheticDirectory& parent, std::string_view name, TextFunction function, void* context);
Result<void> add_writable_text(SyntheticDirectory& parent, std::string_view name, TextFunction function,
                               void* context);  // writes are accepted and ignored
Result<void> add_symlink(SyntheticDirectory& parent, std::string_view name, TextFunction target, void* context);
// A directory with computed entries (/proc/self/fd, /proc/self/task).
class DynamicDirectory {
 public:
  virtual Result<Ref<vfs::Inode>> lookup(std::string_view name) = 0;
  virtual Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) = 0;

 protected:
  ~DynamicDirectory() = default;
};
Result<void> add_dynamic(SyntheticDirectory& parent, std::string_view name, DynamicDirectory& directory);
// Anything else; and what a directory has besides its fixed names (/proc/<pid>). Positions in list() start at 0 and are its own.
Result<void> add_inode(SyntheticDirectory& parent, std::string_view name, Ref<vfs::Inode> inode);
void set_rest(SyntheticDirectory& parent, DynamicDirectory& rest);
// Inodes for dynamic directories.
Result<Ref<vfs::Inode>> make_dynamic_inode(DynamicDirectory& directory);
Result<Ref<vfs::Inode>> make_text_inode(TextFunction function, void* context);
Result<Ref<vfs::Inode>> make_symlink_inode(std::string_view target);
// A symlink whose following leads to an open file (/proc/self/fd/N): open() gives that file's inode opened anew, or the file itself.
Result<Ref<vfs::Inode>> make_file_link_inode(Ref<vfs::File> file);

}  // namespace husk::fs
