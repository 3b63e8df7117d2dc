// Path resolution and the operations on names, with Linux's rules and errnos: path_resolution(7), open(2), rename(2).
//
// Called by kernel/linux with the kernel's exclusion. File systems see single names that are not ".", ".." or too long;
// everything about mounts, symbolic links, trailing slashes and remembered entries is decided here.
#include <algorithm>

#include "kernel/vfs/inotify.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr size_t kPathMax = 4096, kNameMax = 255;
constexpr unsigned kLinksMax = 40;
constexpr u32 kRenameNoReplace = 1, kRenameExchange = 2;

bool is_ancestor_or_same(const Entry* ancestor, const Entry* entry) {
  for (; entry != nullptr; entry = entry->parent.get()) {
    if (entry == ancestor) return true;
  }
  return false;
}

Result<Ref<Entry>> make_entry(Ref<Entry> parent, std::string_view name, Ref<Inode> inode) {
  String text = TRY(String::from(name));
  return make_ref<Entry>(std::move(parent), std::move(text), std::move(inode));
}

u64 device_of(const Entry& entry) { return entry.inode->stat().device; }

// What open(2) with O_PATH gives: a place, not a file.
class PathFile final : public File {
 public:
  Result<size_t> read(IoBuffer&, const u64*) override { return Error(EBADF); }
  Result<size_t> write(IoBuffer&, const u64*) override { return Error(EBADF); }
  Result<u64> seek(i64, int) override { return Error(EBADF); }
  Result<i64> ioctl(u32, u64) override { return Error(EBADF); }
  u32 poll_events() override { return kInvalid; }
};

// Stands for an open file in the tree while a path leads through /proc/self/fd/N.
class OpenFileInode final : public Inode {
 public:
  explicit OpenFileInode(Ref<File> file) : file_(std::move(file)) {}
  Stat stat() override {
    Result<Stat> result = file_->stat();
    return result.ok() ? result.release() : Stat{};
  }
  Result<Ref<File>> open(u32 flags) override { return file_->reopen(flags); }
  Result<void> truncate(u64 size) override { return file_->truncate(size); }

 private:
  Ref<File> file_;
};

}  // namespace

struct Tree::Walk {
  Ref<Entry> at;
  std::string_view rest, last;
  bool slash_behind = false;  // behind `last`
  unsigned links = 0;
  String buffer;  // what rest and last point into once a link was followed
};

Result<Owned<Tree>> Tree::create(Ref<Inode> root) {
  Owned<Tree> tree(new (std::nothrow) Tree);
  if (!tree) return Error(ENOMEM);
  tree->cache_ = TRY(EntryCache::create());
  tree->root_ = TRY(make_entry(nullptr, "", std::move(root)));
  return tree;
}

Tree::~Tree() {
  for (Mount& mount : mounts_) mount.at->mounted = nullptr;
}

Result<void> Tree::mount(std::string_view at, Ref<Inode> root, std::string_view type) {
  Path place = TRY(resolve(this->root(), at, kDirectory));
  if (!place.entry->parent) return Error(EBUSY);
  Ref<Entry> top = TRY(make_entry(place.entry->parent, place.entry->name, std::move(root)));
  String type_text = TRY(String::from(type));
  TRY(mounts_.push_back(Mount{place.entry, top, std::move(type_text)}));
  place.entry->mounted = std::move(top);
  return {};
}

// --- walking -------------------------------------------------------------------------------------------------------

Result<Ref<Entry>> Tree::child(const Ref<Entry>& directory, std::string_view name) {
  if (directory->type != kDirectoryType) return Error(ENOTDIR);
  if (name.size() > kNameMax) return Error(ENAMETOOLONG);
  if (Entry* known = cache_->find(directory.get(), name)) return Ref<Entry>::share(known);
  Ref<Inode> inode;
  Result<Ref<Inode>> found = directory->inode->lookup(name);
  if (found.ok()) {
    inode = found.release();
  } else if (found.error().code() != ENOENT) {
    return found.error();
  }
  Ref<Entry> entry = TRY(make_entry(directory, name, std::move(inode)));
  if (directory->inode->cacheable()) cache_->insert(entry.get());
  return entry;
}

