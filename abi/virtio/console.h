// virtio console (virtio 1.2 §5.3), without the multiport feature: queue 0 carries bytes to the guest, queue 1 from it.
// A device of exactly two ports is used through its second one: QEMU drops what a virtconsole (port 0) cannot write at once,
// and holds back a virtserialport.
//
// Under every loader console 0 is stdin and stdout, 1 is stderr, 2 is the control console (abi/control_records.h):
// in the order of the virtio-mmio windows, or of PCI device numbers.
#pragma once

#include "base/types.h"

namespace husk::abi::virtio {

constexpr u32 kConsoleReceiveQueue = 0;
constexpr u32 kConsoleTransmitQueue = 1;
constexpr u32 kConsoleQueueCount = 2;
constexpr u32 kPortControlQueue = 3;  // from the guest
constexpr u32 kPortReceiveQueue = 4;
constexpr u32 kPortTransmitQueue = 5;
constexpr u32 kPortQueueCount = 6;

struct PortMessage {  // §5.3.6.2, in the control queue
  u32 port;
  u16 event, value;
};
static_assert(sizeof(PortMessage) == 8);
enum PortEvent : u16 { kPortDeviceReady = 0, kPortReady = 3, kPortOpen = 6 };

// Feature bit numbers.
constexpr u32 kConsoleFeatureSize = 0;
constexpr u32 kConsoleFeatureMultiport = 1;
constexpr u32 kConsoleFeatureEmergencyWrite = 2;

struct ConsoleConfig {
  u16 columns, rows;
  u32 ports_max;
  u32 emergency_write;
};
static_assert(sizeof(ConsoleConfig) == 12);

constexpr u32 kHuskConsoleCount = 3;
enum HuskConsole : u32 { kConsoleStandard = 0, kConsoleError = 1, kConsoleControl = 2 };

}  // namespace husk::abi::virtio
