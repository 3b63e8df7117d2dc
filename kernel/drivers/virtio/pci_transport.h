// virtio over PCI, modern (virtio 1.2 §4.1): QEMU's q35 and other PCs.
//
// Configuration space is reached by ports 0xcf8/0xcfc, which the nub opens for ring 3 on MachineKind::pc. The device's
// registers lie in BARs inside a pci_bars window of boot info. There are no interrupts: the kernel polls (IOAPIC and MSI are ring 0's).
#pragma once

#include "abi/boot_info.h"
#include "abi/virtio/pci.h"
#include "kernel/drivers/virtio/transport.h"

namespace husk::drivers::virtio {

// Configuration space of bus 0. A fake one serves the tests.
class PciBus {
 public:
  virtual u32 read(u32 device, u32 offset) = 0;  // offset: multiple of 4
  virtual void write(u32 device, u32 offset, u32 value) = 0;

 protected:
  ~PciBus() = default;
};
PciBus& port_pci_bus();

class PciTransport final : public Transport {
 public:
  // All modern virtio devices on bus 0, in the order of their device numbers.
  static Result<Vec<Owned<PciTransport>>> probe(PciBus& bus, std::span<const abi::DeviceWindow> windows);

  abi::virtio::DeviceId id() const override { return id_; }
  u64 features() const override { return features_; }
  u16 queue_size_max(u32 queue) const override;
  Result<void> start(u64 features, std::span<Virtqueue* const> queues) override;
  Result<void> finish_start() override;
  Result<void> ask_configuration(std::span<u32> words) override;
  void notify(u32 queue) override;
  void stop() override;

 private:
  static constexpr u32 kQueuesMax = 8;
  struct Region {
    u64 address = 0;
    u64 size = 0;
  };
  explicit PciTransport(abi::virtio::DeviceId id) : id_(id) {}
  static Region bar_region(PciBus& bus, u32 device, u32 index, std::span<const abi::DeviceWindow> windows);
  bool find_structures(PciBus& bus, u32 device, std::span<const abi::DeviceWindow> windows);
  volatile abi::virtio::PciCommonConfig& common() const { return *reinterpret_cast<volatile abi::virtio::PciCommonConfig*>(common_.address); }
  abi::virtio::DeviceId id_;
  u64 features_ = 0;
  Region common_, notify_, configuration_;
  u32 notify_multiplier_ = 0;
  u64 doorbells_[kQueuesMax] = {};
};

}  // namespace husk::drivers::virtio
