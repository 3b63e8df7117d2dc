// Inodes, paths and mounts: names to files. kernel/fs/ implements Inode for EROFS, tmpfs, overlay, /dev, /proc, /sys.
//
// Permission checks are those of one user (root in its own machine): modes are stored and shown, and only "execute" matters.
#pragma once

#include <string_view>

#include "base/list.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"
#include "kernel/mem/address_space.h"

namespace husk::vfs {

class File;

// Types of inodes: st_mode & kTypeMask.
enum FileType : u32 {
  kTypeMask = 0170000,
  kFifo = 0010000,
  kCharacterDevice = 0020000,
  kDirectoryType = 0040000,
  kBlockDevice = 0060000,
  kRegular = 0100000,
  kSymlink = 0120000,
  kSocketType = 0140000,
};
constexpr u8 directory_entry_type(u32 mode) { return static_cast<u8>((mode & kTypeMask) >> 12); }  // DT_*
u64 make_device(u32 major, u32 minor);                                                             // as Linux shows it in st_dev and st_rdev
u64 new_anonymous_device();                                                                        // major 0: one for each file system

struct Time {
  i64 seconds = 0;
  u32 nanoseconds = 0;
};

Time current_time();

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
  virtual Result<Ref<Inode>> lookup(std::string_view name);                                // ENOENT
  virtual Result<Ref<Inode>> create(std::string_view name, u32 mode, u64 special_device);  // S_IFREG, S_IFDIR, S_IFIFO, S_IFCHR, S_IFSOCK; EEXIST
  virtual Result<Ref<Inode>> create_symlink(std::string_view name, std::string_view target);
  virtual Result<void> link(std::string_view name, Inode& target);
  virtual Result<void> unlink(std::string_view name, bool directory);
  virtual Result<void> rename(std::string_view name, Inode& new_directory, std::string_view new_name, u32 flags);
  // A file without a name in this directory's file system (O_TMPFILE); link() may name it later. EOPNOTSUPP
  virtual Result<Ref<Inode>> create_unnamed(u32 mode);
  // May the tree remember what lookup() gave? No for directories whose entries come and go by themselves.
  virtual bool cacheable() const { return true; }
  // Symbolic links.
  virtual Result<String> read_link();  // EINVAL
  // Set: following the link leads to this open file, not to a path (/proc/self/fd/N).
  virtual Ref<File> linked_file();
  virtual Result<void> set_attributes(const Attributes& attributes);
  // A fresh open file description. `flags` are O_*; O_TRUNC has been handled by the caller through truncate().
  virtual Result<Ref<File>> open(u32 flags) = 0;
  virtual Result<void> truncate(u64 size);
  // What is mapped of a regular file; `name` is for /proc/self/maps. ENODEV
  virtual Result<Ref<mem::MemoryObject>> memory_object(std::string_view name);
  bool is_directory() { return (stat().mode & 0170000) == 0040000; }
  bool is_symlink() { return (stat().mode & 0170000) == 0120000; }
};

// A place in the tree: a directory entry that was looked up. Paths share their parents. An entry without an inode is
// remembered as missing; the tree never hands one out. Renaming moves entries, so an open file knows its present name.
class Entry;
struct Path {
  Ref<Entry> entry;
  explicit operator bool() const { return static_cast<bool>(entry); }
  Inode* inode() const;  // after mounts
};
struct EntryNameTag;
struct EntryAgeTag;
class Entry : public RefCounted<Entry>, public ListNode<EntryNameTag>, public ListNode<EntryAgeTag> {
 public:
  Entry(Ref<Entry> parent_entry, String entry_name, Ref<Inode> entry_inode);
  ~Entry();
  Ref<Entry> parent;  // null for the root of the tree; for the root of a mount, the parent of the place where it is mounted
  String name;
  Ref<Inode> inode;
  Ref<Entry> mounted;    // the root of what is mounted here
  u32 type = 0;          // of the inode; it never changes
  bool deleted = false;  // unlinked, or replaced by a rename
};

enum ResolveFlags : u32 { kFollow = 0, kNoFollow = 1, kDirectory = 2 };

