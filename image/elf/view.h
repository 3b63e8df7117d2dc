// A checked view of an ELF64 file for x86-64: headers, segments, dynamic section, symbols, notes.
//
// Why not libelf: the file may be hostile (fuzzed), nothing may be written, and of libelf's 200 functions ten would
// be used. The view is pure: no I/O, no state; the bytes must outlive it. Every offset in the file is checked
// before it is used. Called by rootfs/ (dependencies), rewrite/ (code), parts.cc (nub and kernel) and the CLI's
// backtraces. Specification: System V gABI chapters 4 and 5; psABI x86-64.
#pragma once

#include <elf.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/file.h"

namespace husk::image {

struct ElfSymbol {
  std::string_view name;
  u64 value;
  u64 size;
  u8 type;  // STT_
};

struct ElfNote {
  std::string_view name;  // without its NUL
  u32 type;
  Bytes description;
};

// What the dynamic linker reads. Strings point into the file.
struct ElfDynamic {
  std::vector<std::string_view> needed;
  std::string_view soname, rpath, runpath;
};

class ElfView {
 public:
  // Throws Error that begins with `name`. Accepts executables and shared objects only.
  static ElfView parse(Bytes bytes, std::string name);
  static bool looks_like_elf(Bytes bytes) { return bytes.size() >= 4 && memcmp(bytes.data(), ELFMAG, 4) == 0; }

  const std::string& name() const { return name_; }
  Bytes bytes() const { return bytes_; }
  const Elf64_Ehdr& header() const { return header_; }
  const std::vector<Elf64_Phdr>& segments() const { return segments_; }
  const std::vector<Elf64_Shdr>& sections() const { return sections_; }
  const Elf64_Phdr* segment(u32 type) const;
  const Elf64_Shdr* section(std::string_view section_name) const;
  Bytes contents(const Elf64_Phdr& segment) const { return bytes_.subspan(segment.p_offset, segment.p_filesz); }
  std::optional<Bytes> contents(const Elf64_Shdr& section) const;

  // File bytes that PT_LOAD segments put at `address`; not the zeros behind them.
  std::optional<Bytes> at_address(u64 address, u64 size) const;
  // The same to the end of the segment's bytes.
  std::optional<Bytes> from_address(u64 address) const;
  bool is_executable(u64 address) const;
  u64 memory_start() const;  // lowest p_vaddr of PT_LOAD, 0 if there is none
  u64 memory_end() const;

  std::optional<std::string> interpreter() const;
  ElfDynamic dynamic() const;
  std::vector<ElfSymbol> symbols() const;  // .symtab, then .dynsym
  std::optional<u64> symbol(std::string_view symbol_name) const;
  std::vector<ElfNote> notes(const Elf64_Phdr& segment) const;
  std::vector<Elf64_Dyn> dynamic_entries() const;

 private:
  [[noreturn]] void fail(const std::string& what) const;
  void parse_segments();
  void parse_sections();
  std::string_view string_at(Bytes table, u64 offset) const;
  void append_symbols(u32 section_type, std::vector<ElfSymbol>& out) const;

  std::string name_;
  Bytes bytes_;
  Elf64_Ehdr header_ = {};
  std::vector<Elf64_Phdr> segments_;
  std::vector<Elf64_Shdr> sections_;  // empty if there are none or if they are damaged: programs run without them
};

}  // namespace husk::image