Result<void> Tree::start(Walk& walk, const Path& base, std::string_view path) {
  if (path.empty()) return Error(ENOENT);
  if (path.size() >= kPathMax) return Error(ENAMETOOLONG);
  walk.at = path[0] == '/' ? root_ : base.entry;
  if (!walk.at) return Error(ENOENT);
  while (walk.at->mounted) walk.at = walk.at->mounted;
  walk.rest = path;
  return {};
}

// Goes on with the text of a link; true if the link led to an open file, where the walk now is.
Result<bool> Tree::expand_link(Walk& walk, Entry& link, bool slash_behind) {
  if (++walk.links > kLinksMax) return Error(ELOOP);
  if (Ref<File> file = link.inode->linked_file()) {
    if (file->path) {
      walk.at = file->path.entry;
    } else {
      String name = TRY(file->describe());
      Ref<Inode> inode = TRY(make_ref<OpenFileInode>(file));
      walk.at = TRY(make_entry(nullptr, name, std::move(inode)));
    }
    return true;
  }
  String text = TRY(link.inode->read_link());
  if (text.empty()) return Error(ENOENT);
  if (text.view()[0] == '/') walk.at = root_;
  if (slash_behind) TRY(text.append("/"));
  TRY(text.append(walk.rest));
  if (text.size() >= kPathMax) return Error(ENAMETOOLONG);
  walk.buffer = std::move(text);
  walk.rest = walk.buffer;
  return false;
}

// One component; false if it was a link whose text is now in front of the rest.
Result<bool> Tree::step(Walk& walk, std::string_view name, bool follow, bool slash_behind) {
  if (walk.at->type != kDirectoryType) return Error(ENOTDIR);
  if (name == ".") return true;
  if (name == "..") {
    if (walk.at->parent) walk.at = walk.at->parent;
    return true;
  }
  Ref<Entry> entry = TRY(child(walk.at, name));
  while (entry->mounted) entry = entry->mounted;
  if (!entry->inode) return Error(ENOENT);
  if (follow && entry->type == kSymlink) return expand_link(walk, *entry, slash_behind);
  walk.at = std::move(entry);
  return true;
}

// Leaves the last component in walk.last; nothing there means that the walk has arrived ("/", a link to "/").
Result<void> Tree::walk_to_last(Walk& walk) {
  for (;;) {
    walk.rest.remove_prefix(std::min(walk.rest.find_first_not_of('/'), walk.rest.size()));
    size_t end = std::min(walk.rest.find('/'), walk.rest.size());
    std::string_view name = walk.rest.substr(0, end);
    size_t next = std::min(walk.rest.find_first_not_of('/', end), walk.rest.size());
    bool slash_behind = end < walk.rest.size();
    walk.rest.remove_prefix(next);
    if (walk.rest.empty()) {
      walk.last = name;
      walk.slash_behind = slash_behind;
      return {};
    }
    TRY(step(walk, name, true, true));
  }
}

Result<void> Tree::finish(Walk& walk, u32 resolve_flags) {
  for (;;) {
    TRY(walk_to_last(walk));
    if (walk.last.empty()) break;
    bool follow = (resolve_flags & kNoFollow) == 0 || walk.slash_behind;
    if (TRY(step(walk, walk.last, follow, walk.slash_behind))) break;
  }
  bool must_be_directory = walk.slash_behind || (resolve_flags & kDirectory) != 0;
  if (must_be_directory && walk.at->type != kDirectoryType) return Error(ENOTDIR);
  return {};
}

Result<Path> Tree::resolve(const Path& base, std::string_view path, u32 resolve_flags) {
  Walk walk;
  TRY(start(walk, base, path));
  TRY(finish(walk, resolve_flags));
  return Path{std::move(walk.at)};
}

