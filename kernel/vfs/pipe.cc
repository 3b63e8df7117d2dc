#include "kernel/vfs/pipe.h"

#include <algorithm>

#include "base/format.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/file.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

// A descriptor of a pipe: the reading side, the writing side, or both (a FIFO opened O_RDWR).
class PipeFile final : public File {
 public:
  PipeFile(Ref<Pipe> pipe, u32 file_flags, const Stat& stat) : pipe_(std::move(pipe)), stat_(stat) {
    kind = Kind::pipe;
    flags = file_flags;
    reads_ = readable();
    writes_ = writable();
    pipe_->add_side(reads_, writes_);
  }
  ~PipeFile() override { pipe_->remove_side(reads_, writes_); }

  Result<size_t> read(IoBuffer& buffer, const u64* offset) override;
  Result<size_t> write(IoBuffer& buffer, const u64* offset) override;
  Result<i64> ioctl(u32 request, u64 argument) override {
    if (request != kFionread) return Error(ENOTTY);
    TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(pipe_->size())));
    return i64{0};
  }
  Result<void> allocate(int, u64, u64) override { return Error(ESPIPE); }
  u32 poll_events() override;
  sched::WaitQueue* wait_queue() override { return &pipe_->queue; }
  Result<Stat> stat() override { return path ? File::stat() : Result<Stat>(stat_); }
  Result<FileSystemStat> file_system_stat() override {
    FileSystemStat result;
    result.magic = 0x50495045;  // PIPEFS_MAGIC
    return path ? File::file_system_stat() : Result<FileSystemStat>(result);
  }
  Result<Ref<File>> reopen(u32 open_flags) override { return Ref<File>(TRY(make_ref<PipeFile>(pipe_, open_flags, stat_))); }
  Result<String> describe() override {
    if (path) return File::describe();
    char text[40];
    format_to(text, sizeof(text), "pipe:[%llu]", static_cast<unsigned long long>(stat_.inode));
    return String::from(text);
  }
  Pipe& pipe() { return *pipe_; }

 private:
  Ref<Pipe> pipe_;
  Stat stat_;
  bool reads_, writes_;
};

Result<size_t> PipeFile::read(IoBuffer& buffer, const u64* offset) {
  if (offset != nullptr) return Error(ESPIPE);
  if (buffer.remaining() == 0) return size_t{0};
  while (pipe_->size() == 0) {
    if (pipe_->writers == 0) return size_t{0};
    TRY(wait_for_change(*this, pipe_->queue));
  }
  size_t moved = TRY(pipe_->take_out(buffer));
  pipe_->queue.wake_all(kOut);
  return moved;
}

Result<size_t> PipeFile::write(IoBuffer& buffer, const u64* offset) {
  if (offset != nullptr) return Error(ESPIPE);
  size_t total = 0;
  const bool atomic = buffer.remaining() <= Pipe::kAtomicWrite;
  while (buffer.remaining() > 0) {
    if (pipe_->readers == 0) return total > 0 ? Result<size_t>(total) : Error(EPIPE);
    size_t needed = atomic ? buffer.remaining() : 1;
    if (pipe_->space() < needed) {
      Result<void> waited = wait_for_change(*this, pipe_->queue);
      if (!waited.ok() && total == 0) return waited.error();
      if (!waited.ok()) break;
      continue;
    }
    Result<size_t> put = pipe_->put_in(buffer, ~size_t{0});
    if (!put.ok() && total == 0) return put.error();
    if (!put.ok()) break;
    total += *put;
    pipe_->queue.wake_all(kIn);
  }
  return total;
}

u32 PipeFile::poll_events() {
  u32 events = 0;
  if (readable()) {
    if (pipe_->size() > 0) events |= kIn;
    if (pipe_->writers == 0 && pipe_->writers_ever > 0) events |= kHup;
  }
  if (writable()) {
    if (pipe_->space() >= Pipe::kAtomicWrite) events |= kOut;
    if (pipe_->readers == 0) events |= kErr;
  }
  return events;
}

}  // namespace

// --- Pipe ----------------------------------------------------------------------------------------------------------

Result<Ref<Pipe>> Pipe::create() {
  Ref<Pipe> pipe = TRY(make_ref<Pipe>());
  TRY(pipe->pages_.resize(kDefaultCapacity / kPageSize));
  return pipe;
}

Pipe::~Pipe() {
  for (u8* page : pages_) delete[] page;
}

IoSegment Pipe::front() const {
  size_t within = start_ % kPageSize;
  if (size_ == 0) return {0, 0};
  return IoBuffer::kernel_segment(pages_[start_ / kPageSize] + within, std::min(kPageSize - within, size_));
}

void Pipe::consume(size_t bytes) {
  size_ -= bytes;
  // An empty pipe starts again at its first page, which is warm.
  start_ = size_ == 0 ? 0 : (start_ + bytes) % capacity();
}

Result<size_t> Pipe::take_out(IoBuffer& buffer) {
  size_t moved = 0;
  while (size_ > 0 && buffer.remaining() > 0) {
    IoSegment piece = front();
    Result<size_t> got = buffer.put(reinterpret_cast<const void*>(piece.address), piece.size);
    if (!got.ok() && moved == 0) return got.error();
    if (!got.ok()) break;
    consume(*got);
    moved += *got;
    if (*got < piece.size) break;
  }
  return moved;
}

