#include "kernel/vfs/stream.h"

#include "base/format.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

class StreamFile final : public File {
 public:
  StreamFile(Stream& stream, u32 file_flags, const Stat& stat) : stream_(stream), stat_(stat) { flags = file_flags; }
  Result<size_t> read(IoBuffer& buffer, const u64* offset) override {
    return offset != nullptr ? Result<size_t>(Error(ESPIPE)) : stream_.read(buffer, nonblocking());
  }
  Result<size_t> write(IoBuffer& buffer, const u64* offset) override {
    return offset != nullptr ? Result<size_t>(Error(ESPIPE)) : stream_.write(buffer, nonblocking());
  }
  u32 poll_events() override {
    u32 events = 0;
    if (readable() && stream_.input_ready()) events |= kIn;
    if (writable() && stream_.output_ready()) events |= kOut;
    return events;
  }
  sched::WaitQueue* wait_queue() override { return readable() ? &stream_.input_queue() : &stream_.output_queue(); }
  Result<void> allocate(int, u64, u64) override { return Error(ESPIPE); }
  Result<Stat> stat() override { return stat_; }
  Result<Ref<File>> reopen(u32 open_flags) override { return Ref<File>(TRY(make_ref<StreamFile>(stream_, open_flags, stat_))); }
  Result<String> describe() override {
    char text[40];
    format_to(text, sizeof(text), "pipe:[%llu]", static_cast<unsigned long long>(stat_.inode));
    return String::from(text);
  }

 private:
  Stream& stream_;
  Stat stat_;
};

}  // namespace

Result<Ref<File>> make_stream_file(Stream& stream, u32 flags) {
  return Ref<File>(TRY(make_ref<StreamFile>(stream, flags, anonymous_stat(kFifo | 0600))));
}

}  // namespace husk::vfs
