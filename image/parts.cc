// Parts start and end on pages of their own, because each page of memory has one protection.
#include "image/parts.h"

#include <algorithm>

namespace husk::image {
namespace {

[[noreturn]] void fail(const ElfView& elf, const std::string& what) {
  throw Error(elf.name() + ": " + what + "; the husk installation is damaged, build it again");
}

u64 symbol_offset(const ElfView& elf, const char* name, u64 base) {
  auto value = elf.symbol(name);
  if (!value) fail(elf, std::string("has no symbol ") + name);
  if (*value < base) fail(elf, std::string("has the symbol ") + name + " below its base address");
  return *value - base;
}

LoadedPart make_part(const ElfView& elf, const Elf64_Phdr& segment, u64 base) {
  u64 start = align_down(segment.p_vaddr, kPageSize), gap = segment.p_vaddr - start;
  u64 bss = segment.p_memsz - segment.p_filesz;
  LoadedPart loaded;
  loaded.bytes.resize(gap);
  Bytes contents = elf.contents(segment);
  loaded.bytes.insert(loaded.bytes.end(), contents.begin(), contents.end());
  u32 flags = segment.p_flags & (PF_R | PF_W | PF_X);
  loaded.part = {0, start - base, loaded.bytes.size(), loaded.bytes.size() + bss, flags, 0};
  return loaded;
}

// Cuts the part that holds the relro range in two; what is before the cut is made read-only after relocation.
void split_relro(const ElfView& elf, std::vector<LoadedPart>& parts, u64 base) {
  const Elf64_Phdr* relro = elf.segment(PT_GNU_RELRO);
  if (!relro) return;
  u64 start = relro->p_vaddr - base, end = align_down(start + relro->p_memsz, kPageSize);
  for (size_t i = 0; i < parts.size(); ++i) {
    auto& part = parts[i].part;
    bool inside = start >= part.virtual_offset && start - part.virtual_offset < part.memory_size;
    if (!inside || !(part.flags & abi::kPartWrite)) continue;
    u64 part_end = part.virtual_offset + part.memory_size;
    if (align_down(start, kPageSize) != part.virtual_offset) fail(elf, "has its relro range inside a segment");
    if (end >= part_end) {
      part.relro = 1;
      return;
    }
    if (end <= part.virtual_offset) return;
    LoadedPart rest;
    u64 size = end - part.virtual_offset, in_file = std::min(size, part.file_size);
    rest.bytes.assign(parts[i].bytes.begin() + static_cast<std::ptrdiff_t>(in_file), parts[i].bytes.end());
    rest.part = {0, end, part.file_size - in_file, part.memory_size - size, part.flags, 0};
    part.file_size = in_file;
    part.memory_size = size;
    part.relro = 1;
    parts[i].bytes.resize(in_file);
    parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1, std::move(rest));
    return;
  }
}

// The kernel's linker script gives relocations and the dynamic section a read-only segment of their own. They are used here and not kept.
bool is_for_linking(const ElfView& elf, const Elf64_Phdr& segment) {
  const Elf64_Phdr* dynamic = elf.segment(PT_DYNAMIC);
  return dynamic && (segment.p_flags & (PF_W | PF_X)) == 0 && dynamic->p_vaddr - segment.p_vaddr < segment.p_memsz;
}

std::vector<LoadedPart> load_parts(const ElfView& elf, u64 base, u64* size) {
  std::vector<LoadedPart> parts;
  for (const auto& segment : elf.segments()) {
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0 || is_for_linking(elf, segment)) continue;
    if (segment.p_vaddr < base) fail(elf, "has a segment below its base address");
    if ((segment.p_flags & (PF_W | PF_X)) == (PF_W | PF_X)) fail(elf, "has a writable and executable segment");
    parts.push_back(make_part(elf, segment, base));
  }
  if (parts.empty()) fail(elf, "has nothing to load");
  split_relro(elf, parts, base);
  if (parts.size() > abi::kImagePartsMax) fail(elf, "has too many segments");
  u64 end = 0;
  for (const auto& loaded : parts) {
    if (loaded.part.virtual_offset < end) fail(elf, "has segments that share a page");
    end = align_up(loaded.part.virtual_offset + loaded.part.memory_size, kPageSize);
  }
  *size = end;
  return parts;
}

