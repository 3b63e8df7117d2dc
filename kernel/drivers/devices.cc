#include "kernel/drivers/devices.h"

#include <span>

#include "abi/virtio/console.h"
#include "kernel/drivers/console.h"
#include "kernel/drivers/virtio/mmio_transport.h"
#include "kernel/drivers/virtio/pci_transport.h"
#include "kernel/drivers/virtio_net.h"
#include "kernel/mem/frames.h"
#include "kernel/sched/sched.h"

namespace husk::drivers {

namespace {

using DeviceList = Vec<Owned<virtio::Transport>>;

// Whoever uses the device polls it; this only sees to it that it is ready when the vCPU parks.
class NetworkSleep final : public sched::Poller {
 public:
  explicit NetworkSleep(VirtioNet& network) : network_(network) {}
  bool poll() override { return false; }
  bool prepare_to_sleep() override { return network_.prepare_to_sleep(); }

 private:
  VirtioNet& network_;
};

// What is kept of the scan.
struct Devices {
  virtio::RegisterList registers;  // transports refer to it until they are started
  Owned<virtio::Transport> network_transport;
  Owned<VirtioNet> network;
};
constinit Devices* devices = nullptr;

// The monitor does register accesses in bulk; it must see one run of windows.
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

void use_batches(const abi::BootInfo& info, std::span<const abi::DeviceWindow> windows, virtio::RegisterList& registers) {
  u64 first;
  if (info.machine != abi::MachineKind::monitor || !windows_are_one_run(windows, &first)) return;
  for (const auto& window : windows)
    if (window.kind == abi::WindowKind::monitor_device) registers.use_monitor(window.virtual_address, first);
}

// A page for batches as long as it lives; the accesses are forgotten at its end.
class Batch {
 public:
  static Result<Batch> begin(virtio::RegisterList& registers) { return Batch(registers, TRY(mem::allocate_frames(0, mem::Zeroed::no))); }
  Batch(Batch&& other) noexcept : registers_(std::exchange(other.registers_, nullptr)), page_(other.page_) {}
  ~Batch() {
    if (registers_ == nullptr) return;
    registers_->clear();
    mem::free_frames(page_, 0);
  }

 private:
  Batch(virtio::RegisterList& registers, PhysAddr page) : registers_(&registers), page_(page) { registers.use_page(mem::direct(page), page); }
  virtio::RegisterList* registers_;
  PhysAddr page_;
};

Result<DeviceList> find_devices(const abi::BootInfo& info, virtio::RegisterList& registers) {
  std::span<const abi::DeviceWindow> windows(info.windows, info.window_count);
  DeviceList found;
  auto mmio = TRY(virtio::MmioTransport::probe(windows, registers));
  for (auto& device : mmio) TRY(found.push_back(std::move(device)));
  bool has_pci = false;
  for (const auto& window : windows) has_pci |= window.kind == abi::WindowKind::pci_bars;
  if (info.machine != abi::MachineKind::pc || !has_pci) return found;
  auto pci = TRY(virtio::PciTransport::probe(virtio::port_pci_bus(), windows));
  for (auto& device : pci) TRY(found.push_back(std::move(device)));
  return found;
}

}  // namespace

Result<void> start_devices(const abi::BootInfo& info) {
  devices = TRY(make_owned<Devices>()).release();
  bool is_pc = info.machine == abi::MachineKind::pc;
  use_batches(info, {info.windows, info.window_count}, devices->registers);
  auto batch = TRY(Batch::begin(devices->registers));
  auto found = TRY(find_devices(info, devices->registers));
  DeviceList consoles;
  for (auto& device : found) {
    switch (device->id()) {
      case abi::virtio::DeviceId::console: TRY(consoles.push_back(std::move(device))); break;
      case abi::virtio::DeviceId::rng:
        if (is_pc) (void)start_entropy(std::move(device)).ok();  // the monitor's seed is as good
        break;
      case abi::virtio::DeviceId::net:
        if (!devices->network_transport) devices->network_transport = std::move(device);
        break;
      default: break;
    }
  }
  return init_consoles(consoles, is_pc);
}

bool has_network_device() { return devices != nullptr && (devices->network_transport || devices->network); }

Result<packet::NetDevice*> start_network_device() {
  if (!has_network_device()) return Error(ENODEV);
  if (!devices->network) {
    auto batch = TRY(Batch::begin(devices->registers));
    auto network = TRY(VirtioNet::create(std::move(devices->network_transport)));
    sched::register_poller(TRY(make_owned<NetworkSleep>(*network)).release());
    devices->network = std::move(network);
  }
  return devices->network.get();
}

}  // namespace husk::drivers
