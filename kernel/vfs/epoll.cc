// epoll(7): an item for each file waits on the file's queue and puts itself on the ready list, so that waiting costs what is
// ready and not what is watched. Level-triggered items stay on the list until they are seen not to be ready.
//
// Items do not keep their file alive: when its last descriptor is closed the file tells them (CloseWatcher).
#include <algorithm>

#include "kernel/vfs/file.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr u32 kExclusive = 1u << 28, kOneShot = 1u << 30, kEdge = 1u << 31;
constexpr u32 kAlways = kErr | kHup, kFlags = 0xfu << 28;
constexpr int kNestingMax = 5;

class EpollFile;

struct ReadyTag;
struct Item final : sched::Waiter, CloseWatcher, ListNode<ReadyTag> {
  Item(EpollFile& item_epoll, File& item_file, int fd, const EpollEvent& event) : epoll(item_epoll), file(item_file), descriptor(fd), wanted(event) {}
  void notify(u32 events) override;
  void file_closed() override;
  u32 events_now() { return spent ? 0 : file.poll_events() & ((wanted.events & ~kFlags) | kAlways); }
  bool is_ready() const { return ListNode<ReadyTag>::is_linked(); }

  EpollFile& epoll;
  File& file;
  int descriptor;
  EpollEvent wanted;
  bool spent = false;    // one-shot, and it has fired
  Item* next = nullptr;  // of the same descriptor number: an older file that is still open elsewhere
};

class EpollFile final : public File {
 public:
  EpollFile() : stat_(anonymous_stat(0600)) {
    kind = Kind::epoll;
    flags = kOpenReadWrite;
  }
  ~EpollFile() override {
    for (Item*& first : items_) {
      while (first != nullptr) remove(*first);
    }
  }
  u32 poll_events() override {
    while (Item* item = ready_.front()) {
      if (item->events_now() != 0) return kIn;
      unready(*item);
    }
    return 0;
  }
  sched::WaitQueue* wait_queue() override { return &queue_; }
  Result<Stat> stat() override { return stat_; }
  Result<String> describe() override { return String::from("anon_inode:[eventpoll]"); }

  Item* find(int descriptor, const File& file) {
    if (static_cast<size_t>(descriptor) >= items_.size()) return nullptr;
    Item* item = items_[static_cast<size_t>(descriptor)];
    while (item != nullptr && &item->file != &file) item = item->next;
    return item;
  }
  Result<void> add(int descriptor, File& file, const EpollEvent& event);
  void changed(Item& item) {
    if (item.events_now() != 0) make_ready(item);
  }
  void make_ready(Item& item) {
    if (!item.is_ready()) {
      ready_.push_back(&item);
      ++ready_count_;
    }
    queue_.wake_one(kIn);
  }
  void remove(Item& item);
  Result<size_t> wait(EpollEvent* events, size_t maximum, u64 deadline_ns);
  // Does watching lead from here to `other`, or too deep?
  bool leads_to(const File& other, int depth) const {
    if (this == &other || depth > kNestingMax) return true;
    for (const Item* item : items_) {
      for (; item != nullptr; item = item->next) {
        if (item->file.kind == Kind::epoll && static_cast<const EpollFile&>(item->file).leads_to(other, depth + 1)) return true;
      }
    }
    return false;
  }

 private:
  size_t collect(EpollEvent* events, size_t maximum);
  void unready(Item& item) {
    if (!item.is_ready()) return;
    item.ListNode<ReadyTag>::unlink();
    --ready_count_;
  }
  Vec<Item*> items_;  // by descriptor number
  List<Item, ReadyTag> ready_;
  size_t ready_count_ = 0;
  sched::WaitQueue queue_;
  Stat stat_;
};

void Item::notify(u32 events) {
  u32 mask = (wanted.events & ~kFlags) | kAlways;
  if (!spent && (events == 0 || (events & mask) != 0)) epoll.make_ready(*this);
}
void Item::file_closed() { epoll.remove(*this); }

Result<void> EpollFile::add(int descriptor, File& file, const EpollEvent& event) {
  size_t slot = static_cast<size_t>(descriptor);
  if (slot >= items_.size()) TRY(items_.resize(slot + 1));
  Item* item = new (std::nothrow) Item(*this, file, descriptor, event);
  if (item == nullptr) return Error(ENOMEM);
  item->next = std::exchange(items_[slot], item);
  file.close_watchers.push_back(item);
  if ((event.events & kExclusive) != 0) file.wait_queue()->add_exclusive(item);
  else file.wait_queue()->add(item);
  changed(*item);
  return {};
}

