// How a virtio device is reached, whatever the bus: what it offers, how it is started, its doorbell.
//
// A transport has been probed and reset when it exists. Starting is in two steps, so that a transport whose register accesses are
// expensive can collect those of several devices: start() for each, then finish_start() for each. A device may also be started later, alone.
#pragma once

#include <span>

#include "abi/virtio/mmio.h"
#include "base/result.h"
#include "kernel/drivers/virtio/virtqueue.h"

namespace husk::drivers::virtio {

class Transport {
 public:
  virtual ~Transport() = default;
  virtual abi::virtio::DeviceId id() const = 0;
  virtual u64 features() const = 0;                 // offered by the device
  virtual u16 queue_size_max(u32 queue) const = 0;  // 0: there is no such queue
  // Features must be a subset of those offered. queues[i] becomes the device's queue i; null: not used.
  virtual Result<void> start(u64 features, std::span<Virtqueue* const> queues) = 0;
  virtual Result<void> finish_start() = 0;  // EIO: the device refused
  // Before finish_start(), which fills `words` with the beginning of the device's own configuration (zero where there is none).
  virtual Result<void> ask_configuration(std::span<u32> words) = 0;
  virtual void notify(u32 queue) = 0;
  virtual void stop() = 0;  // status FAILED: it misbehaved
};

}  // namespace husk::drivers::virtio
