// Adds mappings to a guest's page tables on the nub's behalf (abi/monitor_device.h, kMonitorMap).
//
// Worth it only where ring 0 is emulated; the monitor offers it there. Follows the nub's rules (abi/nub_policy.h) and only fills
// empty entries. Called on the vCPU's thread while the guest does not run. NubState, tables and calls are guest memory: everything read
// there is checked against the page-table pool before it is followed, so that a broken guest harms its own memory only.
#pragma once

#include "abi/machine_state.h"
#include "vmm/guest_memory.h"

namespace husk::vmm {

class TableFiller {
 public:
  TableFiller(const GuestMemory& memory, PhysAddr nub_state, PhysAddr vcpu_shared)
      : memory_(memory), nub_state_(nub_state), vcpu_shared_(vcpu_shared) {}

  // Performs the leading ones of VcpuShared::calls[0, count) and stores their number in calls_done.
  void run(u32 count);
  // Ring 0 is emulated on this host: no VMX, no SVM.
  static bool worthwhile();

 private:
  bool map(const abi::NubCall& call);
  bool map_leaf_table(u64 table, u64& va, u64& pa, u64 end, u64 leaf);
  u64* entry(u64 table, u64 index) const;
  u64 descend(u64 table, u64 va, int level, bool may_add);
  u64 take_table();
  bool add_use(u64 table, u64 entries);
  u16* usage(u64 table) const;

  const GuestMemory& memory_;
  PhysAddr nub_state_, vcpu_shared_;
  abi::NubState state_{};  // a copy for the time of one run()
};

}  // namespace husk::vmm
