// The bytes of a writable file in memory: a sparse tree of page frames, optionally over the pages of a lower file.
//
// A page that was never written comes from the lower file (up to what is still visible of it) or reads as zeros. Frames belong
// to the object and are counted against the volume's budget; truncation takes them from mappings first (invalidate).
#pragma once

#include "kernel/mem/address_space.h"
#include "kernel/mem/frames.h"
#include "kernel/vfs/file.h"

namespace husk::fs {

// How much memory the files of one volume may use.
class Budget : public RefCounted<Budget> {
 public:
  explicit Budget(u64 limit_pages) : limit_(limit_pages) {}
  bool take(u64 pages) {
    if (pages > limit_ - used_) return false;
    used_ += pages;
    return true;
  }
  void give_back(u64 pages) { used_ -= pages; }
  u64 limit() const { return limit_; }
  u64 used() const { return used_; }

 private:
  u64 limit_;
  u64 used_ = 0;
};

// Page index → word, 64 ways a level, as high as the largest index needs. Word 0 is "nothing".
class PageTree {
 public:
  PageTree() = default;
  ~PageTree();
  u64 get(u64 index) const;
  Result<u64*> make(u64 index);
  // Calls visit(index, word&) for every word that is not 0 in [first, end); the words may be set to 0.
  template <typename Visit>
  void for_each(u64 first, u64 end, Visit&& visit) {
    if (root_ != nullptr) walk(root_, height_, 0, first, end, visit);
  }
  bool empty() const { return root_ == nullptr; }

 private:
  static constexpr unsigned kBits = 6, kWays = 1 << kBits, kHeightMax = 9;  // 54 bits of page index
  struct Node {
    u64 words[kWays];  // pages, or Node* above the lowest level
  };
  static Node* child(u64 word) { return reinterpret_cast<Node*>(word); }
  static void destroy(Node* node, unsigned height);
  template <typename Visit>
  static void walk(Node* node, unsigned height, u64 base, u64 first, u64 end, Visit& visit) {
    u64 span = u64{1} << (kBits * (height - 1));
    for (u64 way = 0; way < kWays; ++way) {
      u64 start = base + way * span;
      if (start >= end) return;
      if (node->words[way] == 0 || start + span <= first) continue;
      if (height == 1) visit(start, node->words[way]);
      else walk(child(node->words[way]), height - 1, start, first, end, visit);
    }
  }
  Node* root_ = nullptr;
  unsigned height_ = 0;  // levels; 0: empty
};

class PagedData final : public mem::MemoryObject {
 public:
  PagedData(Ref<Budget> budget, u64 device, u64 inode) : budget_(std::move(budget)), device_(device), inode_(inode) {}
  ~PagedData() override;
  void set_lower(Ref<vfs::File> lower, u64 size) {
    lower_ = std::move(lower);
    size_ = lower_size_ = size;
  }
  void set_name(String name) {
    if (name_.empty()) name_ = std::move(name);
  }

  u64 size() const { return size_; }
  u64 allocated_pages() const { return frames_; }
  Result<size_t> read(vfs::IoBuffer& buffer, u64 offset);
  Result<size_t> write(vfs::IoBuffer& buffer, u64 offset);
  Result<void> truncate(u64 size);
  Result<void> allocate(u64 offset, u64 size);  // does not change size()
  Result<void> punch_hole(u64 offset, u64 size);
  u64 next_data(u64 from);  // size() if there is none
  u64 next_hole(u64 from);

  Result<mem::PageRun> pages(u64 index, u64 wanted, mem::Access access) override;
  const char* name() const override { return name_.c_str(); }
  u64 device() const override { return device_; }
  u64 inode() const override { return inode_; }

 private:
  static constexpr u64 kHole = 1;  // hides the lower file's page
  enum class Fill : bool { needed, all_overwritten };
  Result<PhysAddr> frame(u64 index, Fill fill);
  Result<void> fill_from_lower(u64 index, u8* page);
  bool allocate_huge(u64 index);
  Result<void> zero_part(u64 from, u64 to);  // within one page
  void drop(u64 first, u64 end);
  bool below_lower(u64 index) const { return index * kPageSize < lower_size_; }

  Ref<Budget> budget_;
  Ref<vfs::File> lower_;
  u64 lower_size_ = 0;  // bytes of the lower file that are visible
  u64 size_ = 0;
  u64 frames_ = 0;
  u64 device_, inode_;
  PageTree tree_;
  String name_;
};

}  // namespace husk::fs
