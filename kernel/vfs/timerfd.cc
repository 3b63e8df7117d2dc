// timerfd_create(2). The timer fires once; an interval's further ticks are counted when somebody looks, so that a short
// interval that nobody reads costs nothing.
#include "kernel/time/time.h"
#include "kernel/vfs/file.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr int kClockRealtime = 0, kClockMonotonic = 1, kClockBoottime = 7, kClockRealtimeAlarm = 8, kClockBoottimeAlarm = 9;

class TimerFile final : public File {
 public:
  TimerFile(bool realtime, u32 file_flags) : realtime_(realtime), stat_(anonymous_stat(0600)), timer_(this) {
    kind = Kind::timerfd;
    flags = kOpenReadWrite | (file_flags & kOpenNonBlocking);
  }
  Result<size_t> read(IoBuffer& buffer, const u64* offset) override {
    if (offset != nullptr) return Error(ESPIPE);
    if (buffer.remaining() < sizeof(u64)) return Error(EINVAL);
    while (ticks_ == 0) TRY(wait_for_change(*this, queue_));
    go_on();
    u64 ticks = ticks_;
    if (TRY(buffer.put(&ticks, sizeof(ticks))) != sizeof(ticks)) return Error(EFAULT);
    ticks_ = 0;
    return sizeof(ticks);
  }
  u32 poll_events() override { return ticks_ > 0 ? kIn : 0u; }
  sched::WaitQueue* wait_queue() override { return &queue_; }
  Result<Stat> stat() override { return stat_; }
  Result<String> describe() override { return String::from("anon_inode:[timerfd]"); }

  TimerSpec get() {
    if (ticks_ > 0) go_on();
    u64 now = time::monotonic_ns();
    u64 left = !timer_.armed() ? 0 : timer_.deadline_ns() > now ? timer_.deadline_ns() - now : 1;
    return {left, interval_};
  }
  void set(const TimerSpec& spec, bool absolute) {
    timer_.cancel();
    ticks_ = 0;
    interval_ = spec.interval_ns;
    if (spec.value_ns == 0) return;
    u64 now = time::monotonic_ns(), deadline = spec.value_ns;
    if (!absolute) {
      if (!checked_add(now, spec.value_ns, &deadline)) deadline = time::kForever - 1;
    } else if (realtime_) {
      u64 real = time::realtime_ns();
      u64 wait = spec.value_ns > real ? spec.value_ns - real : 0;
      if (!checked_add(now, wait, &deadline)) deadline = time::kForever - 1;
    }
    timer_.arm(deadline);
  }

 private:
  struct FileTimer : time::Timer {
    explicit FileTimer(TimerFile* timer_owner) : Timer(&fire), owner(timer_owner) {}
    TimerFile* owner;
  };
  static void fire(time::Timer& timer) {
    TimerFile& file = *static_cast<FileTimer&>(timer).owner;
    file.expired_at_ = timer.deadline_ns();
    ++file.ticks_;
    file.queue_.wake_one(kIn);
  }
  // Counts the ticks since the timer fired and arms it for the next one.
  void go_on() {
    if (interval_ == 0 || timer_.armed()) return;
    u64 now = time::monotonic_ns();
    u64 missed = now > expired_at_ ? (now - expired_at_) / interval_ : 0;
    ticks_ += missed;
    timer_.arm(expired_at_ + (missed + 1) * interval_);
  }

  bool realtime_;
  Stat stat_;
  u64 ticks_ = 0, interval_ = 0, expired_at_ = 0;
  sched::WaitQueue queue_;
  FileTimer timer_;
};

Result<TimerFile*> as_timer(File& file) {
  if (file.kind != File::Kind::timerfd) return Error(EINVAL);
  return static_cast<TimerFile*>(&file);
}

}  // namespace

Result<Ref<File>> make_timerfd(int clock, u32 flags) {
  if ((flags & ~(kOpenNonBlocking | kOpenCloseOnExec)) != 0) return Error(EINVAL);
  bool realtime = clock == kClockRealtime || clock == kClockRealtimeAlarm;
  if (!realtime && clock != kClockMonotonic && clock != kClockBoottime && clock != kClockBoottimeAlarm) return Error(EINVAL);
  return Ref<File>(TRY(make_ref<TimerFile>(realtime, flags)));
}

Result<TimerSpec> timerfd_set(File& file, const TimerSpec& spec, bool absolute) {
  TimerFile* timer = TRY(as_timer(file));
  TimerSpec old = timer->get();
  timer->set(spec, absolute);
  return old;
}

Result<TimerSpec> timerfd_get(File& file) { return TRY(as_timer(file))->get(); }

}  // namespace husk::vfs
