// mremap(2): in place if there is room, else page-table entries move; contents are never copied.
#include <linux/mman.h>

#include <algorithm>

#include "kernel/mem/address_space_state.h"

namespace husk::mem {

using State = AddressSpace::State;

// Moves [start, start + old_length) of `m` to `to`, where it gets new_length. The target is free.
Result<u64> State::move(Mapping* m, u64 start, u64 old_length, u64 to, u64 new_length, bool keep) {
  TRY(isolate(start, start + old_length));
  m = containing(start);
  Mapping* target = clone(*m, start, start + old_length);
  if (target == nullptr) return Error(ENOMEM);
  target->grows_down = false;
  target->start = to;
  target->end = to + new_length;
  u64 moved = std::min(old_length, new_length);
  platform::PageTableBatch batch(space);
  Result<void> done = finish(batch, unmap_tables(batch, start, start + old_length));
  if (done) done = pages.move(start, to, moved);
  if (!done) {
    delete target;
    (void)finish(batch, map_tables(batch, *m, start, start + old_length, m->protection)).ok();  // else faults will
    return done.error();
  }
  pages.clear(start, start + old_length);
  insert(target);
  (void)finish(batch, map_tables(batch, *target, to, to + moved, target->protection)).ok();  // else faults will
  if (!keep) erase(m);
  merge(to, to + new_length);
  return to;
}

Result<u64> State::remap(u64 address, u64 old_length, u64 new_length, u32 flags, u64 new_address) {
  if ((flags & ~u32{MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP}) != 0) return Error(EINVAL);
  bool may_move = (flags & MREMAP_MAYMOVE) != 0, fixed = (flags & MREMAP_FIXED) != 0, keep = (flags & MREMAP_DONTUNMAP) != 0;
  if ((fixed || keep) && !may_move) return Error(EINVAL);
  if (keep && old_length != new_length) return Error(EINVAL);
  Mapping* m = containing(address);
  if (m == nullptr) return Error(EFAULT);
  if (old_length == 0) return duplicate(*m, address, new_length, may_move);

  if (fixed) {
    if (!is_aligned(new_address, kPageSize) || new_address > kUserEnd || new_length > kUserEnd - new_address) return Error(EINVAL);
    if (new_address < kUserStart) return Error(EPERM);
    if (new_address < address + old_length && address < new_address + new_length) return Error(EINVAL);
  }
  if (old_length > new_length) {
    TRY(unmap(address + new_length, address + old_length));
    old_length = new_length;
    m = containing(address);
  }
  if (!fixed && !keep && old_length == new_length) return address;
  if (m == nullptr || address + old_length > m->end) return Error(EFAULT);
  u64 object_end;
  if (m->object && !checked_add(m->offset + (address - m->start), new_length, &object_end)) return Error(EINVAL);
  if (fixed) {
    TRY(unmap(new_address, new_address + new_length));
    return move(containing(address), address, old_length, new_address, new_length, keep);
  }
  u64 end = address + new_length;
  if (!keep && address + old_length == m->end && end <= kUserEnd && is_free(m->end, end)) {
    resize(m, m->start, end);
    merge(m->start, end);
    return address;
  }
  if (!may_move) return Error(ENOMEM);
  // The same place within 2 MiB, so that large pages can move whole.
  bool large = new_length >= kHugePageSize;
  u64 to = large ? find_gap(new_length, mmap_top, kHugePageSize, address % kHugePageSize) : 0;
  if (to == 0) to = find_gap(new_length, mmap_top, kPageSize, 0);
  if (to == 0) return Error(ENOMEM);
  return move(m, address, old_length, to, new_length, keep);
}

// Old length 0: a second view of a shared object.
Result<u64> State::duplicate(const Mapping& m, u64 address, u64 length, bool may_move) {
  if (!m.shared || !m.object || !may_move) return Error(EINVAL);
  MapRequest request{.length = length, .protection = m.protection, .protection_limit = m.protection_limit};
  request.shared = true;
  request.object = m.object;
  request.offset = m.offset + (address - m.start);
  return map(request);
}

}  // namespace husk::mem
