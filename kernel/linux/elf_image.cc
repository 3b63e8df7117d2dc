// See elf_image.h.
#include "kernel/linux/elf_image.h"

#include <sys/mman.h>

#include <algorithm>

namespace husk::linux {
namespace {

constexpr u16 kProgramHeadersMax = 64;
constexpr u64 kInterpreterPathMax = 4096;

Result<void> check_header(const Elf64_Ehdr& header) {
  bool good = std::equal(header.e_ident, header.e_ident + SELFMAG, ELFMAG) && header.e_ident[EI_CLASS] == ELFCLASS64 &&
              header.e_ident[EI_DATA] == ELFDATA2LSB && header.e_machine == EM_X86_64 && (header.e_type == ET_EXEC || header.e_type == ET_DYN) &&
              header.e_phentsize == sizeof(Elf64_Phdr) && header.e_phnum > 0 && header.e_phnum <= kProgramHeadersMax;
  if (!good) return Error(ENOEXEC);
  return {};
}

u32 protection_of(u32 flags) {
  return ((flags & PF_R) != 0 ? PROT_READ : 0) | ((flags & PF_W) != 0 ? PROT_WRITE : 0) | ((flags & PF_X) != 0 ? PROT_EXEC : 0);
}

Result<void> add_segment(ElfImage& image, const Elf64_Phdr& header) {
  u64 end, file_end;
  bool good = checked_add(header.p_vaddr, header.p_memsz, &end) && end <= kUserEnd && header.p_filesz <= header.p_memsz &&
              checked_add(header.p_offset, header.p_filesz, &file_end) && file_end < (u64{1} << 62) &&
              (header.p_vaddr - header.p_offset) % kPageSize == 0;
  if (!good) return Error(ENOEXEC);
  if (header.p_memsz == 0) return {};
  ElfSegment segment{header.p_vaddr, header.p_offset, header.p_filesz, header.p_memsz, protection_of(header.p_flags)};
  if (image.segments.empty()) {
    image.start = segment.page_start();
  } else if (segment.address < image.segments.back().address + image.segments.back().memory_size) {
    return Error(ENOEXEC);
  }
  image.end = std::max(image.end, segment.memory_page_end());
  u64 alignment = header.p_align;
  if (alignment > image.alignment && (alignment & (alignment - 1)) == 0 && alignment <= kGiB) image.alignment = alignment;
  return image.segments.push_back(segment);
}

Result<void> read_interpreter(ElfImage& image, ByteSource& source, const Elf64_Phdr& header) {
  if (header.p_filesz < 2 || header.p_filesz > kInterpreterPathMax) return Error(ENOEXEC);
  Vec<char> path;
  TRY(path.resize(header.p_filesz));
  TRY(source.read_at(header.p_offset, path.data(), path.size()));
  if (path.back() != '\0') return Error(ENOEXEC);
  image.interpreter = TRY(String::from(path.data()));
  return {};
}

void find_program_headers(ElfImage& image, u64 offset, u64 size) {
  for (const ElfSegment& segment : image.segments) {
    if (offset >= segment.offset && offset - segment.offset + size <= segment.file_size) {
      image.program_headers_address = segment.address + (offset - segment.offset);
    }
  }
}

}  // namespace

Result<ElfImage> read_elf(ByteSource& source) {
  Elf64_Ehdr header;
  TRY(source.read_at(0, &header, sizeof(header)));
  TRY(check_header(header));
  Vec<Elf64_Phdr> table;
  TRY(table.resize(header.e_phnum));
  TRY(source.read_at(header.e_phoff, table.data(), table.size() * sizeof(Elf64_Phdr)));

  ElfImage image;
  image.position_independent = header.e_type == ET_DYN;
  image.entry = header.e_entry;
  image.program_header_count = header.e_phnum;
  for (const Elf64_Phdr& entry : table) {
    if (entry.p_type == PT_LOAD) TRY(add_segment(image, entry));
    if (entry.p_type == PT_INTERP && image.interpreter.empty()) TRY(read_interpreter(image, source, entry));
    if (entry.p_type == PT_GNU_STACK) image.executable_stack = (entry.p_flags & PF_X) != 0;
  }
  if (image.segments.empty()) return Error(ENOEXEC);
  find_program_headers(image, header.e_phoff, table.size() * sizeof(Elf64_Phdr));
  return image;
}

}  // namespace husk::linux
