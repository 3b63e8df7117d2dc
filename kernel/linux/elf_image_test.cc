// read_elf() and build_stack(): what they accept, and what they make of it.
#include "kernel/linux/elf_image.h"

#include <gtest/gtest.h>
#include <string.h>
#include <sys/mman.h>

#include <functional>
#include <string>
#include <vector>

#include "kernel/linux/stack_image.h"

namespace husk::linux {
namespace {

struct Memory : ByteSource {
  std::vector<u8> bytes;
  Result<void> read_at(u64 offset, void* to, size_t size) override {
    if (offset > bytes.size() || size > bytes.size() - offset) return Error(ENOEXEC);
    if (size != 0) memcpy(to, bytes.data() + offset, size);
    return {};
  }
};

struct Sample {
  Elf64_Ehdr header = {};
  std::vector<Elf64_Phdr> table;
  Sample() {
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_DYN;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    table.push_back({PT_LOAD, PF_R | PF_X, 0, 0, 0, 0x1000, 0x1000, 0x1000});
    table.push_back({PT_LOAD, PF_R | PF_W, 0x1800, 0x2800, 0x2800, 0x100, 0x3000, 0x1000});
  }
  Result<ElfImage> read() {
    Memory memory;
    header.e_phnum = static_cast<u16>(table.size());
    memory.bytes.resize(0x2000);
    memcpy(memory.bytes.data(), &header, sizeof(header));
    memcpy(memory.bytes.data() + sizeof(header), table.data(), table.size() * sizeof(Elf64_Phdr));
    memcpy(memory.bytes.data() + 0x1000, "/lib/ld.so", 11);
    return read_elf(memory);
  }
};

TEST(ElfImage, segments_extent_and_program_headers) {
  auto image = Sample().read();
  ASSERT_TRUE(image.ok());
  EXPECT_TRUE(image->position_independent);
  EXPECT_EQ(image->start, 0u);
  EXPECT_EQ(image->end, 0x6000u);
  EXPECT_EQ(image->program_headers_address, sizeof(Elf64_Ehdr));
  EXPECT_EQ(image->segments[1].page_start(), 0x2000u);
  EXPECT_EQ(image->segments[1].file_page_end(), 0x3000u);
  EXPECT_EQ(image->segments[1].protection, static_cast<u32>(PROT_READ | PROT_WRITE));
}

TEST(ElfImage, interpreter) {
  Sample sample;
  sample.table.push_back({PT_INTERP, PF_R, 0x1000, 0x1000, 0x1000, 11, 11, 1});
  auto image = sample.read();
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->interpreter.view(), "/lib/ld.so");
}

TEST(ElfImage, malformed_files_are_refused) {
  const std::function<void(Sample&)> damages[] = {
      [](Sample& s) { s.header.e_ident[0] = 'x'; },
      [](Sample& s) { s.header.e_machine = EM_AARCH64; },
      [](Sample& s) { s.header.e_type = ET_REL; },
      [](Sample& s) { s.header.e_phoff = 0x10000; },
      [](Sample& s) { s.header.e_phoff = ~0ull - 10; },
      [](Sample& s) { s.table.clear(); },
      [](Sample& s) { s.table[1].p_memsz = ~0ull; },
      [](Sample& s) { s.table[1].p_vaddr = 1ull << 47; },
      [](Sample& s) { s.table[1].p_filesz = 0x4000; },
      [](Sample& s) { s.table[1].p_offset += 8; },
      [](Sample& s) { s.table[1].p_offset = ~0ull - 0x7ff, s.table[1].p_filesz = 0x2000; },
      [](Sample& s) { std::swap(s.table[0], s.table[1]); },
      [](Sample& s) { s.table[0].p_type = s.table[1].p_type = PT_NULL; },
      [](Sample& s) {
        s.table.push_back({PT_INTERP, PF_R, 0x1000, 0, 0, 10, 10, 1});
      },
      [](Sample& s) {
        s.table.push_back({PT_INTERP, PF_R, 0x1000, 0, 0, 100000, 10, 1});
      },
  };
  for (size_t i = 0; i < std::size(damages); ++i) {
    Sample sample;
    damages[i](sample);
    auto image = sample.read();
    ASSERT_FALSE(image.ok()) << i;
    EXPECT_EQ(image.error().code(), ENOEXEC) << i;
  }
}

class StackTest : public testing::Test {
 protected:
  u64 word(u64 address) {
    u64 value;
    memcpy(&value, &image.bytes[address - image.stack_pointer], sizeof(value));
    return value;
  }
  std::string text(u64 address) { return reinterpret_cast<const char*>(&image.bytes[address - image.stack_pointer]); }
  StackImage image;
};

TEST_F(StackTest, layout_is_that_of_the_abi) {
  String arguments[] = {String::from("prog").release(), String::from("").release()};
  String environment[] = {String::from("A=1").release()};
  AuxiliaryEntry auxiliary[] = {{AT_PAGESZ, 4096}};
  for (u64 gap : {0u, 1u, 17u, 8191u}) {
    StackRequest request;
    request.top = 0x7ffffffff000;
    request.gap = gap;
    request.arguments = arguments;
    request.environment = environment;
    request.auxiliary = auxiliary;
    request.executable = "/bin/prog";
    memset(request.random, 0xab, sizeof(request.random));
    image = build_stack(request).release();
    u64 at = image.stack_pointer;
    EXPECT_EQ(at % 16, 0u);
    EXPECT_EQ(at + image.bytes.size(), request.top);
    EXPECT_EQ(word(at), 2u);
    EXPECT_EQ(text(word(at + 8)), "prog");
    EXPECT_EQ(text(word(at + 16)), "");
    EXPECT_EQ(word(at + 24), 0u);
    EXPECT_EQ(text(word(at + 32)), "A=1");
    EXPECT_EQ(word(at + 32), word(at + 16) + 1);  // contiguous strings
    EXPECT_EQ(word(at + 40), 0u);
    std::vector<std::pair<u64, u64>> entries;
    for (at += 48; word(at) != AT_NULL; at += 16) entries.emplace_back(word(at), word(at + 8));
    ASSERT_EQ(entries.size(), 4u);
    EXPECT_EQ(entries[0], (std::pair<u64, u64>{AT_PAGESZ, 4096}));
    EXPECT_EQ(entries[1].first, static_cast<u64>(AT_RANDOM));
    EXPECT_EQ(word(entries[1].second), 0xababababababababu);
    EXPECT_EQ(text(entries[2].second), "/bin/prog");
    EXPECT_EQ(text(entries[3].second), "x86_64");
  }
}

}  // namespace
}  // namespace husk::linux
