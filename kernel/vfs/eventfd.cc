// eventfd(2): a counter to wait for.
#include "kernel/vfs/file.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr u32 kSemaphore = 1;  // EFD_SEMAPHORE

class EventFile final : public File {
 public:
  EventFile(u32 initial, u32 event_flags) : count_(initial), semaphore_((event_flags & kSemaphore) != 0), stat_(anonymous_stat(0600)) {
    kind = Kind::eventfd;
    flags = kOpenReadWrite | (event_flags & kOpenNonBlocking);
  }
  Result<size_t> read(IoBuffer& buffer, const u64* offset) override {
    if (offset != nullptr) return Error(ESPIPE);
    if (buffer.remaining() < sizeof(u64)) return Error(EINVAL);
    while (count_ == 0) TRY(wait_for_change(*this, queue_));
    u64 value = semaphore_ ? 1 : count_;
    if (TRY(buffer.put(&value, sizeof(value))) != sizeof(value)) return Error(EFAULT);
    count_ -= value;
    queue_.wake_all(kOut);
    return sizeof(value);
  }
  Result<size_t> write(IoBuffer& buffer, const u64* offset) override {
    if (offset != nullptr) return Error(ESPIPE);
    if (buffer.remaining() < sizeof(u64)) return Error(EINVAL);
    u64 value;
    if (TRY(buffer.take(&value, sizeof(value))) != sizeof(value)) return Error(EFAULT);
    if (value == ~u64{0}) return Error(EINVAL);
    while (value > kCountMax - count_) TRY(wait_for_change(*this, queue_));
    count_ += value;
    queue_.wake_one(kIn);
    return sizeof(value);
  }
  u32 poll_events() override { return (count_ > 0 ? kIn : 0u) | (count_ < kCountMax ? kOut : 0u); }
  sched::WaitQueue* wait_queue() override { return &queue_; }
  Result<Stat> stat() override { return stat_; }
  Result<String> describe() override { return String::from("anon_inode:[eventfd]"); }

 private:
  static constexpr u64 kCountMax = ~u64{0} - 1;
  u64 count_;
  bool semaphore_;
  Stat stat_;
  sched::WaitQueue queue_;
};

}  // namespace

Result<Ref<File>> make_eventfd(u32 initial, u32 flags) {
  if ((flags & ~(kSemaphore | kOpenNonBlocking | kOpenCloseOnExec)) != 0) return Error(EINVAL);
  return Ref<File>(TRY(make_ref<EventFile>(initial, flags)));
}

}  // namespace husk::vfs
