// Waiting for files: poll(2), select(2), epoll(7).
#undef linux
#include <linux/fcntl.h>
#include <string.h>

#include <algorithm>

#include "kernel/linux/files.h"
#include "kernel/linux/syscall.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"

namespace husk::linux {

namespace {

using vfs::PollItem;

struct PollFd {  // struct pollfd
  int fd;
  short events, returned;
};

// Writes what is left of a relative timeout back, as the kernel's poll and select do; errors do not matter.
void write_remaining(u64 timespec_at, u64 deadline_ns) {
  if (timespec_at == 0 || deadline_ns == time::kForever) return;
  u64 now = time::monotonic_ns();
  u64 left = deadline_ns > now ? deadline_ns - now : 0;
  TimeSpec spec{static_cast<i64>(left / time::kNsPerSecond), static_cast<i64>(left % time::kNsPerSecond)};
  (void)mem::write_user(mem::UserPtr<TimeSpec>(timespec_at), spec).ok();
}

u64 deadline_of_milliseconds(int milliseconds) {
  if (milliseconds < 0) return time::kForever;
  return milliseconds == 0 ? 0 : restartable_deadline(static_cast<u64>(milliseconds) * 1'000'000);
}

Result<u64> deadline_of_timespec(u64 address) {
  u64 timeout_ns = TRY(read_timespec_ns(address));
  return timeout_ns == 0 ? 0 : restartable_deadline(timeout_ns);
}

Result<size_t> wait_for(Vec<PollItem>& items, bool have_result, u64 deadline_ns) {
  return vfs::poll(items.data(), items.size(), have_result ? 0 : deadline_ns);
}

// vfs::poll() under a temporary signal mask.
template <typename Body>
Result<i64> with_mask(u64 mask_at, u64 mask_size, Body body) {
  TRY(TemporaryMask::begin(mask_at, mask_size));
  Result<i64> result = body();
  TemporaryMask::end(!result.ok() && result.error().code() == EINTR);
  return result;
}

// --- poll ------------------------------------------------------------------------------------------------------------------------

Result<i64> poll_fds(u64 fds_at, u64 count, u64 deadline_ns) {
  if (count > current_files().limit) return Error(EINVAL);
  Vec<PollFd> fds;
  Vec<PollItem> items;
  TRY(fds.resize(count));
  TRY(items.resize(count));
  TRY(mem::copy_from_user(fds.data(), fds_at, count * sizeof(PollFd)));
  bool have_invalid = false;
  for (size_t i = 0; i < count; ++i) {
    items[i].events = static_cast<u16>(fds[i].events) | vfs::kErr | vfs::kHup;
    items[i].result = 0;
    if (fds[i].fd < 0) continue;
    Result<Ref<vfs::File>> file = io_file(fds[i].fd);
    if (file.ok()) items[i].file = file.release();
    else items[i].result = vfs::kInvalid;
    have_invalid |= !file.ok();
  }
  size_t ready = TRY(wait_for(items, have_invalid, deadline_ns));
  for (size_t i = 0; i < count; ++i) fds[i].returned = static_cast<short>(items[i].result);
  TRY(mem::copy_to_user(fds_at, fds.data(), count * sizeof(PollFd)));
  return static_cast<i64>(ready);
}

// --- select ----------------------------------------------------------------------------------------------------------------------

constexpr u32 kReadEvents = vfs::kIn | vfs::kHup | vfs::kErr, kWriteEvents = vfs::kOut | vfs::kErr, kOtherEvents = vfs::kPri;

// The three bit sets of select(2), in and out.
class FdSets {
 public:
  static constexpr u32 kSets = 3, kWordBits = 64;
  FdSets(u64 read, u64 write, u64 other) : address_{read, write, other} {}

