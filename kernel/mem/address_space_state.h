// Inside of AddressSpace: mappings in a tree that knows its gaps, and the PageMap behind them.
//
// Invariants: mappings do not overlap; Mapping::gap is the free space below it; every page-table entry of the nub's space has
// an entry in `pages` (so page-table work is done only where there are chunks); a frame is freed after the nub unmapped it.
// A huge frame lies within one mapping: splitting a mapping splits it.
#pragma once

#include "base/tree.h"
#include "kernel/mem/address_space.h"
#include "kernel/mem/frames.h"
#include "kernel/mem/page_map.h"
#include "platform/platform.h"

namespace husk::mem {

enum Prot : u32 { kProtRead = 1, kProtWrite = 2, kProtExecute = 4 };  // PROT_*
enum class HugeAdvice : u8 { normal, always, never };

class Mapping final : public TreeNode<Mapping>, public MemoryObject::Observer {
 public:
  void pages_removed(u64 first, u64 count) override;

  u64 start = 0, end = 0;
  u64 offset = 0;  // bytes into the object
  u32 protection = 0;
  u32 protection_limit = 7;
  bool shared = false;
  bool grows_down = false;
  bool whole = false;  // the first fault brings all of it
  HugeAdvice huge = HugeAdvice::normal;
  u16 window = 0;   // pages that the last fault made present around it
  u8 huge_run = 1;  // the same in 2 MiB pages
  u64 next_huge_fault = 0;
  u64 next_fault = 0;  // where a sequential walk would fault next
  const char* label = nullptr;
  Ref<MemoryObject> object;
  AddressSpace::State* space = nullptr;
  u64 gap = 0;        // between the previous mapping (or the start) and this one, less the guard of a growing stack
  u64 gap_below = 0;  // largest gap in the subtree

  u64 length() const { return end - start; }
  u64 index(u64 address) const { return (address - start + offset) / kPageSize; }
};

struct MappingOrder {
  static u64 key(const Mapping& m) { return m.start; }
  static void summarise(Mapping& m);
};
using Mappings = Tree<Mapping, MappingOrder>;

struct AddressSpace::State {
  explicit State(u32 nub_space) : space(nub_space), early(nub_space) {}
  const u32 space;
  u64 mmap_top = 0;
  bool jit = false;
  bool refusal_logged = false;
  Mappings mappings;
  PageMap pages;
  platform::PageTableBatch early;  // what is not used at once waits here for what is, or for a fault: one exit for the pieces of a library
  bool loading = false;            // from set_heap_start() to the next unmap()
  u64 mapped = 0;
  u64 faults = 0;
  u64 resident_peak = 0;
  u64 heap_start = 0, heap_end = 0;
  u64 stack_limit = 8 * kMiB;

  // address_space.cc
  Mapping* containing(u64 address) const;
  Mapping* first_ending_after(u64 address) const;
  bool is_free(u64 start, u64 end) const;
  u64 covered_end(u64 start, u64 end) const;
  u64 find_gap(u64 length, u64 limit, u64 alignment, u64 phase) const;
  void refresh_gap(Mapping* mapping);
  Mapping* clone(const Mapping& m, u64 start, u64 end);  // null: no memory
  void insert(Mapping* mapping);
  void erase(Mapping* mapping);
  void resize(Mapping* mapping, u64 start, u64 end);
  Result<void> split_at(u64 address);
  Result<void> isolate(u64 start, u64 end) {
    TRY(split_at(start));
    return split_at(end);
  }
  void merge(u64 start, u64 end);
  Result<u64> choose_address(const MapRequest& request, u64 length);
  Result<u64> map(const MapRequest& request);
  Result<void> unmap(u64 start, u64 end);
  Result<void> may_protect(u64 start, u64 end, u32 protection);
  bool is_relro(const Mapping& m, u64 end, u32 protection) const;
  Result<void> protect(u64 start, u64 end, u32 protection);
  Result<void> advise_mapping(Mapping& m, u64 start, u64 end, int advice);
  Result<void> advise(u64 start, u64 end, int advice);
  u64 set_heap_end(u64 end);
  Result<void> grow_heap(u64 from, u64 to);
  Result<void> resident(u64 start, u64 end, u8* bits) const;
  void clear_all();

  // address_space_tables.cc: page tables
  Error refuse_execution();
  Result<void> check_policy(u32 protection, const MemoryObject* object);
  u32 hardware_flags(const Mapping& m, PageEntry entry, u32 protection) const;
  Result<void> unmap_tables(platform::PageTableBatch& batch, u64 start, u64 end);
  Result<void> map_tables(platform::PageTableBatch& batch, const Mapping& m, u64 start, u64 end, u32 protection);
  Result<void> protect_tables(platform::PageTableBatch& batch, const Mapping& m, u32 protection);
  Result<void> drop_pages(u64 start, u64 end);  // unmaps, then frees
  void drop_borrowed(u64 start, u64 end);

  // address_space_fault.cc
  struct Window {
    u64 start, end;
  };
  Result<void> fault(u64 address, Access access);
  Result<void> populate(u64 start, u64 end, Access access, bool at_once = true);
  Result<Mapping*> accessible(u64 address, Access access);
  Mapping* grow_stack(u64 address);
  bool clear_pages(u64 start, u64 end);
  Window choose_window(Mapping& m, u64 page);
  u64 early_start(const MapRequest& request, u64 start, u64 length) const;
  void populate_first(u64 start, u64 end);
  Result<u64> fill(Mapping& m, u64 page, Window window, Access access, platform::PageTableBatch& batch);
  Result<PhysAddr> source_of(Mapping& m, u64 page);
  Result<u64> fill_zero(Mapping& m, u64 page, Window window, platform::PageTableBatch& batch);
  Result<u64> fill_copy(Mapping& m, u64 page, Window window, platform::PageTableBatch& batch);
  u64 copy_pages(Mapping& m, u64 address, PhysAddr frames, u64 count, platform::PageTableBatch& batch);
  Result<u64> fill_borrowed(Mapping& m, u64 page, Window window, Access access, platform::PageTableBatch& batch);
  u64 fill_huge_ahead(Mapping& m, u64 chunk, platform::PageTableBatch& batch);
  bool is_library_head(const Mapping& m) const;
  bool fill_huge(Mapping& m, u64 page, Zeroed zeroed, platform::PageTableBatch& batch);
  bool fill_huge_borrowed(Mapping& m, u64 page, Access access, platform::PageTableBatch& batch);

  // address_space_remap.cc
  Result<u64> remap(u64 address, u64 old_length, u64 new_length, u32 flags, u64 new_address);
  Result<u64> duplicate(const Mapping& m, u64 address, u64 length, bool may_move);
  Result<u64> move(Mapping* m, u64 start, u64 old_length, u64 to, u64 new_length, bool keep);
};

// Ends a batch; the first error counts.
inline Result<void> finish(platform::PageTableBatch& batch, Result<void> before) {
  Result<void> flushed = batch.flush();
  return before ? std::move(flushed) : std::move(before);
}

}  // namespace husk::mem
