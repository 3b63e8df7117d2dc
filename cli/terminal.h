// The host's terminal in raw mode while a program of a machine has it: line editing and Ctrl-C are the guest kernel's.
//
// A guard, a child process, keeps a copy of the old mode and sets it again when we end without having done so (kill -9). When the
// guard is killed, nothing is lost but that.
#pragma once

#include <termios.h>

#include "host/death_guard.h"

namespace husk::cli {

class RawTerminal {
 public:
  RawTerminal() = default;
  RawTerminal(const RawTerminal&) = delete;
  ~RawTerminal() { restore(); }
  // Does nothing unless stdin and stdout or stderr are terminals, and the terminal is ours (not in the background). If stdout is none, the
  // ends of lines remain as they are, for the other programs of a pipeline.
  void start();
  void restore();
  bool active() const { return active_; }

 private:
  bool active_ = false;
  termios saved_{};
  host::DeathGuard guard_;
};

}  // namespace husk::cli
