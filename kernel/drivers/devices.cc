#include "kernel/drivers/devices.h"

#include <span>

#include "kernel/drivers/virtio/pci_transport.h"
#include "kernel/mem/frames.h"

namespace husk::drivers {

namespace {

// The page through which the monitor does register accesses in bulk; it must see one run of windows.
bool windows_are_one_run(std::span<const abi::DeviceWindow> windows, u64* first) {
  *first = 0;
  for (const auto& window : windows) {
    if (window.kind != abi::WindowKind::virtio_mmio) continue;
    u64 start = window.virtual_address - (window.physical_address - abi::kVirtioMmioAddress);
    if (*first != 0 && *first != start) return false;
    *first = start;
  }
  return *first != 0;
}

void use_batches(const abi::BootInfo& info, std::span<const abi::DeviceWindow> windows, PhysAddr page, virtio::RegisterList& registers) {
  u64 first;
  if (info.machine != abi::MachineKind::monitor || !windows_are_one_run(windows, &first)) return;
  for (const auto& window : windows)
    if (window.kind == abi::WindowKind::monitor_device) registers.use_monitor(window.virtual_address, first, mem::direct(page), page);
}

}  // namespace

Result<DeviceList> find_devices(const abi::BootInfo& info, PhysAddr batch_page, virtio::RegisterList& registers) {
  std::span<const abi::DeviceWindow> windows(info.windows, info.window_count);
  DeviceList devices;
  use_batches(info, windows, batch_page, registers);
  auto mmio = TRY(virtio::MmioTransport::probe(windows, registers));
  for (auto& device : mmio) TRY(devices.push_back(std::move(device)));
  bool has_pci = false;
  for (const auto& window : windows) has_pci |= window.kind == abi::WindowKind::pci_bars;
  if (info.machine != abi::MachineKind::pc || !has_pci) return devices;
  auto pci = TRY(virtio::PciTransport::probe(virtio::port_pci_bus(), windows));
  for (auto& device : pci) TRY(devices.push_back(std::move(device)));
  return devices;
}

}  // namespace husk::drivers
