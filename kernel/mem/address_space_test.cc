// AddressSpace against what mmap(2) and its relatives promise, and against a simple model at random.
#include "kernel/mem/address_space.h"

#include <asm/mman.h>
#include <gtest/gtest.h>
#include <linux/mman.h>
#include <string.h>

#include <map>
#include <random>
#include <vector>

#include "abi/image_format.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "platform/fake/fake.h"

namespace husk {
void log(LogLevel, const char*, ...) {}
}  // namespace husk

namespace husk::mem {
namespace {

namespace fake = platform::fake;
constexpr u64 kTop = 0x7fff'0000'0000;
constexpr u64 kImageBytes = 10 * kMiB;
using Placement = MapRequest::Placement;

u64& word(PhysAddr at) { return *reinterpret_cast<u64*>(direct(at)); }

// Like a tmpfs file: frames come when asked for writing; a hole reads as the zero frame.
class Memory : public MemoryObject {
 public:
  explicit Memory(u64 pages) : frames_(pages) { zero_ = *allocate_frames(0, Zeroed::yes); }
  ~Memory() override {
    for (PhysAddr f : frames_) {
      if (f.value) free_frames(f, 0);
    }
    free_frames(zero_, 0);
  }
  Result<PageRun> pages(u64 index, u64, Access access) override {
    if (index >= frames_.size()) return Error(ENXIO);
    if (frames_[index].value == 0 && access != Access::write) return PageRun{zero_, 1};
    if (frames_[index].value == 0) {
      invalidate(index, 1);  // whoever shows the zero frame must look again
      frames_[index] = *allocate_frames(0, Zeroed::yes);
    }
    return PageRun{frames_[index], 1};
  }
  u64 content(u64 index) { return frames_[index].value ? word(frames_[index]) : 0; }
  void punch(u64 index) {
    if (frames_[index].value == 0) return;
    invalidate(index, 1);
    free_frames(frames_[index], 0);
    frames_[index] = {};
  }

 private:
  std::vector<PhysAddr> frames_;
  PhysAddr zero_;
};

class Image : public MemoryObject {
 public:
  Image(u64 first, u64 pages) : first_(first), pages_(pages) {}
  Result<PageRun> pages(u64 index, u64 wanted, Access) override {
    if (index >= pages_) return Error(ENXIO);
    return PageRun{{abi::kMonitorImageAddress + (first_ + index) * kPageSize}, std::min(wanted, pages_ - index)};
  }
  bool immutable() const override { return true; }
  const char* name() const override { return "/bin/program"; }

 private:
  u64 first_, pages_;
};

class Space : public testing::Test {
 protected:
  void start(u64 ram, bool jit) {
    fake::reset(ram);
    fake::allow_jit(jit);
    image_.resize(kImageBytes / sizeof(u64));
    for (size_t i = 0; i < image_.size(); ++i) image_[i] = 0x1000'0000 + i;
    fake::set_image(image_.data(), kImageBytes);
    init_frames(fake::boot_info());
    (void)*allocate_guarded(kPageSize);  // page tables of the fake and first slabs, before frames are counted
    space_ = *AddressSpace::create(0, kTop, jit);
  }
  void SetUp() override { start(64 * kMiB, false); }

  u64 anonymous(u64 length, u32 protection = PROT_READ | PROT_WRITE, u64 at = 0) {
    MapRequest r{.address = at, .length = length, .protection = protection};
    r.placement = at ? Placement::fixed : Placement::anywhere;
    return *space_->map(r);
  }
  static bool allowed(u64 address, Access access) {
    auto pte = fake::lookup(0, address);
    u32 needed = access == Access::write ? 2 : access == Access::execute ? 4 : 1;
    return pte && (pte->protection & needed);
  }
  // One access by the program; 0 or the errno of the fault.
  int touch(u64 address, Access access) {
    if (allowed(address, access)) return 0;
    auto done = space_->fault(address, access, 0);
    if (!done) return done.error().code();
    EXPECT_TRUE(allowed(address, access)) << "fault served, but nothing mapped";
    return 0;
  }
  u64 read(u64 address) {
    EXPECT_EQ(touch(address, Access::read), 0);
    return word(fake::lookup(0, address)->physical + address % kPageSize);
  }
  void write(u64 address, u64 value) {
    ASSERT_EQ(touch(address, Access::write), 0);
    word(fake::lookup(0, address)->physical + address % kPageSize) = value;
  }
  std::string layout() {
    std::string text;
    space_->for_each([&](const MappingInfo& i) {
      char line[80];
      snprintf(line, sizeof(line), "%lx-%lx %u;", i.start, i.end, i.protection);
      text += line;
    });
    return text;
  }

