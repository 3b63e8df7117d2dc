// Makes system calls into calls: rewrites the `syscall` instructions of one ELF file.
//
// Each site becomes a 5-byte jump to a trampoline in a segment added to the file; README.md tells the contract that
// trampolines keep towards the kernel and the program. Pure: bytes in, bytes out. Called by builder.cc for every
// ELF file that goes into an image, and by tests and the fuzzer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "image/elf/view.h"

namespace husk::image {

struct LeftSite {
  u64 address;
  std::string reason;
};

struct RewriteReport {
  std::vector<u64> rewritten;  // addresses of the `syscall` instructions, ascending
  std::vector<LeftSite> left;
  u64 cpuid_rewritten = 0;      // CPUID instructions that became calls; the others trap, or not, as the machine has it
  u64 trampolines_address = 0;  // of the added segment
  u64 trampolines_size = 0;
};

struct RewriteResult {
  RewriteReport report;
  std::vector<u8> bytes;  // empty: nothing was rewritten, use the file as it is
};

RewriteResult rewrite_system_calls(const ElfView& elf);

}  // namespace husk::image
