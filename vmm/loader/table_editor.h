// Works on a guest's page tables on the nub's behalf (abi/monitor_device.h, kMonitorTables).
//
// Worth it only where ring 0 is emulated; the monitor offers it there. Follows the nub's rules (abi/nub_policy.h). It fills empty entries itself;
// new values of entries that are present go into the ApplyList, which the nub writes, so that KVM sees the change. Called on the vCPU's thread while
// the guest does not run. NubState, tables and calls are guest memory: everything read there is checked against the page-table pool before it is
// followed, so that a broken guest harms its own memory only.
#pragma once

#include "abi/machine_state.h"
#include "vmm/guest_memory.h"

namespace husk::vmm {

class TableEditor {
 public:
  TableEditor(const GuestMemory& memory, PhysAddr nub_state, PhysAddr vcpu_shared)
      : memory_(memory), nub_state_(nub_state), vcpu_shared_(vcpu_shared) {}

  // Performs the leading ones of VcpuShared::calls[0, count): stores their number in calls_done and whether the nub must complete them in calls_prepared.
  void run(u32 count);
  // Ring 0 is emulated on this host: no VMX, no SVM.
  static bool worthwhile();
  // Up to where something of the RAM was mapped so far.
  u64 memory_end() const { return memory_end_; }

 private:
  bool perform(abi::NubCall& call, bool* shortened);
  bool may_map(const abi::NubCall& call);
  bool map(const abi::NubCall& call);
  bool map_leaf_table(u64 table, u64& va, u64& pa, u64 end);
  bool change(abi::NubCall& call, bool* shortened);
  bool change_leaf_table(u64 table, u64& va, u64 end, const abi::NubCall& call, bool* full);
  bool undo(u64 runs, u64 entries);
  bool replacement(u64 old, const abi::NubCall& call, u64 pa, u64* entry) const;
  u64 removed_from(u64 usage) const;
  u64* entry(u64 table, u64 index) const;
  u64 descend(u64 table, u64 va, int level, bool may_add);
  u64 take_table();
  bool add_use(u64 table, u64 entries);
  u64 usage_address(u64 table) const;  // of its count in NubState::usage, as the nub sees it
  u16* usage(u64 table) const;

  const GuestMemory& memory_;
  PhysAddr nub_state_, vcpu_shared_;
  u64 memory_end_ = 0;
  // For the time of one run():
  abi::NubState state_{};  // a copy
  abi::ApplyList list_{};
  u64 leaf_ = 0;  // what a `map` call's entries have besides their frames
  u64 runs_ = 0, entries_ = 0;
  u64 prepared_start_ = 0, prepared_end_ = 0;  // addresses, from the first to the last that list_ changes
};

}  // namespace husk::vmm