Result<Tree::Parent> Tree::resolve_parent(const Path& base, std::string_view path) {
  Walk walk;
  TRY(start(walk, base, path));
  TRY(walk_to_last(walk));
  if (walk.at->type != kDirectoryType) return Error(ENOTDIR);
  String name = TRY(String::from(walk.last.empty() ? "/" : walk.last));
  return Parent{Path{std::move(walk.at)}, std::move(name), walk.slash_behind};
}

// --- opening -------------------------------------------------------------------------------------------------------

Result<Ref<File>> Tree::open(const Path& base, std::string_view path, u32 flags, u32 mode) {
  Walk walk;
  TRY(start(walk, base, path));
  if ((flags & kOpenPath) != 0) {
    flags &= kOpenPath | kOpenDirectory | kOpenNoFollow;
  } else if ((flags & kOpenTemporary) == kOpenTemporary) {
    return open_unnamed(walk, flags, mode);
  } else if ((flags & kOpenCreate) != 0) {
    if ((flags & kOpenDirectory) != 0) return Error(EINVAL);
    return open_creating(walk, flags, mode);
  }
  u32 resolve_flags = (flags & kOpenNoFollow) != 0 ? kNoFollow : kFollow;
  if ((flags & kOpenDirectory) != 0 && (flags & kOpenNoFollow) == 0) resolve_flags |= kDirectory;
  TRY(finish(walk, resolve_flags));
  return open_path(Path{std::move(walk.at)}, flags);
}

Result<Ref<File>> Tree::open_creating(Walk& walk, u32 flags, u32 mode) {
  for (;;) {
    TRY(walk_to_last(walk));
    if (walk.at->type != kDirectoryType) return Error(ENOTDIR);
    bool is_there = walk.last.empty() || walk.last == "." || walk.last == "..";
    if (is_there) return Error((flags & kOpenExclusive) != 0 ? EEXIST : EISDIR);
    if (walk.slash_behind) return Error(EISDIR);
    Ref<Entry> entry = TRY(child(walk.at, walk.last));
    while (entry->mounted) entry = entry->mounted;
    if (!entry->inode) {
      Place place{walk.at, entry, false};
      appeared(place, TRY(walk.at->inode->create(walk.last, kRegular | (mode & 07777), 0)));
      return open_path(Path{std::move(entry)}, flags & ~kOpenTruncate);
    }
    if ((flags & kOpenExclusive) != 0) return Error(EEXIST);
    if (entry->type != kSymlink || (flags & kOpenNoFollow) != 0) return open_path(Path{std::move(entry)}, flags);
    if (TRY(expand_link(walk, *entry, false))) return open_path(Path{std::move(walk.at)}, flags);
  }
}

Result<Ref<File>> Tree::open_unnamed(Walk& walk, u32 flags, u32 mode) {
  if ((flags & kOpenAccess) == 0) return Error(EINVAL);
  TRY(finish(walk, kDirectory));
  Ref<Inode> inode = TRY(walk.at->inode->create_unnamed(kRegular | (mode & 07777)));
  Ref<Entry> entry = TRY(make_entry(walk.at, "#unnamed", std::move(inode)));
  entry->deleted = true;
  return open_path(Path{std::move(entry)}, flags & ~(kOpenTemporary | kOpenTruncate));
}

Result<Ref<File>> Tree::open_path(const Path& path, u32 flags) {
  const Ref<Entry>& entry = path.entry;
  const bool directory = entry->type == kDirectoryType, truncates = (flags & kOpenTruncate) != 0 && entry->type == kRegular;
  if ((flags & kOpenDirectory) != 0 && !directory) return Error(ENOTDIR);
  Ref<File> file;
  if ((flags & kOpenPath) != 0) {
    file = TRY(make_ref<PathFile>());
  } else {
    if (entry->type == kSymlink) return Error(ELOOP);
    if (directory && (flags & (kOpenAccess | kOpenCreate | kOpenTruncate)) != 0) return Error(EISDIR);
    u32 kept = flags & ~(kOpenCreate | kOpenExclusive | kOpenNoTerminal | kOpenTruncate | kOpenCloseOnExec);
    if (truncates) TRY(path.inode()->truncate(0));
    file = TRY(path.inode()->open(kept));
    flags = kept;
  }
  if (entry->parent || entry == root_) file->path = path;
  if (file->kind == File::Kind::other && (directory || entry->type == kRegular)) file->kind = File::Kind::inode;
  file->flags = flags;
  if ((flags & kOpenPath) == 0) file_event(*file, kInOpen);
  if (truncates) file_event(*file, kInModify);
  return file;
}

