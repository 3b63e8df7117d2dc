// Checks of ELF files; see view.h.
#include "image/elf/view.h"

#include <algorithm>

namespace husk::image {
namespace {

std::string machine_name(u16 machine) {
  switch (machine) {
    case EM_386: return "i386";
    case EM_ARM: return "arm";
    case EM_AARCH64: return "aarch64";
    case EM_RISCV: return "riscv";
    case EM_PPC64: return "ppc64";
    case EM_S390: return "s390";
    case EM_MIPS: return "mips";
    case EM_LOONGARCH: return "loongarch";
    default: return "machine type " + std::to_string(machine);
  }
}

}  // namespace

void ElfView::fail(const std::string& what) const { throw Error(name_ + ": " + what); }

ElfView ElfView::parse(Bytes bytes, std::string name) {
  ElfView view;
  view.name_ = std::move(name);
  view.bytes_ = bytes;
  if (bytes.empty()) view.fail("is empty");
  if (!looks_like_elf(bytes)) view.fail("is not an ELF file; husk runs x86-64 Linux programs");
  if (bytes.size() < EI_NIDENT + 4) view.fail("is truncated: the ELF header is incomplete");
  u16 machine = *read_at<u16>(bytes, offsetof(Elf64_Ehdr, e_machine));
  if (bytes[EI_DATA] != ELFDATA2LSB) view.fail("is big-endian; husk runs x86-64 programs");
  if (machine != EM_X86_64) view.fail("is for " + machine_name(machine) + "; husk runs x86-64 programs");
  if (bytes[EI_CLASS] != ELFCLASS64) view.fail("is a 32-bit (x32) program; husk runs 64-bit x86-64 programs");
  auto header = read_at<Elf64_Ehdr>(bytes, 0);
  if (!header) view.fail("is truncated: the ELF header is incomplete");
  view.header_ = *header;
  if (header->e_type == ET_REL) view.fail("is an object file; link it into a program first");
  if (header->e_type == ET_CORE) view.fail("is a core dump, not a program");
  if (header->e_type != ET_EXEC && header->e_type != ET_DYN) view.fail("is neither a program nor a shared library");
  view.parse_segments();
  view.parse_sections();
  return view;
}

void ElfView::parse_segments() {
  if (header_.e_phnum == 0) fail("has no program headers; it cannot be loaded");
  if (header_.e_phentsize != sizeof(Elf64_Phdr)) fail("has program headers of an unknown size");
  for (u64 i = 0; i < header_.e_phnum; ++i) {
    u64 offset;
    if (!checked_add(header_.e_phoff, i * sizeof(Elf64_Phdr), &offset)) fail("has its program headers outside the file");
    auto segment = read_at<Elf64_Phdr>(bytes_, offset);
    if (!segment) fail("is truncated: program header " + std::to_string(i) + " lies outside the file");
    bool has_bytes = segment->p_type != PT_NULL && segment->p_type != PT_GNU_STACK;
    if (has_bytes && !slice(bytes_, segment->p_offset, segment->p_filesz)) {
      fail("is truncated: segment " + std::to_string(i) + " needs " + std::to_string(segment->p_offset + segment->p_filesz) +
           " bytes, the file has " + std::to_string(bytes_.size()));
    }
    u64 end;
    if (segment->p_type == PT_LOAD &&
        (segment->p_filesz > segment->p_memsz || !checked_add(segment->p_vaddr, segment->p_memsz, &end) || end > kUserEnd) &&
        segment->p_vaddr < (u64{1} << 63)) {
      fail("is malformed: segment " + std::to_string(i) + " has impossible sizes");
    }
    segments_.push_back(*segment);
  }
}

void ElfView::parse_sections() {
  if (header_.e_shoff == 0 || header_.e_shentsize != sizeof(Elf64_Shdr)) return;
  u64 size = u64{header_.e_shnum} * sizeof(Elf64_Shdr);
  auto table = slice(bytes_, header_.e_shoff, size);
  if (!table) return;
  for (u64 i = 0; i < header_.e_shnum; ++i) sections_.push_back(*read_at<Elf64_Shdr>(*table, i * sizeof(Elf64_Shdr)));
}

const Elf64_Phdr* ElfView::segment(u32 type) const {
  for (const auto& segment : segments_) {
    if (segment.p_type == type) return &segment;
  }
  return nullptr;
}

std::optional<Bytes> ElfView::contents(const Elf64_Shdr& section) const {
  if (section.sh_type == SHT_NOBITS) return std::nullopt;
  return slice(bytes_, section.sh_offset, section.sh_size);
}

const Elf64_Shdr* ElfView::section(std::string_view section_name) const {
  if (header_.e_shstrndx >= sections_.size()) return nullptr;
  auto names = contents(sections_[header_.e_shstrndx]);
  if (!names) return nullptr;
  for (const auto& section : sections_) {
    if (string_at(*names, section.sh_name) == section_name) return &section;
  }
  return nullptr;
}

std::string_view ElfView::string_at(Bytes table, u64 offset) const {
  if (offset >= table.size()) return {};
  auto rest = table.subspan(offset);
  auto end = std::find(rest.begin(), rest.end(), u8{0});
  return as_text(rest.first(static_cast<size_t>(end - rest.begin())));
}

std::optional<Bytes> ElfView::from_address(u64 address) const {
  for (const auto& segment : segments_) {
    if (segment.p_type != PT_LOAD || address < segment.p_vaddr || address - segment.p_vaddr >= segment.p_filesz) continue;
    return contents(segment).subspan(address - segment.p_vaddr);
  }
  return std::nullopt;
}

std::optional<Bytes> ElfView::at_address(u64 address, u64 size) const {
  auto rest = from_address(address);
  return rest ? slice(*rest, 0, size) : std::nullopt;
}

bool ElfView::is_executable(u64 address) const {
  return std::any_of(segments_.begin(), segments_.end(), [&](const Elf64_Phdr& segment) {
    return segment.p_type == PT_LOAD && (segment.p_flags & PF_X) && address - segment.p_vaddr < segment.p_filesz;
  });
}

u64 ElfView::memory_start() const {
  u64 start = ~u64{0};
  for (const auto& segment : segments_) {
    if (segment.p_type == PT_LOAD) start = std::min(start, segment.p_vaddr);
  }
  return start == ~u64{0} ? 0 : start;
}

u64 ElfView::memory_end() const {
  u64 end = 0;
  for (const auto& segment : segments_) {
    if (segment.p_type == PT_LOAD) end = std::max(end, segment.p_vaddr + segment.p_memsz);
  }
  return end;
}

std::optional<std::string> ElfView::interpreter() const {
  const Elf64_Phdr* interp = segment(PT_INTERP);
  if (!interp) return std::nullopt;
  std::string path(string_at(contents(*interp), 0));
  if (path.empty() || path[0] != '/') fail("is malformed: its interpreter has no absolute path");
  return path;
}

std::vector<Elf64_Dyn> ElfView::dynamic_entries() const {
  std::vector<Elf64_Dyn> entries;
  const Elf64_Phdr* dynamic = segment(PT_DYNAMIC);
  if (!dynamic) return entries;
  Bytes table = contents(*dynamic);
  for (u64 offset = 0; auto entry = read_at<Elf64_Dyn>(table, offset); offset += sizeof(Elf64_Dyn)) {
    if (entry->d_tag == DT_NULL) break;
    entries.push_back(*entry);
  }
  return entries;
}

ElfDynamic ElfView::dynamic() const {
  ElfDynamic result;
  auto entries = dynamic_entries();
  u64 strings_address = 0, strings_size = 0;
  for (const auto& entry : entries) {
    if (entry.d_tag == DT_STRTAB) strings_address = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRSZ) strings_size = entry.d_un.d_val;
  }
  auto strings = at_address(strings_address, strings_size);
  if (!strings) {
    if (!entries.empty() && strings_size != 0) fail("is malformed: its dynamic string table lies outside the file");
    return result;
  }
  for (const auto& entry : entries) {
    std::string_view text = string_at(*strings, entry.d_un.d_val);
    if (entry.d_tag == DT_NEEDED && !text.empty()) result.needed.push_back(text);
    if (entry.d_tag == DT_SONAME) result.soname = text;
    if (entry.d_tag == DT_RPATH) result.rpath = text;
    if (entry.d_tag == DT_RUNPATH) result.runpath = text;
  }
  return result;
}