void EpollFile::remove(Item& item) {
  Item** at = &items_[static_cast<size_t>(item.descriptor)];
  while (*at != &item) at = &(*at)->next;
  *at = item.next;
  unready(item);
  sched::WaitQueue::remove(&item);
  item.ListNode<CloseTag>::unlink();
  delete &item;
}

size_t EpollFile::collect(EpollEvent* events, size_t maximum) {
  size_t count = 0;
  for (size_t left = ready_count_; left > 0 && count < maximum; --left) {
    Item& item = *ready_.front();
    unready(item);
    u32 now = item.events_now();
    if (now == 0) continue;
    events[count++] = {now, item.wanted.data};
    if ((item.wanted.events & kOneShot) != 0) {
      item.spent = true;
    } else if ((item.wanted.events & kEdge) == 0) {
      ready_.push_back(&item);
      ++ready_count_;
    }
  }
  if (count > 0 && ready_count_ > 0) queue_.wake_one(kIn);  // something is left for another thread
  return count;
}

// One thread is woken for each event; it leaves the queue as it is chosen.
class EpollSleeper final : public sched::Waiter {
 public:
  ~EpollSleeper() { sched::WaitQueue::remove(this); }
  void notify(u32) override {
    unlink();
    sched::wake(thread_);
  }

 private:
  sched::Thread* thread_ = sched::current();
};

Result<size_t> EpollFile::wait(EpollEvent* events, size_t maximum, u64 deadline_ns) {
  for (;;) {
    if (size_t count = collect(events, maximum); count > 0 || deadline_ns == 0) return count;
    sched::Wake wake;
    {
      EpollSleeper sleeper;
      queue_.add_exclusive(&sleeper);
      sched::prepare_to_block();
      wake = sched::block(deadline_ns, sched::Interruptible::yes);
    }
    if (wake == sched::Wake::woken) continue;
    size_t count = collect(events, maximum);
    if (count == 0 && wake == sched::Wake::interrupted) return Error(EINTR);
    return count;
  }
}

Result<EpollFile*> as_epoll(File& file) {
  if (file.kind != File::Kind::epoll) return Error(EINVAL);
  return static_cast<EpollFile*>(&file);
}

}  // namespace

Result<Ref<File>> make_epoll(u32 flags) {
  if ((flags & ~kOpenCloseOnExec) != 0) return Error(EINVAL);
  return Ref<File>(TRY(make_ref<EpollFile>()));
}

Result<void> epoll_add(File& file, int descriptor, Ref<File> target, const EpollEvent& event) {
  EpollFile* epoll = TRY(as_epoll(file));
  if (target->wait_queue() == nullptr) return Error(EPERM);
  if (target.get() == &file || descriptor < 0) return Error(EINVAL);
  if (target->kind == File::Kind::epoll) {
    if ((event.events & kExclusive) != 0) return Error(EINVAL);
    if (static_cast<EpollFile&>(*target).leads_to(file, 1)) return Error(ELOOP);
  }
  if (epoll->find(descriptor, *target) != nullptr) return Error(EEXIST);
  return epoll->add(descriptor, *target, event);
}

Result<void> epoll_modify(File& file, int descriptor, File& target, const EpollEvent& event) {
  EpollFile* epoll = TRY(as_epoll(file));
  Item* item = epoll->find(descriptor, target);
  if (item == nullptr) return Error(ENOENT);
  if (((item->wanted.events | event.events) & kExclusive) != 0) return Error(EINVAL);
  item->wanted = event;
  item->spent = false;
  epoll->changed(*item);
  return {};
}

Result<void> epoll_remove(File& file, int descriptor, File& target) {
  EpollFile* epoll = TRY(as_epoll(file));
  Item* item = epoll->find(descriptor, target);
  if (item == nullptr) return Error(ENOENT);
  epoll->remove(*item);
  return {};
}

Result<size_t> epoll_wait(File& file, EpollEvent* events, size_t maximum, u64 deadline_ns) {
  if (maximum == 0) return Error(EINVAL);
  return TRY(as_epoll(file))->wait(events, maximum, deadline_ns);
}

}  // namespace husk::vfs