  std::vector<u64> image_;
  Ref<AddressSpace> space_;
};

TEST_F(Space, anonymous_memory_is_zero_and_keeps_what_is_written) {
  u64 at = anonymous(100 * kPageSize);
  EXPECT_LT(at, kTop);
  for (u64 i = 0; i < 100; ++i) {
    EXPECT_EQ(read(at + i * kPageSize), 0u);
    write(at + i * kPageSize, i);
  }
  for (u64 i = 0; i < 100; ++i) EXPECT_EQ(read(at + i * kPageSize), i);
  EXPECT_LE(space_->fault_count(), 8u);  // the window doubles
  EXPECT_EQ(space_->resident_bytes(), 100 * kPageSize);
}

TEST_F(Space, faults_are_told_apart) {
  u64 at = anonymous(2 * kPageSize, PROT_READ);
  anonymous(kPageSize, PROT_NONE, at);
  EXPECT_EQ(touch(at, Access::read), EACCES);
  EXPECT_EQ(touch(at + kPageSize, Access::write), EACCES);
  EXPECT_EQ(touch(at + 2 * kPageSize, Access::read), EFAULT);
  EXPECT_EQ(touch(0, Access::read), EFAULT);
  MapRequest r{.length = 4 * kPageSize, .protection = PROT_READ};
  r.object = *make_ref<Image>(0, 2);
  u64 file = *space_->map(r);
  EXPECT_EQ(touch(file + kPageSize, Access::read), 0);
  EXPECT_EQ(touch(file + 2 * kPageSize, Access::read), ENXIO);
}

TEST_F(Space, neighbours_merge_and_split) {
  u64 at = anonymous(8 * kPageSize);
  anonymous(8 * kPageSize, PROT_READ | PROT_WRITE, at - 8 * kPageSize);
  std::string one = layout();
  ASSERT_TRUE(space_->protect(at, kPageSize, PROT_READ).ok());
  EXPECT_NE(layout(), one);
  ASSERT_TRUE(space_->protect(at, kPageSize, PROT_READ | PROT_WRITE).ok());
  EXPECT_EQ(layout(), one);
  ASSERT_TRUE(space_->unmap(at, kPageSize).ok());
  EXPECT_EQ(space_->mapped_bytes(), 15 * kPageSize);
  anonymous(kPageSize, PROT_READ | PROT_WRITE, at);
  EXPECT_EQ(layout(), one);
}

TEST_F(Space, mmap_placement) {
  MapRequest r{.address = 0x10000000, .length = kPageSize, .protection = PROT_READ};
  r.placement = Placement::hint;
  EXPECT_EQ(*space_->map(r), 0x10000000u);
  u64 elsewhere = *space_->map(r);
  EXPECT_NE(elsewhere, 0x10000000u);
  EXPECT_EQ(elsewhere + kPageSize, kTop);
  r.placement = Placement::fixed_noreplace;
  EXPECT_EQ(space_->map(r).error().code(), EEXIST);
  r.address = 0x1000;
  EXPECT_EQ(space_->map(r).error().code(), EPERM);
  r.address = 0x10000001;
  EXPECT_EQ(space_->map(r).error().code(), EINVAL);
  r.address = kUserEnd;
  EXPECT_EQ(space_->map(r).error().code(), ENOMEM);
  r.placement = Placement::anywhere;
  r.below_2g = true;
  EXPECT_LT(*space_->map(r), u64{1} << 31);
  r.length = 0;
  EXPECT_EQ(space_->map(r).error().code(), EINVAL);
  r.length = ~u64{0};
  EXPECT_EQ(space_->map(r).error().code(), ENOMEM);
}

TEST_F(Space, the_highest_gap_that_fits_is_taken) {
  u64 a = anonymous(10 * kPageSize, PROT_READ), b = anonymous(10 * kPageSize, PROT_NONE), c = anonymous(10 * kPageSize, PROT_READ);
  EXPECT_EQ(a - b, 10 * kPageSize);
  ASSERT_TRUE(space_->unmap(b, 10 * kPageSize).ok());
  EXPECT_EQ(anonymous(11 * kPageSize, PROT_NONE), c - 11 * kPageSize);
  EXPECT_EQ(anonymous(4 * kPageSize, PROT_NONE), a - 4 * kPageSize);
  EXPECT_EQ(anonymous(6 * kPageSize, PROT_NONE), b);
}

TEST_F(Space, huge_reservations_cost_nothing) {
  u64 free = memory_statistics().free;
  u64 at = anonymous(u64{1} << 44, PROT_NONE);
  u64 operations = fake::counters().operations;
  EXPECT_LT(free - memory_statistics().free, 64 * kKiB);
  ASSERT_TRUE(space_->protect(at + kGiB, kMiB, PROT_READ | PROT_WRITE).ok());
  write(at + kGiB, 1);
  ASSERT_TRUE(space_->unmap(at, u64{1} << 44).ok());
  EXPECT_LE(fake::counters().operations - operations, 8u);
}

TEST_F(Space, a_walk_upwards_gets_more_large_pages_a_fault) {
  start(512 * kMiB, false);
  u64 at = anonymous(128 * kMiB), free = memory_statistics().free;
  std::vector<u64> walked;
  for (u64 offset = 0; offset < 80 * kMiB; offset += kHugePageSize) {
    if (!allowed(at + offset, Access::write)) walked.push_back(offset / kHugePageSize);
    write(at + offset, offset + 1);
  }
  EXPECT_EQ(walked, (std::vector<u64>{0, 1, 3, 7, 15, 29}));  // 14 in the end: a sixteenth of what is free by then
  EXPECT_EQ(fake::counters().bytes_expected, (1 + 3 + 7 + 13 + 13) * kHugePageSize);
  EXPECT_EQ(space_->resident_bytes(), 43 * kHugePageSize);
  ASSERT_TRUE(space_->advise(at, 40 * kMiB, MADV_DONTNEED).ok());
  ASSERT_TRUE(space_->unmap(at + 80 * kMiB, 48 * kMiB).ok());
  EXPECT_EQ(space_->resident_bytes(), 20 * kHugePageSize);  // what was mapped ahead goes with the rest
  EXPECT_EQ(read(at + 78 * kMiB), 78 * kMiB + 1);
  EXPECT_EQ(read(at), 0u);
  ASSERT_TRUE(space_->unmap(at, 80 * kMiB).ok());
  EXPECT_GE(memory_statistics().free + 64 * kKiB, free);
}

TEST_F(Space, nothing_is_cleared_ahead_of_a_walk) {
  start(128 * kMiB, false);
  std::vector<PhysAddr> blocks;
  while (auto block = allocate_frames(kHugeOrder, Zeroed::no)) blocks.push_back(*block);
  for (PhysAddr block : blocks) word(block) = 1;
  for (PhysAddr block : blocks) free_frames(block, kHugeOrder);
  u64 at = anonymous(64 * kMiB);
  for (u64 offset = 0; offset < 16 * kMiB; offset += kHugePageSize) {
    EXPECT_EQ(space_->resident_bytes(), offset);
    EXPECT_EQ(read(at + offset), 0u);
  }
  EXPECT_EQ(fake::counters().bytes_expected, 0u);
}

TEST_F(Space, large_mappings_take_2_mib_pages_and_give_parts_back) {
  start(256 * kMiB, false);
  u64 at = anonymous(16 * kMiB);
  EXPECT_TRUE(is_aligned(at, kHugePageSize));
  u64 free = memory_statistics().free;
  write(at + 5 * kPageSize, 77);
  EXPECT_EQ(space_->resident_bytes(), kHugePageSize);
  ASSERT_TRUE(space_->unmap(at, 4 * kPageSize).ok());
  EXPECT_EQ(read(at + 5 * kPageSize), 77u);
  EXPECT_EQ(space_->resident_bytes(), kHugePageSize - 4 * kPageSize);
  ASSERT_TRUE(space_->advise(at + 5 * kPageSize, kPageSize, MADV_DONTNEED).ok());
  EXPECT_EQ(read(at + 5 * kPageSize), 0u);
  ASSERT_TRUE(space_->unmap(at, 16 * kMiB).ok());
  EXPECT_GE(memory_statistics().free + 32 * kKiB, free);
  u64 small = anonymous(2 * kMiB);
  write(small, 1);
  EXPECT_LT(space_->resident_bytes(), 64 * kPageSize);
}

TEST_F(Space, private_file_pages_are_copied_when_written) {
  MapRequest r{.length = 140 * kPageSize, .protection = PROT_READ | PROT_WRITE};  // too much to be copied by a read
  r.object = *make_ref<Image>(3, 140);
  u64 at = *space_->map(r);
  u64 original = 0x1000'0000 + 3 * 512;
  EXPECT_EQ(read(at), original);
  EXPECT_GE(fake::lookup(0, at)->physical.value, abi::kMonitorImageAddress);
  EXPECT_FALSE(allowed(at, Access::write));
  write(at, 5);
  EXPECT_EQ(read(at), 5u);
  EXPECT_EQ(image_[3 * 512], original);
  EXPECT_EQ(read(at + 8), original + 1);
  ASSERT_TRUE(space_->advise(at, kPageSize, MADV_DONTNEED).ok());
  EXPECT_EQ(read(at), original);
}

// As ld.so maps a library: head, text, data and bss over a mapping of the whole file. It writes to the data at once.
TEST_F(Space, the_pieces_of_a_library_are_there_without_faults) {
  MapRequest r{.length = 60 * kPageSize, .protection = PROT_READ};
  r.object = *make_ref<Image>(0, 60);
  u64 at = *space_->map(r), entries = fake::counters().nub_entries;
  EXPECT_EQ(fake::mapped_pages(0), 0u);
  auto piece = [&](u64 first, u64 pages, u32 protection, bool zeroed) {
    MapRequest p{.address = at + first * kPageSize, .length = pages * kPageSize, .protection = protection};
    p.placement = Placement::fixed;
    if (!zeroed) p.object = r.object;
    p.offset = zeroed ? 0 : first * kPageSize;
    ASSERT_TRUE(space_->map(p).ok());
  };
  piece(5, 30, PROT_READ | PROT_EXEC, false);
  EXPECT_EQ(fake::counters().nub_entries, entries);
  piece(35, 10, PROT_READ | PROT_WRITE, false);
  for (u64 i = 0; i < 35; ++i) EXPECT_TRUE(allowed(at + i * kPageSize, i < 5 ? Access::read : Access::execute)) << i;
  for (u64 i = 35; i < 45; ++i) EXPECT_TRUE(allowed(at + i * kPageSize, Access::write)) << i;
  EXPECT_EQ(read(at + 35 * kPageSize), 0x1000'0000 + 35 * 512);
  EXPECT_EQ(fake::mapped_pages(0), 45u);
  EXPECT_EQ(fake::counters().nub_entries - entries, 1u);
  piece(45, 6, PROT_READ | PROT_WRITE, true);
  EXPECT_EQ(fake::mapped_pages(0), 45u);
  anonymous(kPageSize);
  EXPECT_EQ(fake::counters().nub_entries - entries, 2u);
  for (u64 i = 45; i < 51; ++i) EXPECT_TRUE(allowed(at + i * kPageSize, Access::write)) << i;
  EXPECT_EQ(read(at + 50 * kPageSize), 0u);
  EXPECT_EQ(space_->fault_count(), 0u);
}

TEST_F(Space, heads_of_libraries_are_copied_where_a_first_use_is_dear) {
  auto in_image = [](u64 at) { return fake::lookup(0, at)->physical.value >= abi::kMonitorImageAddress; };
  auto map_library = [&](u64 head_pages) {
    MapRequest r{.length = (head_pages + 20) * kPageSize, .protection = PROT_READ};
    r.object = *make_ref<Image>(0, head_pages + 20);
    const u64 at = *space_->map(r);
    r.address = at + head_pages * kPageSize;
    r.length = 10 * kPageSize;
    r.offset = head_pages * kPageSize;
    r.protection = PROT_READ | PROT_EXEC;
    r.placement = Placement::fixed;
    EXPECT_TRUE(space_->map(r).ok());
    for (u64 i : {u64{0}, head_pages - 1, head_pages}) EXPECT_EQ(read(at + i * kPageSize), 0x1000'0000 + i * 512);
    EXPECT_FALSE(allowed(at, Access::write));
    EXPECT_TRUE(in_image(at + head_pages * kPageSize));
    return at;
  };
  EXPECT_TRUE(in_image(map_library(7)));
  fake::shadow_page_tables();
  const u64 at = map_library(7);
  EXPECT_FALSE(in_image(at) || in_image(at + 6 * kPageSize));
  EXPECT_TRUE(in_image(map_library(300)));
  MapRequest file{.length = 7 * kPageSize, .protection = PROT_READ};
  file.object = *make_ref<Image>(0, 7);
  const u64 alone = *space_->map(file);
  EXPECT_EQ(read(alone), 0x1000'0000u);
  EXPECT_TRUE(in_image(alone));
  // Its frames are its own, and go with it.
  const u64 free = memory_statistics().free;
  ASSERT_TRUE(space_->unmap(at, 7 * kPageSize).ok());
  EXPECT_EQ(memory_statistics().free, free + 7 * kPageSize);
  start(24 * kMiB, false);
  fake::shadow_page_tables();
  EXPECT_TRUE(in_image(map_library(7)));
}

// Pages that wait for a reason to be entered: whatever comes first finds them as if they had not waited.
TEST_F(Space, what_waits_is_there_for_a_fault_and_gone_after_munmap) {
  const u64 pages = fake::mapped_pages(0), at = kGiB;
  auto map_text = [&] {
    MapRequest r{.address = at, .length = 10 * kPageSize, .protection = PROT_READ | PROT_EXEC, .placement = Placement::fixed};
    r.object = *make_ref<Image>(0, 10);
    EXPECT_EQ(*space_->map(r), at);
    EXPECT_EQ(fake::mapped_pages(0), pages);
  };
  map_text();
  EXPECT_EQ(read(at + 3 * kPageSize), 0x1000'0000 + 3 * 512);
  EXPECT_EQ(fake::mapped_pages(0), pages + 10);
  ASSERT_TRUE(space_->unmap(at, 10 * kPageSize).ok());
  map_text();
  ASSERT_TRUE(space_->protect(at, 4 * kPageSize, PROT_READ).ok());
  EXPECT_FALSE(allowed(at, Access::execute));
  EXPECT_TRUE(allowed(at + 4 * kPageSize, Access::execute));
  ASSERT_TRUE(space_->unmap(at, 10 * kPageSize).ok());
  map_text();
  ASSERT_TRUE(space_->unmap(at, 10 * kPageSize).ok());
  EXPECT_EQ(fake::mapped_pages(0), pages);
  EXPECT_EQ(touch(at, Access::read), EFAULT);
  map_text();
  space_ = nullptr;
  EXPECT_EQ(fake::mapped_pages(0), pages);
}

// What a loader does before the program runs: each library's relocated data, then the program's own, which lies below the heap.
TEST_F(Space, relocated_data_of_libraries_is_made_read_only_with_the_programs) {
  auto data = [&](u64 at) {
    MapRequest r{.address = at, .length = 4 * kPageSize, .protection = PROT_READ | PROT_WRITE, .placement = Placement::fixed};
    r.object = *make_ref<Image>(0, 4);
    EXPECT_EQ(*space_->map(r), at);
    EXPECT_TRUE(allowed(at, Access::write));
  };
  auto seal = [&](u64 at) { EXPECT_TRUE(space_->protect(at, 2 * kPageSize, PROT_READ).ok()); };
  const u64 program = kGiB, first = 2 * kGiB, second = 3 * kGiB, late = 4 * kGiB;
  for (u64 at : {program, first, second, late}) data(at);
  space_->set_heap_start(program + 4 * kPageSize);
  u64 entries = fake::counters().nub_entries;
  seal(first);
  seal(second);
  EXPECT_EQ(fake::counters().nub_entries, entries);
  EXPECT_EQ(touch(first + 2 * kPageSize, Access::write), 0);
  seal(program);
  EXPECT_EQ(fake::counters().nub_entries, entries + 1);
  for (u64 at : {program, first, second}) {
    EXPECT_EQ(touch(at + kPageSize, Access::write), EACCES);
    EXPECT_EQ(touch(at, Access::read), 0);
    EXPECT_EQ(touch(at + 2 * kPageSize, Access::write), 0);
  }
  ASSERT_TRUE(space_->unmap(first, 4 * kPageSize).ok());
  seal(late);
  EXPECT_EQ(touch(late, Access::write), EACCES);
}

TEST_F(Space, what_is_not_a_loaders_is_read_only_at_once) {
  space_->set_heap_start(kGiB);
  u64 memory = anonymous(4 * kPageSize, PROT_READ | PROT_WRITE, 2 * kGiB);
  ASSERT_TRUE(space_->protect(memory, kPageSize, PROT_READ).ok());
  EXPECT_EQ(touch(memory, Access::write), EACCES);
  MapRequest r{.address = 3 * kGiB, .length = 4 * kPageSize, .protection = PROT_READ | PROT_WRITE, .placement = Placement::fixed};
  r.object = *make_ref<Image>(0, 4);
  ASSERT_TRUE(space_->map(r).ok());
  ASSERT_TRUE(space_->protect(r.address, kPageSize, PROT_NONE).ok());
  EXPECT_EQ(touch(r.address, Access::read), EACCES);
}

TEST_F(Space, top_of_a_new_stack_is_there_at_once) {
  MapRequest r{.length = 64 * kPageSize, .protection = PROT_NONE};
  r.small_pages = true;
  u64 at = *space_->map(r);
  ASSERT_TRUE(space_->protect(at + kPageSize, 63 * kPageSize, PROT_READ | PROT_WRITE).ok());
  EXPECT_TRUE(allowed(at + 63 * kPageSize, Access::write));
  EXPECT_FALSE(allowed(at + 32 * kPageSize, Access::write));
  EXPECT_EQ(touch(at, Access::read), EACCES);
}

// The tables are full when they are entered: a fault says it, and works once there is room.
TEST_F(Space, what_waits_in_vain_is_said_again_by_a_fault) {
  MapRequest r{.address = kGiB, .length = 10 * kPageSize, .protection = PROT_READ | PROT_EXEC, .placement = Placement::fixed};
  r.object = *make_ref<Image>(0, 10);
  ASSERT_TRUE(space_->map(r).ok());
  fake::limit_table_pages(fake::mapped_pages(0));
  EXPECT_FALSE(space_->fault(kGiB, Access::read, 0).ok());
  fake::limit_table_pages(~u64{0});
  EXPECT_EQ(read(kGiB + kPageSize), 0x1000'0000u + 512);
}

TEST_F(Space, what_is_written_at_once_is_there_without_faults) {
  u64 tiny = anonymous(4 * kPageSize), small = anonymous(5 * kPageSize);
  EXPECT_TRUE(allowed(tiny + 3 * kPageSize, Access::write));
  EXPECT_FALSE(allowed(small, Access::read));
  EXPECT_FALSE(allowed(anonymous(kPageSize, PROT_NONE), Access::read));
  space_->set_heap_start(kGiB);
  space_->set_heap_end(kGiB + 40 * kPageSize);
  EXPECT_TRUE(allowed(kGiB + 31 * kPageSize, Access::write));
  EXPECT_FALSE(allowed(kGiB + 32 * kPageSize, Access::write));
}

TEST_F(Space, nothing_is_early_when_memory_is_scarce) {
  while (memory_statistics().free >= memory_statistics().total / 8) (void)*allocate_frames(0, Zeroed::no);
  u64 pages = fake::mapped_pages(0);
  u64 at = anonymous(4 * kPageSize);
  MapRequest r{.address = at + kGiB, .length = 10 * kPageSize, .protection = PROT_READ | PROT_WRITE, .placement = Placement::fixed};
  r.object = *make_ref<Image>(0, 10);
  ASSERT_TRUE(space_->map(r).ok());
  space_->set_heap_start(kGiB);
  space_->set_heap_end(kGiB + 40 * kPageSize);
  EXPECT_EQ(fake::mapped_pages(0), pages);
  write(at + kPageSize, 1);
  EXPECT_EQ(fake::mapped_pages(0), pages + 1);
}

TEST_F(Space, a_walk_downwards_gets_whole_windows) {
  u64 at = anonymous(kMiB, PROT_READ | PROT_WRITE, kGiB);
  u64 faults = space_->fault_count();
  for (u64 offset = kMiB; offset > 0; offset -= kPageSize) write(at + offset - kPageSize, 1);
  EXPECT_EQ(space_->fault_count() - faults, 8u);
}

TEST_F(Space, shared_pages_show_in_every_view) {
  auto memory = *make_ref<Memory>(64);
  MapRequest r{.length = 64 * kPageSize, .protection = PROT_READ};
  r.shared = true;
  r.object = memory;
  u64 reader = *space_->map(r);
  r.protection |= PROT_WRITE;
  u64 writer = *space_->map(r);
  EXPECT_EQ(read(reader + kPageSize), 0u);
  write(writer + kPageSize, 9);
  EXPECT_EQ(read(reader + kPageSize), 9u);
  memory->punch(1);
  EXPECT_EQ(read(writer + kPageSize), 0u);
  EXPECT_EQ(read(reader + kPageSize), 0u);
  u64 again = *space_->remap(writer, 0, kPageSize, MREMAP_MAYMOVE, 0);
  write(again, 4);
  EXPECT_EQ(read(reader), 4u);
}

TEST_F(Space, write_and_execute_exclude_each_other) {
  MapRequest r{.length = kPageSize, .protection = PROT_READ | PROT_WRITE | PROT_EXEC};
  EXPECT_EQ(space_->map(r).error().code(), EACCES);
  u64 at = anonymous(kPageSize);
  EXPECT_EQ(space_->protect(at, kPageSize, PROT_READ | PROT_EXEC).error().code(), EACCES);
  r.protection = PROT_READ | PROT_EXEC;
  r.length = 4 * kPageSize;
  r.object = *make_ref<Image>(0, 4);
  u64 text = *space_->map(r);
  EXPECT_EQ(touch(text, Access::execute), 0);
  EXPECT_TRUE(allowed(text + 3 * kPageSize, Access::execute)) << "small text is mapped at once";
  ASSERT_TRUE(space_->protect(text, kPageSize, PROT_READ | PROT_WRITE).ok());
  EXPECT_EQ(touch(text, Access::execute), EACCES);
  ASSERT_TRUE(space_->protect(text, kPageSize, PROT_READ | PROT_EXEC).ok());
  ASSERT_TRUE(space_->protect(text, kPageSize, PROT_READ | PROT_WRITE).ok());
  write(text, 1);
  EXPECT_EQ(space_->protect(text, kPageSize, PROT_READ | PROT_EXEC).error().code(), EACCES);
  r.object = *make_ref<Memory>(4);
  EXPECT_EQ(space_->map(r).error().code(), EACCES);
}

TEST_F(Space, jit_may_write_and_execute) {
  start(64 * kMiB, true);
  u64 at = anonymous(kPageSize, PROT_READ | PROT_WRITE | PROT_EXEC);
  write(at, 0xc3);
  EXPECT_EQ(touch(at, Access::execute), 0);
  ASSERT_TRUE(space_->protect(at, kPageSize, PROT_READ | PROT_EXEC).ok());
  EXPECT_FALSE(allowed(at, Access::write));
  EXPECT_EQ(read(at), 0xc3u);
}

TEST_F(Space, brk_moves_the_end_of_the_heap) {
  space_->set_heap_start(0x5555'0000'0123);
  EXPECT_EQ(space_->set_heap_end(0), 0x5555'0000'0123u);
  EXPECT_EQ(space_->set_heap_end(0x5555'0002'0001), 0x5555'0002'0001u);
  write(0x5555'0002'0000, 3);
  anonymous(kPageSize, PROT_READ, 0x5555'0004'0000);
  EXPECT_EQ(space_->set_heap_end(0x5555'0004'0001), 0x5555'0002'0001u);
  EXPECT_EQ(space_->set_heap_end(0x5555'0001'0000), 0x5555'0001'0000u);
  EXPECT_EQ(touch(0x5555'0002'0000, Access::read), EFAULT);
}

TEST_F(Space, stack_grows_to_its_limit_but_not_into_a_neighbour) {
  MapRequest r{.address = kTop, .length = 16 * kPageSize, .protection = PROT_READ | PROT_WRITE};
  r.placement = Placement::fixed;
  r.grows_down = true;
  r.label = "[stack]";
  u64 at = *space_->map(r);
  write(at - kMiB, 1);
  EXPECT_EQ(touch(at - 9 * kMiB, Access::write), EFAULT);
  anonymous(kPageSize, PROT_READ, at - 4 * kMiB);
  EXPECT_EQ(touch(at - 4 * kMiB + 8 * kPageSize, Access::write), EFAULT);
  MappingInfo info;
  ASSERT_TRUE(space_->find(at, &info));
  EXPECT_STREQ(info.name, "[stack]");
}

TEST_F(Space, munmap_mprotect_madvise_errors) {
  u64 at = anonymous(2 * kPageSize);
  EXPECT_EQ(space_->unmap(at + 1, kPageSize).error().code(), EINVAL);
  EXPECT_EQ(space_->unmap(at, 0).error().code(), EINVAL);
  EXPECT_TRUE(space_->unmap(0x20000, kPageSize).ok());
  EXPECT_EQ(space_->protect(at, 3 * kPageSize, PROT_READ).error().code(), ENOMEM);
  EXPECT_EQ(touch(at, Access::write), EACCES);
  EXPECT_EQ(space_->advise(at, 3 * kPageSize, MADV_WILLNEED).error().code(), ENOMEM);
  EXPECT_EQ(space_->advise(at, kPageSize, 12345).error().code(), EINVAL);
  u8 bits[2];
  EXPECT_TRUE(space_->resident(at, kPageSize, bits).ok());
  EXPECT_EQ(space_->resident(at + kPageSize, 2 * kPageSize, bits).error().code(), ENOMEM);
}

TEST_F(Space, out_of_memory_is_an_error_and_page_tables_too) {
  start(8 * kMiB, false);
  u64 at = anonymous(64 * kMiB);
  int code = 0;
  for (u64 i = 0; i < 64 * kMiB && code == 0; i += kPageSize) code = touch(at + i, Access::write);
  EXPECT_EQ(code, ENOMEM);
  EXPECT_GT(memory_statistics().free, 64 * kKiB);
  space_ = nullptr;
  start(64 * kMiB, false);
  at = anonymous(64 * kPageSize);
  fake::limit_table_pages(10);
  EXPECT_EQ(space_->populate(at, 64 * kPageSize, Access::write).error().code(), ENOMEM);
  fake::limit_table_pages(1000);
  for (u64 i = 0; i < 64; ++i) write(at + i * kPageSize, i);
}

TEST_F(Space, mremap_moves_contents) {
  u64 at = anonymous(10 * kPageSize);
  u64 blocker = anonymous(kPageSize, PROT_READ, at + 10 * kPageSize);
  for (u64 i = 0; i < 10; ++i) write(at + i * kPageSize, i + 1);
  EXPECT_EQ(space_->remap(at, 10 * kPageSize, 20 * kPageSize, 0, 0).error().code(), ENOMEM);
  u64 moved = *space_->remap(at, 10 * kPageSize, 20 * kPageSize, MREMAP_MAYMOVE, 0);
  EXPECT_NE(moved, at);
  for (u64 i = 0; i < 20; ++i) EXPECT_EQ(read(moved + i * kPageSize), i < 10 ? i + 1 : 0);
  EXPECT_EQ(touch(at, Access::read), EFAULT);
  EXPECT_EQ(space_->remap(moved, 20 * kPageSize, 5 * kPageSize, 0, 0).value(), moved);
  EXPECT_EQ(touch(moved + 5 * kPageSize, Access::read), EFAULT);
  EXPECT_EQ(*space_->remap(moved, 5 * kPageSize, 5 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, blocker), blocker);
  EXPECT_EQ(read(blocker + 4 * kPageSize), 5u);
  u64 copy = *space_->remap(blocker, 5 * kPageSize, 5 * kPageSize, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
  EXPECT_EQ(read(copy + kPageSize), 2u);
  EXPECT_EQ(read(blocker + kPageSize), 0u);
  EXPECT_EQ(space_->remap(0x20000, kPageSize, kPageSize, 0, 0).error().code(), EFAULT);
}

// A program that does anything, on a window of pages, against an array of pages.
class SpaceAtRandom : public Space, public testing::WithParamInterface<int> {
 protected:
  static constexpr u64 kPages = 2048, kBase = 0x4000'0000 + 37 * kPageSize;
  enum class Kind : u8 { none, anonymous, image, shared };
  struct Page {
    Kind kind = Kind::none;
    u32 protection = 0;
    u64 index = 0;     // in the object
    bool own = false;  // private content, in `content`
    u64 content = 0;
  };

  u64 expected(const Page& p) {
    if (p.kind == Kind::shared) return memory_->content(p.index);
    if (p.own) return p.content;
    return p.kind == Kind::image ? image_[p.index * 512] : 0;
  }
  u64 address(u64 page) { return kBase + page * kPageSize; }
  u64 pick(u64 n) { return random_() % n; }

  void map_some() {
    u64 first = pick(kPages), count = 1 + (pick(8) == 0 ? pick(kPages - first) : pick(std::min<u64>(40, kPages - first)));
    MapRequest r{.address = address(first), .length = count * kPageSize};
    r.placement = Placement::fixed;
    Kind kind = static_cast<Kind>(1 + pick(3));
    r.protection = pick(2) ? PROT_READ | PROT_WRITE : pick(4) ? PROT_READ : PROT_NONE;
    r.populate = pick(5) == 0;
    u64 index = 0;
    if (kind == Kind::image) r.object = image_object_, index = pick(kImageBytes / kPageSize - kPages);
    if (kind == Kind::shared) r.object = memory_, r.shared = true, index = pick(kPages);
    r.offset = index * kPageSize;
    ASSERT_TRUE(space_->map(r).ok());
    for (u64 i = 0; i < count; ++i) model_[first + i] = {kind, r.protection, index + i, false, 0};
  }
  void unmap_some(u64 first, u64 count) {
    ASSERT_TRUE(space_->unmap(address(first), count * kPageSize).ok());
    for (u64 i = 0; i < count; ++i) model_[first + i] = {};
  }
  void protect_some(u64 first, u64 count) {
    u32 protection = pick(3) ? PROT_READ | PROT_WRITE : pick(2) ? PROT_READ : PROT_NONE;
    bool hole = false;
    for (u64 i = 0; i < count && !hole; ++i) {
      hole = model_[first + i].kind == Kind::none;
      if (!hole) model_[first + i].protection = protection;
    }
    auto done = space_->protect(address(first), count * kPageSize, protection);
    ASSERT_EQ(done.ok(), !hole);
  }
  void forget_some(u64 first, u64 count) {
    (void)space_->advise(address(first), count * kPageSize, MADV_DONTNEED).ok();
    for (u64 i = 0; i < count; ++i) model_[first + i].own = false;
  }
  void move_some(u64 first, u64 count) {
    u64 to = pick(kPages - count);
    bool overlap = to < first + count && first < to + count;
    auto done = space_->remap(address(first), count * kPageSize, count * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, address(to));
    ASSERT_FALSE(overlap && done.ok());
    if (overlap || model_[first].kind == Kind::none) return;
    if (!done) return;  // more than one mapping
    for (u64 i = 0; i < count; ++i) model_[to + i] = model_[first + i];
    for (u64 i = 0; i < count; ++i) model_[first + i] = {};
  }
  void use_some(u64 first, u64 count) {
    for (u64 i = first; i < first + count; ++i) {
      Page& p = model_[i];
      bool write_it = pick(2);
      int want = p.kind == Kind::none ? EFAULT : !(p.protection & (write_it ? PROT_WRITE : PROT_READ)) ? EACCES : 0;
      ASSERT_EQ(touch(address(i), write_it ? Access::write : Access::read), want);
      if (want != 0) continue;
      PhysAddr frame = fake::lookup(0, address(i))->physical;
      ASSERT_EQ(word(frame), expected(p)) << "page " << i << " kind " << int(p.kind);
      if (!write_it) continue;
      word(frame) = random_();
      if (p.kind != Kind::shared) p.own = true, p.content = word(frame);
    }
  }
  void check_tables() {
    for (u64 i = 0; i < kPages; ++i) {
      auto pte = fake::lookup(0, address(i));
      if (!pte) continue;
      const Page& p = model_[i];
      ASSERT_NE(p.kind, Kind::none) << i;
      ASSERT_NE(p.protection, 0u) << i;
      ASSERT_TRUE((pte->protection & 2) == 0 || (p.protection & PROT_WRITE) != 0) << i;
      ASSERT_EQ(word(pte->physical), expected(p)) << i;
      ASSERT_EQ(space_->translate(address(i))->value, pte->physical.value);
    }
  }

  std::mt19937_64 random_;
  Ref<Memory> memory_;
  Ref<MemoryObject> image_object_;
  std::vector<Page> model_{kPages};
};

TEST_P(SpaceAtRandom, agrees_with_the_model) {
  start(192 * kMiB, false);
  random_.seed(static_cast<u64>(GetParam()));
  memory_ = *make_ref<Memory>(2 * kPages);
  image_object_ = *make_ref<Image>(0, kImageBytes / kPageSize);
  u64 free = memory_statistics().free;
  for (int step = 0; step < 3000; ++step) {
    u64 first = pick(kPages), limit = kPages - first;
    u64 count = 1 + pick(std::min<u64>(limit, pick(6) == 0 ? limit : 30));
    switch (pick(12)) {
      case 0:
      case 1: map_some(); break;
      case 2: unmap_some(first, count); break;
      case 3:
      case 4: protect_some(first, count); break;
      case 5: forget_some(first, count); break;
      case 6:
        if (count < kPages) move_some(first, count);
        break;
      case 7: memory_->punch(pick(2 * kPages)); break;
      default: use_some(first, count);
    }
    if (HasFatalFailure()) FAIL() << "step " << step;
    if (step % 100 == 0) check_tables();
  }
  check_tables();
  space_ = nullptr;
  EXPECT_EQ(fake::mapped_pages(0), 0u);
  for (u64 i = 0; i < 2 * kPages; ++i) memory_->punch(i);
  EXPECT_LE(free - std::min(free, memory_statistics().free), 64 * kKiB);
}
INSTANTIATE_TEST_SUITE_P(Seeds, SpaceAtRandom, testing::Range(1, 20));

}  // namespace
}  // namespace husk::mem