  Result<void> load(int count) {
    if (count < 0) return Error(EINVAL);
    count_ = std::min<u64>(static_cast<u64>(count), current_files().limit);
    words_ = (count_ + kWordBits - 1) / kWordBits;
    TRY(bits_.resize(2 * kSets * words_));
    for (u32 set = 0; set < kSets; ++set)
      if (address_[set] != 0) TRY(mem::copy_from_user(in(set), address_[set], words_ * sizeof(u64)));
    for (u64 fd = 0; fd < count_; ++fd) TRY(add(static_cast<int>(fd)));
    return {};
  }
  Vec<PollItem>& items() { return items_; }
  // Turns results into bits; gives how many are set.
  Result<i64> store() {
    constexpr u32 kEvents[kSets] = {kReadEvents, kWriteEvents, kOtherEvents};
    i64 total = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      u64 fd = static_cast<u64>(fds_[i]);
      for (u32 set = 0; set < kSets; ++set) {
        if (!is_set(set, fd) || (items_[i].result & kEvents[set]) == 0) continue;
        out(set)[fd / kWordBits] |= u64{1} << (fd % kWordBits);
        ++total;
      }
    }
    for (u32 set = 0; set < kSets; ++set)
      if (address_[set] != 0) TRY(mem::copy_to_user(address_[set], out(set), words_ * sizeof(u64)));
    return total;
  }

 private:
  u64* in(u32 set) { return bits_.data() + set * words_; }
  u64* out(u32 set) { return bits_.data() + (kSets + set) * words_; }
  bool is_set(u32 set, u64 fd) { return (in(set)[fd / kWordBits] >> (fd % kWordBits) & 1) != 0; }
  Result<void> add(int fd) {
    u64 number = static_cast<u64>(fd);
    u32 events = (is_set(0, number) ? kReadEvents : 0) | (is_set(1, number) ? kWriteEvents : 0) | (is_set(2, number) ? kOtherEvents : 0);
    if (events == 0) return {};
    PollItem item{TRY(io_file(fd)), events, 0};
    TRY(items_.push_back(std::move(item)));
    return fds_.push_back(fd);
  }

  u64 address_[kSets];
  u64 count_ = 0, words_ = 0;
  Vec<u64> bits_;
  Vec<PollItem> items_;
  Vec<int> fds_;
};

Result<i64> select_fds(int count, FdSets& sets, u64 deadline_ns) {
  TRY(sets.load(count));
  TRY(wait_for(sets.items(), false, deadline_ns));
  return sets.store();
}

}  // namespace

HUSK_SYSCALL(poll, u64 fds, u32 count, int timeout_ms) { return poll_fds(fds, count, deadline_of_milliseconds(timeout_ms)); }

HUSK_SYSCALL(ppoll, u64 fds, u32 count, u64 timeout, u64 mask, u64 mask_size) {
  u64 deadline_ns = TRY(deadline_of_timespec(timeout));
  Result<i64> result = with_mask(mask, mask_size, [&] { return poll_fds(fds, count, deadline_ns); });
  write_remaining(timeout, deadline_ns);
  return result;
}

HUSK_SYSCALL(select, int count, u64 read, u64 write, u64 other, u64 timeout) {
  u64 deadline_ns = time::kForever;
  if (timeout != 0) {
    TimeVal value = TRY(mem::read_user(mem::UserPtr<TimeVal>(timeout)));
    if (value.seconds < 0 || value.microseconds < 0) return Error(EINVAL);
    u64 ns;
    bool fits =
        checked_mul(static_cast<u64>(value.seconds), time::kNsPerSecond, &ns) && checked_add(ns, static_cast<u64>(value.microseconds) * 1000, &ns);
    deadline_ns = !fits ? time::kForever : ns == 0 ? 0 : restartable_deadline(ns);
  }
  FdSets sets(read, write, other);
  Result<i64> result = select_fds(count, sets, deadline_ns);
  if (timeout != 0 && deadline_ns != time::kForever) {
    u64 now = time::monotonic_ns();
    u64 left = deadline_ns > now ? deadline_ns - now : 0;
    TimeVal value{static_cast<i64>(left / time::kNsPerSecond), static_cast<i64>(left % time::kNsPerSecond / 1000)};
    (void)mem::write_user(mem::UserPtr<TimeVal>(timeout), value).ok();
  }
  return result;
}

HUSK_SYSCALL(pselect6, int count, u64 read, u64 write, u64 other, u64 timeout, u64 mask_at) {
  struct {
    u64 address, size;
  } mask{};
  if (mask_at != 0) TRY(mem::copy_from_user(&mask, mask_at, sizeof(mask)));
  u64 deadline_ns = TRY(deadline_of_timespec(timeout));
  FdSets sets(read, write, other);
  Result<i64> result = with_mask(mask.address, mask.size, [&] { return select_fds(count, sets, deadline_ns); });
  write_remaining(timeout, deadline_ns);
  return result;
}

