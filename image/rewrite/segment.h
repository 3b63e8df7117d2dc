// Adds one executable segment to an ELF file without moving anything that is in it. Internal to rewrite/.
#pragma once

#include <string>
#include <vector>

#include "image/elf/view.h"

namespace husk::image {

// Where the new segment goes. Decided before its contents are made, which depend on the address.
struct SegmentPlan {
  u64 address = 0;
  u64 offset = 0;        // in the file
  size_t reused = 0;     // program header that is given up; segments().size() if the table moves to the new segment
  u64 header_space = 0;  // bytes at the segment's start that the moved table takes
  std::string problem;   // not empty: no segment can be added, and why
};

SegmentPlan plan_segment(const ElfView& elf);

// The file with `contents` (behind header_space) as its last PT_LOAD.
std::vector<u8> add_segment(const ElfView& elf, const SegmentPlan& plan, std::vector<u8> file, Bytes contents);

}  // namespace husk::image
