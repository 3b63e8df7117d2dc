// Boot info: what the kernel finds when it starts, in one read-only page run; rdi points at it.
//
// Written by abi/machine_state.h (in the monitor, or in the nub when another loader booted it).
// Virtual addresses are in the first address space. The first thread starts in ring 3 at kernel_start with
// rsp = boot stack, gs base = VcpuShared of vCPU 0, interrupts_enabled = 0.
#pragma once

#include "base/types.h"

namespace husk::abi {

constexpr u64 kBootInfoMagic = 0x4f464e494b535548;  // "HUSKINFO"
constexpr u32 kBootInfoVersion = 1;

enum class MachineKind : u32 {
  monitor = 1,  // the husk monitor: monitor_device.h; no local APIC, no port I/O
  pc = 2,       // PVH loader: local APIC timer, 16550, virtio-mmio or PCI
};

enum class WindowKind : u32 { none = 0, monitor_device = 1, virtio_mmio = 2, pci_ecam = 3, pci_bars = 4 };

struct MemoryRange {
  u64 start, size;
};

// A range of device registers, mapped uncached for ring 3 at `virtual_address`.
struct DeviceWindow {
  WindowKind kind;
  u32 interrupt;  // line or vector if the device has one, else 0
  u64 physical_address, size, virtual_address;
};

constexpr u32 kFreeRangesMax = 16;
constexpr u32 kWindowsMax = 40;

struct BootInfo {
  u64 magic;
  u32 version;
  MachineKind machine;
  u64 kernel_base, kernel_size;
  u64 direct_base;                             // RAM: virtual = direct_base + physical; nub memory and sealed pages are missing from it
  u64 direct_size;                             // bytes of physical address space that it covers
  u64 image_base, image_size, image_physical;  // the image file, mapped read-only
  u64 vcpu_shared, vcpu_shared_physical;       // VcpuShared of vCPU 0 (page), and behind it:
  u64 upcall_stack_top;                        // has an unmapped guard page below its kUpcallStackSize
  u64 boot_stack_top;                          // likewise
  u64 kernel_area_start, kernel_area_end;      // virtual range that the kernel may hand out (heap, stacks, windows)
  u64 config_base, config_size;                // boot configuration in effect (boot_config.h)
  u64 monitor_page;                            // virtual address of MonitorPage, 0 on pc
  u64 ram_size;                                // without the image; on our monitor as given with -m
  u64 nub_size;                                // what the nub keeps for itself
  u64 start_tsc;                               // TSC just before the vCPU first ran (monitor) or at nub entry
  u32 free_range_count, window_count;
  MemoryRange free_ranges[kFreeRangesMax];  // RAM that nobody uses yet; contents zero iff ram_is_zero
  DeviceWindow windows[kWindowsMax];
  u32 ram_is_zero;
  u32 image_flags;
  u32 monitor_tables;  // 1: kMonitorTables is there and cheaper than a nub call
  u32 reserved;
  u8 entropy[32];  // for address randomisation, not the same bytes as ConfigTag::random_seed
};
static_assert(sizeof(BootInfo) <= 4096);

constexpr u64 kUpcallStackSize = 8 * kKiB;
constexpr u64 kBootStackSize = 32 * kKiB;

}  // namespace husk::abi
