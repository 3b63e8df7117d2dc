// Mappings: placing, splitting, merging, and the operations that programs ask for.
#include "kernel/mem/address_space.h"

#include <asm/mman.h>

#include <algorithm>

#include "base/panic.h"
#include "kernel/mem/address_space_state.h"
#include "kernel/mem/frames.h"

namespace husk::mem {

namespace {

constexpr u64 kStackGuard = kMiB;  // Linux: stack_guard_gap, 256 pages
constexpr u64 kLow2GiB = u64{1} << 31;
constexpr u64 kHugeWorthwhile = 4 * kMiB;  // anonymous mappings from this size on are placed for 2 MiB pages
constexpr u64 kEagerText = 8 * kMiB;       // image files up to this size are mapped whole at once
constexpr u64 kStackTop = 16 * kPageSize;  // of a thread's new stack: present at once
constexpr const char* kHeapLabel = "[heap]";

bool valid_range(u64 address, u64 length) { return address <= kUserEnd && length <= kUserEnd - address; }

bool mergeable(const Mapping& a, const Mapping& b) {
  return a.end == b.start && a.protection == b.protection && a.protection_limit == b.protection_limit && a.shared == b.shared &&
         a.object == b.object && a.label == b.label && a.huge == b.huge && !a.grows_down && !b.grows_down &&
         (!a.object || a.offset + a.length() == b.offset);
}

u64 lowest_free_below(const Mapping& m) {
  const Mapping* previous = Mappings::previous(&m);
  return previous == nullptr ? kUserStart : previous->end;
}

// The highest address for `length` bytes in [low, high) that is `phase` above a multiple of alignment; 0: none.
u64 fit(u64 low, u64 high, u64 length, u64 alignment, u64 phase) {
  if (high < low || high - low < length || high - length < phase) return 0;
  u64 at = align_down(high - length - phase, alignment) + phase;
  return at >= low ? at : 0;
}

struct GapSearch {
  u64 length, limit, alignment, phase;

