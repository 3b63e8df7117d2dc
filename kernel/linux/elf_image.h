// ElfImage: the parts of an ELF64 file that matter for running it, checked. Pure: bytes in, description out; fuzzed.
//
// System V ABI, AMD64 supplement. The file is untrusted: every number is checked before it is used.
#pragma once
#undef linux

#include <elf.h>

#include "base/result.h"
#include "base/types.h"
#include "base/vec.h"

namespace husk::linux {

// Where the bytes of a file come from: a vfs::File, or memory in tests.
class ByteSource {
 public:
  // Exactly `size` bytes at `offset`; ENOEXEC if the file ends before.
  virtual Result<void> read_at(u64 offset, void* to, size_t size) = 0;

 protected:
  ~ByteSource() = default;
};

struct ElfSegment {
  u64 address;  // as in the file, before the load bias
  u64 offset, file_size, memory_size;
  u32 protection;  // PROT_*
  u64 page_start() const { return align_down(address, kPageSize); }
  u64 file_page_end() const { return align_up(address + file_size, kPageSize); }
  u64 memory_page_end() const { return align_up(address + memory_size, kPageSize); }
};

struct ElfImage {
  bool position_independent = false;
  u64 entry = 0;
  u64 program_headers_address = 0;  // where the program headers are in memory, before the bias; 0 if in no segment
  u16 program_header_count = 0;
  u64 alignment = kPageSize;
  u64 start = 0, end = 0;  // page-aligned extent of all segments
  bool executable_stack = false;
  String interpreter;        // empty: none
  Vec<ElfSegment> segments;  // ascending, at least one, not overlapping in pages' order
};

Result<ElfImage> read_elf(ByteSource& source);  // ENOEXEC, EIO, ENOMEM

}  // namespace husk::linux
