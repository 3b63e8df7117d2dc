// See kernel/vfs/inotify.h.
#include "kernel/vfs/inotify.h"

#include <algorithm>

#include "kernel/mem/user_copy.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr size_t kQueueMax = 16384, kWatchesMax = 65536;  // fs.inotify.max_queued_events, max_user_watches

struct EventHeader {  // struct inotify_event, without its name
  int descriptor;
  u32 mask, cookie, name_size;
};

struct Event : ListNode<> {
  EventHeader header{};
  String name;
  bool is_like(const Event& other) const {
    return header.descriptor == other.header.descriptor && header.mask == other.header.mask && header.cookie == other.header.cookie &&
           name.view() == other.name.view();
  }
  size_t size() const { return sizeof(header) + header.name_size; }
};

struct Watch {
  Ref<Entry> entry;
  int descriptor;
  u32 mask;
};

}  // namespace

constinit InotifyFile* inotify_files = nullptr;

class InotifyFile final : public File {
 public:
  explicit InotifyFile(u32 file_flags) : stat_(anonymous_stat(0600)), next(inotify_files) {
    kind = Kind::inotify;
    flags = file_flags & kOpenNonBlocking;
    inotify_files = this;
  }
  ~InotifyFile() override {
    InotifyFile** at = &inotify_files;
    while (*at != this) at = &(*at)->next;
    *at = next;
    while (Event* event = events_.pop_front()) delete event;
  }
  // As many whole events as fit.
  Result<size_t> read(IoBuffer& buffer, const u64* offset) override {
    if (offset != nullptr) return Error(ESPIPE);
    while (events_.empty()) TRY(wait_for_change(*this, queue_));
    size_t total = 0;
    for (Event* event; (event = events_.front()) != nullptr && event->size() <= buffer.remaining(); delete event) {
      total += event->size();
      size_t put = TRY(buffer.put(&event->header, sizeof(event->header)));
      put += TRY(buffer.put(event->name.view().data(), event->name.size()));
      put += TRY(buffer.put_zeros(event->header.name_size - event->name.size()));
      if (put != event->size()) return Error(EFAULT);
      events_.pop_front();
      --count_;
    }
    return total > 0 ? Result<size_t>(total) : Error(EINVAL);
  }
  u32 poll_events() override { return events_.empty() ? 0u : u32{kIn}; }
  sched::WaitQueue* wait_queue() override { return &queue_; }
  Result<Stat> stat() override { return stat_; }
  Result<String> describe() override { return String::from("anon_inode:inotify"); }
  Result<i64> ioctl(u32 request, u64 argument) override {
    if (request != kFionread) return Error(ENOTTY);
    size_t size = 0;
    for (const Event& event : events_) size += event.size();
    TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(size)));
    return i64{0};
  }

  Result<int> add(const Path& place, u32 mask) {
    for (Watch& watch : watches_) {
      if (watch.entry != place.entry) continue;
      if ((mask & kInMaskCreate) != 0) return Error(EEXIST);
      watch.mask = (mask & kInMaskAdd) != 0 ? watch.mask | mask : mask;
      return watch.descriptor;
    }
    if (watches_.size() >= kWatchesMax) return Error(ENOSPC);
    TRY(watches_.push_back({place.entry, last_descriptor_ + 1, mask}));
    return ++last_descriptor_;
  }
  Result<void> remove(int descriptor) {
    for (size_t i = 0; i < watches_.size(); ++i) {
      if (watches_[i].descriptor == descriptor) return remove_at(i), Result<void>();
    }
    return Error(EINVAL);
  }
  // To the watch on `place`, if there is one and it wants this.
  void tell(const Entry& place, std::string_view name, u32 events, u32 cookie) {
    for (size_t i = 0; i < watches_.size(); ++i) {
      const Watch& watch = watches_[i];
      if (watch.entry.get() != &place) continue;
      const u32 wanted = events & watch.mask & kInEvents;
      if (wanted != 0) append(watch.descriptor, wanted | (events & kInIsDirectory), cookie, name);
      if ((events & kInDeleteSelf) != 0 || (wanted != 0 && (watch.mask & kInOneShot) != 0)) remove_at(i);
      return;
    }
  }

 private:
  void remove_at(size_t index) {
    append(watches_[index].descriptor, kInIgnored, 0, {});
    Ref<Entry> last = std::move(watches_[index].entry);
    watches_.erase(index);
  }
  // Said twice in a row is said once. Of what there is no room for it is said that something is missing.
  void append(int descriptor, u32 mask, u32 cookie, std::string_view name) {
    constexpr size_t kAlign = sizeof(EventHeader);
    Event* last = events_.back();
    if (count_ >= kQueueMax) {
      if (last->header.mask == kInQueueOverflow) return;
      descriptor = -1, mask = kInQueueOverflow, cookie = 0, name = {};
    }
    auto event = make_owned<Event>();
    if (!event.ok()) return;
    (*event)->header = {descriptor, mask, cookie, name.empty() ? 0 : static_cast<u32>(align_up(name.size() + 1, kAlign))};
    if (auto copy = String::from(name); copy.ok()) (*event)->name = copy.release();
    else (*event)->header = {-1, kInQueueOverflow, 0, 0};
    if (last != nullptr && last->is_like(**event)) return;
    events_.push_back(event->release());
    ++count_;
    queue_.wake_all(kIn);
  }

  Vec<Watch> watches_;
  List<Event> events_;
  size_t count_ = 0;
  int last_descriptor_ = 0;
  Stat stat_;
  sched::WaitQueue queue_;

 public:
  InotifyFile* next;
};

Result<Ref<File>> make_inotify(u32 flags) {
  if ((flags & ~(kOpenNonBlocking | kOpenCloseOnExec)) != 0) return Error(EINVAL);
  return Ref<File>(TRY(make_ref<InotifyFile>(flags)));
}

Result<int> inotify_add(File& inotify, const Path& path, u32 mask) { return static_cast<InotifyFile&>(inotify).add(path, mask); }
Result<void> inotify_remove(File& inotify, int descriptor) { return static_cast<InotifyFile&>(inotify).remove(descriptor); }

namespace {

void tell(const Entry& place, const Entry& about, std::string_view name, u32 events, u32 cookie) {
  if (about.type == kDirectoryType && (events & (kInDeleteSelf | kInMoveSelf)) == 0) events |= kInIsDirectory;
  for (InotifyFile* file = inotify_files; file != nullptr; file = file->next) file->tell(place, name, events, cookie);
}

}  // namespace

void tell_inotify(const Entry& entry, u32 events) { tell(entry, entry, {}, events, 0); }
void tell_inotify_name(const Entry& directory, const Entry& entry, u32 events, u32 cookie) {
  tell(directory, entry, entry.name.view(), events, cookie);
}

u32 next_inotify_cookie() {
  static constinit u32 last = 0;
  return ++last;
}

}  // namespace husk::vfs
