// Runs an image in QEMU, for hosts without a usable /dev/kvm and to test the PVH path: same options, same result as vmm/monitor.h.
//
// QEMU is a child that dies with us. Its three virtio-serial ports are socket pairs; we relay them to the caller's descriptors and read
// the control records. The 16550 is captured: if the guest ends without an exit record, its last lines are in the error.
#pragma once

#include "vmm/monitor.h"

namespace husk::vmm {

struct QemuOptions {
  std::string machine = "microvm";  // or q35
  std::string accelerator = "tcg";
  std::string program = "qemu-system-x86_64";
};

// Blocks until QEMU has ended. Throws MonitorError if it cannot be started.
MonitorResult run_qemu(const MonitorOptions& options, const QemuOptions& qemu);

}  // namespace husk::vmm
