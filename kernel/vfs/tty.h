// The machine's terminal: a line discipline over a byte stream. termios(3), ioctl_tty(2).
//
// Input is worked on as it arrives, so that ^C interrupts a program that does not read. One session, one foreground group.
#pragma once

#include "kernel/vfs/stream.h"

namespace husk::vfs {

// What the terminal tells the rest of the machine. Kernel context; must not block.
class TerminalHandler {
 public:
  virtual void terminal_signal(int linux_signal, i64 process_group) = 0;  // group 0: nobody has claimed the terminal
  virtual void terminal_mode(bool raw) = 0;

 protected:
  ~TerminalHandler() = default;
};

struct TerminalSetup {
  u16 rows, columns;
  bool echo = true;            // what is typed is shown: there is where to show it
  bool process_output = true;  // "\n" becomes "\r\n": false if the host's terminal still does that itself
};

// `stream` and `handler` live for ever. reopen() gives further descriptions of the same terminal.
Result<Ref<File>> make_terminal(Stream& stream, TerminalHandler& handler, const TerminalSetup& setup);
void terminal_resize(File& terminal, u16 rows, u16 columns);  // SIGWINCH if that is a change

}  // namespace husk::vfs
