// Page tables: the one place where a mapping comes into being. Enforces invariants 1 to 9 of invariants.md.
//
// Every page-table page comes from the pool in the nub region; NubState::usage counts the entries of each, so that an empty
// table is freed at once. An address space is named by its root's index in the pool, 0 being the first one.
#include <errno.h>

#include "abi/nub_policy.h"
#include "nub/nub.h"

namespace husk::nub {
namespace {

using namespace abi;

constexpr u32 kInvalidateSingly = 16;

u64* table_at(u64 page) { return reinterpret_cast<u64*>(kNubRegionBase + (page - nub_state.region_start)); }
u16& usage_of(u64 page) { return nub_state.usage[(page - nub_state.pool_start) >> kPageShift]; }
// Roots are not counted: they live until space_destroy.
void use(u64 page, int delta) {
  if (usage_of(page) != kPoolRoot) usage_of(page) = static_cast<u16>(usage_of(page) + delta);
}

// 0: the pool is empty.
u64 take_table() {
  u64 index = nub_state.pool_next;
  bool clean = nub_state.ram_is_zero;
  if (nub_state.pool_free != 0) {
    index = nub_state.pool_free - 1;
    clean = false;
    nub_state.pool_free = *table_at(nub_state.pool_start + (index << kPageShift));
  } else if (index == nub_state.pool_pages) {
    return 0;
  } else {
    ++nub_state.pool_next;
  }
  u64 page = nub_state.pool_start + (index << kPageShift);
  if (!clean) memset(table_at(page), 0, kPageSize);
  nub_state.usage[index] = 0;
  return page;
}
void free_table(u64 page) {
  usage_of(page) = 0;
  *table_at(page) = nub_state.pool_free;
  nub_state.pool_free = ((page - nub_state.pool_start) >> kPageShift) + 1;
}

// 0: no such space.
u64 root_of(u32 id) {
  if (id == 0) return nub_state.boot_root;
  if (id >= nub_state.pool_next || nub_state.usage[id] != kPoolRoot) return 0;
  return nub_state.pool_start + (u64{id} << kPageShift);
}

// One range operation: walks the tables of one space and changes leaf entries.
class Range {
 public:
  enum class Kind { map, unmap, protect };

  Errno prepare(Kind kind, const NubCall& call) {
    kind_ = kind;
    flags_ = call.flags;
    va_ = call.va;
    pa_ = call.pa;
    root_ = root_of(call.space);
    if (root_ == 0) return ESRCH;
    if (Errno error = check_range(va_, call.length)) return error;
    end_ = va_ + call.length;
    upper_ = va_ >= kUpperStart;
    flush_ = upper_ || root_ == nub_state.current_root;
    if (kind != Kind::map) return 0;
    u64 bits;
    if ((pa_ & (kPageSize - 1)) != 0 || pa_ + call.length < pa_) return EINVAL;
    if (!classify(nub_state, pa_, call.length, &bits)) return EPERM;
    leaf_ = permitted(nub_state, flags_, bits, upper_);
    return leaf_ == 0 ? EPERM : 0;
  }

  Errno run() {
    Errno error = 0;
    while (va_ < end_ && error == 0) error = step();
    if (flush_ && changed_ > kInvalidateSingly) load_cr3(nub_state.current_root);
    return error;
  }

 private:
  // One 2 MiB page, one leaf table, or one hole.
  Errno step() {
    u64 page = root_;
    for (int level = 4; level > 2; --level) {
      pages_[level] = page;
      u64* slot = &table_at(page)[(va_ >> (3 + 9 * level)) & 511];
      if (*slot == 0) {
        if (kind_ != Kind::map) return skip(u64{1} << (3 + 9 * level));
        if (upper_ && level == 4) return EPERM;  // every space must share it
        if (Errno error = add_table(slot, page)) return error;
      } else if (*slot & kPteSealed) {
        return EPERM;
      }
      page = *slot & kPteFrame;
    }
    pages_[2] = page;
    u64* slot = &table_at(page)[(va_ >> kHugePageShift) & 511];
    if (*slot == 0 && kind_ != Kind::map) return skip(kHugePageSize);
    bool whole = is_aligned(va_, kHugePageSize) && end_ - va_ >= kHugePageSize;
    bool leaf = *slot & kPteHuge;
    if (whole && (leaf || (*slot == 0 && is_aligned(pa_, kHugePageSize)))) {
      if (kind_ != Kind::map || is_aligned(pa_, kHugePageSize)) return set_huge(slot);
    }
    if (whole && !leaf && kind_ == Kind::unmap && !upper_) return drop_table(slot);  // nothing in the lower half is sealed
    if (leaf) {
      if (Errno error = split(slot)) return error;
    } else if (*slot == 0) {
      if (Errno error = add_table(slot, page)) return error;
    }
    return set_small(*slot & kPteFrame);
  }