void ElfView::append_symbols(u32 section_type, std::vector<ElfSymbol>& out) const {
  for (const auto& section : sections_) {
    if (section.sh_type != section_type || section.sh_link >= sections_.size()) continue;
    auto table = contents(section);
    auto names = contents(sections_[section.sh_link]);
    if (!table || !names) continue;
    for (u64 offset = 0; auto symbol = read_at<Elf64_Sym>(*table, offset); offset += sizeof(Elf64_Sym)) {
      if (symbol->st_shndx == SHN_UNDEF) continue;
      out.push_back({string_at(*names, symbol->st_name), symbol->st_value, symbol->st_size, static_cast<u8>(ELF64_ST_TYPE(symbol->st_info))});
    }
  }
}

std::vector<ElfSymbol> ElfView::symbols() const {
  std::vector<ElfSymbol> symbols;
  append_symbols(SHT_SYMTAB, symbols);
  append_symbols(SHT_DYNSYM, symbols);
  return symbols;
}

std::optional<u64> ElfView::symbol(std::string_view symbol_name) const {
  for (const auto& symbol : symbols()) {
    if (symbol.name == symbol_name) return symbol.value;
  }
  return std::nullopt;
}

std::vector<ElfNote> ElfView::notes(const Elf64_Phdr& segment) const {
  std::vector<ElfNote> notes;
  Bytes rest = contents(segment);
  u64 alignment = segment.p_align == 8 ? 8 : 4;
  while (auto head = read_at<Elf64_Nhdr>(rest, 0)) {
    u64 description_at = align_up(sizeof(Elf64_Nhdr) + u64{head->n_namesz}, alignment);
    auto note_name = slice(rest, sizeof(Elf64_Nhdr), head->n_namesz);
    auto description = slice(rest, description_at, head->n_descsz);
    if (!note_name || !description) break;
    notes.push_back({string_at(*note_name, 0), head->n_type, *description});
    u64 next = align_up(description_at + head->n_descsz, alignment);
    if (next >= rest.size()) break;
    rest = rest.subspan(next);
  }
  return notes;
}

}  // namespace husk::image