Result<size_t> Pipe::put_in(IoBuffer& buffer, size_t maximum) {
  size_t moved = 0;
  while (space() > 0 && buffer.remaining() > 0 && moved < maximum) {
    size_t end = (start_ + size_) % capacity();
    u8*& page = pages_[end / kPageSize];
    if (page == nullptr) page = new (std::nothrow) u8[kPageSize];
    if (page == nullptr) return moved > 0 ? Result<size_t>(moved) : Error(ENOMEM);
    size_t wanted = std::min({kPageSize - end % kPageSize, space(), buffer.remaining(), maximum - moved});
    Result<size_t> got = buffer.take(page + end % kPageSize, wanted);
    if (!got.ok() && moved == 0) return got.error();
    if (!got.ok()) break;
    size_ += *got;
    moved += *got;
    if (*got < wanted) break;
  }
  return moved;
}

Result<void> Pipe::set_capacity(size_t bytes) {
  size_t pages = 1;
  while (pages * kPageSize < bytes) pages *= 2;
  if (pages * kPageSize < size_) return Error(EBUSY);
  Vec<u8*> fresh;
  TRY(fresh.resize(pages));
  size_t copied = 0;
  while (copied < size_) {
    u8*& page = fresh[copied / kPageSize];
    if (page == nullptr) page = new (std::nothrow) u8[kPageSize];
    if (page == nullptr) {
      for (u8* made : fresh) delete[] made;
      return Error(ENOMEM);
    }
    size_t at = (start_ + copied) % capacity();
    size_t count = std::min({kPageSize - at % kPageSize, kPageSize - copied % kPageSize, size_ - copied});
    memcpy(page + copied % kPageSize, pages_[at / kPageSize] + at % kPageSize, count);
    copied += count;
  }
  for (u8* page : pages_) delete[] page;
  pages_ = std::move(fresh);
  start_ = 0;
  queue.wake_all(kOut);
  return {};
}

void Pipe::add_side(bool reads, bool writes) {
  if (reads) ++readers, ++readers_ever;
  if (writes) ++writers, ++writers_ever;
  queue.wake_all(0);
}

void Pipe::remove_side(bool reads, bool writes) {
  if (reads) --readers;
  if (writes) --writers;
  queue.wake_all(kIn | kOut | kHup | kErr);
}

// --- makers --------------------------------------------------------------------------------------------------------

Result<FilePair> make_pipe(u32 flags) {
  if ((flags & ~(kOpenNonBlocking | kOpenCloseOnExec)) != 0) return Error(EINVAL);  // no packet mode (O_DIRECT)
  Ref<Pipe> pipe = TRY(Pipe::create());
  Stat stat = anonymous_stat(kFifo | 0600);
  flags &= kOpenNonBlocking;
  FilePair result;
  result.first = TRY(make_ref<PipeFile>(pipe, flags, stat));
  result.second = TRY(make_ref<PipeFile>(pipe, flags | kOpenWriteOnly, stat));
  return result;
}

Result<Ref<Pipe>> make_fifo() { return Pipe::create(); }

// fifo(7): opening waits for the other side, unless O_NONBLOCK or O_RDWR.
Result<Ref<File>> open_fifo(Ref<Pipe> pipe, u32 flags) {
  bool nonblocking = (flags & kOpenNonBlocking) != 0, writes_only = (flags & kOpenAccess) == kOpenWriteOnly;
  if (writes_only && nonblocking && pipe->readers == 0) return Error(ENXIO);
  Ref<PipeFile> file = TRY(make_ref<PipeFile>(pipe, flags, anonymous_stat(kFifo | 0600)));
  if ((flags & kOpenAccess) == kOpenReadWrite || nonblocking) return Ref<File>(std::move(file));
  u32& others = writes_only ? pipe->readers : pipe->writers;
  u64& others_ever = writes_only ? pipe->readers_ever : pipe->writers_ever;
  const u64 seen = others_ever;
  while (others == 0 && others_ever == seen) {
    if (pipe->queue.wait() == sched::Wake::interrupted) return Error(EINTR);
  }
  return Ref<File>(std::move(file));
}

Result<i64> pipe_capacity(File& file, i64 new_size_or_minus_1) {
  if (file.kind != File::Kind::pipe) return Error(EBADF);
  Pipe& pipe = static_cast<PipeFile&>(file).pipe();
  if (new_size_or_minus_1 != -1) {
    if (new_size_or_minus_1 < 0 || new_size_or_minus_1 > i64{1} << 31) return Error(EINVAL);
    if (static_cast<size_t>(new_size_or_minus_1) > Pipe::kCapacityMax) return Error(EPERM);
    TRY(pipe.set_capacity(static_cast<size_t>(new_size_or_minus_1)));
  }
  return static_cast<i64>(pipe.capacity());
}

Pipe* pipe_of(File& file) { return file.kind == File::Kind::pipe ? &static_cast<PipeFile&>(file).pipe() : nullptr; }

}  // namespace husk::vfs
