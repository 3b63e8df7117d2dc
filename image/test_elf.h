// ELF files made by hand for tests: one executable segment with given code, and what describes it.
#pragma once

#include <elf.h>

#include <map>
#include <string>
#include <vector>

#include "image/file.h"

namespace husk::image {

// Code at kTestCodeAddress, sections .text, .symtab, .strtab, .shstrtab and data; function symbols as given.
constexpr u64 kTestBase = 0x400000, kTestCodeAddress = kTestBase + 0x1000, kTestDataAddress = kTestBase + 0x2000;

struct TestElf {
  std::vector<u8> code, data;
  struct Function {
    std::string name;
    u64 offset, size;
  };
  std::vector<Function> functions;
  u16 type = ET_DYN;
  bool note = true;  // a PT_NOTE that can be given up

  std::vector<u8> build() const {
    std::vector<u8> file(0x1000);
    auto put = [&](u64 alignment, const void* bytes, size_t size) {
      file.resize(align_up(file.size(), alignment));
      u64 at = file.size();
      file.insert(file.end(), static_cast<const u8*>(bytes), static_cast<const u8*>(bytes) + size);
      return at;
    };
    put(0x1000, code.data(), code.size());
    u64 data_at = put(0x1000, data.data(), data.size());
    std::string names("\0", 1), section_names("\0.text\0.symtab\0.strtab\0.shstrtab\0", 33);
    std::vector<Elf64_Sym> symbols(1);
    for (const auto& function : functions) {
      Elf64_Sym symbol = {};
      symbol.st_name = static_cast<u32>(names.size());
      symbol.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
      symbol.st_shndx = 1;
      symbol.st_value = kTestCodeAddress + function.offset;
      symbol.st_size = function.size;
      symbols.push_back(symbol);
      names += function.name + '\0';
    }
    u64 symbols_at = put(8, symbols.data(), symbols.size() * sizeof(Elf64_Sym));
    u64 names_at = put(1, names.data(), names.size());
    u64 section_names_at = put(1, section_names.data(), section_names.size());
    Elf64_Shdr sections[5] = {};
    sections[1] = {1, SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, kTestCodeAddress, 0x1000, code.size(), 0, 0, 16, 0};
    sections[2] = {7, SHT_SYMTAB, 0, 0, symbols_at, symbols.size() * sizeof(Elf64_Sym), 3, 1, 8, sizeof(Elf64_Sym)};
    sections[3] = {15, SHT_STRTAB, 0, 0, names_at, names.size(), 0, 0, 1, 0};
    sections[4] = {23, SHT_STRTAB, 0, 0, section_names_at, section_names.size(), 0, 0, 1, 0};
    u64 sections_at = put(8, sections, sizeof(sections));

    std::vector<Elf64_Phdr> segments;
    segments.push_back({PT_LOAD, PF_R, 0, kTestBase, kTestBase, 0x1000, 0x1000, 0x1000});
    segments.push_back({PT_LOAD, PF_R | PF_X, 0x1000, kTestCodeAddress, kTestCodeAddress, code.size(), code.size(), 0x1000});
    segments.push_back({PT_LOAD, PF_R | PF_W, data_at, kTestDataAddress, kTestDataAddress, data.size(), data.size() + 0x5000, 0x1000});
    if (note) segments.push_back({PT_NOTE, PF_R, 0x800, kTestBase + 0x800, kTestBase + 0x800, 0, 0, 4});
    Elf64_Ehdr header = {};
    memcpy(header.e_ident, "\177ELF\2\1\1", 7);
    header.e_type = type;
    header.e_machine = EM_X86_64;
    header.e_version = 1;
    header.e_entry = kTestCodeAddress;
    header.e_phoff = sizeof(header);
    header.e_shoff = sections_at;
    header.e_ehsize = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = static_cast<u16>(segments.size());
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 5;
    header.e_shstrndx = 4;
    memcpy(file.data(), &header, sizeof(header));
    memcpy(file.data() + sizeof(header), segments.data(), segments.size() * sizeof(Elf64_Phdr));
    return file;
  }
};

}  // namespace husk::image
