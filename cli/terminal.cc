// See cli/terminal.h. termios(3), tty_ioctl(4).
#include "cli/terminal.h"

#include <unistd.h>

namespace husk::cli {

void RawTerminal::start() {
  bool shows_typing = isatty(STDOUT_FILENO) == 1 || isatty(STDERR_FILENO) == 1;
  if (!shows_typing || tcgetattr(STDIN_FILENO, &saved_) != 0 || tcgetpgrp(STDIN_FILENO) != getpgrp()) return;
  guard_.start([this] { tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_); });
  termios raw = saved_;
  cfmakeraw(&raw);
  if (isatty(STDOUT_FILENO) != 1) raw.c_oflag = saved_.c_oflag;
  active_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void RawTerminal::restore() {
  if (active_) tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_);
  active_ = false;
  guard_.release();
}

}  // namespace husk::cli
