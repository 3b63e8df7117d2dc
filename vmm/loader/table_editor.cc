// See table_editor.h.
#include "vmm/loader/table_editor.h"

#include <algorithm>
#include <cstring>

#include "abi/nub_policy.h"
#include "vmm/kvm/vm.h"

namespace husk::vmm {

using namespace abi;

bool TableEditor::worthwhile() { return !has_hardware_virtualization(); }

void TableEditor::run(u32 count) {
  u64 done = 0;
  PhysAddr shared = vcpu_shared_;
  std::span<u8> state = memory_.nub_range(nub_state_, sizeof(NubState));
  runs_ = entries_ = 0;
  if (!state.empty()) {
    memcpy(&state_, state.data(), sizeof(NubState));
    for (; done < std::min<u64>(count, kNubCallsMax); ++done) {
      NubCall call;
      PhysAddr at = shared + offsetof(VcpuShared, calls) + done * sizeof(NubCall);
      bool shortened = false;
      if (!memory_.read(at, &call) || !perform(call, &shortened)) break;
      if (shortened) {
        memory_.write(at, call);
        break;
      }
    }
    memcpy(state.data() + offsetof(NubState, pool_next), &state_.pool_next, sizeof(u64));
    memcpy(state.data() + offsetof(NubState, pool_free), &state_.pool_free, sizeof(u64));
    // What an earlier run prepared and the nub has not written is void, whatever happens now.
    std::span<u8> list = memory_.nub_range({state_.apply_list}, sizeof(ApplyList));
    list_.runs[runs_].count = 0;
    if (!list.empty()) memcpy(list.data(), &list_, sizeof(list_.runs) + (runs_ != 0 ? entries_ * sizeof(u64) : 0));
    else done = runs_ = 0;
  }
  memory_.write(shared + offsetof(VcpuShared, calls_done), done);
  memory_.write(shared + offsetof(VcpuShared, calls_prepared), u64{runs_ != 0});
}

constexpr u64 kStepsMax = 4096;  // tables or holes in one call: broken tables may lead in circles

// Null unless `table` is a page of the pool.
u64* TableEditor::entry(u64 table, u64 index) const {
  if (!is_aligned(table, kPageSize) || table < state_.pool_start || (table - state_.pool_start) / kPageSize >= state_.pool_pages) return nullptr;
  std::span<u8> page = memory_.nub_range({table}, kPageSize);
  return page.empty() ? nullptr : reinterpret_cast<u64*>(page.data()) + index;
}

u64 TableEditor::usage_address(u64 table) const {
  return reinterpret_cast<u64>(state_.usage) + (table - state_.pool_start) / kPageSize * sizeof(u16);
}
u16* TableEditor::usage(u64 table) const {
  PhysAddr at{state_.region_start + (usage_address(table) - kNubRegionBase)};
  std::span<u8> bytes = is_aligned(at.value, sizeof(u16)) ? memory_.nub_range(at, sizeof(u16)) : std::span<u8>();
  return bytes.empty() ? nullptr : reinterpret_cast<u16*>(bytes.data());
}

bool TableEditor::add_use(u64 table, u64 entries) {
  u16* used = usage(table);
  if (used == nullptr) return false;
  if (*used != kPoolRoot) *used = static_cast<u16>(*used + entries);
  return true;
}

// 0: none left, or the free list is broken.
u64 TableEditor::take_table() {
  u64 index = state_.pool_next;
  bool reused = state_.pool_free != 0;
  if (reused) index = state_.pool_free - 1;
  u64 table = state_.pool_start + index * kPageSize;
  u64* first = index < state_.pool_pages ? entry(table, 0) : nullptr;
  u16* used = first != nullptr ? usage(table) : nullptr;
  if (used == nullptr) return 0;
  if (reused) state_.pool_free = *first;
  else ++state_.pool_next;
  if (reused || !state_.ram_is_zero) std::fill_n(first, kPageSize / sizeof(u64), 0);
  *used = 0;
  return table;
}

// The table one level below `table` (4 is the root's level) on the way to va; 0 if there is none and none may be added.
u64 TableEditor::descend(u64 table, u64 va, int level, bool may_add) {
  u64* slot = entry(table, (va >> (3 + 9 * level)) & 511);
  if (slot == nullptr || (*slot & (kPteHuge | kPteSealed)) != 0) return 0;
  if (*slot != 0) return *slot & kPteFrame;
  u64 added = may_add ? take_table() : 0;
  if (added == 0 || !add_use(table, 1)) return 0;
  *slot = added | kPteTable;
  return added;
}

// False: leave this call, and what follows it, to the kernel (copies) and the nub. What was entered before stays; the nub enters the same again.
bool TableEditor::perform(NubCall& call, bool* shortened) {
  if (call.op == NubOp::copy) {
    std::span<const u8> from = memory_.readable({call.pa}, call.length);
    std::span<u8> to = memory_.writable({call.va}, call.length);
    if (from.empty() || to.empty()) return false;
    memmove(to.data(), from.data(), call.length);
    return true;
  }
  if (call.space != 0 || check_range(call.va, call.length) != 0) return false;
  if (runs_ != 0 && !apart(call.va, call.length, prepared_start_, prepared_end_ - prepared_start_)) return false;
  if (call.op == NubOp::map) {
    if (!may_map(call)) return false;
    if (call.pa < kMonitorImageAddress) memory_end_ = std::max(memory_end_, call.pa + call.length);
    return map(call) || change(call, shortened);
  }
  return (call.op == NubOp::unmap || call.op == NubOp::protect) && change(call, shortened);
}

bool TableEditor::may_map(const NubCall& call) {
  u64 bits;
  if (!is_aligned(call.pa, kPageSize) || call.pa + call.length < call.pa || !classify(state_, call.pa, call.length, &bits)) return false;
  leaf_ = permitted(state_, call.flags, bits, call.va >= kUpperStart);
  return leaf_ != 0;
}

// Into empty entries only; false also if one is in use.
bool TableEditor::map(const NubCall& call) {
  bool upper = call.va >= kUpperStart;
  u64 va = call.va, pa = call.pa, end = call.va + call.length;
  while (va < end) {
    u64 table = descend(state_.boot_root, va, 4, !upper);  // every space shares the upper half's first level
    if (table != 0) table = descend(table, va, 3, true);
    if (table == 0) return false;
    u64* slot = entry(table, (va >> kHugePageShift) & 511);
    if (slot == nullptr) return false;
    if (*slot == 0 && is_aligned(va | pa, kHugePageSize) && end - va >= kHugePageSize) {
      if (!add_use(table, 1)) return false;
      *slot = pa | leaf_ | kPteHuge;
      va += kHugePageSize;
      pa += kHugePageSize;
    } else {
      table = descend(table, va, 2, true);
      if (table == 0 || !map_leaf_table(table, va, pa, end)) return false;
    }
  }
  return true;
}

bool TableEditor::map_leaf_table(u64 table, u64& va, u64& pa, u64 end) {
  u64* slot = entry(table, (va >> kPageShift) & 511);
  u64 stop = std::min(end, align_down(va, kHugePageSize) + kHugePageSize);
  if (slot == nullptr) return false;
  u64 added = 0;
  for (; va < stop && *slot == 0; va += kPageSize, pa += kPageSize, ++added) *slot++ = pa | leaf_;
  return add_use(table, added) && va == stop;
}

// Prepares all of the call, or as much as there is room for: then the call is shortened to the rest. False: something of it is for the nub.
bool TableEditor::change(NubCall& call, bool* shortened) {
  const u64 runs = runs_, entries = entries_, end = call.va + call.length;
  u64 va = call.va;
  bool full = false;
  for (u64 steps = 1; va < end && !full; ++steps) {
    full = steps == kStepsMax;
    u64 table = state_.boot_root, size = 0;
    for (int level = 4; level >= 2 && table != 0; --level) {
      const u64* slot = entry(table, (va >> (3 + 9 * level)) & 511);
      size = u64{1} << (3 + 9 * level);
      if (slot != nullptr && *slot == 0 && call.op != NubOp::map) table = 0;
      else if ((table = descend(table, va, level, call.op == NubOp::map && (level < 4 || va < kUpperStart))) == 0) return undo(runs, entries);
    }
    if (table == 0) va = align_down(va, size) + size;  // a hole; in the canonical halves this does not wrap
    else if (!change_leaf_table(table, va, end, call, &full)) return undo(runs, entries);
  }
  if (full && va == call.va) return false;
  *shortened = full;
  if (runs_ != runs) {
    prepared_start_ = runs == 0 ? call.va : std::min(prepared_start_, call.va);
    prepared_end_ = runs == 0 ? va : std::max(prepared_end_, va);
  }
  call.pa += va - call.va;
  call.va = va;
  call.length = end - va;
  return true;
}
bool TableEditor::undo(u64 runs, u64 entries) {
  runs_ = runs;
  entries_ = entries;
  return false;
}

bool TableEditor::change_leaf_table(u64 table, u64& va, u64 end, const NubCall& call, bool* full) {
  const u64 first = (va >> kPageShift) & 511, stop = std::min(end, align_down(va, kHugePageSize) + kHugePageSize);
  const u64 wanted = (stop - va) >> kPageShift, count = runs_ == kApplyRunsMax ? 0 : std::min(wanted, kApplyEntriesMax - entries_);
  const u64* slot = entry(table, first);
  const u16* used = usage(table);
  if (slot == nullptr || used == nullptr) return false;
  u64 removed = 0, changed = 0, pa = call.pa + (va - call.va);
  if (call.op == NubOp::map && is_aligned(va | pa, kHugePageSize) && wanted == 512) return false;  // a large page
  for (u64 i = 0; i < count; ++i) {
    u64 value = 0;
    if (!replacement(slot[i], call, pa + (i << kPageShift), &value)) return false;
    if (value != slot[i]) ++changed;
    removed += u64{slot[i] != 0} - u64{value != 0};
    list_.entries[entries_ + i] = value;
  }
  va += count << kPageShift;
  if (count == 0) *full = true;
  if (changed == 0) return true;
  if (count < wanted) *full = true;
  const u64 counter = usage_address(table);
  if (static_cast<i64>(*used - removed_from(counter) - removed) <= 0) return false;  // the nub frees tables
  list_.runs[runs_++] = {count, kNubRegionBase + (table - state_.region_start) + first * sizeof(u64),
                         kNubVcpuBase + kBlockApply + offsetof(ApplyList, entries) + entries_ * sizeof(u64), counter, removed};
  entries_ += count;
  return true;
}

u64 TableEditor::removed_from(u64 usage) const {
  u64 sum = 0;
  for (u64 i = 0; i < runs_; ++i) sum += list_.runs[i].usage == usage ? list_.runs[i].removed : 0;
  return sum;
}

bool TableEditor::replacement(u64 old, const NubCall& call, u64 pa, u64* entry) const {
  if (old & kPteSealed) return false;
  if (call.op == NubOp::map) *entry = leaf_ | pa;
  if (call.op != NubOp::protect || old == 0) return true;
  u64 bits = permitted(state_, call.flags, old & (kPteImage | kPteDevice), call.va >= kUpperStart);
  *entry = bits | (old & kPteFrame);
  return bits != 0;
}

}  // namespace husk::vmm
