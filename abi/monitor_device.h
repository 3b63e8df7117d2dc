// The monitor device: the only paravirtual interface besides virtio, at the highest level that serves a ring-3 kernel.
//
// Registers (4 KiB at kMonitorDeviceAddress), 32-bit stores; reading gives 0. The monitor ignores unknown ones.
// MonitorPage is ordinary guest RAM that the monitor knows the address of; it validates what it reads there.
#pragma once

#include "base/types.h"

namespace husk::abi {

constexpr u64 kMonitorDeviceAddress = u64{320} * kGiB;
constexpr u64 kVirtioMmioAddress = kMonitorDeviceAddress + kPageSize;  // one 4 KiB window per device
constexpr u64 kVirtioMmioStride = kPageSize;

enum MonitorRegister : u32 {
  kMonitorPowerOff = 0x00,     // value = exit status (0..255); does not return
  kMonitorPark = 0x08,         // returns when an event is pending or park_deadline has passed (or spuriously)
  kMonitorTimer = 0x10,        // timer_deadline became earlier; ioeventfd, never exits
  kMonitorTables = 0x20,       // value = count of VcpuShared::calls: performs the leading page-table calls, see below
  kMonitorBatchAccess = 0x18,  // value = physical address / 4096 of a MonitorBatch: does its accesses, then returns
  kMonitorBack = 0x28,         // value = (physical address / 2 MiB) << 8 | count: large pages that the program is about to touch one after another
};

// kMonitorTables: where ring 0 is emulated instruction by instruction, the monitor does the nub's page-table work natively, in one exit for a whole batch,
// under the nub's rules (nub_policy.h). `map` into empty entries it writes itself: no TLB or shadow page table can hold anything of them. Entries that are
// present it must not write behind the CPU's back: for `protect` and `unmap` it prepares the new entries (machine_state.h ApplyList), sets
// VcpuShared::calls_prepared, and the kernel has the nub write them (HUSK_NUB_APPLY) before it asks for anything else. `copy` between pages of RAM, or from the
// image into RAM, saves the guest the first uses of both, each of which KVM serves by an exit there. It stops at the first call that
// is anything else, that overlaps what is prepared, or that it would have to refuse, and stores how many it did in VcpuShared::calls_done; of a call that was
// too large it leaves the rest in the array. The nub does what remains and has the last word.

// kMonitorBack is advice: the host clears each page that it gives, which takes most of the time of a first touch, and another CPU of it may do that meanwhile.
constexpr u32 kMonitorBackCountBits = 8;

// Accesses to the registers of virtio-mmio windows in one exit (starting a device takes some thirty). The monitor does the first
// `count` in order, exactly as if each had been made singly (doorbells included), fills in the values of reads, and stores how many it
// did. It stops at an offset that is no register of a window. A monitor without the register leaves `done` at 0.
constexpr u32 kMonitorBatchMax = 511;
constexpr u32 kMonitorBatchRead = u32{1} << 31;  // in `offset`
struct MonitorBatch {
  u32 count;
  u32 done;
  struct Access {
    u32 offset;  // from kVirtioMmioAddress
    u32 value;
  } accesses[kMonitorBatchMax];
};
static_assert(sizeof(MonitorBatch) == kPageSize);

// Order of events in a start, all in TSC ticks; the monitor adds its own.
struct MonitorPage {
  u64 park_deadline;   // TSC; 0 = none. For the next kMonitorPark alone: another thread reads timer_deadline at any time
  u64 timer_deadline;  // TSC; 0 = none. While the program runs, HUSK_VECTOR_EVENT is injected at that time
  // Written by the kernel for --timeline and statistics.
  u64 tsc_kernel_start, tsc_program_start, tsc_program_exit;
  u64 syscalls_called, syscalls_trapped, upcalls, page_faults;
  u64 memory_used_peak;  // bytes of RAM, nub and kernel included
  u64 memory_total;
  // What the kernel had to say before its consoles worked, without an end if it is full. Shown if the machine ends without a report.
  u64 early_text_size;
  char early_text[512];
  // The kernel's word: it heeds the next field. Without it the monitor never serves a parked vCPU.
  u32 parks_at_once;
  // The monitor's word: while it is not 0, whoever parks has the monitor look for frames on the vCPU's own thread, and nobody else does: a guest without
  // work parks at once, instead of polling for a while.
  u32 serves_parked;
};
static_assert(sizeof(MonitorPage) <= kPageSize);

}  // namespace husk::abi
