// virtio over MMIO, version 2 (virtio 1.2 §4.2), for one device: registers, feature negotiation, status.
//
// Accesses arrive on the vCPU's thread. Doorbells normally do not arrive here: they are ioeventfds; one that does (odd size) calls `doorbell`.
#pragma once

#include <functional>

#include "vmm/devices/device.h"

namespace husk::vmm {

class MmioTransport {
 public:
  MmioTransport(Device& device, const GuestMemory& memory, std::function<void()> doorbell)
      : device_(device), memory_(memory), doorbell_(std::move(doorbell)), layouts_(device.queues.size()) {}

  u64 load(u64 offset, u32 size);
  void store(u64 offset, u32 size, u64 value);
  Device& device() { return device_; }

 private:
  u32 load_register(u64 offset);
  void store_register(u64 offset, u32 value);
  u64 offered_features() const;
  void set_status(u32 status);
  void set_queue_ready(bool ready);
  void reset();
  QueueLayout* selected_layout();

  Device& device_;
  const GuestMemory& memory_;
  std::function<void()> doorbell_;
  std::vector<QueueLayout> layouts_;
  u32 device_features_select_ = 0, driver_features_select_ = 0, queue_select_ = 0, status_ = 0;
  u64 driver_features_ = 0;
};

}  // namespace husk::vmm
