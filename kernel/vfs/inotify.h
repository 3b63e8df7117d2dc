// inotify(7): files that tell what happens to others. What changes or uses a file says so by the functions below, which cost one load while nobody watches.
//
// A watch holds a place in the tree, not an inode as on Linux: what happens through another name of the same file (a hard link) is not seen, and
// IN_DELETE_SELF comes with the removal of the name, even if the file is still open.
#pragma once

#include "kernel/vfs/file.h"

namespace husk::vfs {

enum InotifyEvents : u32 {  // IN_*
  kInAccess = 0x1,
  kInModify = 0x2,
  kInAttributes = 0x4,
  kInCloseWrite = 0x8,
  kInCloseNoWrite = 0x10,
  kInOpen = 0x20,
  kInMovedFrom = 0x40,
  kInMovedTo = 0x80,
  kInCreate = 0x100,
  kInDelete = 0x200,
  kInDeleteSelf = 0x400,
  kInMoveSelf = 0x800,
  kInEvents = 0xfff,  // all of the above
  kInQueueOverflow = 0x4000,
  kInIgnored = 0x8000,
  kInOnlyDirectory = 0x0100'0000,
  kInDoNotFollow = 0x0200'0000,
  kInExcludeUnlinked = 0x0400'0000,
  kInMaskCreate = 0x1000'0000,
  kInMaskAdd = 0x2000'0000,
  kInIsDirectory = 0x4000'0000,
  kInOneShot = 0x8000'0000,
};

Result<Ref<File>> make_inotify(u32 flags);
// Gives the watch's descriptor; of a place that is watched already the same. EEXIST (kInMaskCreate), ENOSPC, ENOMEM
Result<int> inotify_add(File& inotify, const Path& path, u32 mask);
Result<void> inotify_remove(File& inotify, int descriptor);  // EINVAL

// --- what happens ---------------------------------------------------------------------------------------------------
class InotifyFile;
extern constinit InotifyFile* inotify_files;  // null: nobody listens
void tell_inotify(const Entry& entry, u32 events);
void tell_inotify_name(const Entry& directory, const Entry& entry, u32 events, u32 cookie);
u32 next_inotify_cookie();

// To whoever watches the file, or its directory: opened, closed, read, written, changed.
inline void file_event(const Entry& entry, u32 events) {
  if (inotify_files == nullptr) return;
  if (entry.parent && !entry.deleted) tell_inotify_name(*entry.parent, entry, events, 0);
  tell_inotify(entry, events);
}
inline void file_event(const File& file, u32 events) {
  if (inotify_files != nullptr && file.path) file_event(*file.path.entry, events);
}

}  // namespace husk::vfs
