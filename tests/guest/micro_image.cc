// See micro_image.h.
#include "tests/guest/micro_image.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace husk::test {
namespace {

using abi::ImageHeader;
using abi::ImagePart;

class Elf {
 public:
  explicit Elf(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    if (bytes_.size() < sizeof(Elf64_Ehdr)) throw std::runtime_error("cannot read " + path);
  }
  const Elf64_Ehdr& header() const { return *reinterpret_cast<const Elf64_Ehdr*>(bytes_.data()); }
  const Elf64_Phdr& segment(int i) const { return reinterpret_cast<const Elf64_Phdr*>(bytes_.data() + header().e_phoff)[i]; }
  const Elf64_Shdr& section(int i) const { return reinterpret_cast<const Elf64_Shdr*>(bytes_.data() + header().e_shoff)[i]; }
  u8* at(u64 offset) { return reinterpret_cast<u8*>(bytes_.data() + offset); }
  u64 symbol(const std::string& name) {
    for (int i = 0; i < header().e_shnum; ++i) {
      if (section(i).sh_type != SHT_SYMTAB) continue;
      const char* names = reinterpret_cast<const char*>(at(section(section(i).sh_link).sh_offset));
      const Elf64_Sym* symbols = reinterpret_cast<const Elf64_Sym*>(at(section(i).sh_offset));
      for (u64 k = 0; k < section(i).sh_size / sizeof(Elf64_Sym); ++k) {
        if (name == names + symbols[k].st_name) return symbols[k].st_value;
      }
    }
    throw std::runtime_error("no symbol " + name);
  }
  // RELATIVE relocations: writes the addends in place and gives the offsets.
  std::vector<u32> relocations() {
    std::vector<u32> result;
    for (int i = 0; i < header().e_shnum; ++i) {
      if (section(i).sh_type != SHT_RELA) continue;
      const Elf64_Rela* entries = reinterpret_cast<const Elf64_Rela*>(at(section(i).sh_offset));
      for (u64 k = 0; k < section(i).sh_size / sizeof(Elf64_Rela); ++k) {
        if (ELF64_R_TYPE(entries[k].r_info) != R_X86_64_RELATIVE) throw std::runtime_error("relocation not supported");
        result.push_back(static_cast<u32>(entries[k].r_offset));
        memcpy(at(file_offset(entries[k].r_offset)), &entries[k].r_addend, 8);
      }
    }
    return result;
  }
  // Whether a copied segment holds a relocated word, and is not meant to be written later.
  u64 file_offset(u64 address) {
    for (int i = 0; i < header().e_phnum; ++i) {
      const Elf64_Phdr& s = segment(i);
      if (s.p_type == PT_LOAD && address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz) return s.p_offset + address - s.p_vaddr;
    }
    throw std::runtime_error("relocation outside the file");
  }

 private:
  std::vector<char> bytes_;
};

u64 append(std::vector<u8>& image, const u8* bytes, u64 size) {
  u64 offset = align_up(image.size(), kPageSize);
  image.resize(offset + align_up(size, kPageSize));
  std::copy_n(bytes, size, image.data() + offset);
  return offset;
}

u32 add_parts(std::vector<u8>& image, Elf& elf, u64 base, const std::vector<u32>& relocations, ImagePart* parts) {
  u32 count = 0;
  for (int i = 0; i < elf.header().e_phnum; ++i) {
    const Elf64_Phdr& s = elf.segment(i);
    if (s.p_type != PT_LOAD || s.p_memsz == 0) continue;
    ImagePart& part = parts[count++];
    part = {append(image, elf.at(s.p_offset), s.p_filesz), s.p_vaddr - base, s.p_filesz, s.p_memsz, s.p_flags, 0};
    for (u32 offset : relocations) {
      if (!(s.p_flags & PF_W) && offset >= s.p_vaddr && offset - s.p_vaddr < s.p_memsz) part.relro = 1;
    }
  }
  return count;
}

// What a PVH loader reads: one segment, the whole file, and the note with the 32-bit entry.
void write_elf_header(std::vector<u8>& image, u32 entry) {
  struct {
    Elf64_Ehdr header;
    Elf64_Phdr segments[2];
    Elf64_Nhdr note;
    char name[4];
    u32 entry;
  } start{};
  memcpy(start.header.e_ident, ELFMAG, SELFMAG);
  start.header.e_ident[EI_CLASS] = ELFCLASS64;
  start.header.e_ident[EI_DATA] = ELFDATA2LSB;
  start.header.e_ident[EI_VERSION] = EV_CURRENT;
  start.header.e_type = ET_EXEC;
  start.header.e_machine = EM_X86_64;
  start.header.e_version = EV_CURRENT;
  start.header.e_entry = entry;
  start.header.e_phoff = sizeof(Elf64_Ehdr);
  start.header.e_ehsize = sizeof(Elf64_Ehdr);
  start.header.e_phentsize = sizeof(Elf64_Phdr);
  start.header.e_phnum = 2;
  u64 load = abi::kImageLoadAddress, note = offsetof(decltype(start), note);
  start.segments[0] = {PT_LOAD, PF_R | PF_W | PF_X, 0, load, load, image.size(), image.size(), kPageSize};
  start.segments[1] = {PT_NOTE, PF_R, note, load + note, load + note, 20, 20, 4};
  start.note = {4, 4, 18};  // XEN_ELFNOTE_PHYS32_ENTRY
  memcpy(start.name, "Xen", 4);
  start.entry = entry;
  memcpy(image.data(), &start, sizeof(start));
}

}  // namespace

