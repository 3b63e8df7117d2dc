// virtio over MMIO, version 2 (virtio 1.2 §4.2.2), device status (§2.1) and the feature bits that every device has (§6).
//
// All registers are 32 bits wide and accessed as 32 bits, except the device's own configuration from kMmioConfig on.
// Under the husk monitor a write to kMmioQueueNotify of a queue that is ready is an ioeventfd: it never exits.
#pragma once

#include "base/types.h"

namespace husk::abi::virtio {

constexpr u32 kMmioMagicValue = 0x74726976;  // "virt"
constexpr u32 kMmioVersionValue = 2;

enum MmioRegister : u32 {
  kMmioMagic = 0x000,
  kMmioVersion = 0x004,
  kMmioDeviceId = 0x008,
  kMmioVendorId = 0x00c,
  kMmioDeviceFeatures = 0x010,
  kMmioDeviceFeaturesSelect = 0x014,
  kMmioDriverFeatures = 0x020,
  kMmioDriverFeaturesSelect = 0x024,
  kMmioQueueSelect = 0x030,
  kMmioQueueSizeMax = 0x034,
  kMmioQueueSize = 0x038,
  kMmioQueueReady = 0x044,
  kMmioQueueNotify = 0x050,
  kMmioInterruptStatus = 0x060,
  kMmioInterruptAcknowledge = 0x064,
  kMmioStatus = 0x070,
  kMmioQueueDescriptorsLow = 0x080,
  kMmioQueueDescriptorsHigh = 0x084,
  kMmioQueueAvailableLow = 0x090,
  kMmioQueueAvailableHigh = 0x094,
  kMmioQueueUsedLow = 0x0a0,
  kMmioQueueUsedHigh = 0x0a4,
  kMmioConfigGeneration = 0x0fc,
  kMmioConfig = 0x100,
};

enum MmioInterrupt : u32 { kInterruptUsedRing = 1, kInterruptConfig = 2 };

enum DeviceStatus : u32 {
  kStatusAcknowledge = 1,
  kStatusDriver = 2,
  kStatusDriverOk = 4,
  kStatusFeaturesOk = 8,
  kStatusNeedsReset = 64,
  kStatusFailed = 128,
};

enum class DeviceId : u32 { none = 0, net = 1, block = 2, console = 3, rng = 4, vsock = 19, file_system = 26 };

// Bit numbers.
enum Feature : u32 {
  kFeatureIndirectDescriptors = 28,
  kFeatureEventIndex = 29,
  kFeatureVersion1 = 32,
  kFeatureAccessPlatform = 33,
  kFeatureRingPacked = 34,
  kFeatureInOrder = 35,
  kFeatureRingReset = 40,
};
constexpr u64 feature_bit(u32 number) { return u64{1} << number; }

}  // namespace husk::abi::virtio
