// Wires the three consoles together and does the waiting; see console.h. State lives in one object for the life of the machine.
#include "kernel/drivers/console.h"

#include <algorithm>

#include "kernel/drivers/channel.h"
#include "kernel/drivers/record_reader.h"
#include "kernel/drivers/serial.h"
#include "kernel/log.h"
#include "kernel/time/time.h"
#include "kernel/vfs/file.h"
#include "platform/platform.h"

namespace husk::drivers {

namespace {

constexpr u32 kChannels = 3;
constexpr u64 kOtherStreamWaitNs = 10'000'000;
constexpr u64 kRecordPatienceNs = 2 * time::kNsPerSecond;
constexpr u64 kDrainPeriodNs = 200'000;

class Consoles final : public sched::Poller {
 public:
  Result<void> init(std::span<Owned<virtio::Transport>> devices, bool is_pc);
  bool poll() override;
  // stderr shares the first console on machines that have only one.
  Channel* channel(Stream stream) {
    auto& own = channels_[static_cast<u32>(stream)];
    return own || stream != Stream::error ? own.get() : channels_[0].get();
  }
  sched::WaitQueue& serial_waiters() { return serial_waiters_; }
  bool has_serial() const { return is_pc_; }
  RecordHandler handler = nullptr;

 private:
  static void take_record(void* self, abi::RecordType type, std::span<const u8> body) { static_cast<Consoles*>(self)->take_record(type, body); }
  void take_record(abi::RecordType type, std::span<const u8> body);
  void read_records(Channel& control);
  Owned<Channel> channels_[kChannels];
  RecordReader records_{take_record, this};
  sched::WaitQueue serial_waiters_;
  bool is_pc_ = false;
};

constinit Consoles* consoles = nullptr;

Result<void> Consoles::init(std::span<Owned<virtio::Transport>> devices, bool is_pc) {
  is_pc_ = is_pc;
  u32 count = std::min(static_cast<u32>(devices.size()), kChannels);
  for (u32 i = 0; i < count; ++i) channels_[i] = TRY(Channel::create(std::move(devices[i])));
  for (auto& channel : channels_)
    if (channel) TRY(channel->finish_start());
  if (count < kChannels && !is_pc) return Error(ENODEV);
  // Signals come through the control console also when nobody waits for anything.
  if (Channel* control = channel(Stream::control)) TRY(control->input().want());
  sched::register_poller(this);
  return {};
}

bool Consoles::poll() {
  bool any = false;
  for (auto& channel : channels_)
    if (channel) any |= channel->poll();
  if (Channel* control = channel(Stream::control)) read_records(*control);
  if (is_pc_ && !serial_waiters_.empty() && serial_has_input()) serial_waiters_.wake_all(vfs::kIn);
  return any;
}

void Consoles::read_records(Channel& control) {
  while (control.input().has_bytes()) {
    u8 bytes[256];
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(bytes, sizeof(bytes));
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    Result<size_t> size = control.input().read(buffer);
    if (!size.ok()) return;
    bool was_deaf = records_.deaf();
    records_.feed({bytes, *size});
    if (records_.deaf() && !was_deaf) log(LogLevel::error, "control console: malformed record; not listening any more");
    if (!control.input().has_bytes()) (void)control.input().want().ok();
  }
}

// Sizes have been checked by the reader.
void Consoles::take_record(abi::RecordType type, std::span<const u8> body) {
  Channel& standard = *channel(Stream::input_output);
  if (type == abi::RecordType::input_end) {
    u64 bytes;
    memcpy(&bytes, body.data(), sizeof(bytes));
    standard.input().set_end(bytes);
    standard.input_waiters.wake_all(vfs::kIn);
  } else if (type == abi::RecordType::output_closed) {
    u32 number;
    memcpy(&number, body.data(), sizeof(number));
    Channel& closed = *channel((number & 0xff) == 1 ? Stream::input_output : Stream::error);
    closed.output_closed = static_cast<u8>(number >> 8);
    closed.output_waiters.wake_all(vfs::kOut | vfs::kErr);
  } else if (handler != nullptr) {
    handler(type, body);
  }
}

Result<size_t> read_serial(vfs::IoBuffer& buffer, bool nonblocking) {
  while (!serial_has_input()) {
    if (nonblocking) return Error(EAGAIN);
    sched::expect_events();
    if (consoles->serial_waiters().wait() == sched::Wake::interrupted) return Error(EINTR);
  }
  size_t done = 0;
  while (buffer.remaining() > 0 && serial_has_input()) {
    u8 byte = serial_read();
    done += TRY(buffer.put(&byte, 1));
  }
  return done;
}

Result<size_t> write_serial(vfs::IoBuffer& buffer) {
  size_t done = 0;
  while (buffer.remaining() > 0) {
    u8 bytes[64];
    Result<size_t> size = buffer.take(bytes, std::min(sizeof(bytes), buffer.remaining()));
    if (!size.ok() && done == 0) return size.error();
    if (!size.ok() || *size == 0) break;
    serial_write({bytes, *size});
    done += *size;
  }
  return done;
}

// Two streams often end in one terminal or pipe, where the order of writes must be the program's: lets the other stream
// arrive first. Not for ever: its reader may wait for this one.
void let_other_stream_finish(Stream stream) {
  Channel* other = consoles->channel(stream == Stream::error ? Stream::input_output : Stream::error);
  if (other == nullptr || other == consoles->channel(stream) || other->output_closed) return;
  u64 deadline = 0;
  while (!other->output().idle() && !other->poll()) {
    u64 now = time::monotonic_ns();
    if (deadline == 0) deadline = now + kOtherStreamWaitNs;
    if (now >= deadline) return;
    sched::expect_events();
    other->output().want_interrupt();
    if (other->poll()) continue;
    if (other->output_waiters.wait(deadline) != sched::Wake::woken) return;
  }
}

bool has_room(Channel& channel) {
  channel.poll();
  return channel.output().roomy() || channel.output().idle() || channel.output_closed;
}

// Sleeps until a write can go on. EINTR.
Result<void> wait_for_room(Channel& channel, sched::Interruptible interruptible) {
  sched::expect_events();
  channel.output().want_interrupt();
  if (has_room(channel)) return {};
  if (channel.output_waiters.wait(time::kForever, interruptible) == sched::Wake::interrupted) return Error(EINTR);
  return {};
}

// For callers that may not sleep.
void pause() { asm volatile("pause"); }

void write_record_polling(Channel& control, const abi::RecordHeader& header, std::span<const u8> body) {
  vfs::IoSegment segments[] = {vfs::IoBuffer::kernel_segment(&header, sizeof(header)), vfs::IoBuffer::kernel_segment(body.data(), body.size())};
  vfs::IoBuffer buffer(segments, vfs::IoBuffer::Memory::kernel);
  u64 deadline = time::monotonic_ns() + kRecordPatienceNs;
  while (buffer.remaining() > 0 && time::monotonic_ns() < deadline) {
    control.collect_output();
    if (!control.output().write(buffer).ok()) return;
    pause();
  }
}

}  // namespace

Result<void> init_consoles(std::span<Owned<virtio::Transport>> devices, bool is_pc) {
  auto made = TRY(make_owned<Consoles>());
  consoles = made.release();
  return consoles->init(devices, is_pc);
}

Result<size_t> read_input(vfs::IoBuffer& buffer, bool nonblocking) {
  Channel* channel = consoles->channel(Stream::input_output);
  if (buffer.remaining() == 0) return size_t{0};
  if (channel == nullptr) return consoles->has_serial() ? read_serial(buffer, nonblocking) : Result<size_t>(size_t{0});
  InputStream& input = channel->input();
  for (;;) {
    consoles->poll();
    if (input.has_bytes()) {
      size_t done = TRY(input.read(buffer));
      if (input.streaming()) (void)input.want().ok();
      return done;
    }
    if (input.at_end()) return size_t{0};
    TRY(input.want());
    if (input.has_bytes()) continue;
    if (nonblocking) return Error(EAGAIN);
    sched::expect_events();
    if (channel->input_waiters.wait() == sched::Wake::interrupted) return Error(EINTR);
  }
}

bool input_ready() {
  Channel* channel = consoles->channel(Stream::input_output);
  sched::expect_events();
  if (channel == nullptr) return !consoles->has_serial() || serial_has_input();
  consoles->poll();
  InputStream& input = channel->input();
  return input.has_bytes() || input.at_end() || !input.want().ok() || input.has_bytes();
}

sched::WaitQueue& input_queue() {
  Channel* channel = consoles->channel(Stream::input_output);
  return channel != nullptr ? channel->input_waiters : consoles->serial_waiters();
}

Result<size_t> write_output(Stream stream, vfs::IoBuffer& buffer, bool nonblocking) {
  Channel* channel = consoles->channel(stream);
  if (channel == nullptr) return consoles->has_serial() ? write_serial(buffer) : Result<size_t>(Error(EIO));
  if (!nonblocking) let_other_stream_finish(stream);  // a terminal echoes where nobody may sleep
  size_t done = 0;
  for (;;) {
    if (channel->output_closed) return done > 0 ? Result<size_t>(done) : Error(channel->output_closed);
    channel->collect_output();
    Result<size_t> step = channel->output().write(buffer);
    if (!step.ok()) return done > 0 ? Result<size_t>(done) : step.error();
    done += *step;
    if (buffer.remaining() == 0) return done;
    if (nonblocking) return done > 0 ? Result<size_t>(done) : Error(EAGAIN);
    Result<void> waited = wait_for_room(*channel, sched::Interruptible::yes);
    if (!waited.ok()) return done > 0 ? Result<size_t>(done) : waited.error();
  }
}

bool output_ready(Stream stream) {
  Channel* channel = consoles->channel(stream);
  if (channel == nullptr || has_room(*channel)) return true;
  sched::expect_events();
  channel->output().want_interrupt();
  return has_room(*channel);
}

sched::WaitQueue& output_queue(Stream stream) {
  Channel* channel = consoles->channel(stream);
  return channel != nullptr ? channel->output_waiters : consoles->serial_waiters();
}

void send_record(abi::RecordType type, std::span<const u8> body, bool may_block) {
  Channel* control = consoles != nullptr ? consoles->channel(Stream::control) : nullptr;
  HUSK_ASSERT(body.size() <= abi::kRecordSizeMax);
  if (control == nullptr || control->output_closed) return;
  abi::RecordHeader header{type, static_cast<u32>(body.size())};
  std::span<const u8> head(reinterpret_cast<const u8*>(&header), sizeof(header));
  for (;;) {
    control->collect_output();
    if (control->output().write_all(head, body)) return;
    // A record larger than the ring can get goes in pieces; polling, so that no other record comes between.
    if (!may_block || control->output().idle()) return write_record_polling(*control, header, body);
    (void)wait_for_room(*control, sched::Interruptible::no).ok();
  }
}

bool has_control_console() { return consoles != nullptr && consoles->channel(Stream::control) != nullptr; }

void set_record_handler(RecordHandler handler) { consoles->handler = handler; }

// The husk monitor takes what is published even after power-off; other machines forget it.
void drain_output() {
  if (consoles == nullptr) return;
  for (Stream stream : {Stream::input_output, Stream::error, Stream::control}) {
    Channel* channel = consoles->channel(stream);
    if (channel == nullptr) continue;
    OutputStream& output = channel->output();
    auto drained = [&] { return consoles->has_serial() ? output.idle() : output.all_published(); };
    while (!drained() && !channel->output_closed) {
      if (output.poll()) continue;
      output.want_interrupt();
      if (output.poll()) continue;
      if (consoles->has_serial()) platform::arm_timer(platform::ticks() + time::ns_to_ticks(kDrainPeriodNs));
      platform::halt();
      platform::acknowledge_event();
      consoles->poll();
    }
  }
}

}  // namespace husk::drivers