// --- making and removing names -------------------------------------------------------------------------------------

// The directory in which a name is to be made or removed, not yet the name.
Result<void> Tree::walk_to_parent(Walk& walk, const Path& base, std::string_view path) {
  TRY(start(walk, base, path));
  TRY(walk_to_last(walk));
  if (walk.at->type != kDirectoryType) return Error(ENOTDIR);
  return {};
}

Result<Tree::Place> Tree::place(Walk& walk, int dot_error, int dot_dot_error, int root_error) {
  if (walk.last.empty()) return Error(root_error);
  if (walk.last == ".") return Error(dot_error);
  if (walk.last == "..") return Error(dot_dot_error);
  Ref<Entry> entry = TRY(child(walk.at, walk.last));
  return Place{walk.at, std::move(entry), walk.slash_behind};
}

Result<Tree::Place> Tree::place_for_new(const Path& base, std::string_view path, bool directory) {
  Walk walk;
  TRY(walk_to_parent(walk, base, path));
  Place result = TRY(place(walk, EEXIST, EEXIST, EEXIST));
  if (result.entry->inode) return Error(EEXIST);
  if (result.trailing_slash && !directory) return Error(ENOENT);
  return result;
}

void Tree::appeared(const Place& place, Ref<Inode> inode) {
  place.entry->type = inode->stat().mode & kTypeMask;
  place.entry->inode = std::move(inode);
  tell_inotify_name(*place.directory, *place.entry, kInCreate, 0);
}

void Tree::disappeared(Entry& entry) {
  tell_inotify(entry, entry.type == kDirectoryType ? u32{kInDeleteSelf} : u32{kInAttributes});  // of a file the count of links
  tell_inotify_name(*entry.parent, entry, kInDelete, 0);
  tell_inotify(entry, kInDeleteSelf);
  entry.deleted = true;
  cache_->remove(&entry);
}

Result<Ref<Inode>> Tree::make_node(const Path& base, std::string_view path, u32 mode, u64 device) {
  if ((mode & kTypeMask) == 0) mode |= kRegular;
  Place at = TRY(place_for_new(base, path, (mode & kTypeMask) == kDirectoryType));
  Ref<Inode> inode = TRY(at.directory->inode->create(at.entry->name, mode, device));
  appeared(at, inode);
  return inode;
}

Result<void> Tree::make_symlink(const Path& base, std::string_view path, std::string_view target) {
  if (target.empty()) return Error(ENOENT);
  if (target.size() >= kPathMax) return Error(ENAMETOOLONG);
  Place at = TRY(place_for_new(base, path, false));
  appeared(at, TRY(at.directory->inode->create_symlink(at.entry->name, target)));
  return {};
}

Result<void> Tree::link(const Path& base, std::string_view from, const Path& new_base, std::string_view to, bool follow) {
  Path target = TRY(resolve(base, from, follow ? kFollow : kNoFollow));
  return link_inode(*target.inode(), new_base, to);
}

Result<void> Tree::link_inode(Inode& inode, const Path& new_base, std::string_view to) {
  Place at = TRY(place_for_new(new_base, to, false));
  if (inode.stat().device != device_of(*at.directory)) return Error(EXDEV);
  if (inode.is_directory()) return Error(EPERM);
  TRY(at.directory->inode->link(at.entry->name, inode));
  appeared(at, Ref<Inode>::share(&inode));
  return {};
}

