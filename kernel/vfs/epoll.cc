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
constexpr u32 kWithExclusive = kIn | kOut | kErr | kHup | kEdge | kExclusive | 1u << 29;
constexpr int kNestingMax = 4;

class EpollFile;

struct ReadyTag;
struct ExclusiveTag;
struct Item final : sched::Waiter, CloseWatcher, ListNode<ReadyTag>, ListNode<ExclusiveTag> {
  Item(EpollFile& item_epoll, File& item_file, int fd, const EpollEvent& event) : epoll(item_epoll), file(item_file), descriptor(fd), wanted(event) {}
  void notify(u32 events) override;
  void file_closed() override;
  u32 events_now() { return spent ? 0 : with_synonyms(file.poll_events()) & mask(); }
  u32 mask() const { return (wanted.events & ~kFlags) | kAlways; }
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
    sleepers_.wake_one(kIn);
    queue_.wake_all(kIn);
  }
  void remove(Item& item);
  // EPOLLEXCLUSIVE: an event ends with an epoll that has a thread to take it, and goes on to the next one from others.
  void sleepers_changed() {
    for (Item& item : exclusive_items_) item.exclusive = !sleepers_.empty();
  }
  Result<size_t> wait(EpollOutput& output, size_t maximum, u64 deadline_ns);
  // How many epolls lie below this one, and whether `other` is among them: more than kNestingMax then.
  int depth_below(const File& other) const {
    int depth = 0;
    for (const Item* item : items_) {
      for (; item != nullptr; item = item->next) {
        if (item->file.kind != Kind::epoll) continue;
        if (&item->file == &other) return kNestingMax + 1;
        depth = std::max(depth, 1 + static_cast<const EpollFile&>(item->file).depth_below(other));
      }
    }
    return depth;
  }
  int depth_above() {
    int depth = 0;
    for (CloseWatcher& watcher : close_watchers) depth = std::max(depth, 1 + static_cast<Item&>(watcher).epoll.depth_above());
    return depth;
  }

 private:
  Result<size_t> collect(EpollOutput& output, size_t maximum);
  void unready(Item& item) {
    if (!item.is_ready()) return;
    item.ListNode<ReadyTag>::unlink();
    --ready_count_;
  }
  Vec<Item*> items_;  // by descriptor number
  List<Item, ReadyTag> ready_;
  List<Item, ExclusiveTag> exclusive_items_;
  size_t ready_count_ = 0;
  sched::WaitQueue sleepers_;  // threads in epoll_wait(2): one is woken for an event
  sched::WaitQueue queue_;     // who polls this file
  Stat stat_;
};

void Item::notify(u32 events) {
  if (!spent && (events == 0 || (with_synonyms(events) & mask()) != 0)) epoll.make_ready(*this);
}
void Item::file_closed() { epoll.remove(*this); }

Result<void> EpollFile::add(int descriptor, File& file, const EpollEvent& event) {
  size_t slot = static_cast<size_t>(descriptor);
  if (slot >= items_.size()) TRY(items_.resize(std::max(slot + 1, 2 * items_.size())));
  Item* item = new (std::nothrow) Item(*this, file, descriptor, event);
  if (item == nullptr) return Error(ENOMEM);
  item->next = std::exchange(items_[slot], item);
  file.close_watchers.push_back(item);
  if ((event.events & kExclusive) != 0) exclusive_items_.push_back(item);
  file.wait_queue()->add(item);
  sleepers_changed();
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
  item.ListNode<ExclusiveTag>::unlink();
  delete &item;
}

Result<size_t> EpollFile::collect(EpollOutput& output, size_t maximum) {
  size_t count = 0;
  for (size_t left = ready_count_; left > 0 && count < maximum; --left) {
    Item& item = *ready_.front();
    unready(item);
    u32 now = item.events_now();
    if (now == 0) continue;
    Result<void> put = output.put({now, item.wanted.data});
    if (!put.ok()) {
      ready_.push_front(&item);
      ++ready_count_;
      if (count == 0) return put.error();
      break;
    }
    ++count;
    if ((item.wanted.events & kOneShot) != 0) {
      item.spent = true;
    } else if ((item.wanted.events & kEdge) == 0) {
      ready_.push_back(&item);
      ++ready_count_;
    }
  }
  if (count > 0 && ready_count_ > 0) sleepers_.wake_one(kIn);  // something is left for another thread
  return count;
}

// One thread is woken for each event; it leaves the queue as it is chosen.
class EpollSleeper final : public sched::Waiter {
 public:
  EpollSleeper(EpollFile& epoll, sched::WaitQueue& queue) : epoll_(epoll) {
    queue.add_exclusive(this);
    epoll_.sleepers_changed();
  }
  ~EpollSleeper() { leave(); }
  void notify(u32) override {
    leave();
    sched::wake(thread_);
  }

 private:
  void leave() {
    unlink();
    epoll_.sleepers_changed();
  }
  EpollFile& epoll_;
  sched::Thread* thread_ = sched::current();
};

Result<size_t> EpollFile::wait(EpollOutput& output, size_t maximum, u64 deadline_ns) {
  size_t count = TRY(collect(output, maximum));
  // What has arrived without an interrupt yet counts, and is cheaper than sleeping for it.
  if (count == 0) {
    (void)(deadline_ns == 0 ? sched::poll_devices() : sched::poll_before_blocking());
    count = TRY(collect(output, maximum));  // also a timer that was due may have something to tell
  }
  while (count == 0 && deadline_ns != 0) {
    sched::expect_events();
    sched::Wake wake;
    {
      EpollSleeper sleeper(*this, sleepers_);
      sched::prepare_to_block();
      wake = sched::block(deadline_ns, sched::Interruptible::yes);
    }
    count = TRY(collect(output, maximum));
    if (wake == sched::Wake::woken || count > 0) continue;
    if (wake == sched::Wake::interrupted) return Error(EINTR);
    break;
  }
  return count;
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
  const bool nested = target->kind == File::Kind::epoll;
  if ((event.events & kExclusive) != 0 && (nested || (event.events & ~kWithExclusive) != 0)) return Error(EINVAL);
  if (nested && static_cast<EpollFile&>(*target).depth_below(file) + 1 + epoll->depth_above() > kNestingMax) return Error(ELOOP);
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

Result<size_t> epoll_wait(File& file, EpollOutput& output, size_t maximum, u64 deadline_ns) {
  if (maximum == 0) return Error(EINVAL);
  return TRY(as_epoll(file))->wait(output, maximum, deadline_ns);
}

}  // namespace husk::vfs
