// Views of good files, and the one-line errors for bad ones.
#include "image/elf/view.h"

#include <gtest/gtest.h>

#include "image/elf/unwind.h"
#include "image/test_elf.h"

namespace husk::image {
namespace {

std::string error_of(Bytes bytes) {
  try {
    ElfView::parse(bytes, "prog");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ElfView, reads_a_dynamic_program) {
  auto file = MappedFile::open("/proc/self/exe");
  ElfView elf = ElfView::parse(file.bytes(), "self");
  EXPECT_EQ(elf.interpreter(), "/lib64/ld-linux-x86-64.so.2");
  auto needed = elf.dynamic().needed;
  EXPECT_NE(std::find(needed.begin(), needed.end(), "libc.so.6"), needed.end());
  auto main_address = elf.symbol("main");
  ASSERT_TRUE(main_address);
  EXPECT_TRUE(elf.is_executable(*main_address));
  UnwindTable table = read_unwind_table(elf);
  EXPECT_TRUE(table.complete);
  bool found = std::any_of(table.entries.begin(), table.entries.end(), [&](const UnwindEntry& entry) { return entry.start == *main_address; });
  EXPECT_TRUE(found);
  size_t with_pads = 0;
  for (const auto& entry : table.entries) {
    std::vector<u64> pads;
    ASSERT_TRUE(read_landing_pads(elf, entry, pads));
    for (u64 pad : pads) EXPECT_TRUE(elf.is_executable(pad));
    with_pads += pads.empty() ? 0 : 1;
  }
  EXPECT_GT(with_pads, 0u);
}

TEST(ElfView, bad_files_get_one_clear_line) {
  std::vector<u8> good = TestElf{{0xc3}, {1}, {}}.build();
  auto with = [&](size_t offset, std::vector<u8> bytes) {
    auto file = good;
    std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<std::ptrdiff_t>(offset));
    return error_of(file);
  };
  EXPECT_EQ(error_of(good), "");
  EXPECT_EQ(error_of({}), "prog: is empty");
  EXPECT_EQ(error_of(as_bytes("hello, world")), "prog: is not an ELF file; husk runs x86-64 Linux programs");
  EXPECT_EQ(with(18, {EM_AARCH64, 0}), "prog: is for aarch64; husk runs x86-64 programs");
  EXPECT_EQ(with(18, {EM_386, 0}), "prog: is for i386; husk runs x86-64 programs");
  EXPECT_EQ(with(EI_CLASS, {ELFCLASS32}), "prog: is a 32-bit (x32) program; husk runs 64-bit x86-64 programs");
  EXPECT_EQ(with(16, {ET_REL, 0}), "prog: is an object file; link it into a program first");
  EXPECT_EQ(error_of(Bytes(good).first(40)), "prog: is truncated: the ELF header is incomplete");
  EXPECT_NE(error_of(Bytes(good).first(0x1000)).find("is truncated: segment 1 needs"), std::string::npos);
}

}  // namespace
}  // namespace husk::image
