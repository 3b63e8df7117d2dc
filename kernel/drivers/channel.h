// One virtio console: its device, two queues, and the streams on them.
#pragma once

#include "kernel/drivers/console_input.h"
#include "kernel/drivers/console_output.h"
#include "kernel/sched/sched.h"

namespace husk::drivers {

class Channel {
 public:
  // Sets up the queues and begins to start the device; finish_start() is called when all devices have come so far.
  static Result<Owned<Channel>> create(Owned<virtio::Transport> transport);
  Result<void> finish_start();

  InputStream& input() { return *input_; }
  OutputStream& output() { return *output_; }
  sched::WaitQueue input_waiters, output_waiters;
  u8 output_closed = 0;  // what writes fail with from now on: the reader is gone (EPIPE), or the host could not write

  // True if something moved. Wakes who waits for it.
  bool poll();
  // Before a write: takes what the device is done with, and wakes other writers, who would not hear of it any more.
  void collect_output();

 private:
  Channel() = default;
  bool poll_output();
  void stop_if_broken();
  Owned<virtio::Transport> transport_;
  Owned<virtio::Virtqueue> receive_, transmit_, port_control_;  // the last on devices with ports
  PhysAddr messages_;                                           // for port_control_
  Owned<InputStream> input_;
  Owned<OutputStream> output_;
  bool stopped_ = false;
};

}  // namespace husk::drivers
