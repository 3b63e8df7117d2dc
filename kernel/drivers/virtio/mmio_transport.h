// virtio over MMIO, version 2 (virtio 1.2 §4.2.2): the husk monitor's devices and QEMU's microvm.
//
// An access to a register leaves the machine, which is dear (27 µs on the machines this was made for). Under the husk
// monitor accesses are therefore collected and done by one store (abi/monitor_device.h, MonitorBatch).
#pragma once

#include "abi/boot_info.h"
#include "abi/monitor_device.h"
#include "kernel/drivers/virtio/transport.h"

namespace husk::drivers::virtio {

// Register accesses in order. Reads are asked for with read() and looked up by their number after run(). Needed only while
// devices are found and started.
class RegisterList {
 public:
  // `window` is the virtual address of a device's registers.
  Result<void> write(u64 window, u32 offset, u32 value) { return push(window, offset, value, false); }
  Result<size_t> read(u64 window, u32 offset) {
    TRY(push(window, offset, 0, true));
    return accesses_.size() - 1;
  }
  void run();    // what was added since the last run
  void clear();  // forgets all accesses, and the page for batches
  u32 value(size_t index) const { return accesses_[index].value; }
  // Where the monitor's batch register is, and a page for it to read; without both every access is made singly.
  void use_monitor(u64 monitor_window, u64 first_virtio_window);
  void use_page(u8* page, PhysAddr physical);

 private:
  struct Access {
    u64 address;
    u32 value;
    bool is_read;
  };
  Result<void> push(u64 window, u32 offset, u32 value, bool is_read) { return accesses_.push_back({window + offset, value, is_read}); }
  size_t run_batch(size_t from);
  Vec<Access> accesses_;
  size_t done_ = 0;
  u64 batch_register_ = 0;
  u64 windows_base_ = 0;
  abi::MonitorBatch* batch_ = nullptr;
  PhysAddr batch_physical_;
};

constexpr u32 kProbedQueuesMax = 2;

class MmioTransport final : public Transport {
 public:
  // All windows that hold a version-2 device with an id other than 0, in the order of the windows.
  static Result<Vec<Owned<MmioTransport>>> probe(std::span<const abi::DeviceWindow> windows, RegisterList& registers);

  abi::virtio::DeviceId id() const override { return id_; }
  u64 features() const override { return features_; }
  u16 queue_size_max(u32 queue) const override;
  Result<void> start(u64 features, std::span<Virtqueue* const> queues) override;
  Result<void> finish_start() override;
  Result<void> ask_configuration(std::span<u32> words) override;
  void notify(u32 queue) override;
  void stop() override;

 private:
  MmioTransport(u64 window, RegisterList& registers) : window_(window), registers_(registers) {}
  u64 window_;
  RegisterList& registers_;  // not used after finish_start()
  size_t status_at_ = 0, configuration_at_ = 0;
  std::span<u32> configuration_;
  abi::virtio::DeviceId id_ = abi::virtio::DeviceId::none;
  u64 features_ = 0;
  u16 queue_size_max_[kProbedQueuesMax] = {};
};

}  // namespace husk::drivers::virtio
