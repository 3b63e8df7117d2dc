// FileWithCopy: what a guest sees of a file whose start is copied, by however many threads. The checks of ranges are tested with the devices.
#include "vmm/guest_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "vmm/monitor_error.h"

namespace husk::vmm {
namespace {

constexpr u64 kStart = kGiB;

class FileWithCopyTest : public testing::Test {
 protected:
  void make_file(u64 size) {
    bytes_.resize(size);
    for (u64 i = 0; i < size; ++i) bytes_[i] = static_cast<u8>(1 + i % 251);
    ASSERT_EQ(ftruncate(file_.get(), 0), 0);
    ASSERT_EQ(pwrite(file_.get(), bytes_.data(), size, 0), static_cast<ssize_t>(size));
  }
  // What the guest then has there.
  std::span<const u8> add(FileWithCopy& file) {
    memory_ = std::make_unique<GuestMemory>();
    memory_->add_file_with_copy(kStart, file);
    return memory_->readable({kStart}, bytes_.size());
  }
  const GuestMemory::Region& region() { return memory_->regions().front(); }

  host::FileDescriptor file_{memfd_create("image", MFD_CLOEXEC)};
  std::vector<u8> bytes_;
  std::unique_ptr<GuestMemory> memory_;
};

TEST_F(FileWithCopyTest, the_start_is_copied_and_the_rest_is_the_file) {
  make_file(FileWithCopy::kCopiedMax + 5 * kPageSize + 100);
  FileWithCopy file(bytes_.size(), file_.get(), 0, 0);
  file.work();
  std::span<const u8> seen = add(file);
  EXPECT_TRUE(std::ranges::equal(seen, bytes_));
  EXPECT_EQ(region().writable_for_kvm, FileWithCopy::kCopiedMax);
  EXPECT_TRUE(memory_->writable({kStart}, 1).empty());
  const u8 other = 255;
  ASSERT_EQ(pwrite(file_.get(), &other, 1, 0), 1);
  ASSERT_EQ(pwrite(file_.get(), &other, 1, FileWithCopy::kCopiedMax), 1);
  EXPECT_EQ(seen[0], bytes_[0]);
  EXPECT_EQ(seen[FileWithCopy::kCopiedMax], other);
}

TEST_F(FileWithCopyTest, threads_share_the_work) {
  make_file(FileWithCopy::kCopiedMax);
  for (int round = 0; round < 20; ++round) {
    FileWithCopy file(bytes_.size(), file_.get(), 0, 0);
    std::thread other([&] { file.work(); });
    file.work();
    other.join();
    ASSERT_TRUE(std::ranges::equal(add(file), bytes_));
  }
}

TEST_F(FileWithCopyTest, a_small_file_ends_in_zeros) {
  make_file(3 * kPageSize + 1);
  FileWithCopy file(bytes_.size(), file_.get(), 0, 0);
  file.work();
  EXPECT_TRUE(std::ranges::equal(add(file), bytes_));
  EXPECT_EQ(region().size, kHugePageSize);
  std::span<const u8> rest = memory_->readable({kStart + bytes_.size()}, kHugePageSize - bytes_.size());
  ASSERT_FALSE(rest.empty());
  EXPECT_EQ(std::ranges::count(rest, 0), static_cast<i64>(rest.size()));
}

TEST_F(FileWithCopyTest, a_hole_is_not_read) {
  make_file(3 * kHugePageSize);
  for (auto [from, to] :
       {std::pair{kPageSize + 7, kHugePageSize}, {kPageSize, kHugePageSize + kPageSize}, {u64{0}, 5 * kHugePageSize}, {kHugePageSize, kPageSize}}) {
    FileWithCopy file(bytes_.size(), file_.get(), from, to);
    file.work();
    std::vector<u8> expected = bytes_;
    for (u64 i = from; i < std::min<u64>(to, expected.size()); ++i) expected[i] = 0;
    EXPECT_TRUE(std::ranges::equal(add(file), expected)) << from << " " << to;
  }
}

TEST_F(FileWithCopyTest, a_file_that_becomes_shorter_is_an_error) {
  make_file(kHugePageSize);
  FileWithCopy file(bytes_.size() + kPageSize, file_.get(), 0, 0);
  EXPECT_THROW(file.work(), MonitorError);
}

}  // namespace
}  // namespace husk::vmm
