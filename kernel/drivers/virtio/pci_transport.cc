#include "kernel/drivers/virtio/pci_transport.h"

#include "kernel/drivers/ports.h"

namespace husk::drivers::virtio {

using namespace abi::virtio;

namespace {
constexpr u16 kAddressPort = 0xcf8, kDataPort = 0xcfc;
constexpr u32 kDevicesPerBus = 32;
constexpr u32 kCommandOffset = 0x04, kBarOffset = 0x10, kCapabilitiesOffset = 0x34;
constexpr u32 kCommandMemoryAndMaster = 0x6, kStatusCapabilities = u32{0x10} << 16;
constexpr u32 kBarCount = 6;
constexpr u32 kCapabilitiesMax = 48;  // more than fit: a list that goes in circles ends here

class PortPciBus final : public PciBus {
 public:
  u32 read(u32 device, u32 offset) override {
    select(device, offset);
    return in_u32(kDataPort);
  }
  void write(u32 device, u32 offset, u32 value) override {
    select(device, offset);
    out_u32(kDataPort, value);
  }

 private:
  static void select(u32 device, u32 offset) { out_u32(kAddressPort, u32{1} << 31 | device << 11 | offset); }
};
constinit PortPciBus port_bus;

u8 read_u8(PciBus& bus, u32 device, u32 offset) { return static_cast<u8>(bus.read(device, offset & ~3u) >> (8 * (offset & 3))); }
}  // namespace

PciBus& port_pci_bus() { return port_bus; }

Result<Vec<Owned<PciTransport>>> PciTransport::probe(PciBus& bus, std::span<const abi::DeviceWindow> windows) {
  Vec<Owned<PciTransport>> found;
  for (u32 device = 0; device < kDevicesPerBus; ++device) {
    u32 ids = bus.read(device, 0);
    u32 type = (ids >> 16) - kPciModernDeviceBase;
    if ((ids & 0xffff) != kPciVendor || type > 0x3f) continue;
    Owned<PciTransport> transport(new (std::nothrow) PciTransport(static_cast<DeviceId>(type)));
    if (!transport) return Error(ENOMEM);
    if (!transport->find_structures(bus, device, windows)) continue;
    bus.write(device, kCommandOffset, (bus.read(device, kCommandOffset) & 0xffff) | kCommandMemoryAndMaster);
    auto& config = transport->common();
    config.device_status = 0;
    while (config.device_status != 0) {  // §4.1.4.3.2: reset is done when it reads 0
    }
    config.device_feature_select = 0;
    u64 features = config.device_feature;
    config.device_feature_select = 1;
    transport->features_ = features | u64{config.device_feature} << 32;
    TRY(found.push_back(std::move(transport)));
  }
  return found;
}

// Where a memory BAR is mapped for ring 3; size 0 if it is not.
PciTransport::Region PciTransport::bar_region(PciBus& bus, u32 device, u32 index, std::span<const abi::DeviceWindow> windows) {
  if (index >= kBarCount) return {};
  u32 low = bus.read(device, kBarOffset + 4 * index);
  if ((low & 1) != 0) return {};
  u64 physical = low & ~u32{15};
  if ((low & 6) == 4 && index + 1 < kBarCount) physical |= u64{bus.read(device, kBarOffset + 4 * index + 4)} << 32;
  for (const auto& window : windows) {
    if (window.kind != abi::WindowKind::pci_bars || physical < window.physical_address) continue;
    u64 offset = physical - window.physical_address;
    if (offset < window.size) return {window.virtual_address + offset, window.size - offset};
  }
  return {};
}

bool PciTransport::find_structures(PciBus& bus, u32 device, std::span<const abi::DeviceWindow> windows) {
  if ((bus.read(device, kCommandOffset) & kStatusCapabilities) == 0) return false;
  u32 at = read_u8(bus, device, kCapabilitiesOffset) & ~3u;
  for (u32 i = 0; at >= 0x40 && i < kCapabilitiesMax; ++i, at = read_u8(bus, device, at + 1) & ~3u) {
    u32 head = bus.read(device, at);
    u32 type = head >> 24;
    if ((head & 0xff) != kPciCapabilityVendor || (type != kPciCommon && type != kPciNotify && type != kPciDevice)) continue;
    Region& region = type == kPciCommon ? common_ : type == kPciNotify ? notify_ : configuration_;
    if (region.size != 0) continue;  // §4.1.4.1: the first one that we can use
    u64 offset = bus.read(device, at + 8), size = bus.read(device, at + 12);
    Region bar = bar_region(bus, device, bus.read(device, at + 4) & 0xff, windows);
    if (size == 0 || offset + size > bar.size) continue;
    region = {bar.address + offset, size};
    if (type == kPciNotify) notify_multiplier_ = bus.read(device, at + 16);
  }
  return common_.size >= sizeof(PciCommonConfig) && notify_.size >= 2;
}

u16 PciTransport::queue_size_max(u32 queue) const {
  if (queue >= common().queue_count) return 0;
  common().queue_select = static_cast<u16>(queue);
  return common().queue_size;
}

Result<void> PciTransport::start(u64 features, std::span<Virtqueue* const> queues) {
  HUSK_ASSERT((features & ~features_) == 0 && queues.size() <= kQueuesMax);
  auto& config = common();
  u8 status = kStatusAcknowledge | kStatusDriver;
  config.device_status = status;
  for (u32 half = 0; half < 2; ++half) {
    config.driver_feature_select = half;
    config.driver_feature = static_cast<u32>(features >> (32 * half));
  }
  config.device_status = status = static_cast<u8>(status | kStatusFeaturesOk);
  config.config_vector = kPciNoVector;
  for (u16 i = 0; i < queues.size(); ++i) {
    if (queues[i] == nullptr) continue;
    config.queue_select = i;
    config.queue_size = queues[i]->size();
    config.queue_vector = kPciNoVector;
    u64 doorbell = u64{config.queue_notify_offset} * notify_multiplier_;
    if (doorbell + 2 > notify_.size) return Error(EIO);
    doorbells_[i] = notify_.address + doorbell;
    auto write_address = [](volatile u64& to, PhysAddr address) {
      auto* halves = reinterpret_cast<volatile u32*>(&to);  // §4.1.3.1: 64-bit fields as two 32-bit accesses
      halves[0] = static_cast<u32>(address.value);
      halves[1] = static_cast<u32>(address.value >> 32);
    };
    write_address(config.queue_descriptors, queues[i]->descriptors_address());
    write_address(config.queue_available, queues[i]->available_address());
    write_address(config.queue_used, queues[i]->used_address());
    config.queue_enable = 1;
  }
  config.device_status = static_cast<u8>(status | kStatusDriverOk);
  return {};
}

Result<void> PciTransport::finish_start() {
  constexpr u8 kWanted = kStatusFeaturesOk | kStatusDriverOk;
  if ((common().device_status & (kWanted | kStatusNeedsReset)) != kWanted) return Error(EIO);
  return {};
}

Result<void> PciTransport::ask_configuration(std::span<u32> words) {
  for (size_t i = 0; i < words.size(); ++i) {
    u64 offset = i * sizeof(u32);
    words[i] = offset + sizeof(u32) <= configuration_.size ? *reinterpret_cast<volatile u32*>(configuration_.address + offset) : 0;
  }
  return {};
}

void PciTransport::notify(u32 queue) { *reinterpret_cast<volatile u16*>(doorbells_[queue]) = static_cast<u16>(queue); }
void PciTransport::stop() { common().device_status = kStatusFailed; }

}  // namespace husk::drivers::virtio
