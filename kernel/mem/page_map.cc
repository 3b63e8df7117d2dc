#include "kernel/mem/page_map.h"

#include <string.h>

#include <algorithm>

#include "base/panic.h"
#include "kernel/mem/frames.h"

namespace husk::mem {

namespace {
constexpr size_t kTableBytes = kChunkPages * sizeof(PageEntry);
u64 index_of(u64 address) { return address % kHugePageSize / kPageSize; }
}  // namespace

PageMap::~PageMap() { clear(0, ~u64{0}); }

Chunk* PageMap::find(u64 address) const {
  u64 base = align_down(address, kHugePageSize);
  if (last_ != nullptr && last_->base == base) return last_;
  Chunk* chunk = chunks_.at_or_before(address);
  if (chunk == nullptr || chunk->base != base) return nullptr;
  return last_ = chunk;
}

Chunk* PageMap::find_from(u64 address) const { return chunks_.at_or_after(align_down(address, kHugePageSize)); }

PageEntry PageMap::get(u64 address) const {
  const Chunk* chunk = find(address);
  if (chunk == nullptr) return 0;
  if (chunk->huge != 0) return chunk->huge + static_cast<u32>(index_of(address));
  return chunk->table[index_of(address)];
}

void PageMap::account(PageEntry entry, i64 pages) {
  u64& counter = (entry & kEntryOwned) != 0 ? owned_ : borrowed_;
  counter += static_cast<u64>(pages);
}

Chunk* PageMap::make(u64 address) {
  Chunk* chunk = new (std::nothrow) Chunk;
  if (chunk == nullptr) return nullptr;
  chunk->base = align_down(address, kHugePageSize);
  return chunk;
}

void PageMap::drop(Chunk* chunk) {
  if (last_ == chunk) last_ = nullptr;
  chunks_.remove(chunk);
  ::operator delete(chunk->table);
  delete chunk;
}

Result<Chunk*> PageMap::ensure(u64 address) {
  Chunk* chunk = find(address);
  if (chunk != nullptr) {
    HUSK_ASSERT(chunk->huge == 0);
    return chunk;
  }
  auto* table = static_cast<PageEntry*>(::operator new(kTableBytes, std::nothrow));
  if (table == nullptr) return Error(ENOMEM);
  chunk = make(address);
  if (chunk == nullptr) {
    ::operator delete(table);
    return Error(ENOMEM);
  }
  memset(table, 0, kTableBytes);
  chunk->table = table;
  chunks_.insert(chunk);
  return chunk;
}

void PageMap::put(Chunk& chunk, u64 address, PageEntry entry) {
  PageEntry& slot = chunk.table[index_of(address)];
  if (slot != 0) {
    account(slot, -1);
    if ((slot & kEntryOwned) != 0) release_frame(entry_frame(slot));
  } else {
    ++chunk.used;
  }
  slot = entry;
  account(entry, 1);
}

Result<void> PageMap::put_huge(u64 address, PageEntry entry) {
  Chunk* chunk = find(address);
  if (chunk == nullptr) {
    chunk = make(address);
    if (chunk == nullptr) return Error(ENOMEM);
    chunks_.insert(chunk);
  }
  HUSK_ASSERT(chunk->used == 0 && chunk->huge == 0);
  ::operator delete(chunk->table);
  chunk->table = nullptr;
  chunk->huge = entry;
  chunk->used = kChunkPages;
  account(entry, kChunkPages);
  return {};
}

Result<void> PageMap::split(u64 address) {
  Chunk* chunk = find(address);
  if (chunk == nullptr || chunk->huge == 0) return {};
  auto* table = static_cast<PageEntry*>(::operator new(kTableBytes, std::nothrow));
  if (table == nullptr) return Error(ENOMEM);
  if ((chunk->huge & kEntryOwned) != 0) split_frames(entry_frame(chunk->huge), kHugeOrder);
  for (u32 i = 0; i < kChunkPages; ++i) table[i] = chunk->huge + i;
  chunk->table = table;
  chunk->huge = 0;
  return {};
}

void PageMap::clear(u64 start, u64 end, Which which) {
  auto stays = [&](PageEntry entry) { return entry == 0 || (which == Which::borrowed && (entry & kEntryOwned) != 0); };
  for (Chunk* chunk = find_from(start); chunk != nullptr && chunk->base < end;) {
    Chunk* following = next(chunk);
    u64 from = std::max(chunk->base, start), to = std::min(chunk->base + kHugePageSize, end);
    if (chunk->huge != 0 && stays(chunk->huge)) {
      // nothing
    } else if (chunk->huge != 0) {
      HUSK_ASSERT(to - from == kHugePageSize);
      account(chunk->huge, -static_cast<i64>(kChunkPages));
      if ((chunk->huge & kEntryOwned) != 0) free_frames(entry_frame(chunk->huge), kHugeOrder);
      chunk->used = 0;
    } else {
      for (u64 at = from; at < to && chunk->used != 0; at += kPageSize) {
        PageEntry& slot = chunk->table[index_of(at)];
        if (stays(slot)) continue;
        account(slot, -1);
        if ((slot & kEntryOwned) != 0) release_frame(entry_frame(slot));
        slot = 0;
        --chunk->used;
      }
    }
    if (chunk->used == 0) drop(chunk);
    chunk = following;
  }
}

Result<void> PageMap::move(u64 from, u64 to, u64 length) {
  // All memory first: a chunk for each place where a single page will go.
  bool huge_fits = is_aligned(from - to, kHugePageSize);
  for (Chunk* chunk = find_from(from); chunk != nullptr && chunk->base < from + length; chunk = next(chunk)) {
    if (chunk->huge != 0 && huge_fits) continue;
    if (chunk->huge != 0) TRY(split(chunk->base));
    for (u64 at = std::max(chunk->base, from); at < std::min(chunk->base + kHugePageSize, from + length); at += kPageSize) {
      if (chunk->table[index_of(at)] != 0) TRY(ensure(at - from + to));
    }
  }
  // Chunks may come, go and move under the loop, so that it goes on by address.
  for (Chunk* chunk = find_from(from); chunk != nullptr && chunk->base < from + length;) {
    u64 base = chunk->base;
    if (chunk->huge != 0) {
      u64 target = base - from + to;
      if (Chunk* unused = find(target); unused != nullptr) {
        HUSK_ASSERT(unused->used == 0);
        drop(unused);
      }
      last_ = nullptr;
      chunks_.remove(chunk);
      chunk->base = target;
      chunks_.insert(chunk);
    } else {
      for (u64 at = std::max(base, from); at < std::min(base + kHugePageSize, from + length); at += kPageSize) {
        PageEntry& slot = chunk->table[index_of(at)];
        if (slot == 0) continue;
        account(slot, -1);
        put(*find(at - from + to), at - from + to, slot);
        slot = 0;
        --chunk->used;
      }
    }
    chunk = find_from(base + kHugePageSize);
  }
  clear(from, from + length);  // what is left are chunks without entries
  return {};
}

u64 PageMap::count(u64 start, u64 end) const {
  u64 pages = 0;
  for_each_run(start, end, [&](u64, u64 length, PageEntry) { pages += length / kPageSize; });
  return pages;
}

}  // namespace husk::mem