  // The gaps below the mappings of a subtree, from the highest down.
  u64 in(const Mapping* m) const {
    if (m == nullptr || m->gap_below < length) return 0;
    if (m->start < limit) {
      if (u64 found = in(m->right())) return found;
    }
    u64 low = lowest_free_below(*m);
    if (m->gap >= length && low < limit) {
      if (u64 found = fit(low, std::min(low + m->gap, limit), length, alignment, phase)) return found;
    }
    return in(m->left());
  }
};

}  // namespace

void MappingOrder::summarise(Mapping& m) {
  m.gap_below = m.gap;
  if (m.left() != nullptr) m.gap_below = std::max(m.gap_below, m.left()->gap_below);
  if (m.right() != nullptr) m.gap_below = std::max(m.gap_below, m.right()->gap_below);
}

// --- the tree ----------------------------------------------------------------------------------------------------------

using State = AddressSpace::State;

Mapping* State::containing(u64 address) const {
  Mapping* m = mappings.at_or_before(address);
  return m != nullptr && address < m->end ? m : nullptr;
}

Mapping* State::first_ending_after(u64 address) const {
  Mapping* m = containing(address);
  return m != nullptr ? m : mappings.at_or_after(address);
}

bool State::is_free(u64 start, u64 end) const {
  const Mapping* m = first_ending_after(start);
  return m == nullptr || m->start >= end;
}

// Up to where mappings follow one another without a hole.
u64 State::covered_end(u64 start, u64 end) const {
  u64 at = start;
  for (const Mapping* m = containing(start); m != nullptr && m->start <= at && at < end; m = Mappings::next(m)) at = m->end;
  return std::min(at, end);
}

u64 State::find_gap(u64 length, u64 limit, u64 alignment, u64 phase) const {
  const Mapping* last = mappings.last();
  u64 low = last == nullptr ? kUserStart : last->end;
  if (u64 found = fit(low, limit, length, alignment, phase)) return found;
  return GapSearch{length, limit, alignment, phase}.in(mappings.root());
}

void State::refresh_gap(Mapping* m) {
  if (m == nullptr) return;
  u64 low = lowest_free_below(*m), high = m->start - (m->grows_down ? std::min(kStackGuard, m->start) : 0);
  m->gap = high > low ? high - low : 0;
  mappings.changed(m);
}

void State::insert(Mapping* m) {
  mapped += m->length();
  m->space = this;
  if (m->object) m->object->add_observer(m);
  mappings.insert(m);
  refresh_gap(m);
  refresh_gap(Mappings::next(m));
}

void State::erase(Mapping* m) {
  Mapping* next = Mappings::next(m);
  mapped -= m->length();
  mappings.remove(m);
  refresh_gap(next);
  MemoryObject::remove_observer(m);
  delete m;
}

void State::resize(Mapping* m, u64 start, u64 end) {
  mapped += (end - start) - m->length();
  m->start = start;
  m->end = end;
  refresh_gap(m);
  refresh_gap(Mappings::next(m));
}

Mapping* State::clone(const Mapping& m, u64 start, u64 end) {
  Mapping* copy = new (std::nothrow) Mapping;
  if (copy == nullptr) return nullptr;
  copy->start = start;
  copy->end = end;
  copy->offset = m.object ? m.offset + (start - m.start) : 0;
  copy->protection = m.protection;
  copy->protection_limit = m.protection_limit;
  copy->shared = m.shared;
  copy->whole = m.whole;
  copy->huge = m.huge;
  copy->label = m.label;
  copy->object = m.object;
  return copy;
}

Result<void> State::split_at(u64 address) {
  Mapping* m = containing(address);
  if (m == nullptr || m->start == address) return {};
  if (!is_aligned(address, kHugePageSize)) TRY(pages.split(address));
  Mapping* upper = clone(*m, address, m->end);
  if (upper == nullptr) return Error(ENOMEM);
  resize(m, m->start, address);
  insert(upper);
  return {};
}

// Joins what can be joined from the mapping below `start` to the one at `end`.
void State::merge(u64 start, u64 end) {
  Mapping* m = mappings.at_or_before(start == 0 ? 0 : start - 1);
  if (m == nullptr) m = mappings.first();
  while (m != nullptr && m->start <= end) {
    Mapping* next = Mappings::next(m);
    if (next == nullptr) return;
    if (!mergeable(*m, *next)) {
      m = next;
      continue;
    }
    u64 joined_end = next->end;
    erase(next);
    resize(m, m->start, joined_end);
  }
}

// --- mmap, munmap, mprotect, madvise, brk ------------------------------------------------------------------------------------

Result<u64> State::choose_address(const MapRequest& request, u64 length) {
  using Placement = MapRequest::Placement;
  u64 at = request.address;
  if (request.placement == Placement::fixed || request.placement == Placement::fixed_noreplace) {
    if (!is_aligned(at, kPageSize)) return Error(EINVAL);
    if (!valid_range(at, length)) return Error(ENOMEM);
    if (at < kUserStart) return Error(EPERM);
    if (request.placement == Placement::fixed_noreplace && !is_free(at, at + length)) return Error(EEXIST);
    return at;
  }
  at = align_up(at, kPageSize);
  bool hinted = request.placement == Placement::hint && at >= kUserStart && valid_range(at, length);
  if (hinted && is_free(at, at + length)) return at;
  u64 limit = request.below_2g ? kLow2GiB : mmap_top;
  if (!request.object && length >= kHugeWorthwhile && !request.small_pages) {
    if (u64 found = find_gap(length, limit, kHugePageSize, 0)) return found;
  }
  if (u64 found = find_gap(length, limit, kPageSize, 0)) return found;
  u64 found = request.below_2g ? 0 : find_gap(length, kUserEnd, kPageSize, 0);
  if (found == 0) return Error(ENOMEM);
  return found;
}

Result<u64> State::map(const MapRequest& request) {
  u64 length = align_up(request.length, kPageSize);
  if (request.length == 0) return Error(EINVAL);
  if (length == 0 || length > kUserEnd) return Error(ENOMEM);
  if (!is_aligned(request.offset, kPageSize)) return Error(EINVAL);
  u64 object_end;
  if (request.object && !checked_add(request.offset, length, &object_end)) return Error(EOVERFLOW);
  TRY(check_policy(request.protection, request.object.get()));
  u64 start = TRY(choose_address(request, length));
  if (!is_free(start, start + length)) TRY(unmap(start, start + length));
  Mapping* m = new (std::nothrow) Mapping;
  if (m == nullptr) return Error(ENOMEM);
  m->start = start;
  m->end = start + length;
  m->offset = request.object ? request.offset : 0;
  m->protection = request.protection;
  m->protection_limit = request.protection_limit;
  m->shared = request.shared;
  m->grows_down = request.grows_down;
  m->huge = request.small_pages ? HugeAdvice::never : HugeAdvice::normal;
  m->label = request.label;
  m->object = request.object;
  bool constant = request.object && request.object->immutable() && request.protection != 0 && (request.protection & kProtWrite) == 0;
  m->whole = constant && length <= kEagerText;
  insert(m);
  merge(start, start + length);
  u64 from = request.populate ? start : early_start(request, start, length);
  if (from == 0) return start;
  // A loader writes to a library's data at once, but not to what it maps behind that. What is only read waits, with MAP_POPULATE, too.
  const bool writable = (request.protection & kProtWrite) != 0, fixed = request.placement == MapRequest::Placement::fixed;
  const bool at_once = writable && (request.object || !fixed);
  // As on Linux, MAP_POPULATE that fails is no failure of mmap.
  (void)populate(from, start + length, writable ? Access::write : Access::read, at_once).ok();
  return start;
}

Result<void> State::unmap(u64 start, u64 end) {
  if (is_free(start, end)) return {};
  TRY(isolate(start, end));
  TRY(drop_pages(start, end));
  for (Mapping* m = mappings.at_or_after(start); m != nullptr && m->start < end;) {
    Mapping* next = Mappings::next(m);
    erase(m);
    m = next;
  }
  return {};
}

Result<void> State::may_protect(u64 start, u64 end, u32 protection) {
  for (Mapping* m = first_ending_after(start); m != nullptr && m->start < end; m = Mappings::next(m)) {
    if ((protection & ~m->protection_limit) != 0) return Error(EACCES);
    if ((m->protection & protection) == protection) continue;
    TRY(check_policy(protection, m->object.get()));
    if ((protection & kProtExecute) == 0 || jit) continue;
    bool written = false;
    pages.for_each_run(std::max(start, m->start), std::min(end, m->end), [&](u64, u64, PageEntry entry) { written |= (entry & kEntryOwned) != 0; });
    if (written) return refuse_execution();
  }
  return {};
}

// A loader makes each library's relocated data read-only before the program runs, one after the other, and the program's own, which lies below the heap,
// last. Nobody writes to them in between, so that they wait in `early`, which is entered with the program's own, or whatever else comes first.
bool State::is_relro(const Mapping& m, u64 end, u32 protection) const {
  return loading && m.start > heap_start && m.end == end && m.object && m.object->immutable() && !m.shared &&
         m.protection == (kProtRead | kProtWrite) && protection == kProtRead;
}

Result<void> State::protect(u64 start, u64 end, u32 protection) {
  u64 stop = covered_end(start, end);
  if (stop > start) {
    TRY(may_protect(start, stop, protection));
    TRY(isolate(start, stop));
    const Mapping& first = *containing(start);
    const bool waits = is_relro(first, stop, protection), stack = first.protection == 0 && first.huge == HugeAdvice::never;
    Result<void> done;
    for (Mapping* m = mappings.at_or_after(start); m != nullptr && m->start < stop && done; m = Mappings::next(m)) {
      if (m->protection == protection) continue;
      done = protect_tables(early, *m, protection);
      if (done) m->protection = protection;
    }
    if (!waits) done = finish(early, std::move(done));
    merge(start, stop);
    TRY(std::move(done));
    if (stack) populate_first(std::max(start, stop - kStackTop), stop);
  }
  if (stop < end) return Error(ENOMEM);
  return {};
}

Result<void> State::advise_mapping(Mapping& m, u64 start, u64 end, int advice) {
  switch (advice) {
    case MADV_FREE:
      if (m.object || m.shared) return Error(EINVAL);
      // Dropping costs faults later; while memory is plentiful the pages may as well stay.
      if (memory_statistics().free > memory_statistics().total / 2) return {};
      return drop_pages(start, end);
    case MADV_DONTNEED:
      if (!m.object && (m.shared || clear_pages(start, end))) return {};
      return drop_pages(start, end);
    case MADV_POPULATE_READ: return populate(start, end, Access::read);
    case MADV_POPULATE_WRITE: return populate(start, end, Access::write);
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE: {
      HugeAdvice huge = advice == MADV_HUGEPAGE ? HugeAdvice::always : HugeAdvice::never;
      if (m.huge == huge) return {};
      TRY(isolate(start, end));
      containing(start)->huge = huge;
      return {};
    }
    default: return {};
  }
}

Result<void> State::advise(u64 start, u64 end, int advice) {
  bool hole = false;
  u64 at = start;
  while (at < end) {
    Mapping* m = first_ending_after(at);
    hole |= m == nullptr || m->start > at;
    if (m == nullptr || m->start >= end) break;
    u64 to = std::min(end, m->end);
    TRY(advise_mapping(*m, std::max(at, m->start), to, advice));  // may split m
    at = to;
  }
  if (advice == MADV_HUGEPAGE || advice == MADV_NOHUGEPAGE) merge(start, end);
  if (hole) return Error(ENOMEM);
  return {};
}

Result<void> State::grow_heap(u64 from, u64 to) {
  if (!valid_range(from, to - from) || !is_free(from, to)) return Error(ENOMEM);
  Mapping* above = mappings.at_or_after(from);
  if (above != nullptr && above->start - to < (above->grows_down ? kStackGuard : 0)) return Error(ENOMEM);
  Mapping* heap = from == 0 ? nullptr : containing(from - 1);
  if (heap != nullptr && heap->label == kHeapLabel && heap->protection == (kProtRead | kProtWrite)) {
    resize(heap, heap->start, to);
    return {};
  }
  MapRequest request{.address = from, .length = to - from, .protection = kProtRead | kProtWrite};
  request.placement = MapRequest::Placement::fixed_noreplace;
  request.label = kHeapLabel;
  TRY(map(request));
  return {};
}

u64 State::set_heap_end(u64 end) {
  if (end < heap_start || end > kUserEnd) return heap_end;
  u64 old_page = align_up(heap_end, kPageSize), new_page = align_up(end, kPageSize);
  Result<void> done;
  if (new_page > old_page) done = grow_heap(old_page, new_page);
  if (new_page < old_page) done = unmap(new_page, old_page);
  if (done && new_page > old_page) populate_first(old_page, new_page);
  if (done) heap_end = end;
  return heap_end;
}

Result<void> State::resident(u64 start, u64 end, u8* bits) const {
  if (covered_end(start, end) != end) return Error(ENOMEM);
  u64 at = start;
  for (const Mapping* m = containing(start); at < end; m = Mappings::next(m)) {
    bool always = m->object && m->object->immutable();
    for (; at < std::min(m->end, end); at += kPageSize) *bits++ = always || pages.get(at) != 0;
  }
  return {};
}

void State::clear_all() {
  (void)early.flush().ok();
  HUSK_ASSERT(drop_pages(0, kUserEnd).ok());
  while (Mapping* m = mappings.first()) erase(m);
}

// --- the public face -------------------------------------------------------------------------------------------------------

AddressSpace::AddressSpace() = default;
AddressSpace::~AddressSpace() {
  if (state_) state_->clear_all();
}

Result<Ref<AddressSpace>> AddressSpace::create(u32 nub_space, u64 mmap_top, bool jit_allowed) {
  auto result = Ref<AddressSpace>::adopt(new (std::nothrow) AddressSpace);
  if (!result) return Error(ENOMEM);
  result->state_ = TRY(make_owned<State>(nub_space));
  result->state_->mmap_top = align_down(std::min(mmap_top, kUserEnd), kPageSize);
  result->state_->jit = jit_allowed;
  return result;
}

Result<u64> AddressSpace::map(const MapRequest& request) { return state_->map(request); }

Result<void> AddressSpace::unmap(u64 address, u64 length) {
  length = align_up(length, kPageSize);
  if (!is_aligned(address, kPageSize) || length == 0 || !valid_range(address, length)) return Error(EINVAL);
  state_->loading = false;
  return state_->unmap(address, address + length);
}

Result<void> AddressSpace::protect(u64 address, u64 length, u32 protection) {
  if (!is_aligned(address, kPageSize)) return Error(EINVAL);
  if (length == 0) return {};
  length = align_up(length, kPageSize);
  if (length == 0 || !valid_range(address, length)) return Error(ENOMEM);
  return state_->protect(address, address + length, protection & 7);
}

Result<u64> AddressSpace::remap(u64 address, u64 old_length, u64 new_length, u32 mremap_flags, u64 new_address) {
  if (!is_aligned(address, kPageSize)) return Error(EINVAL);
  old_length = align_up(old_length, kPageSize);
  new_length = align_up(new_length, kPageSize);
  if (new_length == 0) return Error(EINVAL);
  if (!valid_range(address, old_length)) return Error(EFAULT);
  if (new_length > kUserEnd) return Error(ENOMEM);
  return state_->remap(address, old_length, new_length, mremap_flags, new_address);
}

Result<void> AddressSpace::advise(u64 address, u64 length, int advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE: break;
    default: return Error(EINVAL);
  }
  u64 rounded = align_up(length, kPageSize);
  if (!is_aligned(address, kPageSize) || rounded < length) return Error(EINVAL);
  if (rounded == 0) return {};
  if (!valid_range(address, rounded)) return Error(advice >= MADV_POPULATE_READ ? ENOMEM : EINVAL);
  return state_->advise(address, address + rounded, advice);
}

