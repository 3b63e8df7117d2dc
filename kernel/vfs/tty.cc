#include "kernel/vfs/tty.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>

#include <algorithm>

#include "kernel/mem/user_copy.h"
#include "kernel/vfs/open_flags.h"

namespace husk::vfs {

namespace {

constexpr size_t kInputMax = 4096;
constexpr u64 kTenth = 100'000'000;  // VTIME's unit
constexpr int kSignalInterrupt = 2, kSignalQuit = 3, kSignalStop = 20, kSignalWindow = 28;

struct WindowSize {
  u16 rows, columns, width, height;
};

termios initial_modes(const TerminalSetup& setup) {
  termios modes = {};
  modes.c_iflag = ICRNL | IXON | IUTF8;
  modes.c_oflag = setup.process_output ? OPOST | ONLCR : ONLCR;
  modes.c_cflag = B38400 | CS8 | CREAD;
  modes.c_lflag = ISIG | ICANON | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN | (setup.echo ? ECHO : 0);
  constexpr u8 kCharacters[NCCS] = {3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0};
  std::copy(kCharacters, kCharacters + NCCS, modes.c_cc);
  return modes;
}

class Terminal final : public RefCounted<Terminal> {
 public:
  Terminal(Stream& stream, TerminalHandler& handler, const TerminalSetup& setup)
      : stream_(stream),
        handler_(handler),
        modes_(initial_modes(setup)),
        window_{setup.rows, setup.columns, 0, 0},
        input_waiter_(*this),
        output_waiter_(*this) {
    stream_.input_queue().add(&input_waiter_);
    stream_.output_queue().add(&output_waiter_);
  }
  ~Terminal() {
    sched::WaitQueue::remove(&input_waiter_);
    sched::WaitQueue::remove(&output_waiter_);
  }

  Result<size_t> read(const File& file, IoBuffer& buffer);
  Result<size_t> write(const File& file, IoBuffer& buffer);
  Result<i64> ioctl(u32 request, u64 argument);
  u32 poll_events();
  void resize(WindowSize window);
  void pump();
  sched::WaitQueue& queue() { return queue_; }

 private:
  struct InputWaiter final : sched::Waiter {
    explicit InputWaiter(Terminal& t) : terminal(t) {}
    void notify(u32) override { terminal.pump(); }
    Terminal& terminal;
  };
  struct OutputWaiter final : sched::Waiter {
    explicit OutputWaiter(Terminal& t) : terminal(t) {}
    void notify(u32) override { terminal.queue_.wake_all(kOut); }
    Terminal& terminal;
  };

  bool local(u32 flag) const { return (modes_.c_lflag & flag) != 0; }
  bool input_flag(u32 flag) const { return (modes_.c_iflag & flag) != 0; }
  bool output_flag(u32 flag) const { return (modes_.c_oflag & flag) != 0; }
  bool is(u8 byte, int which) const { return byte != 0 && modes_.c_cc[which] == byte; }
  bool canonical() const { return local(ICANON); }
  size_t line_start() const { return ends_.empty() ? 0 : ends_[ends_.size() - 1]; }

  void receive(u8 byte);
  bool receive_signal(u8 byte);
  bool receive_editing(u8 byte);
  void append(u8 byte);
  void end_line();
  void erase_one();
  void echo(u8 byte);
  void echo_text(const char* text, size_t size);
  Result<void> wait_for_input(const File& file);
  Result<void> wait_raw(const File& file, size_t wanted);
  size_t take_input(IoBuffer& buffer, size_t limit, Error* error);
  Result<void> write_processed(const u8* bytes, size_t size, bool nonblocking);
  void set_modes(const termios& modes);
  void flush_input() {
    input_.clear();
    ends_.clear();
  }

