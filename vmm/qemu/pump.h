// Moves bytes from one descriptor to another through a buffer, with back-pressure; never blocks.
#pragma once

#include <functional>
#include <vector>

#include "vmm/devices/byte_stream.h"

namespace husk::vmm {

class Pump {
 public:
  Pump(ByteSource& source, ByteSink& sink) : source_(source), sink_(sink), buffer_(1 << 16) {}
  std::function<void(u64 bytes)> on_end = [](u64) {};
  std::function<void(int error)> on_closed = [](int) {};
  // Moves what can be moved; true if it stopped only to be fair.
  bool process();
  bool ended() const { return ended_ && start_ == size_; }

 private:
  ByteSource& source_;
  ByteSink& sink_;
  std::vector<u8> buffer_;
  size_t start_ = 0, size_ = 0;
  u64 total_ = 0;
  bool ended_ = false, closed_ = false;
};

}  // namespace husk::vmm