// --- epoll -----------------------------------------------------------------------------------------------------------------------

namespace {

struct [[gnu::packed]] EpollEvent {  // struct epoll_event of x86-64
  u32 events;
  u64 data;
};
static_assert(sizeof(EpollEvent) == 12);

Result<i64> create_epoll(u32 flags) {
  TRY(allow_flags(flags, O_CLOEXEC));
  auto epoll = TRY(vfs::make_epoll(0));
  return static_cast<i64>(TRY(current_files().install(std::move(epoll), flags != 0)));
}

Result<Ref<vfs::File>> epoll_file(int fd) {
  auto file = TRY(io_file(fd));
  if (file->kind != vfs::File::Kind::epoll) return Error(EINVAL);
  return file;
}

class ProgramEvents final : public vfs::EpollOutput {
 public:
  explicit ProgramEvents(u64 address) : next_(address) {}
  Result<void> put(const vfs::EpollEvent& event) override {
    TRY(mem::write_user(next_, EpollEvent{event.events, event.data}));
    next_ = next_ + 1;
    return {};
  }

 private:
  mem::UserPtr<EpollEvent> next_;
};

Result<i64> wait_for_epoll(int fd, u64 out, int maximum, u64 deadline_ns) {
  if (maximum <= 0 || maximum > 0x7fffffff / static_cast<int>(sizeof(EpollEvent))) return Error(EINVAL);
  auto epoll = TRY(epoll_file(fd));
  ProgramEvents events(out);
  return static_cast<i64>(TRY(vfs::epoll_wait(*epoll, events, static_cast<size_t>(maximum), deadline_ns)));
}

u64 epoll_deadline(int timeout_ms) {
  if (timeout_ms < 0) return time::kForever;
  return timeout_ms == 0 ? 0 : time::monotonic_ns() + static_cast<u64>(timeout_ms) * 1'000'000;
}

}  // namespace

HUSK_SYSCALL(epoll_create, int size) { return size <= 0 ? Result<i64>(Error(EINVAL)) : create_epoll(0); }
HUSK_SYSCALL(epoll_create1, u32 flags) { return create_epoll(flags); }

HUSK_SYSCALL(epoll_ctl, int epoll_fd, int operation, int fd, u64 event_at) {
  constexpr int kAdd = 1, kRemove = 2, kModify = 3;
  EpollEvent event{};
  if (operation != kRemove) TRY(mem::copy_from_user(&event, event_at, sizeof(event)));
  auto any = TRY(io_file(epoll_fd));
  auto target = TRY(io_file(fd));
  if (target->wait_queue() == nullptr) return Error(EPERM);
  if (any == target || any->kind != vfs::File::Kind::epoll) return Error(EINVAL);
  vfs::EpollEvent wanted{event.events, event.data};
  switch (operation) {
    case kAdd: TRY(vfs::epoll_add(*any, fd, std::move(target), wanted)); return 0;
    case kModify: TRY(vfs::epoll_modify(*any, fd, *target, wanted)); return 0;
    case kRemove: TRY(vfs::epoll_remove(*any, fd, *target)); return 0;
    default: return Error(EINVAL);
  }
}

HUSK_SYSCALL(epoll_wait, int fd, u64 out, int maximum, int timeout_ms) { return wait_for_epoll(fd, out, maximum, epoll_deadline(timeout_ms)); }

HUSK_SYSCALL(epoll_pwait, int fd, u64 out, int maximum, int timeout_ms, u64 mask, u64 mask_size) {
  u64 deadline_ns = epoll_deadline(timeout_ms);
  return with_mask(mask, mask_size, [&] { return wait_for_epoll(fd, out, maximum, deadline_ns); });
}

HUSK_SYSCALL(epoll_pwait2, int fd, u64 out, int maximum, u64 timeout, u64 mask, u64 mask_size) {
  u64 deadline_ns = TRY(deadline_of_timespec(timeout));
  return with_mask(mask, mask_size, [&] { return wait_for_epoll(fd, out, maximum, deadline_ns); });
}

}  // namespace husk::linux
