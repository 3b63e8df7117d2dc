#include "kernel/fs/paged_data.h"

#include <string.h>

#include <algorithm>

namespace husk::fs {

// --- PageTree ------------------------------------------------------------------------------------------------------

PageTree::~PageTree() {
  if (root_ != nullptr) destroy(root_, height_);
}

void PageTree::destroy(Node* node, unsigned height) {
  if (height > 1) {
    for (u64 word : node->words) {
      if (word != 0) destroy(child(word), height - 1);
    }
  }
  delete node;
}

u64 PageTree::get(u64 index) const {
  if (height_ == 0 || (height_ < kHeightMax && index >> (kBits * height_) != 0)) return 0;
  const Node* node = root_;
  for (unsigned level = height_; level > 1; --level) {
    u64 word = node->words[index >> (kBits * (level - 1)) & (kWays - 1)];
    if (word == 0) return 0;
    node = child(word);
  }
  return node->words[index & (kWays - 1)];
}

Result<u64*> PageTree::make(u64 index) {
  while (height_ == 0 || (height_ < kHeightMax && index >> (kBits * height_) != 0)) {
    Node* node = new (std::nothrow) Node{};
    if (node == nullptr) return Error(ENOMEM);
    node->words[0] = reinterpret_cast<u64>(root_);
    root_ = node;
    ++height_;
  }
  Node* node = root_;
  for (unsigned level = height_; level > 1; --level) {
    u64& word = node->words[index >> (kBits * (level - 1)) & (kWays - 1)];
    if (word == 0) word = reinterpret_cast<u64>(new (std::nothrow) Node{});
    if (word == 0) return Error(ENOMEM);
    node = child(word);
  }
  return &node->words[index & (kWays - 1)];
}

// --- PagedData -----------------------------------------------------------------------------------------------------

PagedData::~PagedData() { drop(0, ~u64{0}); }

Result<void> PagedData::fill_from_lower(u64 index, u8* page) {
  u64 offset = index * kPageSize, end = std::min(offset + kPageSize, lower_size_);
  while (offset < end) {
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(page + offset % kPageSize, end - offset);
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    size_t got = TRY(lower_->read(buffer, &offset));
    if (got == 0) return {};
    offset += got;
  }
  return {};
}

// The page's own frame, made if it has none.
Result<PhysAddr> PagedData::frame(u64 index, Fill fill) {
  u64* word = TRY(tree_.make(index));
  if (*word > kHole) return PhysAddr{*word};
  if (!budget_->take(1)) return Error(ENOSPC);
  mem::Zeroed zeroed = fill == Fill::needed ? mem::Zeroed::yes : mem::Zeroed::no;
  Result<PhysAddr> made = mem::allocate_frames(0, zeroed);
  if (!made.ok()) {
    budget_->give_back(1);
    return made.error();
  }
  if (fill == Fill::needed && *word == 0 && below_lower(index)) {
    if (Result<void> filled = fill_from_lower(index, mem::direct(*made)); !filled.ok()) {
      mem::release_frame(*made);
      budget_->give_back(1);
      return filled.error();
    }
  }
  *word = made->value;
  ++frames_;
  return *made;
}

// A whole 2 MiB of holes that a mapping wants at once gets one huge page.
bool PagedData::allocate_huge(u64 index) {
  constexpr u64 kPages = u64{1} << mem::kHugeOrder;
  if (below_lower(index)) return false;
  bool any = false;
  tree_.for_each(index, index + kPages, [&](u64, u64&) { any = true; });
  if (any || !budget_->take(kPages)) return false;
  Result<PhysAddr> made = mem::allocate_frames(mem::kHugeOrder, mem::Zeroed::yes);
  if (!made.ok()) {
    budget_->give_back(kPages);
    return false;
  }
  mem::split_frames(*made, mem::kHugeOrder);
  for (u64 i = 0; i < kPages; ++i) {
    PhysAddr page = *made + i * kPageSize;
    Result<u64*> word = tree_.make(index + i);
    if (word.ok()) {
      **word = page.value;
      ++frames_;
    } else {
      mem::release_frame(page);
      budget_->give_back(1);
    }
  }
  return true;
}

Result<mem::PageRun> PagedData::pages(u64 index, u64 wanted, mem::Access) {
  constexpr u64 kHugePages = u64{1} << mem::kHugeOrder;
  u64 end = align_up(size_, kPageSize) / kPageSize;
  if (index >= end) return Error(ENXIO);
  wanted = std::min(wanted, end - index);
  if (tree_.get(index) <= kHole && wanted >= kHugePages && is_aligned(index, kHugePages)) allocate_huge(index);
  PhysAddr first = TRY(frame(index, Fill::needed));
  u64 count = 1;
  while (count < wanted && tree_.get(index + count) == first.value + count * kPageSize) ++count;
  return mem::PageRun{first, count};
}

Result<size_t> PagedData::read(vfs::IoBuffer& buffer, u64 offset) {
  size_t moved = 0;
  while (offset < size_ && buffer.remaining() > 0) {
    u64 index = offset / kPageSize, within = offset % kPageSize;
    size_t wanted = std::min<u64>({kPageSize - within, size_ - offset, buffer.remaining()});
    u64 word = tree_.get(index);
    size_t before = buffer.done();
    Result<size_t> got = size_t{0};
    if (word > kHole) {
      got = buffer.put(mem::direct(PhysAddr{word}) + within, wanted);
    } else if (word == 0 && offset < lower_size_) {
      // The lower file knows its own end, but not how much of it is still visible.
      if (tree_.empty() && lower_size_ == size_) return moved + TRY(lower_->read(buffer, &offset));
      u8* page = new (std::nothrow) u8[kPageSize];
      if (page == nullptr) return Error(ENOMEM);
      memset(page, 0, kPageSize);
      Result<void> filled = fill_from_lower(index, page);
      got = filled.ok() ? buffer.put(page + within, wanted) : Result<size_t>(filled.error());
      delete[] page;
    } else {
      got = buffer.put_zeros(wanted);
    }
    size_t now = buffer.done() - before;
    moved += now;
    offset += now;
    if (!got.ok() && moved == 0) return got.error();
    if (!got.ok() || now < wanted) break;
  }
  return moved;
}

Result<size_t> PagedData::write(vfs::IoBuffer& buffer, u64 offset) {
  size_t moved = 0;
  while (buffer.remaining() > 0) {
    u64 index = offset / kPageSize, within = offset % kPageSize;
    size_t wanted = std::min<u64>(kPageSize - within, buffer.remaining());
    bool fresh = tree_.get(index) <= kHole;
    Fill fill = wanted == kPageSize ? Fill::all_overwritten : Fill::needed;
    Result<PhysAddr> page = frame(index, fill);
    Result<size_t> got = page.ok() ? buffer.take(mem::direct(*page) + within, wanted) : Result<size_t>(page.error());
    if (page.ok() && fresh && fill == Fill::all_overwritten && (!got.ok() || *got < wanted)) {
      // The program's memory ended inside the page: no old bytes of somebody else may show.
      size_t filled = got.ok() ? *got : 0;
      memset(mem::direct(*page) + filled, 0, kPageSize - filled);
    }
    if (!got.ok() && moved == 0) return got.error();
    if (!got.ok()) break;
    moved += *got;
    offset += *got;
    size_ = std::max(size_, offset);
    if (*got < wanted) break;
  }
  return moved;
}

void PagedData::drop(u64 first, u64 end) {
  if (first >= end) return;
  invalidate(first, end - first);
  tree_.for_each(first, end, [&](u64, u64& word) {
    if (word > kHole) {
      mem::release_frame(PhysAddr{word});
      budget_->give_back(1);
      --frames_;
    }
    word = 0;
  });
}

Result<void> PagedData::zero_part(u64 from, u64 to) {
  u64 index = from / kPageSize;
  u64 word = tree_.get(index);
  if (word == kHole || (word == 0 && !below_lower(index))) return {};
  PhysAddr page = TRY(frame(index, Fill::needed));
  memset(mem::direct(page) + from % kPageSize, 0, to - from);
  return {};
}

Result<void> PagedData::truncate(u64 size) {
  if (size < size_) {
    u64 page_end = align_up(size, kPageSize);
    if (size < page_end && tree_.get(size / kPageSize) > kHole) TRY(zero_part(size, page_end));
    drop(page_end / kPageSize, ~u64{0});
    lower_size_ = std::min(lower_size_, size);
  }
  size_ = size;
  return {};
}

Result<void> PagedData::allocate(u64 offset, u64 size) {
  u64 first = offset / kPageSize, end = align_up(offset + size, kPageSize) / kPageSize;
  if (end - first > budget_->limit()) return Error(ENOSPC);
  for (u64 index = first; index < end; ++index) (void)TRY(frame(index, Fill::needed));
  return {};
}

Result<void> PagedData::punch_hole(u64 offset, u64 size) {
  u64 end = std::min(offset + size, align_up(size_, kPageSize));
  if (offset >= end) return {};
  u64 first_page = align_up(offset, kPageSize), end_page = align_down(end, kPageSize);
  if (first_page > end_page) return zero_part(offset, end);
  if (offset < first_page) TRY(zero_part(offset, first_page));
  if (end_page < end) TRY(zero_part(end_page, end));
  drop(first_page / kPageSize, end_page / kPageSize);
  for (u64 index = first_page / kPageSize; index < end_page / kPageSize && below_lower(index); ++index) {
    *TRY(tree_.make(index)) = kHole;
  }
  return {};
}

u64 PagedData::next_data(u64 from) {
  u64 index = from / kPageSize;
  if (tree_.get(index) > kHole || (tree_.get(index) == 0 && below_lower(index))) return from;
  u64 found = size_;
  tree_.for_each(index + 1, ~u64{0}, [&](u64 at, u64& word) {
    if (word > kHole) found = std::min(found, at * kPageSize);
  });
  for (u64 at = index + 1; below_lower(at) && at * kPageSize < found; ++at) {
    if (tree_.get(at) == 0) found = at * kPageSize;
  }
  return found;
}

u64 PagedData::next_hole(u64 from) {
  for (u64 at = from; at < size_; at = align_down(at, kPageSize) + kPageSize) {
    u64 word = tree_.get(at / kPageSize);
    if (word == kHole || (word == 0 && !below_lower(at / kPageSize))) return at;
  }
  return size_;
}

}  // namespace husk::fs
