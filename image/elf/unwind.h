// Function bounds and landing pads from .eh_frame and .gcc_except_table.
//
// Compilers describe every function there, also in stripped files, so these bounds are the best that there is
// without debug information. Pure; called by rewrite/code_map.cc. Specification: LSB 5.0 core §10.6 (.eh_frame);
// the exception table as GCC's unwind-dw2-fde.h and eh_personality.cc use it.
#pragma once

#include "image/elf/view.h"

namespace husk::image {

struct UnwindEntry {
  u64 start, end;
  u64 exception_table;  // address of the LSDA, 0 if there is none
  bool signal_frame;    // the 'S' augmentation: code that a signal handler returns to
};

// Entries that cannot be understood are left out; `complete` is then false.
struct UnwindTable {
  std::vector<UnwindEntry> entries;
  bool complete = true;
};
UnwindTable read_unwind_table(const ElfView& elf);

// Addresses that the unwinder may jump to. False: the table cannot be understood.
bool read_landing_pads(const ElfView& elf, const UnwindEntry& entry, std::vector<u64>& pads);

}  // namespace husk::image