  Errno skip(u64 size) {
    va_ = align_down(va_, size) + size;
    if (va_ == 0) va_ = end_;
    return 0;
  }
  Errno add_table(u64* slot, u64 page) {
    u64 table = take_table();
    if (table == 0) return ENOMEM;
    *slot = table | kPteTable;
    use(page, 1);
    return 0;
  }

  // The entry that replaces `old`, or false.
  bool replacement(u64 old, u64* entry) {
    if (old & kPteSealed) return false;
    if (kind_ == Kind::map) {
      *entry = leaf_ | pa_;
    } else if (kind_ == Kind::unmap) {
      *entry = 0;
    } else {
      u64 bits = permitted(nub_state, flags_, old & (kPteImage | kPteDevice), upper_);
      *entry = bits | (old & kPteFrame);
      return bits != 0;
    }
    return true;
  }
  void change(u64* slot, u64 entry, u64 old) {
    *slot = entry;
    if (old != 0 && flush_ && ++changed_ <= kInvalidateSingly) asm volatile("invlpg (%0)" : : "r"(va_) : "memory");
  }

  Errno drop_table(u64* slot) {
    free_table(*slot & kPteFrame);
    *slot = 0;
    changed_ = kInvalidateSingly + 1;
    va_ += kHugePageSize;
    release(2, 1);
    return 0;
  }

  Errno set_huge(u64* slot) {
    u64 old = *slot, entry;
    if (!replacement(old, &entry)) return EPERM;
    change(slot, entry == 0 ? 0 : entry | kPteHuge, old);
    va_ += kHugePageSize;
    pa_ += kHugePageSize;
    if (old == 0) use(pages_[2], 1);
    if (entry == 0) release(2, 1);
    return 0;
  }

  Errno set_small(u64 table) {
    pages_[1] = table;
    u64* slot = &table_at(table)[(va_ >> kPageShift) & 511];
    u64 stop = align_down(va_, kHugePageSize) + kHugePageSize;
    if (stop > end_ || stop == 0) stop = end_;
    int added = 0, removed = 0;
    Errno error = 0;
    for (; va_ < stop; va_ += kPageSize, pa_ += kPageSize, ++slot) {
      u64 old = *slot, entry;
      if (old == 0) {
        if (kind_ != Kind::map) continue;
        *slot = leaf_ | pa_;
        ++added;
        continue;
      }
      if (!replacement(old, &entry)) {
        error = EPERM;
        break;
      }
      change(slot, entry, old);
      if (entry == 0) ++removed;
    }
    if (added != 0) use(table, added);
    if (removed != 0) release(1, removed);
    return error;
  }

  // `count` entries of the table at `level` went away: frees it if it is empty, and then its parents. Roots and the upper
  // half's first level stay, because every space shares the latter.
  void release(int level, int count) {
    u64 va = va_ - 1;  // inside what was just worked on
    u64 page = pages_[level];
    use(page, -count);
    while (usage_of(page) == 0 && level < (upper_ ? 3 : 4)) {
      u64 parent = pages_[level + 1];
      table_at(parent)[(va >> (12 + 9 * level)) & 511] = 0;
      free_table(page);
      changed_ = kInvalidateSingly + 1;  // paging-structure caches too, before the page is used again
      page = parent;
      ++level;
      use(page, -1);
    }
  }

