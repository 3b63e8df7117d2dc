// Finds the virtio devices that boot info leads to, on whatever bus they are.
#pragma once

#include "abi/boot_info.h"
#include "kernel/drivers/virtio/mmio_transport.h"
#include "kernel/drivers/virtio/transport.h"

namespace husk::drivers {

using DeviceList = Vec<Owned<virtio::Transport>>;

// In the order of the virtio-mmio windows, then of PCI device numbers. `registers` and the page that
// it may use must live until the devices are started.
Result<DeviceList> find_devices(const abi::BootInfo& info, PhysAddr batch_page, virtio::RegisterList& registers);

// Starts an entropy device on its own; what it gives goes to the random numbers when it comes. Nothing waits for it.
Result<void> start_entropy(Owned<virtio::Transport> device);

}  // namespace husk::drivers
