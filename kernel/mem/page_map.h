// PageMap: which frame stands behind which page of an address space, in chunks of 2 MiB; the truth behind the nub's tables.
//
// An entry is there if a page-table entry is there or may come (a PROT_NONE page keeps its frame). Owned frames are freed
// with the entry; borrowed ones belong to a MemoryObject. A chunk is one huge frame or a table of 512 entries.
// It does no page-table work: AddressSpace does that, before frames are freed.
#pragma once

#include "base/result.h"
#include "base/tree.h"
#include "base/types.h"

namespace husk::mem {

using PageEntry = u32;
constexpr PageEntry kEntryPresent = u32{1} << 31;
constexpr PageEntry kEntryOwned = u32{1} << 30;        // a private page: the space frees it
constexpr PageEntry kEntryWritable = u32{1} << 29;     // may be mapped writable if the mapping may be written
constexpr PageEntry kEntryFrame = (u32{1} << 28) - 1;  // reaches 1 TiB of physical addresses

constexpr PageEntry owned_entry(PhysAddr frame) { return kEntryPresent | kEntryOwned | kEntryWritable | static_cast<u32>(frame.value / kPageSize); }
constexpr PageEntry borrowed_entry(PhysAddr frame, PageEntry writable_or_0) {
  return kEntryPresent | writable_or_0 | static_cast<u32>(frame.value / kPageSize);
}
constexpr PhysAddr entry_frame(PageEntry entry) { return {u64{entry & kEntryFrame} * kPageSize}; }
constexpr u64 kChunkPages = kHugePageSize / kPageSize;

struct Chunk : TreeNode<Chunk> {
  u64 base = 0;
  PageEntry huge = 0;  // if not 0: of the first page; `table` is null
  u32 used = 0;        // entries present
  PageEntry* table = nullptr;
};

class PageMap {
 public:
  PageMap() = default;
  ~PageMap();

  PageEntry get(u64 address) const;
  Chunk* find(u64 address) const;       // the chunk of an address
  Chunk* find_from(u64 address) const;  // the first chunk that ends after address
  static Chunk* next(const Chunk* chunk) { return Chunks::next(chunk); }
  Result<Chunk*> ensure(u64 address);                    // with a table: for put()
  void put(Chunk& chunk, u64 address, PageEntry entry);  // a new entry, or in place of one (whose frame is freed if owned)
  Result<void> put_huge(u64 address, PageEntry entry);   // no entry may be there
  Result<void> split(u64 address);                       // a huge frame becomes single ones
  // Forgets the entries of a range and frees owned frames. The ends must not cut a huge frame.
  enum class Which : u8 { all, borrowed };
  void clear(u64 start, u64 end, Which which = Which::all);
  // Moves entries to an address where there are none. Neither range may cut a huge frame; on ENOMEM nothing has moved.
  Result<void> move(u64 from, u64 to, u64 length);

  u64 owned_pages() const { return owned_; }
  u64 borrowed_pages() const { return borrowed_; }
  u64 count(u64 start, u64 end) const;

  // Calls visit(address, length, entry of the first page) for each run of pages whose frames follow one another and
  // whose flags are the same.
  template <typename Visitor>
  void for_each_run(u64 start, u64 end, Visitor&& visit) const {
    u64 run_start = 0, run_end = 0;
    PageEntry first = 0;
    auto add = [&](u64 address, u64 length, PageEntry entry) {
      if (run_end == address && run_end > run_start && entry == first + (address - run_start) / kPageSize) {
        run_end += length;
        return;
      }
      if (run_end > run_start) visit(run_start, run_end - run_start, first);
      run_start = address, run_end = address + length, first = entry;
    };
    for (Chunk* chunk = find_from(start); chunk != nullptr && chunk->base < end; chunk = next(chunk)) {
      u64 from = chunk->base > start ? chunk->base : start;
      u64 to = chunk->base + kHugePageSize < end ? chunk->base + kHugePageSize : end;
      if (chunk->huge != 0) {
        add(from, to - from, chunk->huge + static_cast<u32>((from - chunk->base) / kPageSize));
        continue;
      }
      for (u64 at = from; at < to; at += kPageSize) {
        PageEntry entry = chunk->table[(at - chunk->base) / kPageSize];
        if (entry != 0) add(at, kPageSize, entry);
      }
    }
    if (run_end > run_start) visit(run_start, run_end - run_start, first);
  }

 private:
  struct Order {
    static u64 key(const Chunk& chunk) { return chunk.base; }
    static void summarise(Chunk&) {}
  };
  using Chunks = Tree<Chunk, Order>;
  void account(PageEntry entry, i64 pages);
  void drop(Chunk* chunk);
  Chunk* make(u64 address);

  Chunks chunks_;
  mutable Chunk* last_ = nullptr;
  u64 owned_ = 0, borrowed_ = 0;
};

}  // namespace husk::mem
