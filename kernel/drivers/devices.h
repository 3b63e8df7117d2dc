// The machine's virtio devices, whatever the bus: one scan at boot finds them all, and each goes to its driver.
//
// Consoles and, on a PC, entropy are started at once; the network device only when it is first wanted, because most programs never do.
#pragma once

#include "abi/boot_info.h"
#include "base/result.h"
#include "kernel/drivers/virtio/transport.h"
#include "kernel/packet/net_device.h"

namespace husk::drivers {

// Once, at boot. The order of virtio-mmio windows, then of PCI device numbers, says which console is which; further
// network devices than the first stay unused. ENODEV: there is no console (the rest works).
Result<void> start_devices(const abi::BootInfo& info);

// True if the machine has a network device.
bool has_network_device();
// Starts it; from then on gives the same. ENODEV: there is none, or it is not usable. It lives for ever.
Result<packet::NetDevice*> start_network_device();

// Starts an entropy device on its own; what it gives goes to the random numbers when it comes. Nothing waits for it.
Result<void> start_entropy(Owned<virtio::Transport> device);

}  // namespace husk::drivers
