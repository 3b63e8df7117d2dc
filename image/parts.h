// Takes the nub and the kernel apart: ELF files in, the parts and addresses of abi/image_format.h out.
// Called by builder.cc only.
#pragma once

#include <vector>

#include "abi/image_format.h"
#include "image/elf/view.h"

namespace husk::image {

struct LoadedPart {
  abi::ImagePart part;    // file_offset is still 0
  std::vector<u8> bytes;  // part.file_size of them
};

struct NubParts {
  std::vector<LoadedPart> parts;
  u64 size;
  u64 entry_pvh, syscall_stub, vector_stubs, state;  // offsets from kNubBase
};
NubParts take_nub_apart(const ElfView& elf);

struct KernelParts {
  std::vector<LoadedPart> parts;
  u64 size;
  u64 start, upcall_entry, trapped_syscall_entry, nub_call_site;  // offsets from the base
  std::vector<u64> relocations;                                   // the bitmap; the addends are in the parts' bytes
  u64 relocated_start;
};
KernelParts take_kernel_apart(const ElfView& elf);

}  // namespace husk::image