void store_addend(const ElfView& elf, std::vector<LoadedPart>& parts, u64 offset, u64 addend) {
  for (auto& loaded : parts) {
    if (offset < loaded.part.virtual_offset || offset - loaded.part.virtual_offset >= loaded.part.memory_size) continue;
    if (!(loaded.part.flags & abi::kPartWrite)) fail(elf, "has a relocation in a read-only segment");
    return write_at(loaded.bytes, offset - loaded.part.virtual_offset, addend);
  }
  fail(elf, "has a relocation outside its segments");
}

void read_relocations(const ElfView& elf, u64 base, KernelParts& kernel) {
  u64 table = 0, size = 0;
  std::vector<u64> offsets;
  for (const auto& entry : elf.dynamic_entries()) {
    if (entry.d_tag == DT_RELA) table = entry.d_un.d_ptr;
    if (entry.d_tag == DT_RELASZ) size = entry.d_un.d_val;
    if (entry.d_tag == DT_RELRSZ || entry.d_tag == DT_NEEDED || (entry.d_tag == DT_PLTRELSZ && entry.d_un.d_val != 0)) {
      fail(elf, "is not linked as a static position-independent program with plain relocations");
    }
  }
  auto bytes = size == 0 ? std::optional(Bytes{}) : elf.at_address(table, size);
  if (!bytes) fail(elf, "has its relocations outside the file");
  for (u64 at = 0; auto relocation = read_at<Elf64_Rela>(*bytes, at); at += sizeof(Elf64_Rela)) {
    if (ELF64_R_TYPE(relocation->r_info) != R_X86_64_RELATIVE) fail(elf, "has relocations other than R_X86_64_RELATIVE");
    u64 offset = relocation->r_offset - base;
    if (!is_aligned(offset, sizeof(u64))) fail(elf, "has a relocation that is not aligned");
    store_addend(elf, kernel.parts, offset, static_cast<u64>(relocation->r_addend) - base);
    offsets.push_back(offset);
  }
  if (offsets.empty()) return;
  auto [first, last] = std::minmax_element(offsets.begin(), offsets.end());
  kernel.relocated_start = *first;
  kernel.relocations.resize((*last - *first) / 512 + 1);
  for (u64 offset : offsets) kernel.relocations[(offset - *first) / 512] |= u64{1} << ((offset - *first) / 8 % 64);
}

// What is copied to RAM is zero behind its bytes.
void drop_last_zeros(std::vector<LoadedPart>& parts) {
  for (auto& [part, bytes] : parts) {
    if (!(part.flags & abi::kPartWrite)) continue;
    while (!bytes.empty() && bytes.back() == 0) bytes.pop_back();
    part.file_size = bytes.size();
  }
}

}  // namespace

NubParts take_nub_apart(const ElfView& elf) {
  NubParts nub;
  nub.parts = load_parts(elf, abi::kNubBase, &nub.size);
  nub.entry_pvh = symbol_offset(elf, "pvh_entry", abi::kNubBase);
  nub.syscall_stub = symbol_offset(elf, "nub_syscall_stub", abi::kNubBase);
  nub.vector_stubs = symbol_offset(elf, "nub_vector_stubs", abi::kNubBase);
  nub.state = symbol_offset(elf, "nub_state", abi::kNubBase);
  return nub;
}

KernelParts take_kernel_apart(const ElfView& elf) {
  u64 base = align_down(elf.memory_start(), kPageSize);
  KernelParts kernel{};
  kernel.parts = load_parts(elf, base, &kernel.size);
  if (kernel.size > kGiB) fail(elf, "is larger than 1 GiB");
  kernel.start = symbol_offset(elf, "kernel_start", base);
  kernel.upcall_entry = symbol_offset(elf, "kernel_upcall_entry", base);
  kernel.trapped_syscall_entry = symbol_offset(elf, "kernel_trapped_syscall_entry", base);
  kernel.nub_call_site = symbol_offset(elf, "kernel_nub_call_site", base);
  read_relocations(elf, base, kernel);
  drop_last_zeros(kernel.parts);
  return kernel;
}

}  // namespace husk::image
