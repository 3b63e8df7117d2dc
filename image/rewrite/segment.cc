// Program-header surgery; see segment.h and README.md.
#include "image/rewrite/segment.h"

#include <algorithm>

namespace husk::image {
namespace {

// A file whose program-header table moves is padded so that addresses and offsets keep their distance.
constexpr u64 kPaddingMax = kMiB;

// The least useful header that may become PT_LOAD: smaller is better, 0 must stay.
int dispensability(const ElfView& elf, const Elf64_Phdr& segment) {
  constexpr u32 kPaxFlags = 0x65041580;
  switch (segment.p_type) {
    case PT_NULL: return 1;
    case kPaxFlags: return 2;
    case PT_GNU_PROPERTY: return 3;  // CET marks, said again in a PT_NOTE; husk has no CET
    case PT_NOTE: {
      auto notes = elf.notes(segment);
      bool only_properties =
          std::all_of(notes.begin(), notes.end(), [](const ElfNote& note) { return note.type == NT_GNU_PROPERTY_TYPE_0 && note.name == "GNU"; });
      return only_properties ? 4 : 5;
    }
    default: return 0;
  }
}

bool loads_ascend(const ElfView& elf) {
  u64 end = 0;
  for (const auto& segment : elf.segments()) {
    if (segment.p_type != PT_LOAD) continue;
    if (segment.p_vaddr < end) return false;
    end = segment.p_vaddr + segment.p_memsz;
  }
  return true;
}

}  // namespace

SegmentPlan plan_segment(const ElfView& elf) {
  SegmentPlan plan;
  const auto& segments = elf.segments();
  const Elf64_Phdr* first_load = elf.segment(PT_LOAD);
  if (!first_load || !loads_ascend(elf)) return plan.problem = "the file's segments are not in order", plan;
  plan.offset = align_up(elf.bytes().size(), kPageSize);
  plan.address = align_up(elf.memory_end(), kPageSize);
  plan.reused = segments.size();
  int best = 99;
  for (size_t i = 0; i < segments.size(); ++i) {
    int value = dispensability(elf, segments[i]);
    if (value != 0 && value < best) {
      best = value;
      plan.reused = i;
    }
  }
  if (plan.reused == segments.size()) {
    // Loaders find the moved table at (address of the first segment + e_phoff): keep that distance.
    u64 base = first_load->p_vaddr - first_load->p_offset;
    plan.offset = std::max(plan.offset, plan.address - base);
    plan.address = base + plan.offset;
    plan.header_space = align_up((segments.size() + 1) * sizeof(Elf64_Phdr), 16);
    if (!is_aligned(base, kPageSize) || plan.offset - elf.bytes().size() > kPaddingMax) {
      plan.problem = "the program headers have no room for another segment";
    }
  }
  if (plan.address > kUserEnd - kGiB) plan.problem = "the file's addresses leave no room for another segment";
  return plan;
}

std::vector<u8> add_segment(const ElfView& elf, const SegmentPlan& plan, std::vector<u8> file, Bytes contents) {
  u64 size = plan.header_space + contents.size();
  Elf64_Phdr added = {PT_LOAD, PF_R | PF_X, plan.offset, plan.address, plan.address, size, size, kPageSize};
  std::vector<Elf64_Phdr> table;
  size_t last_load = 0;
  const auto& old = elf.segments();
  for (size_t i = 0; i < old.size(); ++i) {
    if (old[i].p_type == PT_LOAD) last_load = i;
  }
  for (size_t i = 0; i < old.size(); ++i) {
    if (i != plan.reused) table.push_back(old[i]);
    if (i == last_load) table.push_back(added);
  }
  file.resize(plan.offset + size);
  if (plan.header_space != 0) {
    for (auto& segment : table) {
      if (segment.p_type != PT_PHDR) continue;
      segment.p_offset = plan.offset;
      segment.p_vaddr = segment.p_paddr = plan.address;
      segment.p_filesz = segment.p_memsz = table.size() * sizeof(Elf64_Phdr);
    }
    write_at(file, offsetof(Elf64_Ehdr, e_phoff), u64{plan.offset});
    write_at(file, offsetof(Elf64_Ehdr, e_phnum), static_cast<u16>(table.size()));
  }
  u64 at = plan.header_space != 0 ? plan.offset : elf.header().e_phoff;
  for (size_t i = 0; i < table.size(); ++i) write_at(file, at + i * sizeof(Elf64_Phdr), table[i]);
  std::copy(contents.begin(), contents.end(), file.begin() + static_cast<std::ptrdiff_t>(plan.offset + plan.header_space));
  return file;
}

}  // namespace husk::image
