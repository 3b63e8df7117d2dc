// What a virtio device is to its transport: identity, features, queues, and "look at your queues".
//
// A device = {device, queue handler, metrics}. register accesses come on the vCPU's thread, process() on the I/O thread (or the vCPU's while
// it drains); both hold mutex(). A driver that breaks the rules makes its device fail: process() then does nothing more and the
// monitor ends this guest with error().
#pragma once

#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "abi/virtio/mmio.h"
#include "vmm/devices/virtqueue.h"

namespace husk::vmm {

struct DeviceMetrics {
  u64 requests = 0, bytes_in = 0, bytes_out = 0, notifications = 0, doorbells = 0;
};

class Device {
 public:
  Device(std::string name, abi::virtio::DeviceId id, u32 queue_count) : queues(queue_count), name_(std::move(name)), id_(id) {}
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  abi::virtio::DeviceId id() const { return id_; }
  virtual u64 features() const { return 0; }  // besides VERSION_1 and EVENT_IDX
  virtual std::span<const u8> config() const { return {}; }

  // The driver is ready, with these features; process() may be called from now on. The vCPU's thread.
  virtual void start(u64 accepted_features) { (void)accepted_features; }
  // Moves data until nothing can be moved; tells whether to be called again soon (it stopped only to be fair).
  virtual bool process() = 0;
  // Everything that the driver handed over has left the monitor.
  virtual bool is_drained() { return true; }
  virtual void reset() {}

  std::mutex& mutex() { return mutex_; }
  const DeviceMetrics& metrics() const { return metrics_; }
  // "" while driver and device get on.
  std::string error() const;
  void fail(std::string why) {
    if (error_.empty()) error_ = std::move(why);
  }

  std::vector<Virtqueue> queues;
  bool driver_ok = false;
  std::function<void()> notify_guest = [] {};

 protected:
  // To be called after a batch of push() on a queue.
  void notify_if_wanted(Virtqueue& queue) {
    if (!queue.take_notification()) return;
    ++metrics_.notifications;
    notify_guest();
  }
  DeviceMetrics metrics_;

 private:
  std::string name_, error_;
  abi::virtio::DeviceId id_;
  std::mutex mutex_;
};

}  // namespace husk::vmm
