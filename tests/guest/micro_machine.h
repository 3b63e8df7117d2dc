// A machine of one vCPU on KVM, of the monitor's own parts but without its devices: what a test does not serve itself is ignored.
#pragma once

#include <vector>

#include "abi/monitor_device.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/loader/loader.h"

namespace husk::test {

class MicroMachine : public vmm::MmioHandler {
 public:
  // Throws vmm::MonitorError, for one where KVM cannot be used.
  MicroMachine(const std::vector<u8>& image, u64 ram_size);
  u64 status() const { return status_; }  // that it was switched off with
  abi::MonitorPage page();

 protected:
  // A store of the guest to the monitor's device: all but power off.
  virtual void on_store(u64 monitor_register, u64 value) = 0;

  vmm::Vm vm_;
  vmm::Vcpu vcpu_{vm_, 0};
  vmm::LoadedMachine loaded_{};

 private:
  Next mmio_store(PhysAddr address, u32 size, u64 value) override;
  u64 mmio_load(PhysAddr, u32) override { return 0; }

  vmm::ImageFile file_;
  u64 status_ = ~u64{0};
};

}  // namespace husk::test
