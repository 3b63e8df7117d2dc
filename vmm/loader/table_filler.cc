// See table_filler.h.
#include "vmm/loader/table_filler.h"

#include <cpuid.h>

#include <algorithm>
#include <cstring>

#include "abi/nub_policy.h"

namespace husk::vmm {

using namespace abi;

bool TableFiller::worthwhile() {
  unsigned eax, ebx, ecx = 0, edx;
  bool vmx = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 5)) != 0;
  bool svm = __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 2)) != 0;
  return !vmx && !svm;
}

void TableFiller::run(u32 count) {
  u64 done = 0;
  PhysAddr shared = vcpu_shared_;
  std::span<u8> state = memory_.nub_range(nub_state_, sizeof(NubState));
  if (!state.empty()) {
    memcpy(&state_, state.data(), sizeof(NubState));
    for (; done < std::min<u64>(count, kNubCallsMax); ++done) {
      NubCall call;
      if (!memory_.read(shared + offsetof(VcpuShared, calls) + done * sizeof(NubCall), &call) || !map(call)) break;
    }
    memcpy(state.data() + offsetof(NubState, pool_next), &state_.pool_next, sizeof(u64));
    memcpy(state.data() + offsetof(NubState, pool_free), &state_.pool_free, sizeof(u64));
  }
  memory_.write(shared + offsetof(VcpuShared, calls_done), done);
}

// Null unless `table` is a page of the pool.
u64* TableFiller::entry(u64 table, u64 index) const {
  if (!is_aligned(table, kPageSize) || table < state_.pool_start || (table - state_.pool_start) / kPageSize >= state_.pool_pages) return nullptr;
  std::span<u8> page = memory_.nub_range({table}, kPageSize);
  return page.empty() ? nullptr : reinterpret_cast<u64*>(page.data()) + index;
}

u16* TableFiller::usage(u64 table) const {
  u64 offset = reinterpret_cast<u64>(state_.usage) - kNubRegionBase + (table - state_.pool_start) / kPageSize * sizeof(u16);
  PhysAddr at{state_.region_start + offset};
  std::span<u8> bytes = is_aligned(at.value, sizeof(u16)) ? memory_.nub_range(at, sizeof(u16)) : std::span<u8>();
  return bytes.empty() ? nullptr : reinterpret_cast<u16*>(bytes.data());
}

bool TableFiller::add_use(u64 table, u64 entries) {
  u16* used = usage(table);
  if (used == nullptr) return false;
  if (*used != kPoolRoot) *used = static_cast<u16>(*used + entries);
  return true;
}

// 0: none left, or the free list is broken.
u64 TableFiller::take_table() {
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
u64 TableFiller::descend(u64 table, u64 va, int level, bool may_add) {
  u64* slot = entry(table, (va >> (3 + 9 * level)) & 511);
  if (slot == nullptr || (*slot & (kPteHuge | kPteSealed)) != 0) return 0;
  if (*slot != 0) return *slot & kPteFrame;
  u64 added = may_add ? take_table() : 0;
  if (added == 0 || !add_use(table, 1)) return 0;
  *slot = added | kPteTable;
  return added;
}

// False: leave this call, and what follows it, to the nub. What was entered before stays; the nub enters the same again.
bool TableFiller::map(const NubCall& call) {
  u64 bits;
  if (call.op != NubOp::map || call.space != 0 || check_range(call.va, call.length) != 0) return false;
  if (!is_aligned(call.pa, kPageSize) || call.pa + call.length < call.pa || !classify(state_, call.pa, call.length, &bits)) return false;
  bool upper = call.va >= kUpperStart;
  u64 leaf = permitted(state_, call.flags, bits, upper);
  if (leaf == 0) return false;
  u64 va = call.va, pa = call.pa, end = call.va + call.length;
  while (va < end) {
    u64 table = descend(state_.boot_root, va, 4, !upper);  // every space shares the upper half's first level
    if (table != 0) table = descend(table, va, 3, true);
    if (table == 0) return false;
    u64* slot = entry(table, (va >> kHugePageShift) & 511);
    if (slot == nullptr) return false;
    if (*slot == 0 && is_aligned(va | pa, kHugePageSize) && end - va >= kHugePageSize) {
      if (!add_use(table, 1)) return false;
      *slot = pa | leaf | kPteHuge;
      va += kHugePageSize;
      pa += kHugePageSize;
    } else {
      table = descend(table, va, 2, true);
      if (table == 0 || !map_leaf_table(table, va, pa, end, leaf)) return false;
    }
  }
  return true;
}

bool TableFiller::map_leaf_table(u64 table, u64& va, u64& pa, u64 end, u64 leaf) {
  u64* slot = entry(table, (va >> kPageShift) & 511);
  u64 stop = std::min(end, align_down(va, kHugePageSize) + kHugePageSize);
  if (slot == nullptr) return false;
  u64 added = 0;
  for (; va < stop && *slot == 0; va += kPageSize, pa += kPageSize, ++added) *slot++ = pa | leaf;
  return add_use(table, added) && va == stop;
}

}  // namespace husk::vmm
