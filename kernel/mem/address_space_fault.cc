// Making pages present: on faults, and ahead of them.
//
// A fault costs far more than one more page in it, so that each one brings in neighbours: a whole small mapping, a window that
// doubles while faults walk upwards, or 2 MiB at once in large anonymous mappings while memory is plentiful.
#include <string.h>

#include <algorithm>
#include <bit>

#include "kernel/mem/address_space_state.h"
#include "kernel/mem/frames.h"

namespace husk::mem {

using State = AddressSpace::State;

namespace {

constexpr u64 kSmallMapping = 16;  // pages: filled whole by the first fault
constexpr u64 kDataMapping = 128;  // the same for a file's data to be relocated, if memory is not scarce
constexpr u64 kLibraryHead = 256;  // of a library's symbols and relocations, where a first use is dear
constexpr u64 kTinyMapping = 4;    // anonymous: filled at once
constexpr u64 kFirstWindow = 32, kFirstFileWindow = 64, kWindowMax = 256;
constexpr u64 kHugeMapping = 4 * kMiB;  // from this size on anonymous mappings take 2 MiB pages without advice
constexpr u64 kHugeMemory = 32 * kMiB;  // free memory that must be there for it, besides a quarter of all

// Memory that programs do not get, so that the kernel can still answer.
u64 reserve() { return std::min<u64>(memory_statistics().total / 64, kMiB); }
bool exhausted(u64 bytes) { return memory_statistics().free < reserve() + bytes; }
bool scarce() { return memory_statistics().free < memory_statistics().total / 8; }
bool plentiful() {
  MemoryStatistics memory = memory_statistics();
  return memory.free >= kHugeMemory && memory.free >= memory.total / 4;
}

Result<PhysAddr> allocate_for_program(unsigned order, Zeroed zeroed) {
  if (exhausted(kPageSize << order)) return Error(ENOMEM);
  return allocate_frames(order, zeroed);
}

// At most `pages` single frames that follow one another; fewer when memory is in pieces.
struct FrameRun {
  PhysAddr start;
  u64 pages;
};
Result<FrameRun> allocate_run(u64 pages, Zeroed zeroed) {
  for (unsigned order = static_cast<unsigned>(std::bit_width(pages)) - 1;; --order) {
    Result<PhysAddr> block = allocate_for_program(order, zeroed);
    if (block) {
      if (order != 0) split_frames(*block, order);
      return FrameRun{*block, u64{1} << order};
    }
    if (order == 0) return block.error();
  }
}

bool permits(u32 protection, Access access) {
  switch (access) {
    case Access::read: return protection != 0;  // x86: what may be written or executed may be read
    case Access::write: return (protection & kProtWrite) != 0;
    case Access::execute: return (protection & kProtExecute) != 0;
  }
  return false;
}

bool satisfies(PageEntry entry, Access access) { return entry != 0 && (access != Access::write || (entry & kEntryWritable) != 0); }

// A private writable piece of a file that does not change: data about to be relocated.
bool is_data(const Mapping& m) {
  return m.object && !m.shared && (m.protection & kProtWrite) != 0 && m.object->immutable() &&
         m.length() <= (scarce() ? kSmallMapping : kDataMapping) * kPageSize;
}

bool covers_chunk(const Mapping& m, u64 page) {
  u64 base = align_down(page, kHugePageSize);
  return m.start <= base && base + kHugePageSize <= m.end;
}

}  // namespace

// --- faults --------------------------------------------------------------------------------------------------------------

Mapping* State::grow_stack(u64 address) {
  Mapping* m = mappings.at_or_after(address);
  if (m == nullptr || !m->grows_down || m->end - address > stack_limit) return nullptr;
  u64 start = std::max(align_down(address, 64 * kKiB), m->end > stack_limit ? m->end - stack_limit : 0);
  start = align_down(start, kPageSize);
  if (m->start - start > m->gap) start = align_down(address, kPageSize);
  if (m->start - start > m->gap) return nullptr;
  resize(m, start, m->end);
  return m;
}

Result<Mapping*> State::accessible(u64 address, Access access) {
  Mapping* m = containing(address);
  if (m == nullptr) m = grow_stack(address);
  if (m == nullptr) return Error(EFAULT);
  if (!permits(m->protection, access)) return Error(EACCES);
  return m;
}

State::Window State::choose_window(Mapping& m, u64 page) {
  bool whole = m.whole && (m.protection & kProtWrite) == 0;
  if (whole || is_data(m) || (m.length() <= kFirstWindow * kPageSize && !scarce())) return {m.start, m.end};
  u64 first = m.object ? kFirstFileWindow : kFirstWindow;
  u64 window = page == m.next_fault ? std::min<u64>(m.window * 2, kWindowMax) : first;
  if (!m.object && scarce()) window = 1;
  m.window = static_cast<u16>(window);
  u64 bytes = window * kPageSize;
  u64 start = align_down(page, bytes);  // a software KVM fills its tables by aligned groups, if they are complete
  if (m.grows_down) start = page + kPageSize > bytes ? page + kPageSize - bytes : 0;
  u64 end = start + bytes;
  m.next_fault = end;
  return {std::max(start, m.start), std::min(end, m.end)};
}

// From where to make a new mapping present without waiting for a fault, which costs far more; 0: not at all. That is what loaders map and surely
// use: the pieces of libraries, and small zeroed memory. A library is first mapped as a whole, at no fixed address, and then piece by piece over
// that: its head is present with the first piece above it, and what is certain to go is not.
u64 State::early_start(const MapRequest& request, u64 start, u64 length) const {
  using Placement = MapRequest::Placement;
  bool placed = request.placement == Placement::fixed || request.placement == Placement::fixed_noreplace;
  bool writable = (request.protection & kProtWrite) != 0;
  const Mapping *m = containing(start), *below = containing(start - 1);
  if (!writable) {
    if (!m->whole || !placed) return 0;
    return below != nullptr && below->whole && below->object == m->object ? below->start : start;
  }
  if (request.shared || request.grows_down || scarce()) return 0;
  bool belongs = placed && below != nullptr && below->object && below->object->immutable();
  u64 most = request.object ? (placed && request.object->immutable() ? kDataMapping : 0) : (belongs ? kSmallMapping : kTinyMapping);
  return length <= most * kPageSize ? start : 0;
}

// The C library writes to what brk(2) gives it, and to the top of a thread's stack, at once.
void State::populate_first(u64 start, u64 end) {
  if (!scarce()) (void)populate(start, std::min(end, start + kFirstWindow * kPageSize), Access::write).ok();
}

Result<void> State::fault(u64 address, Access access) {
  ++faults;
  u64 page = align_down(address, kPageSize);
  Mapping* m = TRY(accessible(address, access));
  platform::PageTableBatch batch(space);
  PageEntry entry = pages.get(page);
  Result<void> done;
  if (satisfies(entry, access)) {
    // Known, but not in the nub's tables: it waits in `early`, which goes before this, or an earlier batch failed. Say it again.
    done = batch.map({page}, entry_frame(entry), kPageSize, hardware_flags(*m, entry, m->protection));
  } else {
    Result<u64> filled = fill(*m, page, choose_window(*m, page), access, batch);
    if (!filled) done = filled.error();
  }
  done = finish(batch, std::move(done));
  resident_peak = std::max(resident_peak, pages.owned_pages() + pages.borrowed_pages());
  return done;
}

Result<void> State::populate(u64 start, u64 end, Access access, bool at_once) {
  Result<void> done;
  for (u64 at = start; at < end && done;) {
    Result<Mapping*> m = accessible(at, access);
    if (!m) {
      done = m.error();
      break;
    }
    u64 stop = std::min(end, (*m)->end);
    while (at < stop && done) {
      if (satisfies(pages.get(at), access)) {
        at += kPageSize;
        continue;
      }
      Result<u64> filled = fill(**m, at, {at, stop}, access, early);
      if (filled) at = *filled;
      else done = filled.error();
    }
  }
  if (at_once) done = finish(early, std::move(done));
  resident_peak = std::max(resident_peak, pages.owned_pages() + pages.borrowed_pages());
  return done;
}

// --- filling -----------------------------------------------------------------------------------------------------------------

// Makes `page` present for an access that it does not have yet, and what it likes of the window. Gives the address up to
// which pages from `page` on are now present. The window may reach over chunks; filling stays in that of `page`.
Result<u64> State::fill(Mapping& m, u64 page, Window window, Access access, platform::PageTableBatch& batch) {
  u64 chunk = align_down(page, kHugePageSize);
  window = {std::max(window.start, chunk), std::min(window.end, chunk + kHugePageSize)};
  if (!m.object) {
    if (fill_huge(m, page, Zeroed::yes, batch)) return fill_huge_ahead(m, chunk, batch);
    return fill_zero(m, page, window, batch);
  }
  if (m.shared) return fill_borrowed(m, page, window, access, batch);
  // Copying data that is only read now saves the second fault. Of a file that can be written only the page itself is copied, and only when
  // it must: the others show what is written to it later (mmap(2), MAP_PRIVATE).
  if (access == Access::write || is_data(m) || is_library_head(m))
    return fill_copy(m, page, m.object->immutable() ? window : Window{page, page + kPageSize}, batch);
  return fill_borrowed(m, page, window, access, batch);
}

// Symbols and relocations of a library, which a loader reads nearly all of: below more of the same file that is mapped already.
bool State::is_library_head(const Mapping& m) const {
  if (!platform::first_use_is_dear() || m.protection != kProtRead || m.offset != 0 || !m.whole || m.length() > kLibraryHead * kPageSize) return false;
  const Mapping* above = containing(m.end);
  return above != nullptr && above->object == m.object && plentiful();
}

bool State::fill_huge(Mapping& m, u64 page, Zeroed zeroed, platform::PageTableBatch& batch) {
  if (m.huge == HugeAdvice::never || !covers_chunk(m, page) || !plentiful()) return false;
  if (m.huge == HugeAdvice::normal && m.length() < kHugeMapping) return false;
  const Chunk* chunk = pages.find(page);
  if (chunk != nullptr && chunk->used != 0) return false;
  Result<PhysAddr> frame = allocate_frames(kHugeOrder, zeroed);
  if (!frame) return false;
  u64 base = align_down(page, kHugePageSize);
  PageEntry entry = owned_entry(*frame);
  if (!pages.put_huge(base, entry).ok()) {
    free_frames(*frame, kHugeOrder);
    return false;
  }
  // If this fails, the next fault says it again page by page.
  (void)batch.map({base}, *frame, kHugePageSize, hardware_flags(m, entry, m.protection)).ok();
  return true;
}

// A walk upwards through a large mapping gets 1, 2, 4, 8, 16 large pages a fault, as far as a small part of the free memory goes: frames that need no
// clearing, which the host backs when they are used, or a little before (expect_use).
u64 State::fill_huge_ahead(Mapping& m, u64 chunk, platform::PageTableBatch& batch) {
  constexpr u64 kRunMax = 16, kPartOfFree = 16;
  u64 run = std::clamp<u64>(memory_statistics().free / kPartOfFree / kHugePageSize, 1, kRunMax);
  run = chunk == m.next_huge_fault ? std::min<u64>(m.huge_run * 2, run) : 1;
  m.huge_run = static_cast<u8>(run);
  u64 start = chunk + kHugePageSize, end = start;
  for (; end < chunk + run * kHugePageSize && end < m.end && fill_huge(m, end, Zeroed::already, batch); end += kHugePageSize) continue;
  m.next_huge_fault = end;
  PhysAddr first = entry_frame(pages.get(start)), last = entry_frame(pages.get(end - kHugePageSize));
  if (end > start && last.value - first.value == end - kHugePageSize - start) platform::expect_use(first, end - start);
  return end;
}

Result<u64> State::fill_zero(Mapping& m, u64 page, Window window, platform::PageTableBatch& batch) {
  Chunk* chunk = TRY(pages.ensure(page));
  u64 start = page, end = page + kPageSize;
  while (start > window.start && pages.get(start - kPageSize) == 0) start -= kPageSize;
  while (end < window.end && pages.get(end) == 0) end += kPageSize;
  if (exhausted(end - start)) start = page, end = page + kPageSize;
  for (u64 at = start; at < end;) {
    Result<FrameRun> run = allocate_run((end - at) / kPageSize, Zeroed::yes);
    if (!run) {
      if (at > page) return at;
      return run.error();
    }
    for (u64 i = 0; i < run->pages; ++i) pages.put(*chunk, at + i * kPageSize, owned_entry(run->start + i * kPageSize));
    u64 bytes = run->pages * kPageSize;
    TRY(batch.map({at}, run->start, bytes, hardware_flags(m, owned_entry(run->start), m.protection)));
    at += bytes;
  }
  return end;
}

// The frame that a private mapping shows before it is written.
Result<PhysAddr> State::source_of(Mapping& m, u64 page) {
  if (PageEntry entry = pages.get(page)) return entry_frame(entry);
  return TRY(m.object->pages(m.index(page), 1, Access::read)).start;
}

Result<u64> State::fill_copy(Mapping& m, u64 page, Window window, platform::PageTableBatch& batch) {
  TRY(pages.split(page));
  (void)TRY(source_of(m, page));
  auto owned = [&](u64 at) { return (pages.get(at) & kEntryOwned) != 0; };
  u64 start = page, end = page + kPageSize;
  while (start > window.start && !owned(start - kPageSize)) start -= kPageSize;
  while (end < window.end && !owned(end)) end += kPageSize;
  if (exhausted(end - start)) start = page, end = page + kPageSize;
  for (u64 at = start; at < end;) {
    Result<FrameRun> run = allocate_run((end - at) / kPageSize, Zeroed::no);
    if (!run && at > page) return at;
    if (!run) return run.error();
    u64 copied = copy_pages(m, at, run->start, run->pages, batch);
    if (copied != 0) {
      TRY(batch.map({at}, run->start, copied * kPageSize, hardware_flags(m, owned_entry(run->start), m.protection)));
    }
    at += copied * kPageSize;
    if (copied == run->pages) continue;
    for (u64 i = copied; i < run->pages; ++i) release_frame(run->start + i * kPageSize);
    if (at > page) return at;  // the end of the file, or memory for more is not there
    if (start == page) return Error(ENOMEM);
    return fill_copy(m, page, {page, page + kPageSize}, batch);
  }
  return end;
}

// Gives how many could be copied and entered.
u64 State::copy_pages(Mapping& m, u64 address, PhysAddr frames, u64 count, platform::PageTableBatch& batch) {
  for (u64 i = 0; i < count; ++i, address += kPageSize) {
    Result<PhysAddr> source = source_of(m, address);
    if (!source) return i;
    Result<Chunk*> chunk = pages.ensure(address);
    PhysAddr frame = frames + i * kPageSize;
    if (!chunk || !batch.copy(frame, *source, kPageSize).ok()) return i;
    pages.put(**chunk, address, owned_entry(frame));
  }
  return count;
}

bool State::fill_huge_borrowed(Mapping& m, u64 page, Access access, platform::PageTableBatch& batch) {
  u64 base = align_down(page, kHugePageSize);
  if (!covers_chunk(m, page) || !is_aligned(base - m.start + m.offset, kHugePageSize)) return false;
  const Chunk* chunk = pages.find(page);
  if (chunk != nullptr && chunk->used != 0) return false;
  Result<PageRun> run = m.object->pages(m.index(base), kChunkPages, access);
  if (!run || run->pages < kChunkPages || !is_aligned(run->start.value, kHugePageSize)) return false;
  PageEntry entry = borrowed_entry(run->start, access == Access::write ? kEntryWritable : 0);
  if (!pages.put_huge(base, entry).ok()) return false;
  (void)batch.map({base}, run->start, kHugePageSize, hardware_flags(m, entry, m.protection)).ok();
  return true;
}

Result<u64> State::fill_borrowed(Mapping& m, u64 page, Window window, Access access, platform::PageTableBatch& batch) {
  // What a shared mapping may write is asked for writing at once: one fault instead of two.
  bool writable = m.shared && (m.protection & kProtWrite) != 0;
  Access wanted = writable ? Access::write : Access::read;
  if (fill_huge_borrowed(m, page, wanted, batch)) return align_down(page, kHugePageSize) + kHugePageSize;
  TRY(pages.split(page));
  auto open = [&](u64 at) { return !satisfies(pages.get(at), access == Access::write ? access : Access::read); };
  u64 start = page, end = page + kPageSize;
  while (start > window.start && open(start - kPageSize)) start -= kPageSize;
  while (end < window.end && open(end)) end += kPageSize;
  PageEntry flag = writable ? kEntryWritable : 0;
  for (u64 at = start; at < end;) {
    Result<PageRun> run = m.object->pages(m.index(at), (end - at) / kPageSize, wanted);
    if (!run) {
      if (at > page) return at;
      if (at == page) return run.error();
      at = page;  // a neighbour below cannot be had: the page itself may
      continue;
    }
    // Only now: the object may have called invalidate(), which drops chunks that became empty.
    Chunk* chunk = TRY(pages.ensure(at));
    u64 bytes = std::min(run->pages * kPageSize, end - at);
    for (u64 i = 0; i < bytes; i += kPageSize) pages.put(*chunk, at + i, borrowed_entry(run->start + i, flag));
    TRY(batch.map({at}, run->start, bytes, hardware_flags(m, borrowed_entry(run->start, flag), m.protection)));
    at += bytes;
  }
  return end;
}

}  // namespace husk::mem
