// Tests of base/: Result, Ref, Vec, String, List, format_to, and the configuration reader of abi/.
#include <gtest/gtest.h>
#include <inttypes.h>
#include <stdio.h>

#include <random>
#include <vector>

#include "abi/boot_config.h"
#include "base/format.h"
#include "base/list.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/vec.h"

namespace husk {
namespace {

struct Counted : RefCounted<Counted> {
  explicit Counted(int* live) : live_(live) { ++*live_; }
  ~Counted() { --*live_; }
  int* live_;
};

Result<int> half(int value) {
  if (value % 2 != 0) return Error(EINVAL);
  return value / 2;
}
Result<int> quarter(int value) { return TRY(half(TRY(half(value)))); }

TEST(Result, try_passes_the_value_and_the_error_on) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_EQ(quarter(6).error().code(), EINVAL);
}

TEST(Result, moves_and_destroys_what_it_holds) {
  int live = 0;
  {
    Result<Ref<Counted>> first = make_ref<Counted>(&live);
    Result<Ref<Counted>> second = std::move(first);
    EXPECT_EQ(live, 1);
    second = Error(EIO);
    EXPECT_FALSE(second.ok());
  }
  EXPECT_EQ(live, 0);
}

TEST(Ref, counts_owners) {
  int live = 0;
  Ref<Counted> a = make_ref<Counted>(&live).value();
  Ref<Counted> b = a;
  EXPECT_EQ(a->ref_count(), 2u);
  a = nullptr;
  EXPECT_EQ(live, 1);
  b = nullptr;
  EXPECT_EQ(live, 0);
}

TEST(Vec, grows_erases_and_destroys) {
  int live = 0;
  Vec<Ref<Counted>> vec;
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(vec.push_back(make_ref<Counted>(&live).value()).ok());
  vec.erase(50);
  EXPECT_EQ(live, 99);
  ASSERT_TRUE(vec.resize(10).ok());
  EXPECT_EQ(live, 10);
  vec.clear();
  EXPECT_EQ(live, 0);
}

TEST(String, appends_and_truncates) {
  String text = String::from("hello").value();
  ASSERT_TRUE(text.append(", world").ok());
  EXPECT_EQ(text.view(), "hello, world");
  text.truncate(5);
  EXPECT_STREQ(text.c_str(), "hello");
  text.truncate(0);
  EXPECT_TRUE(text.empty());
}

struct Element : ListNode<> {
  explicit Element(int v) : value(v) {}
  int value;
};

TEST(List, keeps_order_and_unlinks) {
  Element a(1), b(2), c(3);
  List<Element> list;
  list.push_back(&b);
  list.push_front(&a);
  list.push_back(&c);
  b.unlink();
  std::vector<int> seen;
  for (Element& e : list) seen.push_back(e.value);
  EXPECT_EQ(seen, (std::vector<int>{1, 3}));
  EXPECT_EQ(list.pop_front(), &a);
  EXPECT_EQ(list.pop_front(), &c);
  EXPECT_EQ(list.pop_front(), nullptr);
}

#define SAME_AS_PRINTF(...)                                                                \
  do {                                                                                     \
    char expected[256], actual[256];                                                       \
    int length = snprintf(expected, sizeof expected, __VA_ARGS__);                         \
    EXPECT_EQ(format_to(actual, sizeof actual, __VA_ARGS__), static_cast<size_t>(length)); \
    EXPECT_STREQ(actual, expected);                                                        \
  } while (0)

TEST(Format, agrees_with_printf) {
  for (long v : {0L, 1L, -1L, 42L, -99999L, INT64_MAX, INT64_MIN}) {
    SAME_AS_PRINTF("[%ld] [%10ld] [%-10ld] [%+ld] [% ld] [%010ld] [%.5ld] [%12.5ld]", v, v, v, v, v, v, v, v);
    SAME_AS_PRINTF("[%lx] [%#lx] [%lX] [%lo] [%016lx] [%lu]", v, v, v, v, v, v);
    SAME_AS_PRINTF("[%d] [%u] [%hhd] [%hu] [%x]", static_cast<int>(v), static_cast<unsigned>(v), static_cast<signed char>(v),
                   static_cast<unsigned short>(v), static_cast<unsigned>(v));
  }
  SAME_AS_PRINTF("[%s] [%10s] [%-10s] [%.2s] [%c] [%5c] %%", "text", "text", "text", "text", 'c', 'd');
  SAME_AS_PRINTF("[%*d] [%-*s] [%.*s]", 6, 42, 8, "ab", 3, "abcdef");
  SAME_AS_PRINTF("[%p] [%zu] [%" PRIu64 "]", reinterpret_cast<void*>(0x1234), sizeof(int), UINT64_MAX);
}

TEST(Format, is_bounded) {
  char small[5] = {1, 1, 1, 1, 77};
  EXPECT_EQ(format_to(small, 4, "%s", "longer"), 6u);
  EXPECT_STREQ(small, "lon");
  EXPECT_EQ(small[4], 77);
  EXPECT_EQ(format_to(nullptr, 0, "%d", 12345), 5u);
}

TEST(BootConfig, reads_back_what_was_appended) {
  std::vector<u8> bytes;
  abi::append_config(bytes, abi::ConfigTag::program, "/bin/true");
  abi::append_config(bytes, abi::ConfigTag::argument, "");
  abi::append_config(bytes, abi::ConfigTag::environment, "A=b");
  abi::ConfigReader reader(bytes);
  EXPECT_EQ(reader.next()->text(), "/bin/true");
  EXPECT_EQ(reader.next()->text(), "");
  auto last = reader.next();
  EXPECT_EQ(last->tag, abi::ConfigTag::environment);
  EXPECT_EQ(last->text(), "A=b");
  EXPECT_FALSE(reader.next().has_value());
}

TEST(BootConfig, survives_any_bytes) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<u8> bytes(random() % 64);
    for (u8& b : bytes) b = static_cast<u8>(random() % 4 == 0 ? random() : random() % 12);
    abi::ConfigReader reader(bytes);
    size_t total = 0;
    while (auto record = reader.next()) total += 8 + record->bytes.size();
    EXPECT_LE(total, bytes.size());
  }
}

}  // namespace
}  // namespace husk
