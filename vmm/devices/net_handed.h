// Frames that the thread which works the transmit queue has taken from it, and that whichever thread comes first writes to the descriptor.
//
// No lock: they belong to the queue's thread while they are at home; once out, to the thread that claims them, until it has written them all.
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
  bool are_out() const { return state_.load(std::memory_order_acquire) != State::home; }
  // While they are at home.
  std::span<HandedFrame> frames() { return std::span(frames_).first(count_); }
  HandedFrame& add() {
    if (count_ == frames_.size()) frames_.emplace_back();
    frames_[count_].sent = false;
    return frames_[count_++];
  }
  void clear() { count_ = 0; }
  void send_out() { state_.store(State::out, std::memory_order_release); }

  // Any thread: calls write(HandedFrame&) for each of them if they are out and nobody has claimed them.
  template <typename Write>
  void write_all(Write write) {
    State expected = State::out;
    if (!state_.compare_exchange_strong(expected, State::claimed, std::memory_order_acquire)) return;
    for (HandedFrame& frame : frames()) write(frame);
    state_ = State::home;  // seen by all before this thread looks whether it has more to do
  }

 private:
  enum class State { home, out, claimed };
  std::vector<HandedFrame> frames_;  // the first count_ are in use, the others keep their memory
  size_t count_ = 0;
  std::atomic<State> state_ = State::home;
};

}  // namespace husk::vmm