Result<void> Tree::unlink(const Path& base, std::string_view path, bool directory) {
  Walk walk;
  TRY(walk_to_parent(walk, base, path));
  Place at = TRY(directory ? place(walk, EINVAL, ENOTEMPTY, EBUSY) : place(walk, EISDIR, EISDIR, EISDIR));
  if (!at.entry->inode) return Error(ENOENT);
  bool is_directory = at.entry->type == kDirectoryType;
  if (!directory && is_directory) return Error(EISDIR);
  if (!is_directory && (directory || at.trailing_slash)) return Error(ENOTDIR);
  if (at.entry->mounted) return Error(EBUSY);
  TRY(at.directory->inode->unlink(at.entry->name, directory));
  disappeared(*at.entry);
  return {};
}

Result<void> Tree::rename(const Path& base, std::string_view from, const Path& new_base, std::string_view to, u32 flags) {
  bool exchange = (flags & kRenameExchange) != 0, no_replace = (flags & kRenameNoReplace) != 0;
  if ((flags & ~(kRenameNoReplace | kRenameExchange)) != 0 || (exchange && no_replace)) return Error(EINVAL);
  // Both directories first, then the mounts, then the names: Linux's order of errors.
  Walk from_walk, to_walk;
  TRY(walk_to_parent(from_walk, base, from));
  TRY(walk_to_parent(to_walk, new_base, to));
  if (device_of(*from_walk.at) != device_of(*to_walk.at)) return Error(EXDEV);
  Place source = TRY(place(from_walk, EBUSY, EBUSY, EBUSY));
  int dot_error = no_replace ? EEXIST : EBUSY;
  if (to_walk.last.empty() || to_walk.last == "." || to_walk.last == "..") return Error(dot_error);
  if (!source.entry->inode) return Error(ENOENT);
  Place target = TRY(place(to_walk, dot_error, dot_error, dot_error));
  Entry &moved = *source.entry, &replaced = *target.entry;
  if (no_replace && replaced.inode) return Error(EEXIST);
  if (exchange && !replaced.inode) return Error(ENOENT);
  bool directory = moved.type == kDirectoryType, onto_directory = replaced.type == kDirectoryType;
  if (!directory && (source.trailing_slash || (!exchange && target.trailing_slash))) return Error(ENOTDIR);
  if (exchange && !onto_directory && target.trailing_slash) return Error(ENOTDIR);
  if (is_ancestor_or_same(&moved, target.directory.get())) return Error(EINVAL);
  if (is_ancestor_or_same(&replaced, source.directory.get())) return Error(exchange ? EINVAL : ENOTEMPTY);
  if (replaced.inode == moved.inode) return {};
  if (replaced.inode && !exchange && directory != onto_directory) return Error(directory ? ENOTDIR : EISDIR);
  if (moved.mounted || replaced.mounted) return Error(EBUSY);
  String new_name = TRY(String::from(replaced.name));
  TRY(source.directory->inode->rename(moved.name, *target.directory->inode, replaced.name, flags));
  const u32 cookie = next_inotify_cookie();
  tell_inotify_name(*source.directory, moved, kInMovedFrom, cookie);
  cache_->remove(&moved);
  cache_->remove(&replaced);
  if (exchange) {
    replaced.name = std::move(moved.name);
    replaced.parent = source.directory;
    cache_->insert(&replaced);
  } else {
    replaced.deleted = true;
  }
  moved.name = std::move(new_name);
  moved.parent = target.directory;
  cache_->insert(&moved);
  tell_inotify_name(*target.directory, moved, kInMovedTo, cookie);
  if (exchange) {  // two moves
    tell_inotify_name(*target.directory, replaced, kInMovedFrom, cookie);
    tell_inotify_name(*source.directory, replaced, kInMovedTo, cookie);
    tell_inotify(replaced, kInMoveSelf);
  } else if (replaced.inode) {
    if (!onto_directory) tell_inotify(replaced, kInAttributes);
    tell_inotify(replaced, kInDeleteSelf);
  }
  tell_inotify(moved, kInMoveSelf);
  return {};
}

}  // namespace husk::vfs