  Stream& stream_;
  TerminalHandler& handler_;
  termios modes_;
  WindowSize window_;
  i64 foreground_ = 0;
  Vec<u8> input_;         // finished lines, then the one being typed; raw: what has come
  Vec<u32> ends_;         // of finished lines in input_; an end without a newline before it is an end of file
  bool literal_ = false;  // after ^V
  bool ended_ = false;    // the stream has
  bool stopped_ = false;  // ^S
  sched::WaitQueue queue_;
  InputWaiter input_waiter_;
  OutputWaiter output_waiter_;
};

// --- input ---------------------------------------------------------------------------------------------------------

void Terminal::pump() {
  u8 bytes[128];
  bool came = false;
  // A full buffer waits for its reader, who takes whole lines: one line alone may be longer, and loses what is too much.
  auto has_room = [&] { return input_.size() < kInputMax - sizeof(bytes) || (canonical() && ends_.empty()); };
  while (!ended_ && has_room() && stream_.input_ready()) {
    IoSegment segment = IoBuffer::kernel_segment(bytes, sizeof(bytes));
    IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
    Result<size_t> got = stream_.read(buffer, true);
    if (!got.ok()) break;
    if (*got == 0) ended_ = true;
    came = true;
    for (size_t i = 0; i < *got; ++i) receive(bytes[i]);
  }
  if (came) queue_.wake_all(kIn);
}

void Terminal::receive(u8 byte) {
  if (input_flag(ISTRIP)) byte &= 0x7f;
  if (literal_) {
    literal_ = false;
    echo(byte);
    append(byte);
    return;
  }
  if (byte == '\r' && input_flag(IGNCR)) return;
  if (byte == '\r' && input_flag(ICRNL)) byte = '\n';
  else if (byte == '\n' && input_flag(INLCR)) byte = '\r';
  if (input_flag(IXON) && (is(byte, VSTOP) || is(byte, VSTART))) {
    stopped_ = is(byte, VSTOP);
    queue_.wake_all(kOut);
    return;
  }
  if (local(ISIG) && receive_signal(byte)) return;
  if (canonical() && receive_editing(byte)) return;
  if (!canonical()) {
    echo(byte);
    append(byte);
    return;
  }
  bool ends = byte == '\n' || is(byte, VEOL) || (local(IEXTEN) && is(byte, VEOL2));
  if (!ends && input_.size() >= kInputMax - 1) return;
  if (byte == '\n' && !local(ECHO) && local(ECHONL)) echo_text("\n", 1);
  echo(byte);
  append(byte);
  if (ends) end_line();
}

bool Terminal::receive_signal(u8 byte) {
  int number = is(byte, VINTR) ? kSignalInterrupt : is(byte, VQUIT) ? kSignalQuit : is(byte, VSUSP) ? kSignalStop : 0;
  if (number == 0) return false;
  if (!local(NOFLSH)) flush_input();
  stopped_ = false;
  echo(byte);
  handler_.terminal_signal(number, foreground_);
  return true;
}

bool Terminal::receive_editing(u8 byte) {
  if (is(byte, VERASE)) {
    erase_one();
  } else if (local(IEXTEN) && is(byte, VWERASE)) {
    auto blank = [&] { return input_.back() == ' ' || input_.back() == '\t'; };
    while (input_.size() > line_start() && blank()) erase_one();
    while (input_.size() > line_start() && !blank()) erase_one();
  } else if (is(byte, VKILL)) {
    if (local(ECHOKE) && local(ECHOE)) {
      while (input_.size() > line_start()) erase_one();
    } else {
      while (input_.size() > line_start()) input_.pop_back();
      echo(byte);
      if (local(ECHOK) && local(ECHO)) echo_text("\n", 1);
    }
  } else if (is(byte, VEOF)) {
    end_line();
  } else if (local(IEXTEN) && is(byte, VLNEXT)) {
    literal_ = true;
    if (local(ECHO) && local(ECHOCTL)) echo_text("^\b", 2);
  } else if (local(IEXTEN) && local(ECHO) && is(byte, VREPRINT)) {
    echo(byte);
    echo_text("\n", 1);
    for (size_t i = line_start(); i < input_.size(); ++i) echo(input_[i]);
  } else {
    return false;
  }
  return true;
}

void Terminal::append(u8 byte) { (void)input_.push_back(byte).ok(); }  // no memory: the byte is lost, as on a full line

void Terminal::end_line() { (void)ends_.push_back(static_cast<u32>(input_.size())).ok(); }

void Terminal::erase_one() {
  if (input_.size() == line_start()) return;
  u8 byte = input_.back();
  input_.pop_back();
  // A character of UTF-8 goes as a whole: its continuation bytes come last.
  while (input_flag(IUTF8) && (byte & 0xc0) == 0x80 && input_.size() > line_start()) {
    byte = input_.back();
    input_.pop_back();
  }
  if (!local(ECHO)) return;
  if (!local(ECHOE)) return echo(modes_.c_cc[VERASE]);
  bool wide = local(ECHOCTL) && (byte < 32 || byte == 127) && byte != '\t';
  echo_text("\b \b\b \b", wide ? 6 : 3);
}

void Terminal::echo(u8 byte) {
  if (!local(ECHO)) return;
  if (local(ECHOCTL) && (byte < 32 || byte == 127) && byte != '\t' && byte != '\n') {
    char text[2] = {'^', static_cast<char>(byte ^ 0x40)};
    return echo_text(text, 2);
  }
  char text = static_cast<char>(byte);
  echo_text(&text, 1);
}

// What cannot be taken at once is lost: the echo must not block.
void Terminal::echo_text(const char* text, size_t size) { (void)write_processed(reinterpret_cast<const u8*>(text), size, true).ok(); }

// --- reading -------------------------------------------------------------------------------------------------------

size_t Terminal::take_input(IoBuffer& buffer, size_t limit, Error* error) {
  if (input_.empty()) return 0;
  Result<size_t> got = buffer.put(input_.data(), std::min(limit, input_.size()));
  if (!got.ok()) {
    *error = got.error();
    return 0;
  }
  size_t taken = *got, left = input_.size() - taken;
  memmove(input_.data(), input_.data() + taken, left);
  while (input_.size() > left) input_.pop_back();
  for (u32& end : ends_) end -= static_cast<u32>(std::min<size_t>(end, taken));
  return taken;
}

Result<size_t> Terminal::read(const File& file, IoBuffer& buffer) {
  if (buffer.remaining() == 0) return size_t{0};
  Error error(0);
  pump();
  if (canonical()) {
    while (ends_.empty() && !ended_) TRY(wait_for_change(file, queue_));
    size_t limit = ends_.empty() ? input_.size() : ends_[0];
    size_t taken = take_input(buffer, limit, &error);
    if (!ends_.empty() && ends_[0] == 0) ends_.erase(0);
    return error.code() != 0 ? Result<size_t>(error) : Result<size_t>(taken);
  }
  size_t minimum = modes_.c_cc[VMIN];
  TRY(wait_raw(file, std::min(minimum, buffer.remaining())));
  size_t taken = take_input(buffer, input_.size(), &error);
  if (input_.empty()) ends_.clear();
  pump();  // there is room again
  return error.code() != 0 ? Result<size_t>(error) : Result<size_t>(taken);
}

// MIN and TIME of termios(3).
Result<void> Terminal::wait_raw(const File& file, size_t wanted) {
  const u64 time = modes_.c_cc[VTIME] * kTenth;
  if (input_.empty() && wanted == 0 && time == 0) return {};
  u64 deadline = wanted == 0 ? time::monotonic_ns() + time : time::kForever;
  size_t seen = input_.size();
  while (!ended_ && input_.size() < std::max<size_t>(wanted, 1)) {
    if (file.nonblocking() && !input_.empty()) return {};
    if (file.nonblocking()) return Error(EAGAIN);
    // Between bytes TIME counts anew.
    if (wanted > 0 && time > 0 && input_.size() > 0 && (deadline == time::kForever || input_.size() != seen)) {
      deadline = time::monotonic_ns() + time;
    }
    seen = input_.size();
    sched::Wake wake = queue_.wait(deadline);
    if (wake == sched::Wake::interrupted && input_.empty()) return Error(EINTR);
    if (wake != sched::Wake::woken) return {};
  }
  return {};
}

u32 Terminal::poll_events() {
  pump();
  size_t wanted = modes_.c_cc[VTIME] == 0 ? std::max<size_t>(modes_.c_cc[VMIN], 1) : 1;
  bool ready = canonical() ? !ends_.empty() : input_.size() >= wanted;
  return (ready || ended_ ? kIn : 0u) | (!stopped_ && stream_.output_ready() ? kOut : 0u);
}

// --- output --------------------------------------------------------------------------------------------------------

Result<void> Terminal::write_processed(const u8* bytes, size_t size, bool nonblocking) {
  u8 text[256];
  size_t used = 0;
  auto flush = [&]() -> Result<void> {
    IoSegment segment = IoBuffer::kernel_segment(text, used);
    IoBuffer buffer({&segment, 1}, IoBuffer::Memory::kernel);
    while (buffer.remaining() > 0) (void)TRY(stream_.write(buffer, nonblocking));
    used = 0;
    return {};
  };
  const bool processed = output_flag(OPOST);
  for (size_t i = 0; i < size; ++i) {
    if (used + 2 > sizeof(text)) TRY(flush());
    u8 byte = bytes[i];
    if (processed && byte == '\n' && output_flag(ONLCR)) text[used++] = '\r';
    if (processed && byte == '\r' && output_flag(OCRNL)) byte = '\n';
    text[used++] = byte;
  }
  return flush();
}

Result<size_t> Terminal::write(const File& file, IoBuffer& buffer) {
  size_t total = 0;
  while (buffer.remaining() > 0) {
    while (stopped_) {
      Result<void> waited = wait_for_change(file, queue_);
      if (!waited.ok()) return total > 0 ? Result<size_t>(total) : waited.error();
    }
    if (!output_flag(OPOST)) {
      Result<size_t> got = stream_.write(buffer, file.nonblocking());
      if (!got.ok()) return total > 0 ? Result<size_t>(total) : got.error();
      total += *got;
      if (file.nonblocking()) break;
      continue;
    }
    if (file.nonblocking() && !stream_.output_ready()) return total > 0 ? Result<size_t>(total) : Error(EAGAIN);
    u8 bytes[256];
    Result<size_t> got = buffer.take(bytes, sizeof(bytes));
    Result<void> written = got.ok() ? write_processed(bytes, *got, false) : Result<void>(got.error());
    if (!written.ok()) return total > 0 ? Result<size_t>(total) : written.error();
    total += *got;
  }
  return total;
}

// --- ioctl ---------------------------------------------------------------------------------------------------------

void Terminal::set_modes(const termios& modes) {
  bool was_canonical = canonical();
  modes_ = modes;
  if (was_canonical == canonical()) return;
  // What has been typed so far can be read in the new mode.
  ends_.clear();
  if (canonical() && !input_.empty()) end_line();
  handler_.terminal_mode(!canonical());
  queue_.wake_all(kIn);
}

void Terminal::resize(WindowSize window) {
  bool change = window.rows != window_.rows || window.columns != window_.columns;
  window_ = window;
  if (change) handler_.terminal_signal(kSignalWindow, foreground_);
}

Result<i64> Terminal::ioctl(u32 request, u64 argument) {
  switch (request) {
    case TCGETS: TRY(mem::write_user(mem::UserPtr<termios>(argument), modes_)); return i64{0};
    case TCSETSF: flush_input(); [[fallthrough]];
    case TCSETSW:
    case TCSETS: set_modes(TRY(mem::read_user(mem::UserPtr<termios>(argument)))); return i64{0};
    case TCGETS2: {
      termios2 modes = {};
      memcpy(&modes, &modes_, sizeof(termios));
      modes.c_ispeed = modes.c_ospeed = 38400;
      TRY(mem::write_user(mem::UserPtr<termios2>(argument), modes));
      return i64{0};
    }
    case TCSETSF2: flush_input(); [[fallthrough]];
    case TCSETSW2:
    case TCSETS2: set_modes(TRY(mem::read_user(mem::UserPtr<termios>(argument)))); return i64{0};
    case TIOCGWINSZ: TRY(mem::write_user(mem::UserPtr<WindowSize>(argument), window_)); return i64{0};
    case TIOCSWINSZ: resize(TRY(mem::read_user(mem::UserPtr<WindowSize>(argument)))); return i64{0};
    case TIOCGPGRP: TRY(mem::write_user(mem::UserPtr<int>(argument), static_cast<int>(foreground_))); return i64{0};
    case TIOCSPGRP: {
      int group = TRY(mem::read_user(mem::UserPtr<int>(argument)));
      if (group < 0) return Error(EINVAL);
      foreground_ = group;
      return i64{0};
    }
    case TIOCINQ: {
      pump();
      int available = static_cast<int>(canonical() ? line_start() : input_.size());
      TRY(mem::write_user(mem::UserPtr<int>(argument), available));
      return i64{0};
    }
    case TIOCOUTQ: TRY(mem::write_user(mem::UserPtr<int>(argument), 0)); return i64{0};
    case TCFLSH:
      if (argument > TCIOFLUSH) return Error(EINVAL);
      if (argument != TCOFLUSH) flush_input();
      return i64{0};
    case TCXONC:
      if (argument > TCION) return Error(EINVAL);
      if (argument == TCOOFF || argument == TCOON) stopped_ = argument == TCOOFF;
      queue_.wake_all(kOut);
      return i64{0};
    case TCSBRK:
    case TCSBRKP:
    case TIOCSCTTY:
    case TIOCNOTTY:
    case TIOCEXCL:
    case TIOCNXCL: return i64{0};
    default: return Error(ENOTTY);
  }
}

// --- files ---------------------------------------------------------------------------------------------------------

class TerminalFile final : public File {
 public:
  TerminalFile(Ref<Terminal> terminal, u32 file_flags, const Stat& stat) : terminal_(std::move(terminal)), stat_(stat) {
    kind = Kind::terminal;
    flags = file_flags;
  }
  Result<size_t> read(IoBuffer& buffer, const u64* offset) override {
    return offset != nullptr ? Result<size_t>(Error(ESPIPE)) : terminal_->read(*this, buffer);
  }
  Result<size_t> write(IoBuffer& buffer, const u64* offset) override {
    return offset != nullptr ? Result<size_t>(Error(ESPIPE)) : terminal_->write(*this, buffer);
  }
  Result<i64> ioctl(u32 request, u64 argument) override { return terminal_->ioctl(request, argument); }
  u32 poll_events() override { return terminal_->poll_events(); }
  sched::WaitQueue* wait_queue() override { return &terminal_->queue(); }
  Result<Stat> stat() override { return path ? File::stat() : Result<Stat>(stat_); }
  Result<Ref<File>> reopen(u32 open_flags) override { return Ref<File>(TRY(make_ref<TerminalFile>(terminal_, open_flags, stat_))); }
  Result<String> describe() override { return path ? File::describe() : String::from("/dev/console"); }
  Terminal& terminal() { return *terminal_; }

 private:
  Ref<Terminal> terminal_;
  Stat stat_;
};

}  // namespace

Result<Ref<File>> make_terminal(Stream& stream, TerminalHandler& handler, const TerminalSetup& setup) {
  Ref<Terminal> terminal = TRY(make_ref<Terminal>(stream, handler, setup));
  Stat stat = anonymous_stat(kCharacterDevice | 0620);
  stat.special_device = make_device(5, 1);
  stat.block_size = 1024;
  return Ref<File>(TRY(make_ref<TerminalFile>(std::move(terminal), u32{kOpenReadWrite}, stat)));
}

void terminal_resize(File& terminal, u16 rows, u16 columns) { static_cast<TerminalFile&>(terminal).terminal().resize({rows, columns, 0, 0}); }

}  // namespace husk::vfs
