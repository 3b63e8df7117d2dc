// virtio over PCI (virtio 1.2 §4.1): vendor capabilities that say where the structures lie, and the common configuration.
// Only guest drivers need it (QEMU q35); the husk monitor has virtio-mmio alone.
#pragma once

#include "base/types.h"

namespace husk::abi::virtio {

constexpr u16 kPciVendor = 0x1af4;
constexpr u16 kPciModernDeviceBase = 0x1040;  // device id = base + DeviceId; transitional ones are 0x1000 to 0x103f
constexpr u8 kPciCapabilityVendor = 0x09;

enum PciCapabilityType : u8 {
  kPciCommon = 1,
  kPciNotify = 2,
  kPciIsr = 3,
  kPciDevice = 4,
  kPciConfigAccess = 5,
};

struct PciCapability {
  u8 capability_id;  // kPciCapabilityVendor
  u8 next;
  u8 length;
  u8 type;  // PciCapabilityType
  u8 bar;
  u8 id;
  u8 padding[2];
  u32 offset;  // in the BAR
  u32 size;
};
static_assert(sizeof(PciCapability) == 16);
// A kPciNotify capability is followed by u32 notify_off_multiplier.

constexpr u16 kPciNoVector = 0xffff;

struct PciCommonConfig {
  u32 device_feature_select, device_feature;
  u32 driver_feature_select, driver_feature;
  u16 config_vector, queue_count;
  u8 device_status, config_generation;
  u16 queue_select, queue_size, queue_vector, queue_enable, queue_notify_offset;
  u64 queue_descriptors, queue_available, queue_used;
};
static_assert(sizeof(PciCommonConfig) == 56);

}  // namespace husk::abi::virtio
