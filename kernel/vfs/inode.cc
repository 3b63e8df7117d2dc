// What an inode does that its file system does not define, and entries of the tree.
#include "kernel/vfs/inode.h"

#include "kernel/time/time.h"
#include "kernel/vfs/file.h"

namespace husk::vfs {

u64 make_device(u32 major, u32 minor) {
  return (minor & 0xff) | (u64{major & 0xfff} << 8) | (u64{minor & ~0xffu} << 12) | (u64{major & ~0xfffu} << 32);
}

u64 new_anonymous_device() {
  static constinit u32 next = 8;
  return make_device(0, next++);
}

Time current_time() {
  u64 now = time::realtime_ns();
  return {static_cast<i64>(now / time::kNsPerSecond), static_cast<u32>(now % time::kNsPerSecond)};
}

Result<FileSystemStat> Inode::file_system_stat() { return Error(ENOSYS); }
Result<Ref<Inode>> Inode::lookup(std::string_view) { return Error(is_directory() ? ENOENT : ENOTDIR); }
Result<Ref<Inode>> Inode::create(std::string_view, u32, u64) { return Error(is_directory() ? EROFS : ENOTDIR); }
Result<Ref<Inode>> Inode::create_symlink(std::string_view, std::string_view) { return Error(is_directory() ? EROFS : ENOTDIR); }
Result<void> Inode::link(std::string_view, Inode&) { return Error(is_directory() ? EROFS : ENOTDIR); }
Result<void> Inode::unlink(std::string_view, bool) { return Error(is_directory() ? EROFS : ENOTDIR); }
Result<void> Inode::rename(std::string_view, Inode&, std::string_view, u32) { return Error(is_directory() ? EROFS : ENOTDIR); }
Result<Ref<Inode>> Inode::create_unnamed(u32) { return Error(is_directory() ? EOPNOTSUPP : ENOTDIR); }
Result<String> Inode::read_link() { return Error(EINVAL); }
Ref<File> Inode::linked_file() { return nullptr; }
Result<void> Inode::set_attributes(const Attributes&) { return Error(EROFS); }
Result<Ref<mem::MemoryObject>> Inode::memory_object(std::string_view) { return Error(ENODEV); }
Result<void> Inode::truncate(u64) { return Error(is_directory() ? EISDIR : EINVAL); }

Inode* Path::inode() const {
  const Entry* at = entry.get();
  if (at == nullptr) return nullptr;
  while (at->mounted) at = at->mounted.get();
  return at->inode.get();
}

Entry::Entry(Ref<Entry> parent_entry, String entry_name, Ref<Inode> entry_inode)
    : parent(std::move(parent_entry)), name(std::move(entry_name)), inode(std::move(entry_inode)) {
  if (inode) type = inode->stat().mode & kTypeMask;
}

// A deep path is let go step by step: kernel stacks are too small to recurse over it.
Entry::~Entry() {
  ListNode<EntryNameTag>::unlink();
  Ref<Entry> up = std::move(parent);
  while (up && up->ref_count() == 1) {
    Ref<Entry> next = std::move(up->parent);
    up = std::move(next);
  }
}

Result<String> path_text(const Path& path) {
  if (!path) return Error(ENOENT);
  Vec<const Entry*> chain;
  for (const Entry* at = path.entry.get(); at->parent; at = at->parent.get()) TRY(chain.push_back(at));
  String text;
  for (size_t i = chain.size(); i-- > 0;) {
    TRY(text.append("/"));
    TRY(text.append(chain[i]->name));
  }
  if (text.empty()) TRY(text.append("/"));
  return text;
}

// --- EntryCache ----------------------------------------------------------------------------------------------------

Result<Owned<EntryCache>> EntryCache::create() { return make_owned<EntryCache>(); }

EntryCache::~EntryCache() {
  while (Entry* entry = kept_.pop_front()) {
    entry->ListNode<EntryNameTag>::unlink();
    entry->unref();
  }
  for (auto& list : buckets_) {
    while (list.pop_front() != nullptr) {}
  }
}

List<Entry, EntryNameTag>& EntryCache::bucket(const Entry* parent, std::string_view name) {
  u64 hash = reinterpret_cast<u64>(parent) >> 4;
  for (char c : name) hash = (hash ^ static_cast<u8>(c)) * 0x100000001b3;  // FNV-1a
  return buckets_[(hash ^ hash >> 29) % kBuckets];
}

void EntryCache::keep(Entry* entry) {
  if (entry->ListNode<EntryAgeTag>::is_linked()) {
    entry->ListNode<EntryAgeTag>::unlink();
  } else {
    entry->ref();
    ++kept_count_;
  }
  kept_.push_back(entry);
  if (kept_count_ <= kEntriesKept) return;
  --kept_count_;
  kept_.pop_front()->unref();
}

Entry* EntryCache::find(const Entry* parent, std::string_view name) {
  for (Entry& entry : bucket(parent, name)) {
    if (entry.parent.get() != parent || entry.name.view() != name) continue;
    keep(&entry);
    return &entry;
  }
  return nullptr;
}

void EntryCache::insert(Entry* entry) {
  bucket(entry->parent.get(), entry->name).push_front(entry);
  keep(entry);
}

void EntryCache::remove(Entry* entry) {
  entry->ListNode<EntryNameTag>::unlink();
  if (!entry->ListNode<EntryAgeTag>::is_linked()) return;
  entry->ListNode<EntryAgeTag>::unlink();
  --kept_count_;
  entry->unref();
}

}  // namespace husk::vfs
