#include "kernel/drivers/virtio/mmio_transport.h"

#include <algorithm>

namespace husk::drivers::virtio {

using namespace abi::virtio;

namespace {
// SAFETY: the address lies in a device window of boot info, mapped uncached. One plain 32-bit mov per access
// (virtio 1.2 §4.2.2.2), written as assembly because the monitor decodes it.
u32 load_register(u64 address) {
  u32 value;
  asm volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
  return value;
}
void store_register(u64 address, u32 value) { asm volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory"); }
}  // namespace

void RegisterList::use_monitor(u64 monitor_window, u64 first_virtio_window) {
  batch_register_ = monitor_window + abi::kMonitorBatchAccess;
  windows_base_ = first_virtio_window;
}

void RegisterList::use_page(u8* page, PhysAddr physical) {
  if (batch_register_ == 0) return;
  batch_ = reinterpret_cast<abi::MonitorBatch*>(page);
  batch_physical_ = physical;
}

void RegisterList::clear() {
  accesses_ = {};
  done_ = 0;
  batch_ = nullptr;
}

// Gives how many accesses were done: 0 from a monitor that has no such register.
size_t RegisterList::run_batch(size_t from) {
  size_t count = 0;
  for (; from + count < accesses_.size() && count < abi::kMonitorBatchMax; ++count) {
    const Access& access = accesses_[from + count];
    u32 offset = static_cast<u32>(access.address - windows_base_);
    batch_->accesses[count] = {access.is_read ? offset | abi::kMonitorBatchRead : offset, access.value};
  }
  batch_->count = static_cast<u32>(count);
  batch_->done = 0;
  store_register(batch_register_, static_cast<u32>(batch_physical_.value >> kPageShift));
  size_t done = __atomic_load_n(&batch_->done, __ATOMIC_ACQUIRE);
  if (done > count) done = count;
  for (size_t i = 0; i < done; ++i)
    if (accesses_[from + i].is_read) accesses_[from + i].value = batch_->accesses[i].value;
  return done;
}

void RegisterList::run() {
  while (done_ < accesses_.size()) {
    size_t step = batch_ != nullptr ? run_batch(done_) : 0;
    done_ += step;
    if (step > 0) continue;
    batch_ = nullptr;
    Access& access = accesses_[done_++];
    if (access.is_read) access.value = load_register(access.address);
    else store_register(access.address, access.value);
  }
}

namespace {
// What is asked of every window, at fixed places in the list. Features and queue sizes of an empty window read as 0.
constexpr size_t kMagicAt = 0, kVersionAt = 1, kIdAt = 2, kFeaturesLowAt = 5, kFeaturesHighAt = 7, kQueuesAt = 8;
constexpr size_t kProbeAccesses = kQueuesAt + 2 * kProbedQueuesMax;

Result<void> ask(RegisterList& list, u64 window) {
  TRY(list.read(window, kMmioMagic));
  TRY(list.read(window, kMmioVersion));
  TRY(list.read(window, kMmioDeviceId));
  TRY(list.write(window, kMmioStatus, 0));
  TRY(list.write(window, kMmioDeviceFeaturesSelect, 0));
  TRY(list.read(window, kMmioDeviceFeatures));
  TRY(list.write(window, kMmioDeviceFeaturesSelect, 1));
  TRY(list.read(window, kMmioDeviceFeatures));
  for (u32 queue = 0; queue < kProbedQueuesMax; ++queue) {
    TRY(list.write(window, kMmioQueueSelect, queue));
    TRY(list.read(window, kMmioQueueSizeMax));
  }
  return {};
}
}  // namespace

Result<Vec<Owned<MmioTransport>>> MmioTransport::probe(std::span<const abi::DeviceWindow> windows, RegisterList& registers) {
  Vec<Owned<MmioTransport>> found;
  for (const auto& window : windows)
    if (window.kind == abi::WindowKind::virtio_mmio) TRY(ask(registers, window.virtual_address));
  registers.run();
  size_t at = 0;
  for (const auto& window : windows) {
    if (window.kind != abi::WindowKind::virtio_mmio) continue;
    size_t base = at;
    at += kProbeAccesses;
    auto id = static_cast<DeviceId>(registers.value(base + kIdAt));
    if (registers.value(base + kMagicAt) != kMmioMagicValue) continue;
    if (registers.value(base + kVersionAt) != kMmioVersionValue || id == DeviceId::none) continue;
    Owned<MmioTransport> device(new (std::nothrow) MmioTransport(window.virtual_address, registers));
    if (!device) return Error(ENOMEM);
    device->id_ = id;
    device->features_ = registers.value(base + kFeaturesLowAt) | u64{registers.value(base + kFeaturesHighAt)} << 32;
    for (u32 queue = 0; queue < kProbedQueuesMax; ++queue) {
      u32 size = registers.value(base + kQueuesAt + 2 * queue + 1);
      device->queue_size_max_[queue] = static_cast<u16>(size > kQueueSizeMax ? kQueueSizeMax : size);
    }
    TRY(found.push_back(std::move(device)));
  }
  return found;
}

u16 MmioTransport::queue_size_max(u32 queue) const {
  if (queue < kProbedQueuesMax) return queue_size_max_[queue];
  store_register(window_ + kMmioQueueSelect, queue);
  return static_cast<u16>(std::min<u32>(load_register(window_ + kMmioQueueSizeMax), kQueueSizeMax));
}

Result<void> MmioTransport::start(u64 features, std::span<Virtqueue* const> queues) {
  HUSK_ASSERT((features & ~features_) == 0);
  auto write = [this](u32 offset, u32 value) { return registers_.write(window_, offset, value); };
  auto write_address = [&](u32 low, PhysAddr address) -> Result<void> {
    TRY(write(low, static_cast<u32>(address.value)));
    return write(low + 4, static_cast<u32>(address.value >> 32));
  };
  u32 status = kStatusAcknowledge | kStatusDriver;
  TRY(write(kMmioStatus, status));
  TRY(write(kMmioDriverFeaturesSelect, 0));
  TRY(write(kMmioDriverFeatures, static_cast<u32>(features)));
  TRY(write(kMmioDriverFeaturesSelect, 1));
  TRY(write(kMmioDriverFeatures, static_cast<u32>(features >> 32)));
  TRY(write(kMmioStatus, status |= kStatusFeaturesOk));
  for (u32 i = 0; i < queues.size(); ++i) {
    if (queues[i] == nullptr) continue;
    TRY(write(kMmioQueueSelect, i));
    TRY(write(kMmioQueueSize, queues[i]->size()));
    TRY(write_address(kMmioQueueDescriptorsLow, queues[i]->descriptors_address()));
    TRY(write_address(kMmioQueueAvailableLow, queues[i]->available_address()));
    TRY(write_address(kMmioQueueUsedLow, queues[i]->used_address()));
    TRY(write(kMmioQueueReady, 1));
  }
  TRY(write(kMmioStatus, status | kStatusDriverOk));
  status_at_ = TRY(registers_.read(window_, kMmioStatus));
  return {};
}

// DEVIATES: §4.2.2.2 wants fields read in their own width; every device allows 32 bits, and a batch has nothing else.
Result<void> MmioTransport::ask_configuration(std::span<u32> words) {
  for (u32 i = 0; i < words.size(); ++i) {
    size_t at = TRY(registers_.read(window_, kMmioConfig + i * static_cast<u32>(sizeof(u32))));
    if (i == 0) configuration_at_ = at;
  }
  configuration_ = words;
  return {};
}

// The device drops FEATURES_OK if it cannot work with the features (§3.1.1), so one look at the end says it all.
Result<void> MmioTransport::finish_start() {
  registers_.run();
  for (size_t i = 0; i < configuration_.size(); ++i) configuration_[i] = registers_.value(configuration_at_ + i);
  u32 status = registers_.value(status_at_);
  constexpr u32 kWanted = kStatusFeaturesOk | kStatusDriverOk;
  if ((status & kWanted) != kWanted || (status & kStatusNeedsReset) != 0) return Error(EIO);
  return {};
}

void MmioTransport::notify(u32 queue) { store_register(window_ + kMmioQueueNotify, queue); }
void MmioTransport::stop() { store_register(window_ + kMmioStatus, kStatusFailed); }

}  // namespace husk::drivers::virtio
