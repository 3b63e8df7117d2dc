#include "kernel/linux/files_segments.h"

#include <gtest/gtest.h>

#include <vector>

namespace husk::linux {
namespace {

u64 address(const std::vector<vfs::IoSegment>& vector) { return reinterpret_cast<u64>(vector.data()); }

TEST(segments, few_and_many_are_copied_in) {
  for (size_t count : {0u, 1u, 8u, 9u, 1024u}) {
    std::vector<vfs::IoSegment> vector;
    for (size_t i = 0; i < count; ++i) vector.push_back({0x1000 * i, i});
    Segments segments;
    ASSERT_TRUE(segments.load(address(vector), count).ok());
    ASSERT_EQ(segments.span().size(), count);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(segments.span()[i].address, 0x1000 * i);
      EXPECT_EQ(segments.span()[i].size, i);
    }
  }
}

TEST(segments, readv_2_too_many_and_negative_lengths_are_EINVAL) {
  std::vector<vfs::IoSegment> vector(1025, {0x1000, 1});
  Segments segments;
  EXPECT_EQ(segments.load(address(vector), 1025).error().code(), EINVAL);
  EXPECT_EQ(segments.load(address(vector), ~u64{0}).error().code(), EINVAL);
  vector[1].size = u64{1} << 63;
  EXPECT_EQ(segments.load(address(vector), 2).error().code(), EINVAL);
}

TEST(segments, a_transfer_is_cut_at_two_gigabytes_less_a_page) {
  std::vector<vfs::IoSegment> vector = {{0x1000, 0x7fff0000}, {0x2000, 0x7fff0000}, {0x3000, 5}};
  Segments segments;
  ASSERT_TRUE(segments.load(address(vector), 3).ok());
  EXPECT_EQ(segments.span()[0].size + segments.span()[1].size, kTransferMax);
  EXPECT_EQ(segments.span()[2].size, 0u);
}

TEST(segments, a_bad_vector_is_EFAULT) {
  Segments segments;
  EXPECT_EQ(segments.load(0x100, 1).error().code(), EFAULT);
}

}  // namespace
}  // namespace husk::linux
