// signalfd(2): pending signals, read from a descriptor. The signals are those of the task that reads.
#include <fcntl.h>
#include <sys/signalfd.h>

#include "kernel/linux/hooks.h"
#include "kernel/linux/syscall.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"
#include "kernel/time/time.h"
#include "kernel/vfs/file.h"

namespace husk::linux {
namespace {

signalfd_siginfo record_of(const SignalInfo& info) {
  signalfd_siginfo record = {};
  record.ssi_signo = static_cast<u32>(info.number);
  record.ssi_errno = info.error;
  record.ssi_code = info.code;
  switch (info.code) {
    case SI_TIMER:
      record.ssi_tid = static_cast<u32>(info.fields.timer.id);
      record.ssi_overrun = static_cast<u32>(info.fields.timer.overrun);
      record.ssi_ptr = info.fields.timer.value;
      record.ssi_int = static_cast<int32_t>(info.fields.timer.value);
      break;
    default:
      record.ssi_pid = static_cast<u32>(info.fields.sender.pid);
      record.ssi_uid = info.fields.sender.uid;
      record.ssi_ptr = info.fields.sender.value;
      record.ssi_int = static_cast<int32_t>(info.fields.sender.value);
  }
  return record;
}

class SignalFile final : public vfs::File {
 public:
  explicit SignalFile(u64 wanted) : wanted_(wanted) { kind = Kind::signalfd; }
  void set_wanted(u64 wanted) { wanted_ = wanted; }

  Result<size_t> read(vfs::IoBuffer& buffer, const u64*) override {
    if (buffer.remaining() < sizeof(signalfd_siginfo)) return Error(EINVAL);
    SignalInfo info;
    while (!take(&info)) {
      if (nonblocking()) return Error(EAGAIN);
      if (signal_wait_queue().wait() == sched::Wake::interrupted && (pending() & wanted_) == 0) return Error(EINTR);
    }
    size_t done = 0;
    do {
      signalfd_siginfo record = record_of(info);
      done += TRY(buffer.put(&record, sizeof(record)));
    } while (buffer.remaining() >= sizeof(record_of(info)) && take(&info));
    return done;
  }
  u32 poll_events() override { return (pending() & wanted_) != 0 ? u32{vfs::kIn} : 0; }
  sched::WaitQueue* wait_queue() override { return &signal_wait_queue(); }
  Result<String> describe() override { return String::from("anon_inode:[signalfd]"); }

 private:
  static u64 pending() { return current_task().pending.set() | current_process().pending.set(); }
  bool take(SignalInfo* info) { return current_task().pending.take(wanted_, info) || current_process().pending.take(wanted_, info); }
  u64 wanted_;
};

Result<i64> signalfd(int fd, u64 mask_at, u64 size, u32 flags) {
  if (size != sizeof(u64) || (flags & ~u32{SFD_CLOEXEC | SFD_NONBLOCK}) != 0) return Error(EINVAL);
  u64 wanted = TRY(mem::read_user(mem::UserPtr<u64>(mask_at))) & ~kUnblockable;
  if (fd != -1) {
    Ref<vfs::File> file = TRY(current_file(fd));
    if (file->kind != vfs::File::Kind::signalfd) return Error(EINVAL);
    static_cast<SignalFile&>(*file).set_wanted(wanted);
    return fd;
  }
  Ref<SignalFile> file = TRY(make_ref<SignalFile>(wanted));
  file->flags = O_RDWR | (flags & O_NONBLOCK);
  return TRY(current_files().install(std::move(file), (flags & O_CLOEXEC) != 0));
}

}  // namespace

HUSK_SYSCALL(signalfd, int fd, u64 mask, u64 size) { return signalfd(fd, mask, size, 0); }
HUSK_SYSCALL(signalfd4, int fd, u64 mask, u64 size, u32 flags) { return signalfd(fd, mask, size, flags); }

}  // namespace husk::linux
