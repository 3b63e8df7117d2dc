// The virtio console (virtio 1.2 §5.3): bytes between two queues and a source and a sink.
//
// Data goes straight between guest buffers and the host's descriptor. Input is read only while the guest offers buffers; a sink that
// is full holds the guest's buffers back: nothing is ever dropped but output to a reader that has gone.
#pragma once

#include <deque>

#include "vmm/devices/byte_stream.h"
#include "vmm/devices/device.h"

namespace husk::vmm {

class ConsoleDevice : public Device {
 public:
  struct Events {
    std::function<void(u64 bytes)> input_ended = [](u64) {};
    std::function<void(int error)> output_closed = [](int) {};
    std::function<void(std::span<const iovec>)> input_arrived = [](std::span<const iovec>) {};  // terminals: look for Ctrl-C
  };
  // Either may be null: nothing to read, or everything is thrown away.
  ConsoleDevice(std::string name, ByteSource* source, ByteSink* sink, Events events);

  bool process() override;
  bool is_drained() override { return transmit_.empty() && !queues[1].has_available(); }
  void reset() override;

 private:
  bool transmit();
  bool receive();
  void complete_transmit(u64 bytes);
  void complete_receive(u64 bytes);
  void fill(Virtqueue& queue, std::deque<Chain>& chains);
  void collect(const std::deque<Chain>& chains, bool readable, u64 skip);

  ByteSource* source_;
  ByteSink* sink_;
  Events events_;
  std::deque<Chain> transmit_, receive_;  // taken from the queues, in order
  u64 transmitted_ = 0;                   // bytes of transmit_.front() that are out already
  bool input_ended_ = false, output_closed_ = false;
  std::vector<iovec> vectors_;
};

}  // namespace husk::vmm
