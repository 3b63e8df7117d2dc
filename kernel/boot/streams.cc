#include "kernel/boot/streams.h"

#include <string.h>

#include "kernel/drivers/console.h"
#include "kernel/linux/task.h"
#include "kernel/vfs/open_flags.h"
#include "kernel/vfs/tty.h"

namespace husk {
namespace {

using drivers::Stream;

constexpr u32 kOpenReadOnly = 0;

enum class Input : bool { none, console };

// Consoles as a byte stream. Without input (standard input is not the terminal) a read finds nothing, for ever.
class ConsoleStream final : public vfs::Stream {
 public:
  ConsoleStream(Input input, drivers::Stream output) : input_(input), output_(output) {}
  Result<size_t> read(vfs::IoBuffer& buffer, bool nonblocking) override {
    if (input_ == Input::console) return drivers::read_input(buffer, nonblocking);
    if (nonblocking) return Error(EAGAIN);
    if (silence_.wait() == sched::Wake::interrupted) return Error(EINTR);
    return size_t{0};
  }
  bool input_ready() override { return input_ == Input::console && drivers::input_ready(); }
  sched::WaitQueue& input_queue() override { return input_ == Input::console ? drivers::input_queue() : silence_; }
  Result<size_t> write(vfs::IoBuffer& buffer, bool nonblocking) override { return drivers::write_output(output_, buffer, nonblocking); }
  bool output_ready() override { return drivers::output_ready(output_); }
  sched::WaitQueue& output_queue() override { return drivers::output_queue(output_); }

 private:
  Input input_;
  drivers::Stream output_;
  sched::WaitQueue silence_;
};

class TerminalEvents final : public vfs::TerminalHandler {
 public:
  void terminal_signal(int linux_signal, i64) override { linux::send_signal(linux::init_process(), linux::kernel_signal(linux_signal)); }
  void terminal_mode(bool raw) override {
    u8 body = raw;
    drivers::send_record(abi::RecordType::window, {&body, 1}, false);
  }
};
constinit TerminalEvents terminal_events;
constinit vfs::File* the_terminal = nullptr;  // a reference for ever

void handle_record(abi::RecordType type, std::span<const u8> body) {
  if (type == abi::RecordType::window_size && body.size() == 2 * sizeof(u16) && the_terminal != nullptr) {
    u16 size[2];
    memcpy(size, body.data(), sizeof(size));
    vfs::terminal_resize(*the_terminal, size[0], size[1]);
  } else if (type == abi::RecordType::signal && body.size() == sizeof(u32)) {
    u32 number;
    memcpy(&number, body.data(), sizeof(number));
    if (number >= 1 && number <= linux::kSignalMax) {
      linux::send_signal(linux::init_process(), linux::kernel_signal(static_cast<int>(number)));
    }
  }
}

// Lives for ever.
Result<vfs::Stream*> make_stream(Input input, drivers::Stream output) {
  auto stream = TRY(make_owned<ConsoleStream>(input, output));
  return static_cast<vfs::Stream*>(stream.release());
}

// With half a terminal the monitor leaves the ends of lines to the host, for the other programs of a pipeline (cli/terminal.h).
Result<Ref<vfs::File>> make_terminal(const linux::Configuration& c) {
  vfs::Stream* stream = TRY(make_stream(c.terminal[0] ? Input::console : Input::none, c.terminal[1] ? Stream::input_output : Stream::error));
  vfs::TerminalSetup setup = {
      .rows = c.rows, .columns = c.columns, .echo = c.terminal[1] || c.terminal[2], .process_output = c.terminal[0] && c.terminal[1]};
  auto terminal = TRY(vfs::make_terminal(*stream, terminal_events, setup));
  the_terminal = Ref<vfs::File>(terminal).leak();
  return terminal;
}

Result<Ref<vfs::File>> make_plain(Stream stream, u32 flags) {
  vfs::Stream* console = TRY(make_stream(Input::console, stream));
  return vfs::make_stream_file(*console, flags);
}

}  // namespace

Result<StandardFiles> make_standard_files(const linux::Configuration& c) {
  drivers::set_record_handler(handle_record);
  Ref<vfs::File> terminal;
  if (c.terminal[0] || c.terminal[1] || c.terminal[2]) terminal = TRY(make_terminal(c));
  StandardFiles files;
  files.input = c.terminal[0] ? terminal : TRY(make_plain(Stream::input_output, kOpenReadOnly));
  files.output = c.terminal[1] ? terminal : TRY(make_plain(Stream::input_output, vfs::kOpenWriteOnly));
  files.error = c.terminal[2] ? terminal : TRY(make_plain(Stream::error, vfs::kOpenWriteOnly));
  return files;
}

}  // namespace husk