void AddressSpace::set_heap_start(u64 start) {
  state_->heap_start = state_->heap_end = start;
  state_->loading = true;
}
u64 AddressSpace::set_heap_end(u64 end) { return state_->set_heap_end(end); }
u64 AddressSpace::heap_start() const { return state_->heap_start; }
void AddressSpace::set_stack_limit(u64 bytes) { state_->stack_limit = bytes; }

Result<void> AddressSpace::fault(u64 address, Access access, u64) { return state_->fault(address, access); }

Result<void> AddressSpace::populate(u64 address, u64 length, Access access) {
  u64 end;
  if (length == 0) return {};
  if (!checked_add(address, length, &end) || end > kUserEnd) return Error(EFAULT);
  return state_->populate(align_down(address, kPageSize), align_up(end, kPageSize), access);
}

Result<PhysAddr> AddressSpace::translate(u64 address) const {
  PageEntry entry = state_->pages.get(address);
  if (entry == 0) return Error(EFAULT);
  return entry_frame(entry) + address % kPageSize;
}

bool AddressSpace::find(u64 address, MappingInfo* info) const {
  const Mapping* m = state_->first_ending_after(address);
  if (m == nullptr) return false;
  const MemoryObject* object = m->object.get();
  const char* name = m->label != nullptr ? m->label : object != nullptr ? object->name() : "";
  *info = {m->start,
           m->end,
           m->offset,
           m->protection,
           m->shared,
           name,
           object != nullptr ? object->device() : 0,
           object != nullptr ? object->inode() : 0,
           state_->pages.count(m->start, m->end) * kPageSize};
  return true;
}

Result<void> AddressSpace::resident(u64 address, u64 length, u8* bits) const {
  if (!is_aligned(address, kPageSize)) return Error(EINVAL);
  length = align_up(length, kPageSize);
  if (!valid_range(address, length)) return Error(ENOMEM);
  return state_->resident(address, address + length, bits);
}

u64 AddressSpace::mapped_bytes() const { return state_->mapped; }
u64 AddressSpace::resident_bytes() const { return (state_->pages.owned_pages() + state_->pages.borrowed_pages()) * kPageSize; }
u64 AddressSpace::peak_resident_bytes() const { return std::max(state_->resident_peak * kPageSize, resident_bytes()); }
u64 AddressSpace::private_bytes() const { return state_->pages.owned_pages() * kPageSize; }
u64 AddressSpace::fault_count() const { return state_->faults; }
u32 AddressSpace::nub_space() const { return state_->space; }

}  // namespace husk::mem
