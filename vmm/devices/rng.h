// The virtio entropy device (virtio 1.2 §5.4): fills the guest's buffers from the host's generator.
#pragma once

#include "vmm/devices/device.h"

namespace husk::vmm {

class RngDevice : public Device {
 public:
  RngDevice();
  bool process() override;
};

}  // namespace husk::vmm
