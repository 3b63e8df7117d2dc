// See vmm/devices/mmio_transport.h.
#include "vmm/devices/mmio_transport.h"

namespace husk::vmm {

namespace virtio = abi::virtio;

namespace {

constexpr u32 kVendor = 0x4b535548;  // "HUSK"

void set_low(u64& value, u32 low) { value = (value & ~u64{0xffffffff}) | low; }
void set_high(u64& value, u32 high) { value = (value & 0xffffffff) | (u64{high} << 32); }

}  // namespace

std::string Device::error() const {
  if (!error_.empty()) return error_;
  for (size_t i = 0; i < queues.size(); ++i) {
    if (queues[i].error()[0] != '\0') return name_ + ", queue " + std::to_string(i) + ": " + queues[i].error();
  }
  return "";
}

u64 MmioTransport::offered_features() const {
  return device_.features() | virtio::feature_bit(virtio::kFeatureVersion1) | virtio::feature_bit(virtio::kFeatureEventIndex);
}

QueueLayout* MmioTransport::selected_layout() { return queue_select_ < layouts_.size() ? &layouts_[queue_select_] : nullptr; }

u64 MmioTransport::load(u64 offset, u32 size) {
  std::lock_guard lock(device_.mutex());
  if (offset >= virtio::kMmioConfig) {
    auto config = device_.config();
    u64 start = offset - virtio::kMmioConfig, value = 0;
    if (size <= 8 && start < config.size() && size <= config.size() - start) memcpy(&value, config.data() + start, size);
    return value;
  }
  return size == 4 && is_aligned(offset, 4) ? load_register(offset) : 0;
}

u32 MmioTransport::load_register(u64 offset) {
  switch (offset) {
    case virtio::kMmioMagic: return virtio::kMmioMagicValue;
    case virtio::kMmioVersion: return virtio::kMmioVersionValue;
    case virtio::kMmioDeviceId: return static_cast<u32>(device_.id());
    case virtio::kMmioVendorId: return kVendor;
    case virtio::kMmioDeviceFeatures:
      if (device_features_select_ > 1) return 0;
      return static_cast<u32>(offered_features() >> (32 * device_features_select_));
    case virtio::kMmioQueueSizeMax: return selected_layout() == nullptr ? 0 : Virtqueue::kSizeMax;
    case virtio::kMmioQueueReady: return selected_layout() != nullptr && device_.queues[queue_select_].enabled();
    case virtio::kMmioInterruptStatus: return virtio::kInterruptUsedRing;  // the event vector says no more than "look"
    case virtio::kMmioStatus: return status_;
    default: return 0;
  }
}

void MmioTransport::store(u64 offset, u32 size, u64 value) {
  if (offset == virtio::kMmioQueueNotify) return doorbell_();
  std::lock_guard lock(device_.mutex());
  if (size == 4 && is_aligned(offset, 4) && offset < virtio::kMmioConfig) store_register(offset, static_cast<u32>(value));
}

void MmioTransport::store_register(u64 offset, u32 value) {
  QueueLayout* layout = selected_layout();
  switch (offset) {
    case virtio::kMmioDeviceFeaturesSelect: device_features_select_ = value; return;
    case virtio::kMmioDriverFeaturesSelect: driver_features_select_ = value; return;
    case virtio::kMmioQueueSelect: queue_select_ = value; return;
    case virtio::kMmioStatus: return set_status(value);
    case virtio::kMmioDriverFeatures:
      if (driver_features_select_ == 0) set_low(driver_features_, value);
      if (driver_features_select_ == 1) set_high(driver_features_, value);
      return;
    default: break;
  }
  if (layout == nullptr) return;
  switch (offset) {
    case virtio::kMmioQueueSize: layout->size = value; return;
    case virtio::kMmioQueueReady: return set_queue_ready(value == 1);
    case virtio::kMmioQueueDescriptorsLow: return set_low(layout->descriptors, value);
    case virtio::kMmioQueueDescriptorsHigh: return set_high(layout->descriptors, value);
    case virtio::kMmioQueueAvailableLow: return set_low(layout->available, value);
    case virtio::kMmioQueueAvailableHigh: return set_high(layout->available, value);
    case virtio::kMmioQueueUsedLow: return set_low(layout->used, value);
    case virtio::kMmioQueueUsedHigh: return set_high(layout->used, value);
    default: return;
  }
}

void MmioTransport::set_queue_ready(bool ready) {
  Virtqueue& queue = device_.queues[queue_select_];
  if (ready == queue.enabled()) return;
  if (!ready) return device_.fail(device_.name() + ": a queue was switched off without resetting the device");
  bool event_index = (driver_features_ & virtio::feature_bit(virtio::kFeatureEventIndex)) != 0;
  queue.enable(memory_, layouts_[queue_select_], event_index);
}

void MmioTransport::set_status(u32 status) {
  if (status == 0) return reset();
  // §3.1.1 step 5: features are accepted only if each was offered; without VERSION_1 the driver is a legacy one.
  bool accepted = (driver_features_ & ~offered_features()) == 0 && (driver_features_ & virtio::feature_bit(virtio::kFeatureVersion1)) != 0;
  if ((status & virtio::kStatusFeaturesOk) != 0 && !accepted) status &= ~u32{virtio::kStatusFeaturesOk};
  status_ = status;
  bool ok = (status & virtio::kStatusDriverOk) != 0 && (status & virtio::kStatusFeaturesOk) != 0;
  if (ok && !device_.driver_ok) {
    device_.start(driver_features_);
    device_.driver_ok = true;
    doorbell_();
  }
}

void MmioTransport::reset() {
  device_.reset();
  device_.driver_ok = false;
  for (Virtqueue& queue : device_.queues) queue.disable();
  layouts_.assign(layouts_.size(), QueueLayout{});
  driver_features_ = 0;
  status_ = device_features_select_ = driver_features_select_ = queue_select_ = 0;
}

}  // namespace husk::vmm
