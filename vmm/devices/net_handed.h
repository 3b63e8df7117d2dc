// Frames that the thread which works the transmit queue has taken from it, and that whichever thread comes first writes to the descriptor.
//
// No lock: they belong to the queue's thread while they are at home; once out, each to the thread that claims it, until all are written.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <span>
#include <vector>

#include "abi/virtio/net.h"

namespace husk::vmm {

struct HandedFrame {
  u16 head = 0;  // of the chain
  u64 size = 0;  // without NetHeader
  abi::virtio::NetHeader header{};
  std::vector<iovec> parts;  // the first is `header`, then guest memory
  bool sent = false;         // else the descriptor did not take it
};

class HandedFrames {
 public:
  // The queue's thread.
  bool are_out() const { return unwritten_.load(std::memory_order_acquire) != 0; }
  // While they are at home.
  std::span<HandedFrame> frames() { return std::span(frames_).first(count_); }
  HandedFrame& add() {
    if (count_ == frames_.size()) frames_.emplace_back();
    frames_[count_].sent = false;
    return frames_[count_++];
  }
  void clear() { count_ = 0; }
  void send_out() {
    unwritten_.store(count_, std::memory_order_relaxed);
    unclaimed_.store(count_, std::memory_order_release);
  }

  // Any thread: calls write(HandedFrame&) for those that are out and nobody has claimed. Their number. One thread keeps the order; of two threads the
  // slower one's frame may leave after its successor, as on a wire.
  template <typename Write>
  size_t write_all(Write write) {
    size_t written = 0;
    for (size_t left = unclaimed_.load(std::memory_order_relaxed); left != 0;) {
      if (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acquire, std::memory_order_relaxed)) continue;
      write(frames_[count_ - left]);  // count_ stays until this one is written
      --unwritten_;                   // seen by all before this thread looks whether it has more to do
      ++written;
      left = unclaimed_.load(std::memory_order_relaxed);
    }
    return written;
  }

 private:
  std::vector<HandedFrame> frames_;  // the first count_ are in use, the others keep their memory
  size_t count_ = 0;
  std::atomic<size_t> unclaimed_ = 0, unwritten_ = 0;
};

}  // namespace husk::vmm
