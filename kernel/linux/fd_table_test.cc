#include "kernel/linux/fd_table.h"

#include <gtest/gtest.h>

namespace husk::linux {
namespace {

struct CountedFile : vfs::File {
  explicit CountedFile(int& count) : count_(count) { ++count_; }
  ~CountedFile() override { --count_; }
  int& count_;
};

class FdTableTest : public testing::Test {
 protected:
  Ref<vfs::File> file() { return Ref<vfs::File>(make_ref<CountedFile>(alive).release()); }
  int install(int minimum = 0) {
    auto fd = table->install(file(), false, minimum);
    return fd.ok() ? fd.value() : -fd.error().code();
  }
  int alive = 0;
  Ref<FdTable> table = make_ref<FdTable>().release();
};

TEST_F(FdTableTest, lowest_free_number_is_used) {
  EXPECT_EQ(install(), 0);
  EXPECT_EQ(install(), 1);
  EXPECT_EQ(install(), 2);
  EXPECT_TRUE(table->close(1).ok());
  EXPECT_EQ(install(), 1);
  EXPECT_EQ(install(), 3);
}

TEST_F(FdTableTest, minimum_does_not_hide_lower_numbers) {
  EXPECT_EQ(install(10), 10);
  EXPECT_EQ(install(10), 11);
  EXPECT_EQ(install(), 0);
  EXPECT_EQ(install(), 1);
}

TEST_F(FdTableTest, minimum_just_behind_the_used_ones) {
  EXPECT_EQ(install(), 0);
  EXPECT_EQ(install(1), 1);
  EXPECT_TRUE(table->close(0).ok());
  EXPECT_EQ(install(2), 2);
  EXPECT_EQ(install(), 0);
  EXPECT_EQ(install(), 3);
}

TEST_F(FdTableTest, limit) {
  table->limit = 2;
  EXPECT_EQ(install(), 0);
  EXPECT_EQ(install(), 1);
  EXPECT_EQ(install(), -EMFILE);
  EXPECT_EQ(install(2), -EINVAL);
  EXPECT_EQ(table->install_at(2, file(), false).error().code(), EBADF);
}

TEST_F(FdTableTest, dup2_over_an_open_one_lets_go_of_it) {
  EXPECT_EQ(install(), 0);
  EXPECT_TRUE(table->install_at(0, file(), true).ok());
  EXPECT_EQ(alive, 1);
  EXPECT_TRUE(table->close_on_exec(0).value());
  table->close_for_exec();
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(table->get(0).error().code(), EBADF);
}

TEST_F(FdTableTest, close_range_and_copy) {
  for (int i = 0; i < 20; ++i) install();
  Ref<FdTable> copy = table->copy().release();
  table->close_range(5, ~u32{0});
  EXPECT_EQ(table->next_used(5), -1);
  EXPECT_EQ(copy->next_used(5), 5);
  EXPECT_EQ(alive, 20);
  copy = nullptr;
  EXPECT_EQ(alive, 5);
}

TEST_F(FdTableTest, bad_numbers) {
  EXPECT_FALSE(table->get(-1).ok());
  EXPECT_FALSE(table->get(1 << 30).ok());
  EXPECT_FALSE(table->close(-5).ok());
}

}  // namespace
}  // namespace husk::linux