// Remembered entries: found by parent and name while anybody holds them; the last kEntriesKept used ones are held here.
class EntryCache {
 public:
  static Result<Owned<EntryCache>> create();
  ~EntryCache();
  Entry* find(const Entry* parent, std::string_view name);
  void insert(Entry* entry);
  void remove(Entry* entry);  // forgets it; who holds it keeps it
 private:
  static constexpr size_t kBuckets = 1024, kEntriesKept = 4096;
  List<Entry, EntryNameTag>& bucket(const Entry* parent, std::string_view name);
  void keep(Entry* entry);
  List<Entry, EntryNameTag> buckets_[kBuckets];
  List<Entry, EntryAgeTag> kept_;  // oldest first; each holds a reference
  size_t kept_count_ = 0;
};

// The absolute path of a place. " (deleted)" is the caller's.
Result<String> path_text(const Path& path);

// The tree of one machine. linux/ keeps a working directory per process and passes it in as `base`.
class Tree {
 public:
  static Result<Owned<Tree>> create(Ref<Inode> root);
  ~Tree();
  Path root() const { return Path{root_}; }
  Result<void> mount(std::string_view at, Ref<Inode> root, std::string_view type);
  Result<Path> resolve(const Path& base, std::string_view path, u32 resolve_flags);
  // The directory and the last component, which need not exist. EEXIST etc. is the caller's matter.
  struct Parent {
    Path directory;
    String name;  // ".", ".." and "/" are given as they are
    bool trailing_slash = false;
  };
  Result<Parent> resolve_parent(const Path& base, std::string_view path);
  Result<Ref<File>> open(const Path& base, std::string_view path, u32 flags, u32 mode);         // openat(2)
  Result<Ref<File>> open_path(const Path& path, u32 flags);                                     // what is there already, anew
  Result<Ref<Inode>> make_node(const Path& base, std::string_view path, u32 mode, u64 device);  // mknod, mkdir
  Result<void> make_symlink(const Path& base, std::string_view path, std::string_view target);
  Result<void> link(const Path& base, std::string_view from, const Path& new_base, std::string_view to, bool follow);
  Result<void> link_inode(Inode& inode, const Path& new_base, std::string_view to);  // linkat(2) with AT_EMPTY_PATH
  Result<void> unlink(const Path& base, std::string_view path, bool directory);
  Result<void> rename(const Path& base, std::string_view from, const Path& new_base, std::string_view to, u32 flags);
  Result<String> path_of(const Path& path) const { return path_text(path); }
  struct Mount {
    Ref<Entry> at;
    Ref<Entry> root;
    String type;
  };
  const Vec<Mount>& mounts() const { return mounts_; }

 private:
  struct Walk;
  Tree() = default;
  Result<void> start(Walk& walk, const Path& base, std::string_view path);
  Result<void> walk_to_last(Walk& walk);
  Result<void> finish(Walk& walk, u32 resolve_flags);
  Result<bool> step(Walk& walk, std::string_view name, bool follow, bool slash_behind);
  Result<bool> expand_link(Walk& walk, Entry& link, bool slash_behind);
  Result<Ref<Entry>> child(const Ref<Entry>& directory, std::string_view name);
  // For operations that make or remove a name: its directory is real, the name is ordinary.
  struct Place {
    Ref<Entry> directory;
    Ref<Entry> entry;  // without an inode if there is nothing
    bool trailing_slash = false;
  };
  Result<void> walk_to_parent(Walk& walk, const Path& base, std::string_view path);
  Result<Place> place(Walk& walk, int dot_error, int dot_dot_error, int root_error);
  Result<Place> place_for_new(const Path& base, std::string_view path, bool directory);
  void appeared(const Place& place, Ref<Inode> inode);
  void disappeared(Entry& entry);
  Result<Ref<File>> open_creating(Walk& walk, u32 flags, u32 mode);
  Result<Ref<File>> open_unnamed(Walk& walk, u32 flags, u32 mode);
  Ref<Entry> root_;
  Vec<Mount> mounts_;
  Owned<EntryCache> cache_;
};

}  // namespace husk::vfs
