// The terminal: what a program reads and what appears on the screen, for what is typed.
#include <asm/ioctls.h>
#include <asm/termbits.h>

#include "kernel/fs/test_support.h"
#include "kernel/vfs/tty.h"

namespace husk {
namespace {

class Screen final : public vfs::Stream, public vfs::TerminalHandler {
 public:
  Result<size_t> read(vfs::IoBuffer& buffer, bool) override {
    if (typed.empty() && !ended) return Error(EAGAIN);
    size_t got = TRY(buffer.put(typed.data(), typed.size()));
    typed.erase(0, got);
    return got;
  }
  bool input_ready() override { return !typed.empty() || ended; }
  sched::WaitQueue& input_queue() override { return input; }
  Result<size_t> write(vfs::IoBuffer& buffer, bool) override {
    std::string text(buffer.remaining(), 0);
    size_t got = TRY(buffer.take(text.data(), text.size()));
    shown += text;
    return got;
  }
  bool output_ready() override { return true; }
  sched::WaitQueue& output_queue() override { return output; }
  void terminal_signal(int number, i64) override { signals.push_back(number); }
  void terminal_mode(bool) override {}
  void type(std::string_view text) {
    typed += text;
    input.wake_all(vfs::kIn);
  }

  std::string typed, shown;
  bool ended = false;
  std::vector<int> signals;
  sched::WaitQueue input, output;
};

class TtyTest : public test::Machine {
 protected:
  void SetUp() override {
    Machine::SetUp();
    file = vfs::make_terminal(screen, screen, {24, 80}).release();
    file->flags |= vfs::kOpenNonBlocking;
  }
  std::string read(size_t size = 100) { return test::read(*file, size); }
  static inline const std::string kAgain = "errno " + std::to_string(EAGAIN);
  void change(void (*edit)(termios& modes)) {
    termios modes;
    ASSERT_TRUE(file->ioctl(TCGETS, reinterpret_cast<u64>(&modes)).ok());
    edit(modes);
    ASSERT_TRUE(file->ioctl(TCSETS, reinterpret_cast<u64>(&modes)).ok());
  }
  Screen screen;
  Ref<vfs::File> file;
};

TEST_F(TtyTest, lines_are_read_when_they_are_finished) {
  screen.type("one");
  EXPECT_EQ(read(), kAgain);
  screen.type("\rtwo\r");
  EXPECT_EQ(file->poll_events() & vfs::kIn, u32{vfs::kIn});
  EXPECT_EQ(read(2), "on");
  EXPECT_EQ(read(), "e\n");
  EXPECT_EQ(read(), "two\n");
  EXPECT_EQ(read(), kAgain);
  EXPECT_EQ(screen.shown, "one\r\ntwo\r\n");
}

TEST_F(TtyTest, editing) {
  screen.type(
      "ab\x7f"
      "c d e\x17\x17x\n");
  EXPECT_EQ(read(), "ac x\n");
  screen.type("gone\x15kept\n");
  EXPECT_EQ(read(), "kept\n");
  screen.shown.clear();
  screen.type("\xc3\xa4\x7f\x7f\n");  // one character, erased as one; nothing to erase behind it
  EXPECT_EQ(read(), "\n");
  EXPECT_EQ(screen.shown, "\xc3\xa4\b \b\r\n");
  screen.type("\x16\x03\n");  // ^V ^C
  EXPECT_EQ(read(), "\x03\n");
  EXPECT_TRUE(screen.signals.empty());
}

TEST_F(TtyTest, end_of_file) {
  screen.type("abc\x04");
  EXPECT_EQ(read(), "abc");
  EXPECT_EQ(read(), kAgain);
  screen.type("\x04");
  EXPECT_EQ(read(), "");
  EXPECT_EQ(read(), kAgain);
  screen.ended = true;
  screen.type("");
  EXPECT_EQ(read(), "");
  EXPECT_EQ(read(), "");
}

TEST_F(TtyTest, signals) {
  screen.type("lost\x03\x1c\x1a");
  EXPECT_EQ(screen.signals, (std::vector<int>{2, 3, 20}));
  EXPECT_EQ(screen.shown, "lost^C^\\^Z");
  EXPECT_EQ(read(), kAgain);
  vfs::terminal_resize(*file, 30, 90);
  EXPECT_EQ(screen.signals.back(), 28);
}

TEST_F(TtyTest, raw_mode) {
  screen.type("half");
  change([](termios& modes) {
    modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
    modes.c_iflag &= ~static_cast<tcflag_t>(ICRNL);
    modes.c_oflag &= ~static_cast<tcflag_t>(OPOST);
  });
  EXPECT_EQ(read(), "half");
  screen.shown.clear();
  screen.type("\x03\r");
  EXPECT_EQ(read(), "\x03\r");
  EXPECT_EQ(*test::write(*file, "a\nb"), 3u);
  EXPECT_EQ(screen.shown, "a\nb");
  EXPECT_TRUE(screen.signals.empty());
}

TEST_F(TtyTest, minimum_and_time) {
  change([](termios& modes) {
    modes.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    modes.c_cc[VMIN] = 0;
    modes.c_cc[VTIME] = 2;
  });
  file->flags = vfs::kOpenReadWrite;
  std::string got = "nothing";
  spawn([&] { got = read(); });
  u64 before = time::monotonic_ns();
  sched::run_until_quiet();
  EXPECT_EQ(got, "");
  EXPECT_GE(time::monotonic_ns() - before, 200'000'000u);
}

TEST_F(TtyTest, long_output_is_processed_whole) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "x\n";
  EXPECT_EQ(*test::write(*file, text), text.size());
  EXPECT_EQ(screen.shown.size(), 3000u);
}

TEST_F(TtyTest, pastes_wait_for_the_reader) {
  std::string line(70, 'x'), got;
  line += '\n';
  std::string pasted;
  for (int i = 0; i < 300; ++i) pasted += line;
  screen.type(pasted);
  screen.type("\x04");
  for (int i = 0; i < 300; ++i) got += read();
  EXPECT_EQ(got, pasted);
  EXPECT_EQ(read(), "");  // the end of file
  EXPECT_EQ(read(), kAgain);
}

}  // namespace
}  // namespace husk
