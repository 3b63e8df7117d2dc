// Page-table work of an address space, and what the image's policy allows to be executable.
#include <string.h>

#include <algorithm>

#include "kernel/log.h"
#include "kernel/mem/address_space_state.h"
#include "kernel/mem/frames.h"

namespace husk::mem {

using State = AddressSpace::State;

Error State::refuse_execution() {
  if (!refusal_logged) {
    refusal_logged = true;
    log(LogLevel::warning,
        "the program asked for executable memory that is or was writable: refused (EACCES). If it generates code at run time, build the image with "
        "--jit");
  }
  return Error(EACCES);
}

Result<void> State::check_policy(u32 protection, const MemoryObject* object) {
  if ((protection & kProtExecute) == 0 || jit) return {};
  if ((protection & kProtWrite) != 0) return refuse_execution();
  if (object == nullptr || !object->immutable()) return refuse_execution();
  return {};
}

// What the nub shall allow for one page; 0: it stays unmapped.
u32 State::hardware_flags(const Mapping& m, PageEntry entry, u32 protection) const {
  if (protection == 0) return 0;
  u32 flags = platform::kRead;
  if ((protection & kProtWrite) != 0 && (entry & kEntryWritable) != 0) flags |= platform::kWrite;
  if ((protection & kProtExecute) != 0) {
    flags |= platform::kExecute;
    bool image = m.object && m.object->immutable() && (entry & kEntryOwned) == 0;
    if (!image) flags |= platform::kJit;
  }
  return flags;
}

// Only where there are pages: everything else was never mapped. The nub looks at each entry of a range, so that passing over a hole costs as
// much as another call if it has some ten pages.
Result<void> State::unmap_tables(platform::PageTableBatch& batch, u64 start, u64 end) {
  constexpr u64 kHoleMax = 8 * kPageSize;
  u64 run_start = 0, run_end = 0;
  Result<void> done;
  pages.for_each_run(start, end, [&](u64 address, u64 length, PageEntry) {
    if (address - run_end > kHoleMax) {
      if (done && run_end > run_start) done = batch.unmap({run_start}, run_end - run_start);
      run_start = address;
    }
    run_end = address + length;
  });
  if (done && run_end > run_start) done = batch.unmap({run_start}, run_end - run_start);
  return done;
}

Result<void> State::map_tables(platform::PageTableBatch& batch, const Mapping& m, u64 start, u64 end, u32 protection) {
  Result<void> done;
  pages.for_each_run(start, end, [&](u64 address, u64 length, PageEntry entry) {
    u32 flags = hardware_flags(m, entry, protection);
    if (done && flags != 0) done = batch.map({address}, entry_frame(entry), length, flags);
  });
  return done;
}

Result<void> State::protect_tables(platform::PageTableBatch& batch, const Mapping& m, u32 protection) {
  if (protection == 0) return unmap_tables(batch, m.start, m.end);
  if (m.protection == 0) return map_tables(batch, m, m.start, m.end, protection);
  Result<void> done;
  u64 run_start = 0, run_end = 0;
  u32 run_flags = 0;
  auto emit = [&] {
    if (done && run_end > run_start) done = batch.protect({run_start}, run_end - run_start, run_flags);
  };
  pages.for_each_run(m.start, m.end, [&](u64 address, u64 length, PageEntry entry) {
    u32 flags = hardware_flags(m, entry, protection);
    if (flags != run_flags || address - run_end >= kHugePageSize) {  // small holes do no harm
      emit();
      run_start = address;
      run_flags = flags;
    }
    run_end = address + length;
  });
  emit();
  return done;
}

Result<void> State::drop_pages(u64 start, u64 end) {
  if (!is_aligned(start, kHugePageSize)) TRY(pages.split(start));
  if (!is_aligned(end, kHugePageSize)) TRY(pages.split(end));
  platform::PageTableBatch batch(space);
  TRY(finish(batch, unmap_tables(batch, start, end)));
  pages.clear(start, end);
  return {};
}

// What MADV_DONTNEED promises for private anonymous memory is zeros. For a few pages (the C library gives back each ended thread's stack)
// writing them costs far less than removing the pages and faulting them in again. False: too many pages for that.
bool State::clear_pages(u64 start, u64 end) {
  constexpr u64 kClearMax = 32;
  u64 count = 0;
  bool whole = true;
  pages.for_each_run(start, end, [&](u64, u64 length, PageEntry entry) {
    count += length / kPageSize;
    whole &= (entry & kEntryOwned) != 0 && frame_owners(entry_frame(entry)) == 1;
  });
  if (!whole || count > kClearMax) return false;
  pages.for_each_run(start, end, [](u64, u64 length, PageEntry entry) { memset(direct(entry_frame(entry)), 0, length); });
  return true;
}

// Needs no memory: a huge page that is cut by the range goes whole, and comes back by a fault.
void State::drop_borrowed(u64 start, u64 end) {
  const Chunk* first = pages.find(start);
  const Chunk* last = pages.find(end - 1);
  if (first != nullptr && first->huge != 0) start = first->base;
  if (last != nullptr && last->huge != 0) end = last->base + kHugePageSize;
  platform::PageTableBatch batch(space);
  Result<void> done;
  pages.for_each_run(start, end, [&](u64 address, u64 length, PageEntry entry) {
    if (done && (entry & kEntryOwned) == 0) done = batch.unmap({address}, length);
  });
  HUSK_ASSERT(finish(batch, std::move(done)).ok());
  pages.clear(start, end, PageMap::Which::borrowed);
}

// The object takes pages back: [first, first + count) of it.
void Mapping::pages_removed(u64 first, u64 count) {
  u64 own_first = offset / kPageSize, own_end = own_first + length() / kPageSize;
  u64 from = std::max(first, own_first), to = std::min(count > ~u64{0} - first ? ~u64{0} : first + count, own_end);
  if (from < to) space->drop_borrowed(start + (from - own_first) * kPageSize, start + (to - own_first) * kPageSize);
}

}  // namespace husk::mem
