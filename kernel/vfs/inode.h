// Inodes, paths and mounts: names to files. kernel/fs/ implements Inode for EROFS, tmpfs, overlay, /dev, /proc, /sys.
//
// Permission checks are those of one user (root in its own machine): modes are stored and shown, and only "execute" matters.
#pragma once

#include <string_view>

#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"
#include "kernel/mem/address_space.h"

namespace husk::vfs {

class File;
class FileSystem;

struct Time {
  i64 seconds = 0;
  u32 nanoseconds = 0;
};

struct Stat {
  u64 device = 0, inode = 0, size = 0, blocks = 0, special_device = 0;
  u32 mode = 0, links = 1, uid = 0, gid = 0, block_size = 4096;
  Time accessed, modified, changed;
};

struct FileSystemStat {
  u64 magic = 0, block_size = 4096, blocks = 0, free_blocks = 0, files = 0, free_files = 0, name_length = 255, flags = 0;
};

struct Attributes {  // set_attributes: what is present changes
  const u32* mode = nullptr;
  const u32* uid = nullptr;
  const u32* gid = nullptr;
  const Time* accessed = nullptr;
  const Time* modified = nullptr;
};

class Inode : public RefCounted<Inode> {
 public:
  virtual ~Inode() = default;
  virtual Stat stat() = 0;
  virtual Result<FileSystemStat> file_system_stat();
  // Directories. Default: ENOTDIR, or EROFS for changes.
  virtual Result<Ref<Inode>> lookup(std::string_view name);  // ENOENT
  virtual Result<Ref<Inode>> create(std::string_view name, u32 mode, u64 special_device);  // S_IFREG, S_IFDIR, S_IFIFO, S_IFCHR, S_IFSOCK; EEXIST
  virtual Result<Ref<Inode>> create_symlink(std::string_view name, std::string_view target);
  virtual Result<void> link(std::string_view name, Inode& target);
  virtual Result<void> unlink(std::string_view name, bool directory);
  virtual Result<void> rename(std::string_view name, Inode& new_directory, std::string_view new_name, u32 flags);
  // Symbolic links.
  virtual Result<String> read_link();  // EINVAL
  virtual Result<void> set_attributes(const Attributes& attributes);
  // A fresh open file description. `flags` are O_*; O_TRUNC has been handled by the caller through truncate().
  virtual Result<Ref<File>> open(u32 flags) = 0;
  virtual Result<void> truncate(u64 size);
  bool is_directory() { return (stat().mode & 0170000) == 0040000; }
  bool is_symlink() { return (stat().mode & 0170000) == 0120000; }
};

// A place in the tree: a directory entry that was looked up. Paths share their parents.
class Entry;  // name, parent, inode, what is mounted on it
struct Path {
  Ref<Entry> entry;
  explicit operator bool() const { return static_cast<bool>(entry); }
  Inode* inode() const;  // after mounts
};
class Entry : public RefCounted<Entry> {
 public:
  Entry(Ref<Entry> parent_entry, String entry_name, Ref<Inode> entry_inode)
      : parent(std::move(parent_entry)), name(std::move(entry_name)), inode(std::move(entry_inode)) {}
  Ref<Entry> parent;  // null for the root of the tree
  String name;
  Ref<Inode> inode;
};

enum ResolveFlags : u32 { kFollow = 0, kNoFollow = 1, kDirectory = 2 };

// The tree of one machine. linux/ keeps a root and a working directory per process and passes them in.
class Tree {
 public:
  static Result<Owned<Tree>> create(Ref<Inode> root);
  Path root() const;
  Result<void> mount(std::string_view at, Ref<Inode> root, std::string_view type);
  Result<Path> resolve(const Path& base, std::string_view path, u32 resolve_flags);
  // The directory and the last component, which need not exist. EEXIST etc. is the caller's matter.
  struct Parent {
    Path directory;
    String name;  // "." and "/" give EISDIR/EBUSY at the operations
    bool trailing_slash;
  };
  Result<Parent> resolve_parent(const Path& base, std::string_view path);
  Result<Ref<File>> open(const Path& base, std::string_view path, u32 flags, u32 mode);  // openat(2)
  Result<Ref<Inode>> make_node(const Path& base, std::string_view path, u32 mode, u64 device);  // mknod, mkdir
  Result<void> make_symlink(const Path& base, std::string_view path, std::string_view target);
  Result<void> link(const Path& base, std::string_view from, const Path& new_base, std::string_view to, bool follow);
  Result<void> unlink(const Path& base, std::string_view path, bool directory);
  Result<void> rename(const Path& base, std::string_view from, const Path& new_base, std::string_view to, u32 flags);
  Result<String> path_of(const Path& path) const;  // absolute; " (deleted)" is the caller's
  struct Mount {
    Ref<Entry> at;
    Ref<Entry> root;
    String type;
  };
  const Vec<Mount>& mounts() const { return mounts_; }

 private:
  Tree() = default;
  Ref<Entry> root_;
  Vec<Mount> mounts_;
};

}  // namespace husk::vfs