  Errno split(u64* slot) {
    u64 old = *slot;
    if (old & kPteSealed) return EPERM;
    u64 table = take_table();
    if (table == 0) return ENOMEM;
    u64 entry = old & ~kPteHuge;
    u64* small = table_at(table);
    for (int i = 0; i < 512; ++i, entry += kPageSize) small[i] = entry;
    usage_of(table) = 512;
    *slot = table | kPteTable;
    changed_ = kInvalidateSingly + 1;
    return 0;
  }

  Kind kind_;
  bool upper_, flush_;
  u32 flags_, changed_ = 0;
  u64 va_, end_, pa_, root_, leaf_;
  u64 pages_[5];
};

Errno run_range(Range::Kind kind, const NubCall& call) {
  Range range;
  if (Errno error = range.prepare(kind, call)) return error;
  return range.run();
}

void free_tree(u64 page, int level) {
  u64* entries = table_at(page);
  int left = usage_of(page);
  for (int i = 0; i < 512 && left > 0; ++i) {
    if (entries[i] == 0) continue;
    --left;
    if (level > 1 && !(entries[i] & kPteHuge)) free_tree(entries[i] & kPteFrame, level - 1);
  }
  free_table(page);
}

}  // namespace

Errno map(const NubCall& call) { return run_range(Range::Kind::map, call); }
Errno unmap(const NubCall& call) { return run_range(Range::Kind::unmap, call); }
Errno protect(const NubCall& call) { return run_range(Range::Kind::protect, call); }

// The leaf entry that maps a page, split to 4 KiB; null if there is none.
static u64* leaf_entry(u64 va) {
  u64 page = nub_state.boot_root;
  for (int level = 4; level > 1; --level) {
    u64* slot = &table_at(page)[(va >> (3 + 9 * level)) & 511];
    if (*slot == 0 || *slot & kPteHuge) return nullptr;
    page = *slot & kPteFrame;
  }
  return &table_at(page)[(va >> kPageShift) & 511];
}

// Physically contiguous RAM, mapped in the upper half with small pages. The direct map loses its alias.
Errno seal(const NubCall& call) {
  NubCall part = call;
  part.space = 0;
  part.flags = kNubRead;
  if (call.va < kUpperStart || nub_state.sealed_count == kSealedRangesMax) return EINVAL;
  if (Errno error = protect(part)) return error;
  u64* first = leaf_entry(call.va);
  if (first == nullptr) return EINVAL;
  u64 pa = *first & kPteFrame;
  for (u64 offset = 0; offset < call.length; offset += kPageSize) {
    u64* slot = leaf_entry(call.va + offset);
    if (slot == nullptr || (*slot & kPteFrame) != pa + offset || *slot & (kPteImage | kPteDevice)) return EINVAL;
  }
  part.va = nub_state.direct_base + pa;
  if (part.va != call.va) {
    if (Errno error = unmap(part)) return error;
  }
  for (u64 offset = 0; offset < call.length; offset += kPageSize) *leaf_entry(call.va + offset) |= kPteSealed;
  nub_state.sealed[nub_state.sealed_count++] = {pa, call.length};
  return 0;
}

Errno space_create(u64* id) {
  u64 root = take_table();
  if (root == 0) return ENOMEM;
  u64* entries = table_at(root);
  const u64* boot = table_at(nub_state.boot_root);
  for (int i = 256; i < 512; ++i) {
    if (boot[i] != 0) entries[i] = boot[i];
  }
  usage_of(root) = kPoolRoot;
  *id = (root - nub_state.pool_start) >> kPageShift;
  return 0;
}

Errno space_switch(u32 id) {
  u64 root = root_of(id);
  if (root == 0) return ESRCH;
  nub_state.current_root = root;
  load_cr3(root);
  return 0;
}

Errno space_destroy(u32 id) {
  u64 root = root_of(id);
  if (root == 0 || id == 0) return ESRCH;
  if (root == nub_state.current_root) return EBUSY;
  u64* entries = table_at(root);
  for (int i = 0; i < 256; ++i) {
    if (entries[i] != 0) free_tree(entries[i] & kPteFrame, 3);
  }
  free_table(root);
  return 0;
}

}  // namespace husk::nub