std::vector<u8> make_micro_image(const std::string& nub_path, const std::string& guest_path, const std::vector<u8>& config, u32 image_flags) {
  Elf nub(nub_path), guest(guest_path);
  std::vector<u32> relocations = guest.relocations();
  std::vector<u8> image(2 * kPageSize);
  ImageHeader header{};
  header.magic = abi::kImageMagic;
  header.version = abi::kImageVersion;
  header.flags = image_flags;
  header.nub_part_count = add_parts(image, nub, abi::kNubBase, {}, header.nub_parts);
  header.kernel_part_count = add_parts(image, guest, 0, relocations, header.kernel_parts);
  auto extent = [](const ImagePart& last) { return align_up(last.virtual_offset + last.memory_size, kPageSize); };
  header.kernel_size = extent(header.kernel_parts[header.kernel_part_count - 1]);
  header.nub_size = extent(header.nub_parts[header.nub_part_count - 1]);
  header.kernel_start = guest.symbol("kernel_start");
  header.kernel_upcall_entry = guest.symbol("kernel_upcall_entry");
  header.kernel_trapped_syscall_entry = guest.symbol("kernel_trapped_syscall_entry");
  header.kernel_nub_call_site = guest.symbol("kernel_nub_call_site");
  header.nub_entry_pvh = nub.symbol("pvh_entry") - abi::kNubBase;
  header.nub_syscall_stub = nub.symbol("nub_syscall_stub") - abi::kNubBase;
  header.nub_vector_stubs = nub.symbol("nub_vector_stubs") - abi::kNubBase;
  header.nub_state = nub.symbol("nub_state") - abi::kNubBase;
  std::vector<u64> bitmap(header.kernel_size / 512);
  for (u32 offset : relocations) bitmap[offset / 512] |= u64{1} << (offset / 8 % 64);
  header.relocation_words = bitmap.size();
  header.relocations_offset = append(image, reinterpret_cast<const u8*>(bitmap.data()), bitmap.size() * 8);
  header.config_size = config.size();
  header.config_offset = append(image, config.data(), config.size());
  header.file_size = image.size();
  memcpy(image.data() + abi::kImageHeaderOffset, &header, sizeof(header));
  const ImagePart& text = header.nub_parts[0];
  write_elf_header(image, static_cast<u32>(abi::kImageLoadAddress + text.file_offset + header.nub_entry_pvh - text.virtual_offset));
  return image;
}

bool has_qemu() { return system("command -v qemu-system-x86_64 >/dev/null") == 0; }

std::string run_in_qemu(const std::string& machine, const std::vector<u8>& image, int seconds) {
  int file = memfd_create("image", 0);
  if (write(file, image.data(), image.size()) != static_cast<ssize_t>(image.size())) throw std::runtime_error("writing the image");
  std::string command = "timeout " + std::to_string(seconds) +
                        " qemu-system-x86_64 -accel tcg -cpu max -m 128 -nodefaults -no-user-config -display none -no-reboot -serial stdio -M " +
                        machine + " -kernel /proc/self/fd/" + std::to_string(file) + " 2>&1 </dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  std::string output;
  for (int c; (c = fgetc(pipe)) != EOF;) output.push_back(static_cast<char>(c));
  pclose(pipe);
  close(file);
  return output;
}

}  // namespace husk::test
